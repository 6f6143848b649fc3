"""Baselines: trivial methods, classic methods, and oracles, which have extra information.

Sounds and masks are (B, N), images and masks (B, H, W). A mask is 1 where a value is missing.
"""

import numpy as np

import autoregression
from audio_utils import note_basis, note_fades
from harness.quiet_tensorflow import tf
from inference import principal_axes, restore_long

JANSSEN_ITERATIONS = 2  # more iterations lower the SNR on noisy notes
NEAREST_BLOCK = 4096  # training images compared at once
CLASSIFIER_IMAGES = 10_000  # maximum number of training images of the digit classifier
AXES_IMAGES = 1000  # approximate number of these, evenly spaced, that determine the principal axes
CLASSIFIER_AXES = 32  # number of principal axes; their coordinates are the classifier's input
POOLED_WEIGHT = 10  # weight of the pooled covariance, in examples


def interpolate(chopped, mask):
    """Fill missing samples by linear interpolation: (B, N), (B, N) -> (B, N)."""
    time, filled = np.arange(chopped.shape[1]), chopped.astype(float)
    for row, known in zip(filled, mask == 0):
        if known.any():
            row[:] = np.interp(time, time[known], row[known])
    return filled


def autoregress(chopped, mask):
    """Fill missing samples by Janssen's method (see `autoregression`): (B, N), (B, N) -> (B, N).

    All gaps of a row are filled at once. The order is min(3 M + 2, N / 3) for M missing of N
    samples.
    """
    filled = np.where(mask == 1, 0, chopped).astype(float)
    for row, missing in zip(filled, map(np.flatnonzero, mask)):
        order = min(3 * missing.size + 2, row.size // 3)
        if missing.size:
            for _ in range(JANSSEN_ITERATIONS):
                coefficients = autoregression.fit(row, order)
                row[missing] = autoregression.interpolate_scattered(row, missing, coefficients)
    return filled


def autoregress_long(chopped, mask, block):
    """Apply `autoregress` to a long sound, in blocks that overlap by half: (T,), (T,) -> (T,)."""
    return restore_long(chopped, mask, lambda x, seen: autoregress(x, 1 - seen), block, block // 2)


def fit_note(chopped, mask, note, sounds):
    """Fit a note's partials to the observed samples (B, N) by least squares.

    Each partial is a sine and a cosine with free amplitudes. Both decay at the rate of the timbre.
    Returns weights (B, 2 H), their basis (2 H, N) and the observed energy explained (B,).
    """
    observed = 1.0 - mask
    amplitudes, basis = note_basis(note, sounds, chopped.shape[1])
    basis = basis[np.tile(amplitudes > 0, 2)]  # (2 H, N)
    normal = np.einsum("bn,in,jn->bij", observed, basis, basis, optimize=True)
    # If several fits are equally good, the pseudo-inverse gives the one of least norm.
    inverse = np.linalg.pinv(normal, rcond=1e-9, hermitian=True)
    projected = (observed * chopped) @ basis.T
    weights = np.einsum("bij,bj->bi", inverse, projected)
    return weights, basis, (weights * projected).sum(1)


def best_note(chopped, mask, sounds):
    """Return the least-squares fit of the note that fits best: (B, N), (B, N) -> (B, N).

    This baseline knows the notes and their timbre, but not which note is in a window.
    """
    explained = [fit_note(chopped, mask, note, sounds)[2] for note in sounds.notes]
    return right_note(chopped, mask, sounds, np.argmax(explained, axis=0))


def right_note(chopped, mask, sounds, index):
    """Return the oracle's estimate, a fit of the right note: (B, N), (B, N) -> (B, N).

    index (B,) selects from `sounds.notes`. For H partials of unknown amplitudes and phases in white
    noise of variance s^2, no unbiased estimate has a smaller error. Let B be the basis (2 H, N) and
    S its columns at the N_obs observed samples. The weights have the covariance s^2 (S S^T)^-1, so
    the error's energy in a window is s^2 trace((S S^T)^-1 B B^T). Partials are almost orthogonal,
    so S S^T is about (N_obs / N) B B^T, and the error's power is about 2 H s^2 / N_obs. With one
    sinusoid at 4.95 dB and a fifth of 1024 samples missing, the SNR is 31.07 dB. With six partials
    it is 7.8 dB less. For decaying partials the formula is roughly the mean over gap positions.

    An oracle that knows more could do better. Known amplitudes would gain 3 dB. Known ratios
    between the partials would leave two unknowns instead of 2 H.
    """
    fits = np.zeros(chopped.shape)
    for number, note in enumerate(sounds.notes):
        rows = index == number
        weights, basis, _ = fit_note(chopped[rows], mask[rows], note, sounds)
        fits[rows] = weights @ basis
    return fits


def right_scale(chopped, mask, sounds):
    """Return the oracle's estimate of a scale of equally long notes: (T,), (T,) -> (T,)."""
    index = np.arange(len(sounds.notes))
    chopped, mask = chopped.reshape(index.size, -1), mask.reshape(index.size, -1)
    fades = note_fades(chopped.shape[1], sounds.sample_rate)
    outside = np.maximum(mask, fades < 1)  # the fades are not fitted
    return (right_note(chopped, outside, sounds, index) * fades).ravel()


def effective_number(labels):
    """Return the effective number of labels, the exponential of their entropy; 0 if empty."""
    if not len(labels):
        return 0.0
    fractions = np.unique(labels, return_counts=True)[1] / len(labels)
    return float(np.exp(-np.sum(fractions * np.log(fractions))))


def note_fraction(signals, sounds):
    """Return the energy fraction that the best single note explains, and that note's index.

    Shapes are (B, N) -> (B,), (B,).
    """
    mask = np.zeros_like(signals)
    explained = np.stack([fit_note(signals, mask, note, sounds)[2] for note in sounds.notes])
    return explained.max(0) / np.maximum((signals**2).sum(1), 1e-12), explained.argmax(0)


def nearest_fill(corrupted, mask, training_images):
    """Fill each hole from the training image nearest to the known pixels.

    Images are in [0, 1], flat (B, D) or (B, H, W). Training images are uint8, (M, D) or (M, H, W).
    They are read block by block, so memory does not grow with M.
    """
    observed, flat = (
        np.reshape(values, (len(corrupted), -1)).astype(np.float32)
        for values in (1 - mask, corrupted)
    )
    nearest, least = np.zeros(len(corrupted), int), np.full(len(corrupted), np.inf)
    for first in range(0, len(training_images), NEAREST_BLOCK):
        block = training_images[first : first + NEAREST_BLOCK]
        known = block.reshape(len(block), -1) / np.float32(255)
        squares = tf.matmul(observed, known**2, transpose_b=True).numpy()
        products = tf.matmul(observed * flat, known, transpose_b=True).numpy()
        distances = squares - 2 * products  # squared, (B, block), up to a constant per row
        closest = distances.argmin(1)
        distance = distances[np.arange(len(corrupted)), closest]
        nearest = np.where(distance < least, first + closest, nearest)
        least = np.minimum(distance, least)
    return np.where(mask == 1, training_images[nearest] / np.float32(255), corrupted)


def digit_classifier(images, labels):
    """Train a classifier on the first CLASSIFIER_IMAGES of uint8 images (M, H, W), labels (M,).

    Returns classify(images): (B, D) in [0, 1] -> labels (B,) and their probabilities (B,). Each
    class is a Gaussian on the images' first principal axes. Its covariance is the mean of
    the class's own and the pooled covariance, weighted by their numbers of examples (regularized
    discriminant analysis, Friedman 1989, doi 10.1080/01621459.1989.10478752).
    """
    flat = images[:CLASSIFIER_IMAGES].reshape(-1, images[0].size) / np.float32(255)
    classes, index = np.unique(labels[:CLASSIFIER_IMAGES], return_inverse=True)
    center, axes, _ = principal_axes(flat, CLASSIFIER_AXES, every=-(-len(flat) // AXES_IMAGES))
    codes = ((flat - center) @ axes.T).astype(float)
    groups = [codes[index == number] for number in range(len(classes))]
    sizes, means = np.bincount(index), np.stack([group.mean(0) for group in groups])
    deviations = [group - mean for group, mean in zip(groups, means)]
    scatter = np.stack([part.T @ part for part in deviations])
    pooled = scatter.sum(0) / len(codes)
    pooled += (1e-6 + 0.01 * codes.var(0).mean()) * np.eye(len(axes))  # makes it invertible
    covariances = (scatter + POOLED_WEIGHT * pooled) / (sizes + POOLED_WEIGHT)[:, None, None]
    precisions = np.linalg.inv(covariances)
    log_scales = np.log(sizes) - 0.5 * np.linalg.slogdet(covariances)[1]

    def classify(images):
        codes = (np.asarray(images) - center) @ axes.T
        distances = [
            (((codes - mean) @ precision) * (codes - mean)).sum(1)
            for mean, precision in zip(means, precisions)
        ]
        log_joint = log_scales[:, None] - 0.5 * np.array(distances)  # (classes, B)
        return classes[log_joint.argmax(0)], 1 / np.exp(log_joint - log_joint.max(0)).sum(0)

    return classify

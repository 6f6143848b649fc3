"""Other ways to restore the same inputs: trivial ones, classic ones, and oracles that are told more.

Sounds and masks are (B, N), the mask 1 where something is missing; images and masks are (B, H, W).
"""

import numpy as np
import scipy.linalg

from audio_utils import note_basis, note_fades
from harness.quiet_tensorflow import tf
from inference import principal_axes

JANSSEN_ITERATIONS = (
    2  # of coefficients and samples in turn; on noisy notes more of them lower the SNR
)
NEAREST_BLOCK = 4096  # training images compared at once
CLASSIFIED, FOR_AXES = (
    10_000,
    1000,
)  # images that teach the judge of digits; of these, evenly spread, its axes
JUDGED_AXES, SHARED = (
    32,
    10,
)  # the judge's dimensions; in how many examples a class is told how all of them vary


def interpolate(chopped, mask):
    """Each missing sample on the straight line between its neighbours: (B, N), (B, N) -> (B, N)."""
    places = np.arange(chopped.shape[1])
    rows = zip(chopped, mask == 0)
    return np.stack(
        [np.interp(places, places[left], row[left]) if left.any() else row for row, left in rows]
    )


def autoregress(chopped, mask):
    """Missing samples as an autoregressive process would continue the others: (B, N), (B, N) -> (B, N).

    Janssen, Veldhuis, Vries 1986 (doi 10.1109/TASSP.1986.1164824): by turns, the process's coefficients from the
    samples (autocorrelation method) and the missing samples that leave it the least excitation. Order
    min(3 M + 2, N / 3) for M missing of N samples.
    """
    return np.stack(
        [_autoregress(row.astype(float), np.flatnonzero(gap)) for row, gap in zip(chopped, mask)]
    )


def _autoregress(signal, missing):
    order = min(3 * missing.size + 2, signal.size // 3)
    if not missing.size or not signal.any():
        return signal
    for _ in range(JANSSEN_ITERATIONS):
        spectrum = np.abs(np.fft.rfft(signal, 2 * signal.size)) ** 2
        correlation = np.fft.irfft(spectrum)[: order + 1]
        correlation[0] *= 1 + 1e-9  # a pure tone would leave the system singular
        coefficients = np.append(1, scipy.linalg.solve_toeplitz(correlation[:-1], -correlation[1:]))
        # The excitation's energy is quadratic in the samples, with the coefficients' autocorrelation as its matrix.
        energy = np.correlate(coefficients, coefficients, "full")
        matrix = np.pad(energy[order:], (0, signal.size - order - 1))
        signal[missing] = 0
        slope = np.convolve(
            signal, energy, "same"
        )  # 2 order + 1 values of energy: never longer than signal
        factors = scipy.linalg.cho_factor(
            matrix[np.abs(missing[:, None] - missing)], check_finite=False
        )
        signal[missing] = scipy.linalg.cho_solve(factors, -slope[missing], check_finite=False)
    return signal


def fit_note(chopped, mask, note, sounds):
    """Least squares of the samples that are left on the note's partials: (B, N), (B, N) -> (B, N).

    Each partial has a sine and a cosine that decay as the timbre has it, from whatever level the window begins at.
    """
    weights, basis, _ = _fit_note(chopped, mask, note, sounds)
    return weights @ basis


def _fit_note(chopped, mask, note, sounds):
    """Weights (B, 2 H) of the basis (2 H, N), and how much of the energy of what is observed they explain, (B,)."""
    observed = 1.0 - mask
    amplitudes, basis = note_basis(note, sounds, chopped.shape[1])
    basis = basis[np.tile(amplitudes > 0, 2)]  # (2 H, N)
    normal = np.einsum("bn,in,jn->bij", observed, basis, basis, optimize=True)
    inverse = np.linalg.pinv(
        normal, rcond=1e-9, hermitian=True
    )  # what too few samples cannot tell stays 0
    projected = (observed * chopped) @ basis.T
    weights = np.einsum("bij,bj->bi", inverse, projected)
    return weights, basis, (weights * projected).sum(1)


def best_note(chopped, mask, sounds):
    """The least-squares fit of whichever note leaves the least of what is observed: (B, N), (B, N) -> (B, N).

    It knows the notes and their timbre, but not which one it hears.
    """
    explained = [_fit_note(chopped, mask, note, sounds)[2] for note in sounds.notes]
    return right_note(chopped, mask, sounds, np.argmax(explained, axis=0))


def right_note(chopped, mask, sounds, index):
    """The oracle: the least-squares fit of the right note, `index` (B,) into `sounds.notes`: (B, N), (B, N) -> (B, N).

    For H partials of unknown amplitudes and phases, sum of a (2 H, N) basis, in white noise of variance s^2, no
    unbiased estimate has less error. With S the basis at the N_left samples observed, the weights' covariance is
    s^2 (S S^T)^-1 and the error's energy over the window s^2 trace((S S^T)^-1 basis basis^T). Partials are nearly
    orthogonal, observed or whole, so S S^T is about N_left / N of basis basis^T: energy 2 H s^2 N / N_left, error power
    2 H s^2 / N_left. For one sinusoid, 1024 samples at 4.95 dB with a fifth missing, that is 31.07 dB; for six
    partials 7.8 dB less. Where partials decay it holds on average over where the gap falls, roughly.

    Who knows more may do better: the amplitude, 3 dB; how partials relate to each other, two unknowns instead of 2 H.
    """
    fits = np.zeros(chopped.shape)
    for number, note in enumerate(sounds.notes):
        rows = index == number
        fits[rows] = fit_note(chopped[rows], mask[rows], note, sounds)
    return fits


def right_scale(chopped, mask, sounds):
    """The oracle for a scale of equally long notes: the right note fitted to each note's whole length: (T,) -> (T,)."""
    index = np.arange(len(sounds.notes))
    chopped, mask = chopped.reshape(index.size, -1), mask.reshape(index.size, -1)
    fades = note_fades(chopped.shape[1], sounds.sample_rate)
    outside = np.maximum(mask, fades < 1)  # the fades are not fitted
    fits = right_note(chopped, outside, sounds, index)
    return (fits * fades).ravel()


def effective_number(labels):
    """How many kinds there are, rare ones counting less: the exponential of the labels' entropy; 0 for none."""
    shares = np.unique(labels, return_counts=True)[1] / max(1, len(labels))
    return float(np.exp(-np.sum(shares * np.log(shares)))) if len(labels) else 0.0


def note_share(signals, sounds):
    """The share of each signal's energy that a single note explains, and which: (B, N) -> (B,), (B,)."""
    nothing = np.zeros_like(signals)
    explained = [_fit_note(signals, nothing, note, sounds)[2] for note in sounds.notes]
    explained = np.stack(explained)  # (notes, B)
    return explained.max(0) / np.maximum((signals**2).sum(1), 1e-12), explained.argmax(0)


def nearest_fill(damaged, mask, training_images):
    """Each hole filled from the training image nearest by the pixels outside it: (B, H, W) in [0, 1].

    training_images (M, H, W), uint8; looked at block by block, in memory that does not grow with M.
    """
    observed, flat = (
        np.reshape(values, (len(damaged), -1)).astype(np.float32) for values in (1 - mask, damaged)
    )
    nearest, least = np.zeros(len(damaged), int), np.full(len(damaged), np.inf)
    for first in range(0, len(training_images), NEAREST_BLOCK):
        block = training_images[first : first + NEAREST_BLOCK]
        known = block.reshape(len(block), -1) / np.float32(255)
        squares, products = (
            tf.matmul(*pair, transpose_b=True).numpy()
            for pair in ((observed, known**2), (observed * flat, known))
        )
        distances = squares - 2 * products  # (B, M), up to a constant for each of B
        closest = distances.argmin(1)
        distance = distances[np.arange(len(damaged)), closest]
        nearest = np.where(distance < least, first + closest, nearest)
        least = np.minimum(distance, least)
    return np.where(mask == 1, training_images[nearest] / np.float32(255), damaged)


def digit_classifier(images, labels):
    """A judge of digits that learns from at most CLASSIFIED of the images (M, H, W) uint8 and their labels.

    Returns classify(images), flat and in [0, 1], (B, D) -> their labels, and how probable these are, (B,), (B,): each
    class is a Gaussian on the images' first principal axes, its covariance a mean, weighed by examples, of its own and
    that within all classes (Friedman 1989, doi 10.1080/01621459.1989.10478752).
    """
    flat = images[:CLASSIFIED].reshape(-1, images[0].size) / np.float32(255)
    kinds, which = np.unique(labels[:CLASSIFIED], return_inverse=True)
    middle, axes, _ = principal_axes(flat, JUDGED_AXES, every=-(-len(flat) // FOR_AXES))
    axes = axes.T
    codes = ((flat - middle) @ axes).astype(float)
    sizes, means = (
        np.bincount(which),
        np.stack([codes[which == kind].mean(0) for kind in range(len(kinds))]),
    )
    own = np.stack(
        [
            rest.T @ rest
            for rest in (codes[which == kind] - means[kind] for kind in range(len(kinds)))
        ]
    )
    shared = own.sum(0) / len(codes) + (1e-6 + 0.01 * codes.var(0).mean()) * np.eye(
        axes.shape[1]
    )  # few tell little
    covariances = (own + SHARED * shared) / (sizes + SHARED)[:, None, None]
    precisions, levels = (
        np.linalg.inv(covariances),
        np.log(sizes) - 0.5 * np.linalg.slogdet(covariances)[1],
    )

    def classify(images):
        codes = (np.asarray(images) - middle) @ axes
        apart = [
            (((codes - mean) @ precision) * (codes - mean)).sum(1)
            for mean, precision in zip(means, precisions)
        ]
        evidence = levels[:, None] - 0.5 * np.array(apart)
        return kinds[evidence.argmax(0)], 1 / np.exp(evidence - evidence.max(0)).sum(0)

    return classify

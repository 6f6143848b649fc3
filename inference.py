"""What a trained model makes of corrupted examples: better posteriors, completions, sounds longer than a window."""

import numpy as np
import scipy  # its parts load when first used: --help needs none of them
from numpy.lib.stride_tricks import sliding_window_view

from harness.quiet_tensorflow import tf

DRAWS = 4  # of z in what `refiner` maximizes
REFINING = {
    "bernoulli": (8, 0.1),
    "gaussian": (5, 0.01),
}  # steps and rate; more do not help on validation data
DECAY = 0.7, 0.9  # of Adam's two moments: short, as the steps are few
HOPS_A_WINDOW = 8  # how many windows cover each sample of a long sound
WINDOWS_A_BLOCK = 512  # restored at once: few enough for a core's cache
LEAST_OBSERVED = 1 / 8  # of a window, for its residual to count
NOT_EXPLAINED = np.float32(
    1e3
)  # the residual of a window of which less is observed: far above that of any other
EXPLAINED = (
    1e-8,
    1e8,
)  # what products of two residuals are told apart: float32 holds their power -4, tapered too


def observed_elbo(model, corrupted, observed, mean, log_var):
    """The ELBO of the observed values under q = N(mean, exp(log_var)), nats: (B, D), (B, D), (B, L), (B, L) -> (B,).

    By DRAWS draws of z with fixed noise, in pairs of opposite sign, each latent number's of mean square 1 and, where
    there are fewer of these than pairs, orthogonal to the others': so the mean of a quadratic over them is exact.
    """
    latent, pairs = mean.shape[1], DRAWS // 2
    noise = tf.random.stateless_normal((pairs, latent), (0, 0))
    noise = tf.linalg.qr(noise)[0] if latent <= pairs else tf.math.l2_normalize(noise, axis=0)
    noise = float(pairs) ** 0.5 * tf.concat([noise, -noise], axis=0)
    z = tf.reshape(mean + tf.exp(0.5 * log_var) * noise[:, None], (-1, latent))  # (K B, L)
    corrupted, observed = (tf.tile(part, (DRAWS, 1)) for part in (corrupted, observed))
    log_joint = model.log_prior(z) - model.nll(corrupted, model.decoder(z), observed)
    entropy = 0.5 * tf.reduce_sum(log_var + 1 + np.log(2 * np.pi), axis=-1)
    return tf.reduce_mean(tf.reshape(log_joint, (DRAWS, -1)), axis=0) + entropy


def refiner(model, steps=None, rate=None):
    """What makes better posteriors from guesses: refine(corrupted, observed, mean, log_var) -> mean, log_var, ELBO.

    Gradient steps (Adam) on the ELBO of the observed values, (B, D), (B, D), (B, L), (B, L) -> (B, L), (B, L), (B,):
    semi-amortized inference (Kim et al. 2018, arXiv 1802.02550; Marino et al. 2018, arXiv 1807.09356). Each example
    keeps the best it has met, its guess included, and none depends on the others of its batch.
    """
    steps, rate = REFINING[model.likelihood] if steps is None else (steps, rate)

    @tf.function(reduce_retracing=True, autograph=False)
    def elbo_and_slope(place, corrupted, observed):
        with tf.GradientTape() as tape:
            tape.watch(place)
            elbo = observed_elbo(model, corrupted, observed, *tf.unstack(place))
        return elbo, tape.gradient(elbo, place)

    def refine(corrupted, observed, mean, log_var):
        corrupted, observed = (tf.cast(part, tf.float32) for part in (corrupted, observed))
        place = best = tf.stack([mean, log_var])
        moments, best_elbo = (0.0, 0.0), tf.fill(place.shape[1:2], -np.inf)
        for step in range(1, steps + 2):
            elbo, slope = elbo_and_slope(place, corrupted, observed)
            best = tf.where((elbo > best_elbo)[None, :, None], place, best)
            best_elbo = tf.maximum(elbo, best_elbo)
            moments = [
                d * moment + (1 - d) * slope**power
                for d, moment, power in zip(DECAY, moments, (1, 2))
            ]
            unbiased = [moment / (1 - decay**step) for moment, decay in zip(moments, DECAY)]
            place += rate * unbiased[0] / (tf.sqrt(unbiased[1]) + 1e-8)
        return *tf.unstack(best), best_elbo

    return refine


def refined_reconstruct(model, refine):
    """Return reconstruct(corrupted, observed) by refined posteriors: (B, D), (B, D) -> (B, D)."""

    def reconstruct(corrupted, observed):
        mean, _, _ = refine(corrupted, observed, *model.encode(corrupted))
        return model.expectation(mean)

    return reconstruct


def completions(model, refine, corrupted, observed, count, seed):
    """`count` examples that what is observed leaves possible: (B, D), (B, D) -> (count, B, D).

    As many posteriors are refined, one from the encoder's guess and the others from draws of the prior; each weighs
    as its ELBO has it, and every completion is a draw from one of them, decoded. So both ways show where there are two.
    """
    mean, log_var = model.encode(corrupted)
    size, latent = mean.shape
    which_seed, start_seed, noise_seed = tf.unstack(tf.random.split(seed, 3))
    starts = tf.concat([mean, model.sample_prior((count - 1) * size, start_seed)], axis=0)
    parts = (
        tf.tile(part, (count, 1))
        for part in (tf.cast(corrupted, tf.float32), tf.cast(observed, tf.float32))
    )
    means, log_vars, elbo = refine(*parts, starts, tf.tile(log_var, (count, 1)))
    weights = tf.transpose(tf.reshape(elbo, (count, size)))  # (B, starts)
    which = tf.random.stateless_categorical(weights, count, which_seed)  # (B, count)
    rows = tf.transpose(which) * size + tf.range(
        size, dtype=which.dtype
    )  # (count, B), into the starts
    noise = tf.random.stateless_normal((count, size, latent), noise_seed)
    z = tf.gather(means, rows) + tf.exp(0.5 * tf.gather(log_vars, rows)) * noise
    return tf.reshape(model.expectation(tf.reshape(z, (-1, latent))), (count, size, -1))


def compiled_reconstruct(model):
    """The model's `reconstruct` as a graph: called block after block, it takes half the time."""
    batch = tf.TensorSpec((None, model.input_size))
    return tf.function(model.reconstruct, input_signature=[batch, batch])


def restore_long(corrupted, mask, reconstruct, window, hop):
    """Restore a long sound from overlapping windows: corrupted, mask (T,) -> (T,), with T >= window.

    `restore_long_blocks` says how.
    """

    def read(first, end):
        return corrupted[first:end], mask[first:end]

    return np.concatenate(list(restore_long_blocks(read, corrupted.size, reconstruct, window, hop)))


def restore_long_blocks(read, samples, reconstruct, window, hop):
    """Restore a long sound from overlapping windows, each trusted as far as it explains what is observed.

    Yields the restored sound piece after piece, float32, in memory that does not grow with its length of `samples` (at
    least one window, else ValueError). read(first, end) gives those samples of the corrupted sound and of its mask;
    reconstruct(corrupted, observed) maps windows to windows, all (B, window), float32. Every sample is the weighted mean of all the windows
    over it. The weight is a Hann taper, so that no window's edge is heard, times `_trust`. Dividing by the sum of
    weights keeps the level, at both ends too.
    """
    if samples < window:
        raise ValueError(f"{samples} samples are less than one window of {window}")
    taper = np.hanning(window + 2)[1:-1].astype(np.float32)  # above 0 at both ends
    last = samples - window
    for first in range(0, samples, WINDOWS_A_BLOCK * hop):
        end = min(first + WINDOWS_A_BLOCK * hop, samples)
        # All the windows over this block; a few at its borders are computed for the neighbouring block again.
        starts = np.arange(max(0, -(-(first - window + 1) // hop) * hop), min(end, last), hop)
        if end > last:
            starts = np.append(starts, last)
        begin = starts[0]
        values, mask = read(begin, starts[-1] + window)
        corrupted, observed = (
            sliding_window_view(np.asarray(part, np.float32), window)[starts - begin]
            for part in (values, 1 - mask)
        )
        outputs = np.asarray(reconstruct(corrupted, observed), np.float32)
        trust = taper * _trust(corrupted, observed, outputs)
        restored = _overlap_add(trust * outputs, starts - begin, hop) / _overlap_add(
            trust, starts - begin, hop
        )
        yield restored[first - begin : end - begin]


def _overlap_add(windows, starts, hop):
    """Sum of windows (B, N), each at its start: `hop` after the one before, the last perhaps sooner. -> (T,)."""
    window = windows.shape[1]
    total = np.zeros((-(-(starts[-1] + window) // hop), hop), windows.dtype)
    for row, column in enumerate(range(0, window, hop)):  # the same part of all windows at once
        part = windows[:-1, column : column + hop]
        total[row : row + len(part), : part.shape[1]] += part
    total = total.ravel()[: starts[-1] + window]
    total[starts[-1] :] += windows[-1]
    return total


def _trust(inputs, observed, outputs):
    """How far to trust each sample of each window's output: all (B, N), in no particular unit.

    (Mean squared residual over the whole window times that over its neighbourhood, on observed samples) to the power
    -4. Windows that explain their input equally well count equally; one that lies across two notes, which a model of
    single notes cannot draw, fades out where it draws the wrong one. So does one of which next to nothing is observed,
    and which has nothing to explain.
    """
    error = np.square(inputs - outputs) * observed
    count = observed.sum(1, keepdims=True)
    whole = np.where(
        count >= LEAST_OBSERVED * inputs.shape[1],
        error.sum(1, keepdims=True) / np.maximum(count, 1),
        NOT_EXPLAINED,
    )
    width = inputs.shape[1] // 8
    near, near_count = (
        scipy.ndimage.uniform_filter1d(part, width, mode="constant") for part in (error, observed)
    )
    local = (near + whole / width) / (near_count + 1 / width)  # as the whole where nothing near was
    return np.square(
        np.square(1 / np.clip(whole * local, *EXPLAINED))
    )  # many times faster than ** -4.0

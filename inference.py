"""Inference with a trained model: refined posteriors, completions, uncertainty, long sounds."""

from functools import partial

import numpy as np
import scipy  # submodules load on first use, so --help stays fast
from numpy.lib.stride_tricks import sliding_window_view

from harness.quiet_tensorflow import tf

ELBO_DRAWS = 4  # draws of z per ELBO, in pairs of opposite sign
# (steps, learning rate, weight of observed values) of gradient ascent. More steps do not help on
# validation data. `refiner` explains the weight.
REFINING = {"bernoulli": (8, 0.1, 1.5), "gaussian": (5, 0.01, 1.0)}
MOMENT_DECAYS = 0.7, 0.9  # Adam's betas: lower than usual, because there are few steps
PREDICTIVE_DRAWS = 16  # draws of z per predictive standard deviation
HOPS_PER_WINDOW = 8  # so each sample of a long sound is in 8 windows
WINDOWS_PER_BLOCK = 512  # windows restored at once; they fit in a core's cache

# Confidence weights of windows, see `_confidence`
LEAST_OBSERVED = 1 / 8  # minimum observed fraction of a window for its error to be used
ERROR_RANGE = 1e-36, 1e36  # limits e of errors, so that (e * e)^-4 fits a float64


def elbo_noise(latent):
    """Return the fixed draws (ELBO_DRAWS, latent) of `observed_elbo`.

    They are antithetic and normalized per dimension, so the estimate is exact for quadratics
    without cross terms. With up to ELBO_DRAWS / 2 latent dimensions, they are also orthogonal, and
    the estimate is exact for all quadratics.
    """
    pairs = ELBO_DRAWS // 2
    noise = tf.random.stateless_normal((pairs, latent), (0, 0))
    noise = tf.linalg.qr(noise)[0] if latent <= pairs else tf.math.l2_normalize(noise, axis=0)
    return pairs**0.5 * tf.concat([noise, -noise], axis=0)


def observed_elbo(model, corrupted, observed, mean, log_var):
    """Return the ELBO of the observed values under q = N(mean, exp(log_var)), in nats.

    Shapes are (B, D), (B, D), (B, L), (B, L) -> (B,).
    """
    latent = mean.shape[1]
    noise = elbo_noise(latent)[:, None]
    z = tf.reshape(mean + tf.exp(0.5 * log_var) * noise, (-1, latent))  # (K B, L)
    corrupted, observed = (tf.tile(part, (ELBO_DRAWS, 1)) for part in (corrupted, observed))
    log_joint = model.log_prior(z) - model.nll(corrupted, model.decoder(z), observed)
    entropy = 0.5 * tf.reduce_sum(log_var + 1 + np.log(2 * np.pi), axis=-1)
    return tf.reduce_mean(tf.reshape(log_joint, (ELBO_DRAWS, -1)), axis=0) + entropy


def refiner(model, steps=None, rate=None, weight=1.0):
    """Return refine(corrupted, observed, mean, log_var), which returns a better mean and log_var.

    It also returns their ELBO: (B, D), (B, D), (B, L), (B, L) -> (B, L), (B, L), (B,). Adam
    maximizes the ELBO of the observed values, starting at the given posterior (semi-amortized
    inference, arXiv 1802.02550 and 1807.09356). Each example keeps its best iterate, which may be
    the initial one. Examples of a batch do not influence each other.

    The defaults are in `REFINING`. The log-likelihood of the observed values is multiplied by
    `weight`. Grey levels have a variance of s p (1 - p) with s < 1, where binary pixels have
    p (1 - p). Their Bernoulli quasi-likelihood has weight 1 / s (Papke and Wooldridge 1996).
    """
    if steps is None:
        steps, rate, weight = REFINING[model.likelihood]

    @tf.function(reduce_retracing=True, autograph=False)
    def elbo_and_gradient(posterior, corrupted, observed):
        with tf.GradientTape() as tape:
            tape.watch(posterior)
            elbo = observed_elbo(model, corrupted, observed, *tf.unstack(posterior))
        return elbo, tape.gradient(elbo, posterior)

    def refine(corrupted, observed, mean, log_var):
        corrupted, observed = tf.cast(corrupted, tf.float32), weight * tf.cast(observed, tf.float32)
        posterior = best = tf.stack([mean, log_var])  # (2, B, L)
        moments, best_elbo = (0.0, 0.0), tf.fill(posterior.shape[1:2], -np.inf)
        for step in range(1, steps + 2):
            elbo, gradient = elbo_and_gradient(posterior, corrupted, observed)
            best = tf.where((elbo > best_elbo)[None, :, None], posterior, best)
            best_elbo = tf.maximum(elbo, best_elbo)
            moments = [
                decay * moment + (1 - decay) * gradient**power
                for decay, moment, power in zip(MOMENT_DECAYS, moments, (1, 2))
            ]
            first, second = (m / (1 - d**step) for m, d in zip(moments, MOMENT_DECAYS))  # unbiased
            posterior += rate * first / (tf.sqrt(second) + 1e-8)
        return *tf.unstack(best), best_elbo

    return refine


def refined_reconstruct(model, refine):
    """Return reconstruct(corrupted, observed), which decodes refined posterior means."""

    def reconstruct(corrupted, observed):
        mean, _, _ = refine(corrupted, observed, *model.encode(corrupted))
        return model.expectation(mean)

    return reconstruct


def completions(model, refine, corrupted, observed, count, seed):
    """Return `count` samples of the posterior given the observed values.

    Shapes are (B, D), (B, D) -> (count, B, D). A posterior can have several modes, for example a 5
    and a 6, and one Gaussian finds only one of them. So `count` Gaussians are refined. One starts
    at the encoder's posterior, the others at samples of the prior. They are mixed with weights
    proportional to exp(ELBO), and each completion is a decoded sample of the mixture.
    """
    mean, log_var = model.encode(corrupted)
    size, latent = mean.shape
    component_seed, start_seed, noise_seed = tf.unstack(tf.random.split(seed, 3))
    starts = tf.concat([mean, model.sample_prior((count - 1) * size, start_seed)], axis=0)
    corrupted, observed, log_vars = (
        tf.tile(tf.cast(part, tf.float32), (count, 1)) for part in (corrupted, observed, log_var)
    )
    means, log_vars, elbo = refine(corrupted, observed, starts, log_vars)  # (count * B, L)
    logits = tf.transpose(tf.reshape(elbo, (count, size)))  # (B, count)
    component = tf.random.stateless_categorical(logits, count, component_seed)  # (B, count)
    rows = tf.reshape(tf.transpose(component) * size + tf.range(size, dtype=component.dtype), [-1])
    noise = tf.reshape(tf.random.stateless_normal((count, size, latent), noise_seed), (-1, latent))
    drawn = model.posterior_samples(tf.gather(means, rows), tf.gather(log_vars, rows), noise)
    return tf.reshape(drawn, (count, size, -1))


def predictive_std(model, mean, log_var, mask, grey_variance, seed):
    """Return the predictive standard deviation (B, D) of each pixel of a Bernoulli model.

    mean, log_var: posterior (B, L). mask (B, D): 1 where missing. seed: integer.
    grey_variance (D,): mean of x (1 - x) over training images, 0 if they are binary.

    With p = E[x | z], the law of total variance is

        Var x = Var_z p + E_z[Var(x | z)] = Var_z p + E_z[p (1 - p)] - E[x (1 - x)].

    The last term is unknown to the model. It is assumed to be a constant fraction of the second
    term, chosen so that the last term and grey_variance have the same mean in the holes.
    """
    noises = [tf.random.stateless_normal(mean.shape, (seed, k)) for k in range(PREDICTIVE_DRAWS)]
    p = np.stack([model.posterior_samples(mean, log_var, noise) for noise in noises])  # (K, B, D)
    between = np.var(p, axis=0)  # Var_z p
    bernoulli = np.mean(p * (1 - p), axis=0)  # E_z[p (1 - p)]
    # E[x (1 - x)] as a fraction of E_z[p (1 - p)]
    fraction = np.sum(grey_variance * mask) / max(1e-9, np.sum(bernoulli * mask))
    return np.sqrt(between + bernoulli * max(0, 1 - fraction))


def principal_axes(points, count, every=1):
    """Return the mean of points (M, L), their first principal axes and the variance fractions.

    Shapes are (L,), (count, L), (count,). There are at most min(M, L) axes. With `every` = n, the
    axes are computed from every n-th point, which is faster. The mean is always over all points.
    """
    mean = points.mean(axis=0)
    _, lengths, axes = np.linalg.svd(points[::every] - mean, full_matrices=False)
    with np.errstate(invalid="ignore"):  # 0 / 0 if there is no variance
        return mean, axes[:count], lengths[:count] ** 2 / np.sum(lengths**2)


def compiled_reconstruct(model):
    """Return the model's `reconstruct` compiled to a graph, which is twice as fast."""
    batch = tf.TensorSpec((None, model.input_size))
    return tf.function(model.reconstruct, input_signature=[batch, batch])


def restore_long(corrupted, mask, reconstruct, window, hop=None):
    """Restore a long sound by weighted overlap-add: (T,), (T,) -> (T,), float32.

    reconstruct(corrupted, observed) maps float32 windows (B, window), in the order of the sound, to
    restored windows. They begin every `hop` samples, by default HOPS_PER_WINDOW times per window.

    Each restored sample is a weighted mean over all windows that contain it. The weight is a Hann
    taper, which hides the edges of windows, times `_confidence`, which favors windows that
    reproduce their observed samples. Raises ValueError if the sound is shorter than a window.
    """
    samples, hop = corrupted.size, hop or window // HOPS_PER_WINDOW
    if samples < window:
        raise ValueError(f"expected at least one window of {window} samples, got {samples} samples")
    taper = np.hanning(window + 2)[1:-1]  # above 0 at both ends
    last, restored = samples - window, np.zeros(samples, np.float32)
    for first in range(0, samples, WINDOWS_PER_BLOCK * hop):
        end = first + WINDOWS_PER_BLOCK * hop  # may be after the end of the sound
        # All windows that overlap this block. Windows across a border are computed twice.
        starts = np.arange(max(0, -(-(first - window + 1) // hop) * hop), min(end, last), hop)
        if end > last:
            starts = np.append(starts, last)
        part, starts = slice(starts[0], starts[-1] + window), starts - starts[0]
        windows, observed = (
            sliding_window_view(np.asarray(values, np.float32), window)[starts]
            for values in (corrupted[part], 1 - mask[part])
        )
        outputs = np.asarray(reconstruct(windows, observed))
        weights = _confidence(windows, observed, outputs)
        weights *= taper
        mean = _overlap_add(weights * outputs, starts, hop) / _overlap_add(weights, starts, hop)
        restored[first:end] = mean[first - part.start : end - part.start]
    return restored


def _overlap_add(windows, starts, hop):
    """Return the sum (T,) of windows (B, N) at `starts`, which are `hop` apart except the last."""
    window = windows.shape[1]
    total = np.zeros((-(-(starts[-1] + window) // hop), hop), windows.dtype)
    for row, column in enumerate(range(0, window, hop)):  # one hop of every window at a time
        part = windows[:-1, column : column + hop]
        total[row : row + len(part), : part.shape[1]] += part
    total = total.ravel()[: starts[-1] + window]
    total[starts[-1] :] += windows[-1]
    return total


def _confidence(corrupted, observed, outputs):
    """Return a relative weight (B, N) for each sample of each window's output.

    The weight is (mean squared error of the window * local mean squared error)^-4, both over
    observed samples. The local error matters where a window contains two notes. A model of single
    notes reproduces only one of them, so the window should fade out at the other. Windows with few
    observed samples get the largest error. Scaling a sound does not change relative weights.
    """
    error = np.square(corrupted - outputs)
    error *= observed
    count, width = observed.sum(1, keepdims=True), corrupted.shape[1] // 8
    whole = error.sum(1, keepdims=True, dtype=float) / np.maximum(count, 1)
    whole[count < LEAST_OBSERVED * corrupted.shape[1]] = ERROR_RANGE[1]
    whole = np.clip(whole, *ERROR_RANGE)
    local_mean = partial(scipy.ndimage.uniform_filter1d, size=width, mode="constant")
    # To save time, windows with the same mask as the one before, mostly whole ones, share its mean.
    different = np.append(True, (observed[1:] != observed[:-1]).any(1))
    near_count = local_mean(observed[different])[np.cumsum(different) - 1] + 1 / width
    near = local_mean(error) + np.float32(whole / width)
    near /= near_count  # includes one sample of error `whole`, in case nothing near is observed
    weights = whole * near
    for _ in range(2):  # much faster than weights ** -4.0
        np.square(weights, out=weights)
    return np.reciprocal(weights, out=weights)

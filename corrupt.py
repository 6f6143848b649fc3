"""Corruptions of examples, which a model learns to undo.

Each function takes a batch, an amount and a seed, and returns the corrupted batch and its mask:

    corrupted, mask = CORRUPTIONS["block"](batch, 0.2, seed)

Images are (B, H, W) and sounds (B, N): float32 tensors or NumPy arrays. The mask has the batch's
shape: 1 where a value is missing or replaced, 0 elsewhere. `amount` is the fraction of such values,
or the noise standard deviation for `gaussian`. `seed` is a pair of integers. Random numbers are
stateless, so the same seed gives the same corruption.
"""

import math

from harness.quiet_tensorflow import tf
from random_numbers import normal


def with_noise(batch, max_std, seed):
    """Add white noise to examples, each with a standard deviation uniform from 0 to `max_std`."""
    if not max_std:
        return batch
    std_seed, noise_seed = tf.unstack(tf.random.split(seed))
    shape = (batch.shape[0], *[1] * (len(batch.shape) - 1))
    std = tf.random.stateless_uniform(shape, std_seed, 0.0, max_std)
    return batch + std * normal(batch.shape, noise_seed)


def block(batch, amount, seed):
    """Set a random stretch of each window, or a random rectangle of each image, to 0.

    A rectangle's height / width is log-uniform from 1/2 to 2, limited by the image's size.
    """
    mask = (_stretch if len(batch.shape) == 2 else _rectangle)(batch, amount, seed)
    return batch * (1 - mask), mask


def scatter(batch, amount, seed):
    """Set each value to 0 with probability `amount`, independently of the others."""
    mask = tf.cast(tf.random.stateless_uniform(batch.shape, seed) < amount, tf.float32)
    return batch * (1 - mask), mask


def salt_pepper(batch, amount, seed):
    """With probability `amount`, replace a value by its example's minimum or maximum (50:50)."""
    mask_seed, coin_seed = tf.unstack(tf.random.split(seed))
    mask = tf.cast(tf.random.stateless_uniform(batch.shape, mask_seed) < amount, tf.float32)
    axes = list(range(1, len(batch.shape)))
    salt = tf.reduce_max(batch, axes, keepdims=True)
    pepper = tf.reduce_min(batch, axes, keepdims=True)
    coin = tf.random.stateless_uniform(batch.shape, coin_seed)
    replacement = tf.where(coin < 0.5, salt, pepper)
    return tf.where(mask == 1, replacement, batch), mask


def gaussian(batch, amount, seed):
    """Add white noise of standard deviation `amount`. Nothing is missing, so the mask is 0."""
    return batch + amount * normal(batch.shape, seed), tf.zeros_like(batch)


def none(batch, amount, seed):
    """Change nothing: the model is a plain VAE. `amount` and `seed` are ignored."""
    return tf.identity(batch), tf.zeros_like(batch)


CORRUPTIONS = {
    "block": block,
    "scatter": scatter,
    "salt-pepper": salt_pepper,
    "gaussian": gaussian,
    "none": none,
}
MASK_KNOWN = "block", "scatter"  # corruptions whose mask the restorer knows


def amount_limit(settings):
    """Return the exclusive upper limit of the amount: 1 for fractions, otherwise infinity."""
    return math.inf if settings.corruption in ("gaussian", "none") else 1


def describe(corruption, amount, noise):
    """Describe the damage in words, for figures and pages."""
    damage = corruption if corruption == "none" else f"{corruption} {amount:g}"
    return f"{damage}, noise up to {noise:g}" if noise else damage


def exact_where_observed(settings):
    """Return True if the mask is known and the values outside it have no added noise."""
    return settings.corruption in MASK_KNOWN and not settings.noise


def apply(settings, batch, seed):
    """Add noise to a batch, then corrupt it. Returns the corrupted batch and the mask."""
    noisy = with_noise(batch, settings.noise, tf.random.fold_in(seed, 1))
    return CORRUPTIONS[settings.corruption](noisy, settings.amount, seed)


def _random_intervals(lengths, size, seed):
    """Return rows that are 1 in a random interval of given length, else 0: (B,) -> (B, size)."""
    uniform = tf.random.stateless_uniform(lengths.shape, seed)
    starts = tf.cast(uniform * tf.cast(size - lengths + 1, tf.float32), tf.int32)
    index = tf.range(size)
    inside = (index >= starts[:, None]) & (index < (starts + lengths)[:, None])
    return tf.cast(inside, tf.float32)


def _stretch(batch, amount, seed):
    size = batch.shape[1]
    lengths = tf.fill(batch.shape[:1], round(amount * size))
    return _random_intervals(lengths, size, seed)


def _rectangle(batch, amount, seed):
    height, width = batch.shape[1:]
    area = amount * height * width
    shape_seed, row_seed, column_seed = tf.unstack(tf.random.split(seed, 3))
    ratio = 2 ** tf.random.stateless_uniform(batch.shape[:1], shape_seed, -1.0, 1.0)
    least_rows = max(1.0, round(area / width))
    rows = tf.clip_by_value(tf.round(tf.sqrt(area * ratio)), least_rows, height)
    columns = tf.clip_by_value(tf.round(area / rows), 0, width)  # rows * columns near `area`
    rows, columns = tf.cast(rows, tf.int32), tf.cast(columns, tf.int32)
    vertical = _random_intervals(rows, height, row_seed)  # (B, H)
    horizontal = _random_intervals(columns, width, column_seed)  # (B, W)
    return vertical[:, :, None] * horizontal[:, None, :]

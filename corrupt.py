"""Ways to damage an input. The decoder is asked for what was there before.

Each takes a batch, an amount and a seed, and returns the corrupted batch and the mask that says where:

    corrupted, mask = CORRUPTIONS["block"](batch, 0.2, seed)

Images are (B, H, W), sounds are (B, N), float32, of TensorFlow or NumPy; the mask has the batch's shape, 1 where
something is missing or replaced, 0 elsewhere. `amount` is the share of the values concerned, save for `gaussian`.
`seed` is a pair of integers, and the same seed gives the same damage: all draws are TensorFlow's stateless ones.
"""

import draws
from quiet_tensorflow import tf


def block(batch, amount, seed, first=0):
    """One contiguous part missing (set to 0): a stretch of each window, a rectangle of each image.

    A rectangle's sides have a ratio between 1/2 and 2 (log-uniform) as far as the image's sides allow.
    """
    if len(batch.shape) == 2:
        mask = _stretch(batch, amount, seed, first)
    else:
        mask = _rectangle(batch, amount, seed, first)
    return batch * (1 - mask), mask


def scatter(batch, amount, seed, first=0):
    """Each value missing (set to 0) with probability `amount`, independently of the others."""
    mask = tf.cast(draws.uniform(batch.shape, seed, first) < amount, tf.float32)
    return batch * (1 - mask), mask


def salt_pepper(batch, amount, seed, first=0):
    """Each value replaced with probability `amount` by its example's least or greatest value, a fair coin each."""
    where, coin = tf.unstack(tf.random.split(seed))
    mask = tf.cast(draws.uniform(batch.shape, where, first) < amount, tf.float32)
    axes = list(range(1, len(batch.shape)))
    salt = tf.reduce_max(batch, axes, keepdims=True)
    pepper = tf.reduce_min(batch, axes, keepdims=True)
    replacement = tf.where(draws.uniform(batch.shape, coin, first) < 0.5, salt, pepper)
    return tf.where(mask == 1, replacement, batch), mask


def gaussian(batch, amount, seed, first=0):
    """White noise of standard deviation `amount` added to every value; nothing is missing, so the mask is 0."""
    return batch + amount * draws.normal(batch.shape, seed, first), tf.zeros_like(batch)


def none(batch, amount, seed, first=0):
    """Nothing damaged: a plain variational autoencoder. `amount` and `seed` are ignored."""
    return tf.identity(batch), tf.zeros_like(batch)


CORRUPTIONS = {
    "block": block,
    "scatter": scatter,
    "salt-pepper": salt_pepper,
    "gaussian": gaussian,
    "none": none,
}


def _interval(starts, lengths, size):
    """1 from each start for that many places, 0 elsewhere: (B,), (B,) -> (B, size)."""
    place = tf.range(size)
    inside = (place >= starts[:, None]) & (place < (starts + lengths)[:, None])
    return tf.cast(inside, tf.float32)


def _random_starts(lengths, size, seed, first):
    """Uniform over the places where an interval of that length fits into `size`: (B,) -> (B,), int32."""
    uniform = draws.uniform(lengths.shape, seed, first)
    return tf.cast(uniform * tf.cast(size - lengths + 1, tf.float32), tf.int32)


def _stretch(batch, amount, seed, first):
    size = batch.shape[1]
    lengths = tf.fill(batch.shape[:1], round(amount * size))
    return _interval(_random_starts(lengths, size, seed, first), lengths, size)


def _rectangle(batch, amount, seed, first):
    height, width = batch.shape[1:]
    area = amount * height * width
    shape_seed, row_seed, column_seed = tf.unstack(tf.random.split(seed, 3))
    ratio = 2 ** draws.uniform(batch.shape[:1], shape_seed, first, -1.0, 1.0)
    rows = tf.clip_by_value(tf.round(tf.sqrt(area * ratio)), max(1.0, round(area / width)), height)
    columns = tf.clip_by_value(tf.round(area / rows), 0, width)  # the nearest whole column to the area asked
    rows, columns = tf.cast(rows, tf.int32), tf.cast(columns, tf.int32)
    vertical = _interval(_random_starts(rows, height, row_seed, first), rows, height)  # (B, H)
    horizontal = _interval(_random_starts(columns, width, column_seed, first), columns, width)  # (B, W)
    return vertical[:, :, None] * horizontal[:, None, :]

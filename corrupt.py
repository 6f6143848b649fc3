"""Ways to corrupt an example. The decoder has to restore what was there before.

Each takes a batch, an amount and a seed, and returns the corrupted batch and the mask that says where:

    corrupted, mask = CORRUPTIONS["block"](batch, 0.2, seed)

Images are (B, H, W), sounds are (B, N), float32, of TensorFlow or NumPy; the mask has the batch's shape, 1 where
something is missing or replaced, 0 elsewhere. `amount` is the share of the values concerned, save for `gaussian`.
`seed` is a pair of integers, and the same seed gives the same damage: all draws are TensorFlow's stateless ones.
"""

import dataclasses

from harness import UserError, cli
from harness.quiet_tensorflow import tf
from random_numbers import normal


def with_noise(batch, most, seed):
    """White noise added to each example, its standard deviation uniform in 0 to `most`; with 0, the batch as it is."""
    if not most:
        return batch
    std_seed, noise_seed = tf.unstack(tf.random.split(seed))
    std = tf.random.stateless_uniform(
        (batch.shape[0], *[1] * (len(batch.shape) - 1)), std_seed, 0.0, most
    )
    return batch + std * normal(batch.shape, noise_seed)


def block(batch, amount, seed):
    """One contiguous part missing (set to 0): a stretch of each window, a rectangle of each image.

    A rectangle's sides have a ratio between 1/2 and 2 (log-uniform) as far as the image's sides allow.
    """
    if len(batch.shape) == 2:
        mask = _stretch(batch, amount, seed)
    else:
        mask = _rectangle(batch, amount, seed)
    return batch * (1 - mask), mask


def scatter(batch, amount, seed):
    """Each value missing (set to 0) with probability `amount`, independently of the others."""
    mask = tf.cast(tf.random.stateless_uniform(batch.shape, seed) < amount, tf.float32)
    return batch * (1 - mask), mask


def salt_pepper(batch, amount, seed):
    """Each value replaced with probability `amount` by its example's least or greatest value, a fair coin each."""
    where, coin = tf.unstack(tf.random.split(seed))
    mask = tf.cast(tf.random.stateless_uniform(batch.shape, where) < amount, tf.float32)
    axes = list(range(1, len(batch.shape)))
    salt = tf.reduce_max(batch, axes, keepdims=True)
    pepper = tf.reduce_min(batch, axes, keepdims=True)
    replacement = tf.where(tf.random.stateless_uniform(batch.shape, coin) < 0.5, salt, pepper)
    return tf.where(mask == 1, replacement, batch), mask


def gaussian(batch, amount, seed):
    """White noise of standard deviation `amount` added to every value; nothing is missing, so the mask is 0."""
    return batch + amount * normal(batch.shape, seed), tf.zeros_like(batch)


def none(batch, amount, seed):
    """Nothing corrupted: a plain variational autoencoder. `amount` and `seed` are ignored."""
    return tf.identity(batch), tf.zeros_like(batch)


CORRUPTIONS = {
    "block": block,
    "scatter": scatter,
    "salt-pepper": salt_pepper,
    "gaussian": gaussian,
    "none": none,
}


@dataclasses.dataclass(frozen=True)
class Settings(cli.Settings):
    """The settings of how an example is corrupted, in both experiments. UserError for impossible ones."""

    corruption: str = cli.flag("block", "how the input is corrupted", choices=CORRUPTIONS)
    amount: float = cli.flag(0.2, "share missing or replaced; for gaussian, the standard deviation")
    noise: float = cli.flag(
        0.0, "white noise added to the input: standard deviation uniform in 0 to this", type=float
    )

    def __post_init__(self):
        super().__post_init__()
        kind, amount, noise = self.corruption, self.amount, self.noise
        if kind not in ("gaussian", "none") and amount >= 1:
            raise UserError(
                f"argument --amount: {amount:g} is not a share below 1, which {kind} needs (see --help)"
            )
        if not 0 <= noise <= 10:  # full scale is 1
            raise UserError(f"argument --noise: {noise:g} is not between 0 and 10 (see --help)")

    @property
    def damage(self):
        """In words, for figures."""
        return describe(self.corruption, self.amount, self.noise)

    @property
    def tells_missing(self):
        """Whether who restores an example knows what is missing, and that the rest is as it was."""
        return self.corruption in ("block", "scatter") and not self.noise


def describe(corruption, amount, noise):
    """Describe the damage in words, for figures and pages."""
    words = corruption if corruption == "none" else f"{corruption} {amount:g}"
    return f"{words}, noise up to {noise:g}" if noise else words


def apply(settings, batch, seed):
    """A batch damaged as the settings have it, noise first: -> corrupted, mask."""
    noisy = with_noise(batch, settings.noise, tf.random.fold_in(seed, 1))
    return CORRUPTIONS[settings.corruption](noisy, settings.amount, seed)


def _interval(starts, lengths, size):
    """1 from each start for that many places, 0 elsewhere: (B,), (B,) -> (B, size)."""
    place = tf.range(size)
    inside = (place >= starts[:, None]) & (place < (starts + lengths)[:, None])
    return tf.cast(inside, tf.float32)


def _random_starts(lengths, size, seed):
    """Uniform over the places where an interval of that length fits into `size`: (B,) -> (B,), int32."""
    uniform = tf.random.stateless_uniform(lengths.shape, seed)
    return tf.cast(uniform * tf.cast(size - lengths + 1, tf.float32), tf.int32)


def _stretch(batch, amount, seed):
    size = batch.shape[1]
    lengths = tf.fill(batch.shape[:1], round(amount * size))
    return _interval(_random_starts(lengths, size, seed), lengths, size)


def _rectangle(batch, amount, seed):
    height, width = batch.shape[1:]
    area = amount * height * width
    shape_seed, row_seed, column_seed = tf.unstack(tf.random.split(seed, 3))
    ratio = 2 ** tf.random.stateless_uniform(batch.shape[:1], shape_seed, -1.0, 1.0)
    rows = tf.clip_by_value(tf.round(tf.sqrt(area * ratio)), max(1.0, round(area / width)), height)
    columns = tf.clip_by_value(
        tf.round(area / rows), 0, width
    )  # the nearest whole column to the area asked
    rows, columns = tf.cast(rows, tf.int32), tf.cast(columns, tf.int32)
    vertical = _interval(_random_starts(rows, height, row_seed), rows, height)  # (B, H)
    horizontal = _interval(_random_starts(columns, width, column_seed), columns, width)  # (B, W)
    return vertical[:, :, None] * horizontal[:, None, :]

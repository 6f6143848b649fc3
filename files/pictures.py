"""Read single image files with Pillow."""

import contextlib
import warnings

import numpy as np
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

from harness.errors import one_error

SUFFIXES = tuple(".png .jpg .jpeg .bmp .gif .tif .tiff .webp .heic .heif .hif .avif".split())
# Levels of white of modes above 8 bits, by first letter. Cameras store 10, 12 or 14 bits in 16.
WHITES = {"I": (255, 1023, 4095, 16383, 65535), "F": (1,)}
LUMA = np.array([0.299, 0.587, 0.114])  # weights of red, green and blue in ITU-R BT.601
UNUSED_ALPHA = "BMP", "DIB", "TGA"  # formats whose alpha channel is often all 0 and means nothing


def read_image(path, shape):
    """Return an image file's grey levels, uint8, center-cropped and rescaled to `shape` (H, W).

    Transparent parts are shown on black, or on white if the rest is darker than mid-grey. Raises
    UserError as `opened` does.
    """
    with opened(path) as image:
        # A large JPEG is decoded at a fraction of its size, which is faster.
        image.draft(None, (4 * max(shape), 4 * max(shape)))
        colors, alpha = on_black(decoded(image))
        grey = colors.convert("L")
        if np.mean(grey) < np.mean(alpha) / 2:  # otherwise black ink would disappear
            grey = ImageChops.add(grey, ImageChops.invert(alpha))
        return np.asarray(ImageOps.fit(grey, shape[::-1]))


@contextlib.contextmanager
def opened(path):
    """Open an image file with Pillow. Yields the image, not yet decoded.

    Any error in the block becomes a UserError that names the file, for example if the file is
    damaged, is not an image or exceeds Pillow's limit of about 89 million pixels.
    """
    import pillow_heif  # here, because it takes 0.1 s

    pillow_heif.register_heif_opener()
    with one_error(path, "leave it out, or save it as PNG"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with open(path, "rb") as file:
            try:
                image = Image.open(file)
            except UnidentifiedImageError as error:  # its message would show a Python object
                raise ValueError("not an image that Pillow can read") from error
            with image:
                keyed = isinstance(image.info.get("transparency"), int | tuple)
                if keyed and image.tile[0].args in ("L;2", "L;4", "RGB;16B"):  # misread by Pillow
                    raise ValueError("has a transparent level, so it must have 8 bits per channel")
                yield image


def decoded(image):
    """Decode an image from `opened`: upright, with white as the highest level, in its file's mode.

    An alpha channel that is 0 everywhere is made opaque if the format often has such channels.
    Raises ValueError if the file has several frames.
    """
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # MPO: a JPEG with extras such as depth maps
        raise ValueError(f"must be a single image ({frames} frames)")
    ImageOps.exif_transpose(image, in_place=True)  # decodes it first
    if image.format == "TIFF" and image.tag_v2.get(262) == 0 and image.mode[0] in WHITES:
        levels = np.asarray(image)  # WhiteIsZero; Pillow inverts only 8 bits and less
        image.im = Image.fromarray((white(image) - levels).astype(levels.dtype)).im
    if image.format in UNUSED_ALPHA and image.mode == "RGBA" and not image.getextrema()[3][1]:
        image.putalpha(255)
    return image


def white(image):
    """Return the level of white: 255, or for 16 bits and floats the lowest of WHITES that fits.

    Raises ValueError for levels outside the range.
    """
    if image.mode[0] not in WHITES:
        return 255
    whites, levels = WHITES[image.mode[0]], np.asarray(image)
    low, high = levels.min(), levels.max()
    if not (low >= 0 and high <= whites[-1]):  # also false for NaN
        found = f"{low:g} to {high:g}"
        raise ValueError(f"levels of mode {image.mode} must be from 0 to {whites[-1]} ({found})")
    return next(level for level in whites if high <= level)


def on_black(image):
    """Return an image as shown on black, mode RGB, and its opacity, mode L, both of 8 bits."""
    if image.mode[0] in WHITES:  # Pillow would clip levels at 255 and ignore a transparent level
        levels = np.asarray(image)
        opaque = levels != image.info.get("transparency")
        grey = np.round(levels * np.float32(255 / white(image))).astype(np.uint8) * opaque
        return Image.fromarray(grey).convert("RGB"), Image.fromarray(np.uint8(255) * opaque)
    if not image.has_transparency_data:
        colors = image if image.mode == "RGB" else image.convert("RGB")  # `convert` copies
        return colors, Image.new("L", image.size, 255)
    *colors, alpha = image.convert("RGBA").convert("RGBa").split()
    return Image.merge("RGB", colors), alpha

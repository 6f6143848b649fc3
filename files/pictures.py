"""Read single image files with Pillow."""

import contextlib
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from harness.errors import one_error

WHITE = {"I": 65535, "F": 1}  # white level of modes above 8 bits, by first letter; I means 16 bits


def read_image(path, shape):
    """Return an image file's grey levels, uint8, center-cropped and rescaled to `shape` (H, W).

    EXIF orientation is applied, transparent parts are shown on black, and only the first frame is
    read. Raises UserError as `opened` does.
    """
    with opened(path) as image:
        # A large JPEG is decoded at a fraction of its size, which is faster.
        image.draft(None, (4 * max(shape), 4 * max(shape)))
        ImageOps.exif_transpose(image, in_place=True)
        image = in_8_bits(image)
        image = image.convert("RGBA" if image.has_transparency_data else "L")
        image = ImageOps.fit(image, shape[::-1])
        if image.mode == "RGBA":
            image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image)
        return np.asarray(image.convert("L"))


@contextlib.contextmanager
def opened(path):
    """Open an image file with Pillow. Yields the image, not yet decoded.

    Any error in the block becomes a UserError that names the file, for example if the file is
    damaged, is not an image or exceeds Pillow's limit of about 89 million pixels.
    """
    with one_error(path, "leave it out, or save it as PNG"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with open(path, "rb") as file:
            try:
                image = Image.open(file)
            except UnidentifiedImageError as error:  # its message would show a Python object
                raise ValueError("not an image that Pillow can read") from error
            with image:
                _fix_transparent_level(image)
                yield image


def is_deep(image):
    """Return True if a PNG or TIFF image, not yet decoded, has more than 8 bits per channel."""
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (8,))) > 8  # BitsPerSample
    return image.format == "PNG" and any(";16" in tile.args for tile in image.tile)


def _fix_transparent_level(image):
    """Scale the transparent level of a 2-bit or 4-bit PNG to 8 bits, as Pillow scales its pixels.

    Raises ValueError if a 16-bit color is transparent, because Pillow keeps the upper 8 bits of
    the pixels but the lower 8 bits of the transparent color.
    """
    key = image.info.get("transparency")
    if image.format != "PNG" or not isinstance(key, int | tuple):
        return
    if isinstance(key, tuple) and is_deep(image):
        raise ValueError("has a transparent color, so colors must have 8 bits (16 found)")
    image.info["transparency"] = key * {"L;2": 85, "L;4": 17}.get(image.tile[0].args, 1)


def in_8_bits(image):
    """Convert an image of 16 bits or of floats in [0, 1] to mode L. Returns any other unchanged.

    Pillow's own conversion clips levels at 255 and ignores a transparent level. Here an image with
    a transparent level becomes mode LA. Raises ValueError for levels outside the range.
    """
    if image.mode[0] not in WHITE:
        return image
    levels, key = np.asarray(image), image.info.get("transparency")
    white = WHITE[image.mode[0]]
    if not (levels.min() >= 0 and levels.max() <= white):  # also false for NaN
        found = f"{levels.min():g} to {levels.max():g}"
        raise ValueError(f"levels of mode {image.mode} must be from 0 to {white} ({found})")
    grey = Image.fromarray(np.round(255.0 * (levels / white)).astype(np.uint8))
    if key is None:
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.uint8(255) * (levels != key))))

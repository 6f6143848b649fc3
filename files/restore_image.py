"""Restore an image file with a trained model."""

import io
import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, JpegImagePlugin

from files import image_files
from harness import UserError
from harness.run_folder import replacing

AS_SAVED = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True, "exact": True}}  # Pillow's options
KEPT = (
    "BMP",
    "GIF",
    "JPEG",
    "MPO",
    "PCX",
    "PNG",
    "PPM",
    "TGA",
    "TIFF",
    "WEBP",
)  # formats whose depth Pillow tells
# Of TIFF files, those that lose nothing and that a picture of any other mode than theirs need not have.
TIFF_COMPRESSIONS = (
    "group3",
    "group4",
    "packbits",
    "tiff_adobe_deflate",
    "tiff_ccitt",
    "tiff_deflate",
    "tiff_lzw",
)
AS_PNG = "save it anew as PNG"
DEPTHS = {"I": 65535, "F": 1}  # white, by the first letter of a mode
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")
MOST_MISSING = (
    2 / 3
)  # of a picture; more is a mask that is the wrong way round, or a drawing on nothing
NOISES = 2, 4  # standard deviations: what is taken for background; the least contrast beyond that
FULL_CONTRAST = 0.9  # of the range: no need to change it
PALETTE_ERROR = 8  # of 255: a hole's grey levels in a palette that has no room for them, at most


class Background(NamedTuple):
    """Of a picture: the level of what is plain, and of what is drawn on it, in [0, 1]. `sign` -1: darker than that."""

    level: float
    noise: float  # standard deviation
    sign: int
    contrast: float


PLAIN = Background(0.0, 0.0, 1, 1.0)


def restore_image(model, source, destination, mask_file=None, keep=False, count=0):
    """Restore an image file; one line on what was done. UserError if it cannot be.

    model: has `reconstruct` and `kind`. mask_file: an image of the same size, white in the hole, or of any one
    colour on black; else that is where the image is transparent. keep: replace only the hole. count: so many other
    ways to complete it are written beside the destination (`completion_paths`).
    """
    height, width = model.kind.shape
    image, image_format, frames = _read(source, keep)
    size = image.size  # Pillow's sizes are (width, height)
    if abs(size[0] * height - size[1] * width) > max(width, height):
        problem = (
            f"{size[0]} x {size[1]} pixels; crop it to the shape of the model's {width} x {height}"
        )
        raise UserError(f"{source}: {problem}")
    levels, alpha = _levels(image)
    hole = _read_mask(mask_file, source, size) if mask_file else alpha == 0
    if hole.mean() > MOST_MISSING:
        problem = f"{hole.mean():.0%} of the image would be missing, which is too much"
        remedy = (
            "white marks the hole, so invert the mask"
            if mask_file
            else "make only the hole transparent"
        )
        raise UserError(f"{mask_file or source}: {problem}; {remedy}")
    made, background = _reconstructed(
        model, levels * alpha, hole, (height, width), count if hole.any() else 0
    )
    for restored, path in zip(made, [destination, *completion_paths(destination, count)]):
        result = (
            _filled(image, image_format, hole, restored, source) if keep else _in_grey(restored)
        )
        content, changed = _encoded(source, image, result, image_format, hole, keep)
        with replacing(path) as unfinished:
            unfinished.write_bytes(content)
    change = f"{image_format} has changed the others by up to {changed} of 255" if changed else None
    return _said(hole, background, change, frames, keep)


def completion_paths(destination, count):
    """Where the completions of an image go: whole.png -> whole-1.png, whole-2.png, ..."""
    return [destination.with_stem(f"{destination.stem}-{number}") for number in range(1, count + 1)]


def _said(hole, background, change, frames, keep):
    """One line on what was done to a picture. change: what else has changed, if anything."""
    height, width = hole.shape
    said = [f"{hole.sum()} of {hole.size} pixels missing" if hole.any() else "nothing missing"]
    if not (hole.any() or keep):
        said.append("denoised")
    if background:
        drawn = background.level + background.sign * background.contrast
        said.append(f"levels {255 * drawn:.0f} on {255 * background.level:.0f} taken for 255 on 0")
    if change:
        said.append(change)
    if frames > 1:
        said.append(f"only the first of {frames} pictures in the file is kept")
    return f"{width} x {height} pixels: {', '.join(said)}"


def _read(path, keep=False):
    """A single image, turned as its EXIF data say, in its file's mode; the format to write; how many frames it had."""
    with image_files.opened(path) as image:
        Image.init()
        frames = getattr(image, "n_frames", 1)
        if image.format not in Image.SAVE:
            raise ValueError(f"Pillow reads {image.format}, but cannot write it")
        if (
            frames > 1 and image.format != "MPO"
        ):  # a phone's, whose others are for depth or brightness
            raise ValueError(f"{frames} frames, where a single image is needed")
        if image.mode not in MODES and image.mode[0] not in DEPTHS:
            raise ValueError(f"colours of the kind {image.mode}, not red, green and blue")
        if keep:
            _check_that_it_can_be_kept(path, image)
        ImageOps.exif_transpose(image, in_place=True)
        image.load()
        image_files.in_8_bits(image)  # fails for levels outside the range
        return image, "JPEG" if image.format == "MPO" else image.format, frames


def _check_that_it_can_be_kept(path, image):
    """UserError unless Pillow reads all there is of an image, which is not yet decoded, and can write it again."""
    if image.format not in KEPT:
        problem = f"--keep may lose some of what {image.format} holds; leave out --keep or {AS_PNG}"
        raise UserError(f"{path}: {problem}")
    if image.mode[0] not in DEPTHS and image_files.is_deep(image):
        problem = "colours of more than 8 bits, of which --keep would lose some; leave out --keep or save it with 8"
        raise UserError(f"{path}: {problem}")


def _levels(image):
    """Grey levels of an image and how opaque it is: both (H, W), float32, in [0, 1]."""
    in_colour = image_files.in_8_bits(image).convert("RGBA")
    alpha = np.asarray(in_colour.getchannel("A"))
    if image.mode[0] in DEPTHS:
        levels, white = np.asarray(image), DEPTHS[image.mode[0]]
    else:
        levels, white = np.asarray(in_colour.convert("L")), 255
    return levels.astype(np.float32) / np.float32(white), alpha / np.float32(255)


def _read_mask(path, source, size):
    """The hole that an image file shows in white, or in any one colour on black or on nothing: (H, W), bool.

    UserError if it shows something else, or if it cannot be told what: no hole is guessed.
    """
    mask = _read(path)[0]
    if mask.size != size:
        given = f"{mask.size[0]} x {mask.size[1]}"
        raise UserError(
            f"{source}: {size[0]} x {size[1]} pixels, but {path} has {given}; give a mask of its size"
        )
    levels, alpha = _levels(mask)
    if mask.mode[0] not in DEPTHS:
        levels = np.asarray(mask.convert("RGBA").convert("RGB"), np.float32)
    colours = levels.reshape(*levels.shape[:2], -1) * alpha[..., None]
    bright = colours.max(2)  # whatever the colour, and whether white is 1 or 255
    bright /= bright.max() or 1
    hole = bright > 0.5
    between = (bright > 0.25) & (bright < 0.75)  # the soft edges of a brush
    hues = (colours[hole] / colours[hole].max(1, keepdims=True)).reshape(-1, colours.shape[2])
    if not hole.any():
        problem = "nothing in it is white"
    elif hole.all():
        problem = "nothing in it is black"
    elif between.sum() > min(hole.sum(), hole.size / 4):
        problem = "not in two levels"
    elif np.ptp(hues, axis=0).max() > 0.4:
        problem = "more than one colour on black"
    else:
        return hole
    raise UserError(
        f"{path}: {problem}, so the hole cannot be told; make the mask white in the hole, black elsewhere"
    )


def _reconstructed(model, grey, hole, shape, count):
    """What the model makes of a picture with a hole, then `count` ways to complete it: (H, W) -> (1 + count, H, W).

    In [0, 1]; and the background it saw, or None. The digits that a model knows may be white on black and the picture's
    dark, pale or on grey. Its background is then taken out for the network and put back, if what is observed is
    explained better so; a model of other pictures may know them as they are.
    """

    def error(background):
        made = model.reconstruct(*_shown(grey, hole, shape, background))
        return np.mean(np.square(_put_back(made, grey, shape, background) - grey), where=~hole)

    background = _background(grey[~hole])
    if background and error(background) >= error(None):
        background = None
    corrupted, observed = _shown(grey, hole, shape, background)
    made = [
        model.refined(corrupted, observed)
        if hole.any() and model.refined
        else model.reconstruct(corrupted, observed)
    ]
    made += list(model.complete(corrupted, observed, count)) if count else []
    return [_put_back(each, grey, shape, background) for each in made], background


def _shown(grey, hole, shape, background):
    """What the network is shown of a picture, in the size it knows, and what of it is observed: (1, D), (1, D)."""
    level, noise, sign, contrast = background or PLAIN
    size = shape[::-1]
    lifted = (
        np.clip(sign * (grey - level) - NOISES[0] * noise, 0, None)
        / (contrast - NOISES[0] * noise)
        * ~hole
    )
    # Black where a pixel's own area is missing, if only in part. To leave out all that bicubic resampling mixes with
    # the hole as well would cost more than it gives (as with sounds).
    observed = _rescaled(hole, size, Image.Resampling.BOX) == 0
    small = np.clip(_rescaled(lifted, size) * observed, 0, 1)
    return small.reshape(1, -1), observed.reshape(1, -1)


def _put_back(made, grey, shape, background):
    """What the network has made, (D,), in the size, and on the background, of the picture: (H, W)."""
    level, _, sign, contrast = background or PLAIN
    return np.clip(
        level + sign * contrast * _rescaled(np.reshape(made, shape), grey.shape[::-1]), 0, 1
    )


def _background(observed):
    """The background of a picture of which most is plain, from what is observed of it, (N,): None for full white on
    black, and where nothing stands out from the noise."""
    level = np.median(observed)
    deviations = observed - level
    noise = 1.4826 * np.median(np.abs(deviations))  # of a normal distribution, whatever is drawn
    beyond = [np.clip(sign * deviations - NOISES[0] * noise, 0, None) for sign in (1, -1)]
    sign = 1 if beyond[0].sum() >= beyond[1].sum() else -1
    drawn = max(beyond, key=np.sum)
    drawn = drawn[drawn > 0]
    contrast = np.quantile(drawn, 0.9) if drawn.size else 0.0
    if contrast <= NOISES[1] * noise or (level == 0 and contrast >= FULL_CONTRAST):
        return None
    return Background(float(level), float(noise), sign, float(contrast + NOISES[0] * noise))


def _rescaled(values, size, how=Image.Resampling.BICUBIC):
    """Values (H, W) at another size, (width, height), float32."""
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, how))


def _in_grey(levels):
    """Levels (H, W) in [0, 1] as an image of 8 bits."""
    return Image.fromarray((255 * levels).round().astype(np.uint8))


def _filled(image, image_format, hole, restored, source):
    """An image with its hole filled with opaque grey levels, (H, W) in [0, 1], in its mode or one that holds all of it.

    Whatever is transparent outside stays so. UserError if a palette has no room.
    """
    _, alpha = _levels(image)
    clear = bool((alpha < 1)[~hole].any())
    if image.mode[0] in DEPTHS or image.mode == "1":
        if not (clear and image.mode == "1"):
            return _filled_numbers(image, hole, restored, clear)
    if image_format == "GIF":
        return _filled_palette(image, hole, np.asarray(_in_grey(restored)), clear, source)
    mode = {"1": "L", "P": "RGB", "PA": "RGBA"}.get(image.mode, image.mode)
    if clear:
        mode = {"L": "LA", "RGB": "RGBA"}.get(mode, mode)
    result = image.convert(mode)
    result.info.pop("transparency", None)
    result.paste(_in_grey(restored).convert(mode), mask=Image.fromarray(hole))
    return result


def _filled_numbers(image, hole, restored, clear):
    """As `_filled`, for images of whole numbers, floats or bits. clear: a level outside the hole is transparent."""
    values = np.array(image)
    filled = restored >= 0.5 if image.mode == "1" else restored * DEPTHS[image.mode[0]]
    filled = filled if values.dtype.kind in "bf" else np.round(filled)
    values[hole] = filled[hole]
    key = image.info.get("transparency")
    if clear:
        values[hole & (values == key)] = key + 1 if key < 65535 else key - 1
    result = Image.fromarray(values)
    if clear:
        result.info["transparency"] = key
    return result


def _filled_palette(image, hole, levels, clear, source):
    """As `_filled`, for images of at most 256 colours: grey levels, uint8, take the places that no pixel outside needs.

    Where they do not suffice, the nearest colour there is. UserError if that is not near.
    """
    image = image if image.mode == "P" else image.convert("P")
    indices, given = np.array(image), np.reshape(image.getpalette(), (-1, 3))
    colours = np.zeros((256, 3), int)
    colours[: len(given)] = given
    used, wanted = np.unique(indices[~hole]), np.unique(levels[hole])
    free = np.setdiff1d(np.arange(256), used)
    new = wanted[np.linspace(0, len(wanted) - 1, min(len(free), len(wanted))).round().astype(int)]
    colours[free[: len(new)]] = new[:, None]
    key = image.info.get("transparency")
    usable = np.setdiff1d(np.concatenate([used, free[: len(new)]]), [key] if clear else [])
    errors = np.abs(colours[usable] - wanted[:, None, None]).max(2)  # (wanted, usable)
    if errors.size and errors.min(1).max() > PALETTE_ERROR:
        raise UserError(
            f"{source}: no room for grey levels among its {len(used)} colours; {AS_PNG}"
        )
    indices[hole] = usable[errors.argmin(1)][np.searchsorted(wanted, levels[hole])]
    result = Image.fromarray(indices).convert("P")
    result.putpalette(colours.astype(np.uint8).tobytes())
    if clear:
        result.info["transparency"] = key
    return result


def _encoded(source, image, result, image_format, hole, keep):
    """The bytes of an image file, and by how many levels of 255 others than the hole come back changed.

    UserError if Pillow cannot write it or, with keep, if they are changed by another format than JPEG.
    """
    options = dict(AS_SAVED.get(image_format, {}))
    if keep:
        options |= {
            name: image.info[name] for name in ("icc_profile", "exif", "dpi") if name in image.info
        }
        if getattr(
            image, "quantization", None
        ):  # a JPEG image: its own tables, which `quality` makes ten times finer
            options |= {
                "qtables": image.quantization,
                "subsampling": JpegImagePlugin.get_sampling(image),
            }
        if image_format == "TIFF":
            compression = image.info.get("compression")
            options["compression"] = compression if compression in TIFF_COMPRESSIONS else None
    file = io.BytesIO()  # so that what the disk has to say is told apart from what Pillow has
    with image_files.one_error(source, AS_PNG):
        result.save(file, image_format, **options)
        changed = 0
        if keep:
            with Image.open(file) as again:
                changed, filled_otherwise = (
                    _change(again, image, ~hole),
                    _change(again, result, hole),
                )
        if image_format != "JPEG" and keep and (changed or filled_otherwise):
            raise ValueError(
                f"{image_format} files do not hold all of its pixels, so that --keep would lose some"
            )
    return file.getvalue(), changed


def _change(image, other, where):
    """The most by which two images differ in a place, (H, W), in levels; under what is transparent there may be any."""
    same_numbers = (
        image.mode[0] in DEPTHS and image.mode[0] == other.mode[0]
    ) or image.mode == other.mode == "CMYK"
    first, second = (
        np.asarray(one if same_numbers else one.convert("RGBA"), float) for one in (image, other)
    )
    difference = np.abs(first - second)
    if not same_numbers:
        difference[..., :3] *= first[..., 3:] + second[..., 3:] > 0
    return math.ceil(difference[where].max(initial=0))

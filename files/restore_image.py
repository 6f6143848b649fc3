"""Restore an image file with a trained model."""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, JpegImagePlugin

from files import pictures
from files.pictures import WHITE
from harness import UserError
from harness.errors import one_error
from harness.result_files import replacing

SAVE_OPTIONS = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True, "exact": True}}
KEPT_FORMATS = "JPEG", "MPO", "PNG", "TIFF", "WEBP"  # for --keep; MPO is some phones' JPEG
KEPT_MODES = "L", "LA", "RGB", "RGBA", "I;16", "I;16B"  # for --keep; "I;16" is 16-bit grey
LOSSLESS_TIFF = "packbits", "tiff_adobe_deflate", "tiff_deflate", "tiff_lzw"
MODES = "1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"  # accepted, like those in WHITE
MOST_MISSING = 2 / 3  # maximum fraction; more is an inverted mask or a transparent background
NOISE_MARGIN = 2  # standard deviations; levels this close to the background count as background
LEAST_CONTRAST = 4  # standard deviations; a fainter drawing counts as noise
FULL_CONTRAST = 0.9  # fraction of the range; a drawing with this contrast on black is not stretched


class Background(NamedTuple):
    """The background of a drawing, and the contrast of the drawing. Levels are in [0, 1]."""

    level: float
    noise: float  # standard deviation
    sign: int  # -1 if the drawing is darker than the background
    contrast: float


WHITE_ON_BLACK = Background(0.0, 0.0, 1, 1.0)


def restore_image(model, source, destination, mask_file=None, keep=False, count=0):
    """Restore an image file. Returns a one-line summary. Raises UserError if it cannot be restored.

    model: a `Restorer` of images. mask_file: an image of the same size, with the hole in white or
    another color on black; by default, the hole is the transparent pixels. keep: change only the
    hole. count: number of completions to write beside the destination (`completion_paths`).
    """
    image, image_format, frames = _read(source, keep)
    height, width = model.kind.shape
    if abs(image.width * height - image.height * width) > max(width, height):
        found = f"{image.width} x {image.height} pixels"
        remedy = f"crop it to the proportions of the model's images, {width} x {height}"
        raise UserError(f"{source}: {found}; {remedy}")
    grey, alpha = _levels(image)
    hole = _read_mask(mask_file, source, image.size) if mask_file else alpha == 0
    if hole.mean() > MOST_MISSING:
        remedy = "invert the mask" if mask_file else "make only the hole transparent"
        problem = f"too much of the image is missing ({hole.mean():.0%})"
        raise UserError(f"{mask_file or source}: {problem}; {remedy}")
    count = count if hole.any() else 0
    made, background = _restored(model, grey * alpha, hole, (height, width), count)
    changes = [0]
    for levels, path in zip(made, [destination, *completion_paths(destination, count)]):
        result, options = _as_image(levels), SAVE_OPTIONS.get(image_format, {})
        if keep:
            result = _filled(image, alpha, hole, levels)
            options = options | _kept_options(image, image_format)
        encoded = io.BytesIO()  # in memory first: a full disk is not the fault of `source`
        with one_error(source, "save it as PNG"):
            result.save(encoded, image_format, **options)
        if keep and image_format == "JPEG":
            change = np.asarray(Image.open(encoded), int) - np.asarray(image, int)
            changes.append(np.abs(change)[~hole].max(initial=0))
        with replacing(path) as unfinished:
            unfinished.write_bytes(encoded.getvalue())
    return _summary(hole, background, max(changes), frames, keep)


def completion_paths(destination, count):
    """Return the paths of an image's completions: whole-1.png, whole-2.png, ... for whole.png."""
    return [destination.with_stem(f"{destination.stem}-{number}") for number in range(1, count + 1)]


def _summary(hole, background, change, frames, keep):
    """Return a one-line summary. change: the largest change outside the hole, in levels of 255."""
    height, width = hole.shape
    said = [f"{hole.sum()} of {hole.size} pixels missing" if hole.any() else "nothing missing"]
    if not (hole.any() or keep):
        said.append("denoised")
    if background != WHITE_ON_BLACK:
        drawn = background.level + background.sign * background.contrast
        levels = f"{255 * drawn:.0f} on {255 * background.level:.0f}"
        said.append(f"levels {levels} stretched to 255 on 0 for the network")
    if change:
        said.append(f"JPEG changed the other pixels by up to {change} of 255")
    if frames > 1:
        said.append(f"kept only the first of {frames} pictures in the file")
    return f"{width} x {height} pixels: {', '.join(said)}"


def _read(path, keep=False):
    """Return the image (upright, in its file's mode), the format to write and the frame count."""
    with pictures.opened(path) as image:
        Image.init()
        frames = getattr(image, "n_frames", 1)
        if image.format not in Image.SAVE:
            raise ValueError(f"Pillow can read {image.format}, but not write it")
        if frames > 1 and image.format != "MPO":  # MPO: a JPEG with extras such as depth maps
            raise ValueError(f"must be a single image ({frames} frames)")
        if image.mode not in MODES and image.mode[0] not in WHITE:
            raise ValueError(f"must be grey, RGB or CMYK (mode {image.mode})")
        if keep:
            _check_keep(path, image)
        ImageOps.exif_transpose(image, in_place=True)
        image.load()
        pictures.in_8_bits(image)  # raises ValueError for levels outside the range
        return image, "JPEG" if image.format == "MPO" else image.format, frames


def _check_keep(path, image):
    """Raise UserError unless --keep works with the image (not yet decoded)."""
    deep_colors = pictures.is_deep(image) and image.mode[0] not in WHITE
    if image.format in KEPT_FORMATS and image.mode in KEPT_MODES and not deep_colors:
        return
    found = f"{image.format}, mode {image.mode}{' of 16 bits' if deep_colors else ''}"
    raise UserError(
        f"{path}: --keep takes PNG, TIFF, JPEG and WebP in 8-bit grey or RGB, or in 16-bit grey "
        f"({found}); leave out --keep, or convert to PNG in grey or RGB"
    )


def _levels(image):
    """Return an image's grey levels and opacity, both (H, W), float32, in [0, 1]."""
    rgba = pictures.in_8_bits(image).convert("RGBA")
    alpha = np.asarray(rgba.getchannel("A")) / np.float32(255)
    deep = image.mode[0] in WHITE
    grey = np.asarray(image if deep else rgba.convert("L"), np.float32)
    return grey / np.float32(WHITE.get(image.mode[0], 255)), alpha


def _read_mask(path, source, size):
    """Return the hole in a mask file as (H, W), bool. Raises UserError if it is ambiguous.

    The hole is white or has one other color. The rest is black or transparent.
    """
    mask = _read(path)[0]
    if mask.size != size:
        found = f"{mask.width} x {mask.height} pixels, but {source} has {size[0]} x {size[1]}"
        raise UserError(f"{path}: must have the image's size ({found}); rescale the mask")
    levels, alpha = _levels(mask)
    if mask.mode[0] not in WHITE:
        levels = np.asarray(mask.convert("RGBA").convert("RGB"), np.float32)
    colors = levels.reshape(*levels.shape[:2], -1) * alpha[..., None]
    bright = colors.max(2)
    bright /= bright.max() or 1  # the hole may be dark blue, and white may be 1 instead of 255
    hole = bright > 0.5
    if problem := _ambiguity(colors, bright, hole):
        remedy = "make the mask white in the hole and black elsewhere"
        raise UserError(f"{path}: the hole is ambiguous ({problem}); {remedy}")
    return hole


def _ambiguity(colors, bright, hole):
    """Return the reason why a mask is ambiguous, or None. bright: mask brightness in [0, 1]."""
    if not hole.any():
        return "nothing is white"
    if hole.all():
        return "nothing is black"
    soft = (bright > 0.25) & (bright < 0.75)  # a brush's soft edges are only a few pixels
    if soft.sum() > min(hole.sum(), hole.size / 4):
        return "more than two levels"
    hues = colors[hole] / colors[hole].max(1, keepdims=True)
    return "more than one color" if np.ptp(hues, axis=0).max() > 0.4 else None


def _restored(model, grey, hole, shape, count):
    """Return a list (the restored levels (H, W), then `count` completions) and the background.

    A network trained on white digits on black can also restore dark, pale or grey ones if
    background and contrast are removed first and put back afterwards. This is done only if the
    observed pixels are reconstructed better. A model of other images may need the original levels.
    """

    def error(background):
        made = model.reconstruct(*_network_input(grey, hole, shape, background))
        return np.mean(np.square(_in_image(made, grey, shape, background) - grey), where=~hole)

    background = _background(grey[~hole])
    if background != WHITE_ON_BLACK:
        background = min(WHITE_ON_BLACK, background, key=error)
    corrupted, observed = _network_input(grey, hole, shape, background)
    reconstruct = model.refined if hole.any() and model.refined else model.reconstruct
    made = [reconstruct(corrupted, observed)]
    made += list(model.complete(corrupted, observed, count)) if count else []
    return [_in_image(each, grey, shape, background) for each in made], background


def _network_input(grey, hole, shape, background):
    """Return an image at the network's size and the mask of its observed pixels, both (1, D)."""
    level, noise, sign, contrast = background
    margin = NOISE_MARGIN * noise
    drawn = np.clip(sign * (grey - level) - margin, 0, None) / (contrast - margin) * ~hole
    size = shape[::-1]
    # A pixel of the smaller image is missing if any part of its area is. Bicubic resampling mixes
    # the hole into a few more pixels, but dropping those as well costs more than it gains.
    observed = _rescaled(hole, size, Image.Resampling.BOX) == 0
    small = np.clip(_rescaled(drawn, size) * observed, 0, 1)
    return small.reshape(1, -1), observed.reshape(1, -1)


def _in_image(made, grey, shape, background):
    """Rescale the network's output (D,) to the shape of `grey` (H, W) and add the background."""
    level, _, sign, contrast = background
    made = _rescaled(np.reshape(made, shape), grey.shape[::-1])
    return np.clip(level + sign * contrast * made, 0, 1)


def _background(observed):
    """Estimate the `Background` from the observed levels (N,), most of which must be background.

    Returns WHITE_ON_BLACK, which changes nothing, if no drawing stands out from the noise.
    """
    level = np.median(observed)
    deviations = observed - level
    noise = 1.4826 * np.median(np.abs(deviations))  # a robust standard deviation
    beyond = {sign: np.clip(sign * deviations - NOISE_MARGIN * noise, 0, None) for sign in (1, -1)}
    sign = max(beyond, key=lambda sign: beyond[sign].sum())
    drawn = beyond[sign][beyond[sign] > 0]
    contrast = np.quantile(drawn, 0.9) if drawn.size else 0.0
    if contrast <= LEAST_CONTRAST * noise or (level == 0 and contrast >= FULL_CONTRAST):
        return WHITE_ON_BLACK
    return Background(float(level), float(noise), sign, float(contrast + NOISE_MARGIN * noise))


def _rescaled(values, size, resampling=Image.Resampling.BICUBIC):
    """Resize values (H, W) to `size` (width, height). Returns float32."""
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, resampling))


def _as_image(levels):
    """Return levels (H, W) in [0, 1] as an image of mode L."""
    return Image.fromarray((255 * levels).round().astype(np.uint8))


def _filled(image, alpha, hole, levels):
    """Return the image with its hole filled by opaque grey levels, (H, W) in [0, 1].

    Transparent pixels outside the hole stay transparent. An alpha channel is added if needed.
    """
    transparent = (alpha < 1)[~hole].any()
    if image.mode[0] in WHITE:
        return _filled_16_bits(image, hole, levels, transparent)
    mode = {"L": "LA", "RGB": "RGBA"}.get(image.mode) if transparent else None
    result = image.convert(mode or image.mode)
    result.info.pop("transparency", None)
    result.paste(_as_image(levels).convert(result.mode), mask=Image.fromarray(hole))
    return result


def _filled_16_bits(image, hole, levels, transparent):
    values, key = np.array(image), image.info.get("transparency")
    values[hole] = np.round(levels * WHITE["I"])[hole]
    if not transparent:
        return Image.fromarray(values)
    # The filled pixels must not have the transparent level.
    values[hole & (values == key)] = key + 1 if key < WHITE["I"] else key - 1
    result = Image.fromarray(values)
    result.info["transparency"] = key
    return result


def _kept_options(image, image_format):
    """Return options for Pillow that keep an image's metadata and compression."""
    options = {key: image.info[key] for key in ("icc_profile", "exif", "dpi") if key in image.info}
    if image_format == "JPEG":  # coarser tables change more; finer tables make a much larger file
        sampling = JpegImagePlugin.get_sampling(image)
        options |= {"qtables": image.quantization, "subsampling": sampling}
    if image_format == "TIFF":
        compression = image.info.get("compression")
        options["compression"] = compression if compression in LOSSLESS_TIFF else None
    return options

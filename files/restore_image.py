"""Restore an image file with a trained model."""

import io
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, JpegImagePlugin

from files import pictures
from harness import UserError
from harness.errors import one_error
from harness.run_folder import replacing

SAVE_OPTIONS = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True, "exact": True}}
KEPT_FORMATS = "JPEG", "MPO", "PNG", "TIFF", "WEBP"  # for --keep; MPO: JPEGs of some phones
KEPT_MODES = "L", "LA", "RGB", "RGBA", "I;16", "I;16B"  # for --keep; "I;16": 16-bit grey
LOSSLESS_TIFF = "packbits", "tiff_adobe_deflate", "tiff_deflate", "tiff_lzw"
WHITE = {"I": 65535, "F": 1}  # of modes with more than 8 bits, by their first letter
MODES = "1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"  # and those of WHITE
MOST_MISSING = 2 / 3  # of an image; a larger hole is an inverted mask or a drawing on transparency
NOISE_MARGIN = 2  # standard deviations; levels this close to the background are background
LEAST_CONTRAST = 4  # standard deviations; a fainter drawing counts as noise
FULL_CONTRAST = 0.9  # of the range; levels with at least this contrast on black are not stretched


class Background(NamedTuple):
    """An image's background, and the contrast of what is drawn on it. Levels are in [0, 1]."""

    level: float
    noise: float  # standard deviation
    sign: int  # -1 if the drawing is darker than the background
    contrast: float


WHITE_ON_BLACK = Background(0.0, 0.0, 1, 1.0)


def restore_image(model, source, destination, mask_file=None, keep=False, count=0):
    """Restore an image file and return one line on what was done. UserError if it is not possible.

    model: a `Restorer` of images. mask_file: an image of the same size, white in the hole, or of
    one color on black; without it the hole is where the image is transparent. keep: change only
    the hole. count: completions of the hole, written beside the destination (`completion_paths`).
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
        result, options = _in_8_bits(levels), SAVE_OPTIONS.get(image_format, {})
        if keep:
            result = _filled(image, alpha, hole, levels)
            options = options | _kept_options(image, image_format)
        content = _encoded(source, result, image_format, options)
        if keep and image_format == "JPEG":
            changes.append(_largest_change(image, content, ~hole))
        with replacing(path) as unfinished:
            unfinished.write_bytes(content)
    return _summary(hole, background, max(changes), frames, keep)


def completion_paths(destination, count):
    """Return the paths of an image's completions: whole.png -> whole-1.png, whole-2.png, ..."""
    return [destination.with_stem(f"{destination.stem}-{number}") for number in range(1, count + 1)]


def _summary(hole, background, change, frames, keep):
    """Return one line on a restored image. change: the largest outside the hole, of 255."""
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
        said.append(f"only the first of {frames} pictures in the file kept")
    return f"{width} x {height} pixels: {', '.join(said)}"


def _read(path, keep=False):
    """Return a file's image, upright and in its own mode; the format to write; its frame count."""
    with pictures.opened(path) as image:
        Image.init()
        frames = getattr(image, "n_frames", 1)
        if image.format not in Image.SAVE:
            raise ValueError(f"Pillow reads {image.format}, but cannot write it")
        if frames > 1 and image.format != "MPO":  # a phone's JPEG with depth maps and the like
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
    """Raise UserError unless every pixel outside the hole can be kept. Before decoding."""
    deep_colors = pictures.is_deep(image) and image.mode[0] not in WHITE
    if image.format in KEPT_FORMATS and image.mode in KEPT_MODES and not deep_colors:
        return
    found = f"{image.format}, mode {image.mode}{' of 16 bits' if deep_colors else ''}"
    raise UserError(
        f"{path}: --keep takes PNG, TIFF, JPEG and WebP in grey or RGB of 8 bits, or in grey of 16 "
        f"({found}); leave out --keep, or convert to PNG in grey or RGB"
    )


def _levels(image):
    """Return the grey levels and the opacity of an image: both (H, W), float32, in [0, 1]."""
    rgba = pictures.in_8_bits(image).convert("RGBA")
    alpha = np.asarray(rgba.getchannel("A")) / np.float32(255)
    deep = image.mode[0] in WHITE
    grey = np.asarray(image if deep else rgba.convert("L"), np.float32)
    return grey / np.float32(WHITE.get(image.mode[0], 255)), alpha


def _read_mask(path, source, size):
    """Return the hole in a mask file, (H, W) bool: white, or one color on black or transparency.

    UserError unless the hole is unambiguous.
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
    bright /= bright.max() or 1  # of any color, and whether white is 1 or 255
    hole = bright > 0.5
    if problem := _ambiguity(colors, bright, hole):
        remedy = "make the mask white in the hole and black elsewhere"
        raise UserError(f"{path}: the hole is ambiguous ({problem}); {remedy}")
    return hole


def _ambiguity(colors, bright, hole):
    """Return why a mask shows no clear hole, or None. bright: its brightness in [0, 1]."""
    if not hole.any():
        return "nothing is white"
    if hole.all():
        return "nothing is black"
    soft = (bright > 0.25) & (bright < 0.75)  # a brush has soft edges, but few of them
    if soft.sum() > min(hole.sum(), hole.size / 4):
        return "more than two levels"
    hues = colors[hole] / colors[hole].max(1, keepdims=True)
    return "more than one color" if np.ptp(hues, axis=0).max() > 0.4 else None


def _restored(model, grey, hole, shape, count):
    """Return an image's restored levels, then `count` completions, each (H, W); its background.

    A network that has learned white digits on black also restores dark, pale or grey ones if the
    background and contrast are removed before and put back after. That is done only if it explains
    the observed pixels better: a model of other images may know them as they are.
    """

    def error(background):
        made = model.reconstruct(*_network_input(grey, hole, shape, background))
        return np.mean(np.square(_in_image(made, grey, shape, background) - grey), where=~hole)

    background = _background(grey[~hole])
    if background != WHITE_ON_BLACK:
        background = min(WHITE_ON_BLACK, background, key=error)
    corrupted, observed = _network_input(grey, hole, shape, background)
    refine = hole.any() and model.refined
    made = [(model.refined if refine else model.reconstruct)(corrupted, observed)]
    made += list(model.complete(corrupted, observed, count)) if count else []
    return [_in_image(each, grey, shape, background) for each in made], background


def _network_input(grey, hole, shape, background):
    """Return an image at the network's size and the mask of observed pixels: (1, D), (1, D)."""
    level, noise, sign, contrast = background
    margin = NOISE_MARGIN * noise
    drawn = np.clip(sign * (grey - level) - margin, 0, None) / (contrast - margin) * ~hole
    size = shape[::-1]
    # A small pixel is missing if any of its area is. Bicubic resampling mixes the hole into a few
    # more pixels; to drop those as well costs more than it gains.
    observed = _rescaled(hole, size, Image.Resampling.BOX) == 0
    small = np.clip(_rescaled(drawn, size) * observed, 0, 1)
    return small.reshape(1, -1), observed.reshape(1, -1)


def _in_image(made, grey, shape, background):
    """Return the network's output, (D,), at an image's size and on its background: (H, W)."""
    level, _, sign, contrast = background
    made = _rescaled(np.reshape(made, shape), grey.shape[::-1])
    return np.clip(level + sign * contrast * made, 0, 1)


def _background(observed):
    """Estimate the background from the observed levels (N,), most of which must be background.

    WHITE_ON_BLACK, which changes nothing, also if nothing stands out from the noise.
    """
    level = np.median(observed)
    deviations = observed - level
    noise = 1.4826 * np.median(np.abs(deviations))  # a robust standard deviation
    beyond = [np.clip(sign * deviations - NOISE_MARGIN * noise, 0, None) for sign in (1, -1)]
    sign = 1 if beyond[0].sum() >= beyond[1].sum() else -1
    drawn = beyond[0] if sign == 1 else beyond[1]
    drawn = drawn[drawn > 0]
    contrast = np.quantile(drawn, 0.9) if drawn.size else 0.0
    if contrast <= LEAST_CONTRAST * noise or (level == 0 and contrast >= FULL_CONTRAST):
        return WHITE_ON_BLACK
    return Background(float(level), float(noise), sign, float(contrast + NOISE_MARGIN * noise))


def _rescaled(values, size, resampling=Image.Resampling.BICUBIC):
    """Return values (H, W) at another size, (width, height), as float32."""
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, resampling))


def _in_8_bits(levels):
    """Return levels (H, W) in [0, 1] as an image of mode L."""
    return Image.fromarray((255 * levels).round().astype(np.uint8))


def _filled(image, alpha, hole, levels):
    """Return the image with opaque grey levels, (H, W) in [0, 1], in its hole.

    If it is transparent elsewhere, it stays so, in a mode with an alpha channel where necessary.
    """
    transparent = (alpha < 1)[~hole].any()
    if image.mode[0] in WHITE:
        return _filled_16_bits(image, hole, levels, transparent)
    mode = {"L": "LA", "RGB": "RGBA"}.get(image.mode) if transparent else None
    result = image.convert(mode or image.mode)
    result.info.pop("transparency", None)
    result.paste(_in_8_bits(levels).convert(result.mode), mask=Image.fromarray(hole))
    return result


def _filled_16_bits(image, hole, levels, transparent):
    values, key = np.array(image), image.info.get("transparency")
    values[hole] = np.round(levels * WHITE["I"])[hole]
    if not transparent:
        return Image.fromarray(values)
    values[hole & (values == key)] = key + 1 if key < WHITE["I"] else key - 1
    result = Image.fromarray(values)
    result.info["transparency"] = key
    return result


def _kept_options(image, image_format):
    """Return Pillow's options to save an image as it was: metadata and compression."""
    options = {key: image.info[key] for key in ("icc_profile", "exif", "dpi") if key in image.info}
    if image_format == "JPEG":  # coarser tables change more, finer ones make the file much larger
        sampling = JpegImagePlugin.get_sampling(image)
        options |= {"qtables": image.quantization, "subsampling": sampling}
    if image_format == "TIFF":
        compression = image.info.get("compression")
        options["compression"] = compression if compression in LOSSLESS_TIFF else None
    return options


def _encoded(source, result, image_format, options):
    """Return the bytes of an image file. In memory, so that errors of the disk stay apart."""
    file = io.BytesIO()
    with one_error(source, "save it as PNG"):
        result.save(file, image_format, **options)
    return file.getvalue()


def _largest_change(image, content, where):
    """Return by how many levels of 255 an encoded image differs from another, (H, W) `where`."""
    with Image.open(io.BytesIO(content)) as encoded:
        return np.abs(np.asarray(encoded, int) - np.asarray(image, int))[where].max(initial=0)

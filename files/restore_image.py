"""Restore an image file with a trained model."""

import io
import os

import numpy as np
from PIL import Image, ImageChops, JpegImagePlugin

from files import drawing, pictures
from harness import UserError
from harness.errors import one_error
from harness.result_files import replacing

SAVE_OPTIONS = {
    "AVIF": {"quality": 95},
    "HEIF": {"quality": 95},
    "JPEG": {"quality": 95},
    "WEBP": {"lossless": True, "exact": True},
}
KEPT_FORMATS = "JPEG", "MPO", "PNG", "TIFF", "WEBP"  # for --keep; MPO is some phones' JPEG
KEPT_MODES = "L", "LA", "RGB", "RGBA", "I;16", "I;16B"  # for --keep; "I;16" is 16-bit grey
LOSSLESS_TIFF = "packbits", "tiff_adobe_deflate", "tiff_deflate", "tiff_lzw"
MODES = "1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"  # accepted, like deep ones
MOST_MISSING = 2 / 3  # maximum fraction; more is an inverted mask or a transparent background
REDUCED = 8  # larger pictures are averaged to this multiple of the network's size
SAMPLED = 2**20  # maximum number of pixels of a mask whose colors are compared
SEVERAL_INKS = 16  # levels of 255, rms; the colors vary more at the same brightness


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
    hole = _read_mask(mask_file, source, image.size) if mask_file else None
    colors, alpha = pictures.on_black(image)
    hole = np.asarray(alpha) == 0 if hole is None else hole
    if hole.mean() > MOST_MISSING:
        remedy = "invert the mask" if mask_file else "make only the hole transparent"
        problem = f"too much of the image is missing ({hole.mean():.0%})"
        raise UserError(f"{mask_file or source}: {problem}; {remedy}")
    count = count if hole.any() else 0
    colors, missing = _reduced(colors, hole, (REDUCED * width, REDUCED * height))
    grey = np.asarray(colors.convert("L")) / np.float32(255)
    made, view = drawing.restored(model, grey, missing, count)
    said = _summary(hole, view, frames, keep)
    ink, several = _ink(image, np.asarray(colors)[~missing])
    if keep and several:
        said.append("the hole has one color per level, the rest has several")
    changes, size, kept = [0], image.size, _kept_options(image, image_format) if keep else {}
    image, alpha = (image, alpha) if keep else (None, None)  # frees them
    for each, path in zip(made, [destination, *completion_paths(destination, count)]):
        mode = "F" if keep and image.mode[0] in pictures.WHITES else "L"
        levels = drawing.in_picture(each, view, size, mode)
        result = _filled(image, alpha, hole, levels, ink) if keep else Image.fromarray(levels)
        encoded = _encoded(source, result, image_format, kept)
        del result, levels  # large
        if keep and image_format == "JPEG":
            changes.append(_change(image, encoded, hole))
        with replacing(path) as unfinished:
            unfinished.write_bytes(encoded.getbuffer())
    if any(changes):
        said.append(f"JPEG changed the other pixels by up to {max(changes)} of 255")
    return f"{size[0]} x {size[1]} pixels: {', '.join(said)}"


def completion_paths(destination, count):
    """Return the paths of an image's completions: whole-1.png, whole-2.png, ... for whole.png."""
    return [destination.with_stem(f"{destination.stem}-{number}") for number in range(1, count + 1)]


def mask_for(masks, source, below):
    """Return the path of a picture's mask: `masks`, or in a folder the image of the same name.

    below: the picture's path below its own folder. Its suffix may differ from the mask's.
    """
    if not masks or not masks.is_dir():
        return masks
    folder = (masks / below).parent
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    found = [folder / name for name in names if os.path.splitext(name)[0] == below.stem]
    found = [path for path in found if path.suffix.lower() in pictures.SUFFIXES]
    if len(found) != 1:
        problem = f"expected one mask {folder / below.stem}.png or of another format"
        raise UserError(f"{source}: {problem}, got {len(found)}; --mask needs one per picture")
    return found[0]


def _summary(hole, view, frames, keep):
    """Return a list of remarks on the hole and on how the network saw the picture."""
    said = [f"{hole.sum()} of {hole.size} pixels missing" if hole.any() else "nothing missing"]
    if not (hole.any() or keep):
        said.append("denoised")
    if view[:4] != drawing.View()[:4]:
        drawn = view.level + view.sign * view.contrast
        levels = f"{255 * drawn:.0f} on {255 * view.level:.0f}"
        said.append(f"levels {levels} stretched to 255 on 0 for the network")
    if frames > 1:
        said.append(f"kept only the first of {frames} pictures in the file")
    return said


def _read(path, keep=False):
    """Return the image (upright, in its file's mode), the format to write and the frame count."""
    with pictures.opened(path) as image:
        Image.init()
        frames = getattr(image, "n_frames", 1)
        if image.format not in Image.SAVE:
            raise ValueError(f"Pillow can read {image.format}, but not write it")
        if frames > 1 and image.format != "MPO":  # MPO: a JPEG with extras such as depth maps
            raise ValueError(f"must be a single image ({frames} frames)")
        if image.mode not in MODES and image.mode[0] not in pictures.WHITES:
            raise ValueError(f"must be grey, RGB or CMYK (mode {image.mode})")
        if keep:
            _check_keep(path, image)
        image_format = "JPEG" if image.format == "MPO" else image.format
        image = pictures.decoded(image)
        pictures.white(image)  # raises ValueError for levels outside the range
        return image, image_format, frames


def _check_keep(path, image):
    """Raise UserError unless --keep works with the image (not yet decoded)."""
    deep_colors = pictures.is_deep(image) and image.mode[0] not in pictures.WHITES
    if image.format in KEPT_FORMATS and image.mode in KEPT_MODES and not deep_colors:
        return
    found = f"{image.format}, mode {image.mode}{' of 16 bits' if deep_colors else ''}"
    raise UserError(
        f"{path}: --keep takes PNG, TIFF, JPEG and WebP in 8-bit grey or RGB, or in 16-bit grey "
        f"({found}); leave out --keep, or convert to PNG in grey or RGB"
    )


def _read_mask(path, source, size):
    """Return the hole in a mask file as (H, W), bool. Raises UserError if it is ambiguous.

    The hole is white or has one other color. The rest is black or transparent.
    """
    mask = _read(path)[0]
    if mask.size != size:
        found = f"{mask.width} x {mask.height} pixels, but {source} has {size[0]} x {size[1]}"
        raise UserError(f"{path}: must have the image's size ({found}); rescale the mask")
    colors = np.asarray(pictures.on_black(mask)[0])
    bright = colors.max(2)  # the hole may be dark blue, and white may be 1 instead of 255
    hole = bright > bright.max() / 2
    if problem := _ambiguity(colors, bright, hole):
        remedy = "make the mask white in the hole and black elsewhere"
        raise UserError(f"{path}: the hole is ambiguous ({problem}); {remedy}")
    return hole


def _ambiguity(colors, bright, hole):
    """Return the reason why a mask is ambiguous, or None. bright: (H, W), at most 255."""
    if not hole.any():
        return "nothing is white"
    if hole.all():
        return "nothing is black"
    quarter = bright.max() / 4
    soft = (bright > quarter) & (bright < 3 * quarter)  # a brush's edges are only a few pixels
    if soft.sum() > min(hole.sum(), hole.size / 4):
        return "more than two levels"
    colors = colors[hole][:: 1 + hole.sum() // SAMPLED]
    hues = colors / colors.max(1, keepdims=True)
    return "more than one color" if np.ptp(hues, axis=0).max() > 0.4 else None


def _reduced(colors, hole, size):
    """Average an image and its hole to `size` if larger. Pixels that touch the hole are missing."""
    if colors.width <= size[0]:
        return colors, hole
    fraction = Image.fromarray(hole.astype(np.float32)).resize(size, Image.Resampling.BOX)
    return colors.resize(size, Image.Resampling.BOX), np.asarray(fraction) > 0


def _ink(image, colors):
    """Return lines (slope, offset), one per channel of the image: restored level -> its value.

    Least squares through the observed colors (N, 3): a blue drawing on white is filled in blue.
    Also returns True if the lines fit badly.
    """
    if image.mode not in ("RGB", "RGBA"):
        return [(pictures.white(image), 0)], False
    grey = colors @ pictures.LUMA / 255
    deviations, variance = grey - grey.mean(), grey.var()
    slopes = deviations @ colors / len(grey) / variance if variance > 1e-6 else np.full(3, 255.0)
    offsets = colors.mean(0) - slopes * grey.mean() if variance > 1e-6 else np.zeros(3)
    residual = colors - (offsets + slopes * grey[:, None])
    return list(zip(slopes, offsets)), residual.std() > SEVERAL_INKS


def _filled(image, alpha, hole, levels, ink):
    """Return the image with its hole filled by opaque colors, from levels (H, W) of 255.

    Transparent pixels outside the hole stay transparent. An alpha channel is added if needed.
    """
    key, transparent = image.info.get("transparency"), (np.asarray(alpha)[~hole] < 255).any()
    deep = image.mode[0] in pictures.WHITES
    if transparent and not deep:
        image = image.convert({"L": "LA", "RGB": "RGBA"}.get(image.mode, image.mode))
    if not hole.any():
        return image
    box = Image.fromarray(hole).getbbox()  # only this part, because pictures may be large
    part = slice(box[1], box[3]), slice(box[0], box[2])
    hole, pixels = hole[part], np.array(image.crop(box))
    channels = pixels.reshape(*hole.shape, -1)
    if image.mode in ("LA", "RGBA"):
        channels[hole, -1] = 255
    for channel, (slope, offset) in enumerate(ink):
        values = np.float32(offset) + np.float32(slope / 255) * levels[part][hole]
        channels[hole, channel] = np.round(np.clip(values, 0, pictures.white(image)))
    result = image.copy()
    result.info.pop("transparency", None)
    if transparent and deep:  # the filled pixels must not have the transparent level
        pixels[hole & (pixels == key)] = key + 1 if key < 65535 else key - 1
        result.info["transparency"] = key
    result.paste(Image.fromarray(pixels), box)
    return result


def _encoded(source, result, image_format, kept):
    """Return the result as a file in memory. kept: options that replace those of the format."""
    encoded = io.BytesIO()  # in memory first: a full disk is not the fault of `source`
    with one_error(source, "save it as PNG"):
        result.save(encoded, image_format, **SAVE_OPTIONS.get(image_format, {}) | kept)
    return encoded


def _change(image, encoded, hole):
    """Return the largest change of the pixels outside the hole, in levels of 255."""
    difference = ImageChops.difference(image, Image.open(encoded))
    difference.paste(0 if image.mode == "L" else (0, 0, 0), mask=Image.fromarray(hole))
    return np.max(difference.getextrema())


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

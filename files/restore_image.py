"""Restore an image file with a trained model."""

import io

import numpy as np
from PIL import Image

from files import drawing, pictures
from harness import UserError
from harness.errors import one_error
from harness.result_files import replacing

SAVE_OPTIONS = {
    "AVIF": {"quality": 95},
    "HEIF": {"quality": 95},
    "JPEG": {"quality": 95, "subsampling": 0},  # colors at full resolution, for --keep
    "WEBP": {"lossless": True, "exact": True},
}
KEPT_FORMATS = "JPEG", "MPO", "PNG", "TIFF", "WEBP"  # for --keep; MPO is some phones' JPEG
KEPT_MODES = "L", "LA", "RGB", "RGBA", "I;16", "I;16B"  # for --keep; "I;16" is 16-bit grey
LOSSLESS_TIFF = "packbits", "tiff_adobe_deflate", "tiff_deflate", "tiff_lzw"
MOST_MISSING = 2 / 3  # maximum fraction; more is an inverted mask or a transparent background
REDUCED = 8  # larger pictures are averaged to this multiple of the network's size
SAMPLED = 2**20  # maximum number of pixels of a mask whose colors are compared
UNSAID = {"interlace", "progressive", "progression", "adobe", "adobe_transform", "mp", "mpoffset"}
UNSAID |= {"duration", "timestamp", "resolution"}  # Pillow's names of properties that nobody misses
TIFF_TEXTS = 270, 271, 272, 305, 306, 315, 33432  # description, make, model, software, date, ...
SEVERAL_INKS = 16  # levels of 255, rms; the colors vary more at the same brightness


def restore_image(model, source, destination, mask_file=None, keep=False, count=0):
    """Restore an image file. Returns a one-line summary. Raises UserError if it cannot be restored.

    model: a `Restorer` of images. mask_file: an image of the same size, with the hole in white or
    another color on black; by default, the hole is the transparent pixels. keep: change only the
    hole. count: number of completions to write beside the destination (`completion_paths`).
    """
    image, colors, hole = _read(source, keep)
    height, width = model.kind.shape
    if abs(image.width * height - image.height * width) > max(width, height):
        remedy = f"crop it to the proportions of the model's images, {width} x {height}"
        raise UserError(f"{source}: {image.width} x {image.height} pixels; {remedy}")
    if mask_file:
        hole = _read_mask(mask_file, source, image.size)
    colors, missing = _reduced(colors, hole, (REDUCED * width, REDUCED * height))
    if hole.mean() > MOST_MISSING or missing.all():
        remedy = "invert the mask" if mask_file else "make only the hole transparent"
        problem = f"too much of the image is missing ({hole.mean():.0%})"
        raise UserError(f"{mask_file or source}: {problem}; {remedy}")
    grey = np.asarray(colors.convert("L")) / np.float32(255)
    made, view = drawing.restored(model, grey, missing, count if hole.any() else 0)
    said = _summary(image, hole, view, keep)
    said += ["no completions"] if count and not hole.any() else []
    ink, several = _ink(image, np.asarray(colors)[~missing])
    if keep and several:
        said.append("the hole has one color per level, the rest has several")
    options = _kept_options(image) if keep else SAVE_OPTIONS.get(image.format, {})
    for each, path in zip(made, [destination, *completion_paths(destination, count)]):
        if keep:
            _fill(image, hole, each, view, ink)
            result = image
        else:
            levels = np.clip(drawing.in_picture(each, view, image.size), 0, 255)
            result = Image.fromarray(levels.round().astype("u1"))
        encoded = io.BytesIO()  # in memory first: a full disk is not the fault of `source`
        with one_error(source, "save it as PNG"):
            result.save(encoded, image.format, **options)
        with replacing(path) as unfinished:
            unfinished.write_bytes(encoded.getbuffer())
    if keep and (gone := {*image.info} - {*Image.open(encoded).info} - UNSAID):
        said.append(f"without its {', '.join(sorted(map(str, gone)))}")
    if keep and image.format == "JPEG":
        said.append("encoded again as JPEG, so the other pixels change a little")
    return f"{image.width} x {image.height} pixels: {', '.join(said)}"


def completion_paths(destination, count):
    """Return the paths of an image's completions: whole-1.png, whole-2.png, ... for whole.png."""
    return [destination.with_stem(f"{destination.stem}-{number}") for number in range(1, count + 1)]


def mask_for(masks, source, below):
    """Return the path of a picture's mask: `masks`, or in a folder the image of the same name.

    below: the picture's path below its own folder. Its suffix may differ from the mask's.
    """
    if not masks or not masks.is_dir():
        return masks
    named = (masks / below).with_suffix("")
    found = [path for path in named.parent.glob("*") if path.with_suffix("") == named]
    found = [path for path in found if path.suffix.lower() in pictures.SUFFIXES]
    if len(found) != 1:
        problem = f"expected one mask {named}.png or of another format"
        raise UserError(f"{source}: {problem}, got {len(found)}; --mask needs one per picture")
    return found[0]


def _summary(image, hole, view, keep):
    """Return a list of remarks on the hole and on how the network saw the picture."""
    said = [f"{hole.sum()} of {hole.size} pixels missing" if hole.any() else "nothing missing"]
    if not (hole.any() or keep):
        said.append("denoised")
    if not view.contrast:
        said.append("blank, so the network was not used")
    elif view[:3] != drawing.View()[:3]:
        levels = f"{255 * (view.level + view.contrast):.0f} on {255 * view.level:.0f}"
        said.append(f"levels {levels} stretched to 255 on 0 for the network")
    if (count := getattr(image, "n_frames", 1)) > 1:
        said.append(f"kept only the first of {count} pictures in the file")
    return said


def _read(path, keep=False):
    """Return the image (upright, in its file's mode), its colors on black, and its hole (H, W)."""
    with pictures.opened(path) as image:
        if image.format not in Image.SAVE:
            raise ValueError(f"Pillow can read {image.format}, but not write it")
        deep_colors = image.mode[0] not in pictures.WHITES and ";16" in str(image.tile)
        kept = image.format in KEPT_FORMATS and image.mode in KEPT_MODES and not deep_colors
        if keep and not kept:
            found = f"{image.format}, mode {image.mode}{' of 16 bits' if deep_colors else ''}"
            problem = f"--keep takes PNG, TIFF, JPEG or WebP in grey or 8-bit RGB ({found})"
            raise UserError(f"{path}: {problem}; leave out --keep, or convert to PNG in RGB")
        image = pictures.decoded(image)
        colors, alpha = pictures.on_black(image)
        if image.mode in ("L", "RGB") and image.info.pop("transparency", None) is not None:
            image.putalpha(alpha)
        if image.format == "MPO":
            image.format = "JPEG"
        opacity = np.asarray(alpha)
        return image, colors, (opacity < 255) & (opacity.min() < 16)  # an eraser may be soft


def _read_mask(path, source, size):
    """Return the hole in a mask file as (H, W), bool. Raises UserError if it is ambiguous.

    The hole is white or has one other color. The rest is black or transparent.
    """
    colors = np.asarray(_read(path)[1])  # (H, W, 3)
    height, width, _ = colors.shape
    if (width, height) != size:
        found = f"{width} x {height} pixels, but {source} has {size[0]} x {size[1]}"
        raise UserError(f"{path}: must have the image's size ({found}); rescale the mask")
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
    terms = np.stack([grey, np.ones_like(grey)], axis=1)
    # Fit the differences from grey, so that a picture of one level is filled in grey.
    lines = np.linalg.lstsq(terms, colors - 255 * grey[:, None])[0] + [[255], [0]]
    return lines.T, (colors - terms @ lines).std() > SEVERAL_INKS


def _fill(image, hole, made, view, ink):
    """Fill the image's hole with opaque colors, from the network's output as `in_picture`."""
    if not (box := Image.fromarray(hole).getbbox()):
        return
    hole = hole[box[1] : box[3], box[0] : box[2]]  # only this part, because pictures may be large
    levels = np.asarray(drawing.in_picture(made, view, image.size).crop(box))
    pixels = np.array(image.crop(box))
    channels = pixels.reshape(*hole.shape, -1)
    if image.mode in ("LA", "RGBA"):
        channels[hole, -1] = 255
    for channel, (slope, offset) in enumerate(ink):
        values = np.float32(offset) + np.float32(slope / 255) * levels[hole]
        channels[hole, channel] = np.round(np.clip(values, 0, pictures.white(image)))
    key = image.info.get("transparency")
    if key is not None:  # the filled pixels must not have the transparent level
        pixels[hole & (pixels == key)] = key + 1 if key < 65535 else key - 1
    image.paste(Image.fromarray(pixels), box)


def _kept_options(image):
    """Return options for Pillow that keep an image's metadata and compression."""
    options = {k: image.info[k] for k in ("icc_profile", "exif", "dpi", "xmp") if k in image.info}
    if image.format == "TIFF":
        options["tiffinfo"] = {t: image.tag_v2[t] for t in TIFF_TEXTS if t in image.tag_v2}
        compression = image.info.get("compression")
        options["compression"] = compression if compression in LOSSLESS_TIFF else None
    return SAVE_OPTIONS.get(image.format, {}) | options

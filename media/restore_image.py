"""Restore an image file with a trained model."""

import numpy as np
from PIL import Image, ImageOps

from harness import UserError
from harness.run_folder import replacing
from media import image_files

AS_SAVED = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}  # Pillow's options


def restore_image(model, source, destination, mask_file=None, keep=False):
    """Restore an image file; one line on what was done. UserError if it cannot be.

    model: has `reconstruct` and `metadata`. mask_file: an image of the same size, white in the hole; else that is where
    the image is transparent. keep: replace only the hole.
    """
    height, width = model.metadata["shape"]
    image, image_format = _read(source, keep)
    size = image.size  # Pillow's sizes are (width, height)
    if abs(size[0] * height - size[1] * width) > max(width, height):
        problem = f"{size[0]} x {size[1]} pixels; crop it to the shape of the model's {width} x {height}"
        raise UserError(f"{source}: {problem}")
    alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    hole = _read_mask(mask_file, source, size) if mask_file else alpha == 0
    grey = np.asarray(image.convert("L")) / np.float32(255) * alpha / 255 * ~hole

    # The network gets the size it knows, and black where a pixel's own area is missing, if only in part. To leave out
    # all that bicubic resampling mixes with the hole as well would cost more than it gives (as with sounds).
    observed = _rescaled(hole, (width, height), Image.Resampling.BOX) == 0
    small = np.clip(_rescaled(grey, (width, height)) * observed, 0, 1)
    restored = np.reshape(model.reconstruct(small.reshape(1, -1)), (height, width))
    restored = Image.fromarray((255 * _rescaled(restored, size)).clip(0, 255).round().astype(np.uint8))
    if keep:
        mode = image.mode if image.mode in ("L", "LA", "RGB", "RGBA") else "RGBA" if (alpha < 255).any() else "RGB"
        kept = image.convert(mode)
        kept.paste(restored.convert(mode), mask=Image.fromarray(hole))
        restored = kept
    with replacing(destination) as beside:
        restored.save(beside, image_format, **AS_SAVED.get(image_format, {}))
    what = f"{hole.sum()} of {hole.size} pixels missing" if hole.any() else "nothing missing"
    return f"{size[0]} x {size[1]} pixels: {what}" + ("" if hole.any() or keep else ", denoised")


def _read(path, keep=False):
    """A single image, of 8 bits unless they are to be kept, turned as its EXIF data say; and its file's format."""
    with image_files.opened(path) as image:
        if getattr(image, "n_frames", 1) > 1:
            raise ValueError(f"{image.n_frames} frames, where a single image is needed")
        if keep and image.mode[0] in "IF":
            problem = "has more than 8 bits, of which --keep would lose some; leave out --keep or convert it"
            raise UserError(f"{path}: {problem}")
        ImageOps.exif_transpose(image, in_place=True)
        image.load()
        return image_files.in_8_bits(image), image.format


def _read_mask(path, source, size):
    """The hole that an image file shows in white: (H, W), bool."""
    mask = _read(path)[0].convert("L")
    if mask.size != size:
        given = f"{mask.size[0]} x {mask.size[1]}"
        raise UserError(f"{source}: {size[0]} x {size[1]} pixels, but {path} has {given}; give a mask of its size")
    return np.asarray(mask) >= 128


def _rescaled(values, size, how=Image.Resampling.BICUBIC):
    """Values (H, W) at another size, (width, height), float32."""
    return np.asarray(Image.fromarray(values.astype(np.float32)).resize(size, how))

"""Show a picture to a network as it was trained: white on black, of the usual size, centered."""

import itertools
from typing import NamedTuple

import numpy as np
from PIL import Image

NOISE_MARGIN = 2  # standard deviations; levels this close to the background count as background
LEAST_CONTRAST = 4  # standard deviations; a fainter drawing counts as noise
FULL_CONTRAST = 0.9  # fraction of the range; a drawing with this contrast on black is not stretched
FRAMES = 1.4, 1.5  # side of a frame / side of the drawing; 28 / 20 in MNIST
SHIFTS = range(-4, 5)  # offsets of a frame's center from the drawing's, in the network's pixels
WHOLE = 0.6  # a frame must be better than the whole picture by this factor


class View(NamedTuple):
    """How a network sees a picture: background, contrast and frame. Levels are in [0, 1]."""

    level: float = 0.0  # of the background
    noise: float = 0.0  # standard deviation
    sign: int = 1  # -1 if the drawing is darker than the background
    contrast: float = 1.0  # of the drawing
    frame: tuple = (0, 0, 1, 1)  # left, top, right, bottom; fractions of the picture's sides


def restored(model, grey, missing, count):
    """Restore a picture. Returns the network's outputs (1 + count, h, w) and the `View`.

    grey, missing: levels in [0, 1] and the hole, (H, W). The outputs are the restored picture and
    `count` completions, for `in_picture`.

    A network trained on white digits on black can also restore dark, pale, small or shifted ones if
    they are shown to it like those. The view with the best reconstruction of the observed pixels is
    used, because a model of other images may need the whole picture at its own levels.
    """

    def network_input(view):
        return _framed(_stretched(grey, missing, view), missing, view.frame, model.kind.shape)

    def error(view):
        made = np.reshape(model.reconstruct(*network_input(view)), model.kind.shape)
        made = in_picture(made, view, grey.shape[::-1])
        return np.mean(np.square(made / 255 - grey), where=~missing)

    view = _background(grey[~missing])
    frame = _best_frame(model, _stretched(grey, missing, view), missing)
    view = min(View(frame=frame), view._replace(frame=frame), key=error)
    corrupted, observed = network_input(view)
    reconstruct = model.refined if missing.any() and model.refined else model.reconstruct
    made = [reconstruct(corrupted, observed)]
    made += list(model.complete(corrupted, observed, count)) if count else []
    return [np.reshape(each, model.kind.shape) for each in made], view


def in_picture(made, view, size, mode="F"):
    """Put a network's output (h, w) into its frame in a picture of `size` (width, height).

    Returns levels (height, width) from 0 to 255: float32, or with mode L uint8, which takes a
    quarter of the memory.
    """
    left, top, right, bottom = _pixels(view.frame, size)
    levels = 255 * np.clip(view.level + view.sign * view.contrast * np.float32(made), 0, 1)
    drawn = Image.fromarray(np.round(levels).astype(np.uint8) if mode == "L" else levels)
    drawn = drawn.resize((right - left, bottom - top))
    if view.frame != View().frame:
        background = 255 * view.level
        picture = Image.new(mode, size, round(background) if mode == "L" else background)
        picture.paste(drawn, (left, top))
        drawn = picture
    return np.asarray(drawn)


def _pixels(frame, size):
    return tuple(round(edge * side) for edge, side in zip(frame, (*size, *size)))


def _stretched(grey, missing, view):
    """Return the drawing in a picture (H, W), white on black. Levels may exceed 1."""
    margin = NOISE_MARGIN * view.noise
    drawn = np.clip(view.sign * (grey - view.level) - margin, 0, None) / (view.contrast - margin)
    return drawn * ~missing


def _framed(drawn, missing, frame, shape):
    """Return a part of a drawing at the network's size, and its observed pixels, both (1, D)."""
    frame = _pixels(frame, drawn.shape[::-1])

    def resized(values, resampling):  # the parts outside the picture become 0
        part = Image.fromarray(np.float32(values)).crop(frame)
        return np.asarray(part.resize(shape[::-1], resampling)).reshape(1, -1)

    # A pixel of the smaller image is missing if any part of its area is. Bicubic resampling mixes
    # the hole into a few more pixels, but dropping those as well costs more than it gains.
    observed = resized(missing, Image.Resampling.BOX) == 0
    return np.clip(resized(drawn, Image.Resampling.BICUBIC) * observed, 0, 1), observed


def _background(observed):
    """Estimate background and contrast from the observed levels (N,), mostly of background.

    Returns View(), which changes nothing, if no drawing stands out from the noise.
    """
    level = np.median(observed)
    deviations = observed - level
    noise = 1.4826 * np.median(np.abs(deviations))  # a robust standard deviation
    beyond = {sign: np.clip(sign * deviations - NOISE_MARGIN * noise, 0, None) for sign in (1, -1)}
    sign = max(beyond, key=lambda sign: beyond[sign].sum())
    drawn = beyond[sign][beyond[sign] > 0]
    contrast = np.quantile(drawn, 0.9) if drawn.size else 0.0
    if contrast <= LEAST_CONTRAST * noise or (level == 0 and contrast >= FULL_CONTRAST):
        return View()
    return View(float(level), float(noise), sign, float(contrast + NOISE_MARGIN * noise))


def _best_frame(model, drawn, missing):
    """Return the frame in which the network reconstructs a drawing (H, W) best.

    That is the whole picture, unless a frame around the drawing is clearly better.
    """
    frames = [View().frame, *_frames(drawn, model.kind.shape)]
    if len(frames) == 1:
        return frames[0]
    inputs = [_framed(drawn, missing, frame, model.kind.shape) for frame in frames]
    corrupted, observed = (np.concatenate(parts) for parts in zip(*inputs))
    error = np.square(corrupted - model.reconstruct(corrupted, observed)) * observed
    edges = np.array(frames)
    area = drawn.size / error.shape[1] * np.prod(edges[:, 2:] - edges[:, :2], axis=1)
    cut_off = np.square(np.clip(drawn, 0, 1)).sum() - np.square(corrupted).sum(1) * area
    errors = error.sum(1) * area + np.clip(cut_off, 0, None)
    errors[0] *= WHOLE
    return frames[np.argmin(errors)]


def _frames(drawn, shape):
    """Return frames of several sizes and positions around a drawing (H, W) in [0, 1]."""
    rows, columns = np.nonzero(drawn > 0.5)
    if not rows.size:
        return []
    first, last = np.array([[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]])
    sides = np.array(shape[::-1])
    frames = []
    for factor, *shift in itertools.product(FRAMES, SHIFTS, SHIFTS):
        size = np.round(factor * max((last - first) / sides) * sides)
        corner = np.round((first + last - size) / 2 + shift * size / sides)
        edges = np.array([corner, corner + size]) / drawn.shape[::-1]
        frames.append(tuple(edges.ravel()))
    return frames

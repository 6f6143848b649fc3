"""Show a picture to a network as it was trained: white on black, of the usual size, centered."""

import itertools
from typing import NamedTuple

import numpy as np
from PIL import Image

NOISE_MARGIN = 2  # standard deviations; levels this close to the background count as background
LEAST_CONTRAST = 3  # margins; a fainter drawing counts as noise
FULL_CONTRAST = 0.9  # fraction of the range; a drawing with this contrast on black is not stretched
FRAMES = 1.4, 1.5  # side of a frame / side of the drawing; 28 / 20 in MNIST
SHIFTS = range(-4, 5)  # offsets of a frame's center from the drawing's, in the network's pixels
WHOLE_PICTURE = 0.6  # a frame must be better than the whole picture by this factor


class View(NamedTuple):
    """How a network sees a picture: background, contrast and frame. Levels are in [0, 1]."""

    level: float = 0.0  # of the background
    contrast: float = 1.0  # of the drawing; negative if darker than the background, 0 if blank
    margin: float = 0.0  # fraction of the contrast that counts as background
    frame: tuple = (0, 0, 1, 1)  # left, top, right, bottom; fractions of the picture's sides


def restored(model, grey, missing, count):
    """Restore a picture. Returns the network's outputs (1 + count, h, w) and the `View`.

    grey, missing: levels in [0, 1] and the hole, (H, W). The outputs are the restored picture and
    `count` completions, for `in_picture`.

    A network trained on white digits on black can also restore dark, pale, small or shifted ones if
    they are shown to it like those. The view with the best reconstruction of the observed pixels is
    used, because a model of other images may need the whole picture at its own levels.
    """
    shape, known = model.kind.shape, grey[~missing]
    if np.ptp(known) == 0:  # a blank picture keeps its level everywhere
        return [np.zeros(shape)] * (1 + count), View(float(known[0]), contrast=0.0)

    def network_input(view):
        return _framed(_stretched(grey, missing, view), missing, view.frame, shape)

    def error(view, made):
        made = np.asarray(in_picture(made, view, grey.shape[::-1])) / 255
        weight = WHOLE_PICTURE if view.frame == View().frame else 1
        return weight * np.mean(np.square(made - grey), where=~missing)

    paper = _background(known)
    frames = [View().frame, *_frames(_stretched(grey, missing, paper), shape)]
    views = [View(), *(paper._replace(frame=frame) for frame in frames)]
    corrupted, observed = map(np.concatenate, zip(*map(network_input, views)))
    made = np.reshape(model.reconstruct(corrupted, observed), (-1, *shape))
    best = np.argmin([*map(error, views, made)])
    corrupted, observed = corrupted[[best]], observed[[best]]
    made = [made[best]]
    if missing.any() and model.refined:
        made = [model.refined(corrupted, observed)]
    made += list(model.complete(corrupted, observed, count)) if count else []
    return [np.reshape(each, shape) for each in made], views[best]


def in_picture(made, view, size):
    """Put a network's output (h, w) into its frame in a picture of `size` (width, height).

    Returns an image of mode F, with levels from 0 to 255 that resampling may exceed a little.
    """
    left, top, right, bottom = _pixels(view.frame, size)
    drawn = Image.fromarray(255 * (view.level + view.contrast * np.float32(made)))
    picture = Image.new("F", size, 255 * view.level)
    picture.paste(drawn.resize((right - left, bottom - top)), (left, top))
    return picture


def _pixels(frame, size):
    return tuple(round(edge * side) for edge, side in zip(frame, (*size, *size)))


def _stretched(grey, missing, view):
    """Return the drawing in a picture (H, W), white on black. Levels may exceed 1."""
    drawn = (grey - view.level) / view.contrast
    return np.clip((drawn - view.margin) / (1 - view.margin), 0, None) * ~missing


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
    margin = NOISE_MARGIN * 1.4826 * np.median(np.abs(deviations))  # a robust standard deviation
    sign = 1 if deviations.sum() >= 0 else -1
    drawn = sign * deviations
    contrast = np.quantile(drawn[drawn > margin], 0.9) if drawn.max() > margin else 0.0
    if contrast <= LEAST_CONTRAST * margin or (level == 0 and contrast >= FULL_CONTRAST):
        return View()
    return View(float(level), float(sign * contrast), float(margin / contrast))


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

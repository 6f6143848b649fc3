"""Figures of both experiments, as pixels (height, width, 4), uint8. `save` writes them as PNG.

Axes, ticks and labels take most of the drawing time, so figures of checkpoints draw them only once,
as a `Backdrop`. Pyplot is not used, so no window opens. The user's matplotlibrc and styles have no
influence.
"""

import functools

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from PIL import Image

COLOR = "tab:blue"
GREY = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
MOST_KINDS = 32  # maximum number of labels that can be distinguished by color
# Decorator of what draws. File names in labels may contain "$", which is no formula.
default_style = matplotlib.rc_context(matplotlib.rcParamsDefault | {"text.parse_math": False})


class Backdrop:
    """A figure whose axes are drawn only once. `pixels` draws different data on it."""

    def __init__(self, figure):
        self.figure, self.canvas = figure, FigureCanvasAgg(figure)
        # Draw frames and titles last, or data at the edge would cover half of a frame's line.
        self.on_top = [part for ax in figure.axes for part in (*ax.spines.values(), ax.title)]
        for part in self.on_top:
            part.set_animated(True)  # so that `canvas.draw` skips it
        self.canvas.draw()
        self.empty = self.canvas.copy_from_bbox(figure.bbox)

    def pixels(self, *artists):
        """Draw the artists in the given order, then remove them. Returns the pixels."""
        self.canvas.restore_region(self.empty)
        for artist in artists:
            self.figure.draw_artist(artist)
            artist.remove()
        for part in self.on_top:
            self.figure.draw_artist(part)
        return np.array(self.canvas.buffer_rgba())


def save(path, pictures):
    """Write pictures of equal width as one PNG, from top to bottom."""
    stacked = Image.fromarray(np.concatenate(pictures))
    stacked.save(path, "png", compress_level=1)  # 20% larger than by default, but much faster


@default_style
def digit_rows(title, rows, holes=None, outlined=None):
    """Draw labeled rows of images.

    rows: {label: (count, H, W) in [0, 1]}. holes: {label: mask (count, H, W)}, shown in red.
    outlined: mask (count, H, W), outlined in red in every row.
    """
    images = [np.hstack(row) for row in rows.values()]  # (H, count * W)
    backdrop = _digit_rows(tuple(rows), images[0].shape)
    drawn = [_title(backdrop.figure, title)]
    for ax, label, row in zip(backdrop.figure.axes, rows, images):
        drawn.append(ax.imshow(row, **GREY))
        if holes and label in holes:
            hole = np.hstack(holes[label])
            tint = np.zeros((*hole.shape, 4))
            tint[..., 0], tint[..., 3] = 1, 0.45 * hole
            drawn.append(ax.imshow(tint, interpolation="nearest"))
        if outlined is not None:
            drawn.append(ax.add_collection(_outlines(outlined), autolim=False))
    return backdrop.pixels(*drawn)


def _outlines(masks):
    """Return the lines around the pixels that are 1 in masks (count, H, W), side by side."""
    padded = np.pad(masks, ((0, 0), (1, 1), (1, 1)))
    lines = []
    for axis, (across, down) in ((1, (1, 0)), (2, (0, 1))):  # edges between rows, then columns
        image, row, column = np.nonzero(np.diff(padded, axis=axis))
        x, y = image * masks.shape[2] + column - 0.5 - across, row - 0.5 - down
        lines.append(np.stack([x, y, x + across, y + down], 1).reshape(-1, 2, 2))
    return LineCollection(np.concatenate(lines), colors="tab:red", linewidths=0.8)


@functools.lru_cache
def _digit_rows(labels, shape):
    figure = Figure(figsize=(12, 0.6 + 0.8 * len(labels)), dpi=100)
    axes = figure.subplots(len(labels), 1, squeeze=False)[:, 0]
    top = 1 - 0.5 / figure.get_figheight()
    figure.subplots_adjust(left=0.1, right=0.99, top=top, bottom=0.02, hspace=0.08)
    for ax, label in zip(axes, labels):
        black = ax.imshow(np.zeros(shape), **GREY)
        ax.set_ylabel(label, rotation=0, ha="right", va="center")
        ax.set(xticks=[], yticks=[])
    figure.colorbar(black, ax=list(axes), label="grey level", aspect=8 * len(labels), pad=0.01)
    return Backdrop(figure)


def _title(figure, text):
    """Add a title that looks like a `suptitle` but can be removed."""
    return figure.text(0.5, 0.98, text, size="large", ha="center", va="top")


@default_style
def windows(title, signals, sample_rate):
    """Draw short sounds (count, N) between -1 and 1 in four columns, numbered column by column."""
    rows = -(-len(signals) // 4)
    time = 1000 * np.arange(signals.shape[1]) / sample_rate
    backdrop, levels = _windows(rows, time[-1])
    drawn = [_title(backdrop.figure, title)]
    for column, ax in enumerate(backdrop.figure.axes):
        part = signals[column * rows : (column + 1) * rows]
        drawn += ax.plot(time, part.T + levels[: len(part)], lw=0.8, color=COLOR)
        drawn.append(ax.hlines(levels + 1, 0, time[-1], color="0.8", lw=0.8))
        for number, level in enumerate(levels[: len(part)], column * rows + 1):
            drawn.append(ax.text(0.01 * time[-1], level + 0.9, number, va="top", color="0.4"))
    return backdrop.pixels(*drawn)


@functools.lru_cache
def _windows(rows, milliseconds):
    figure = Figure(figsize=(13, 1 + 1.4 * rows), dpi=100)
    # One axes per column instead of one per sound: axes take most of the drawing time.
    columns = figure.subplots(1, 4, sharex=True, sharey=True)
    figure.subplots_adjust(left=0.07, right=0.98, top=0.92, bottom=0.1, wspace=0.06)
    levels = -2.0 * np.arange(rows)  # zero line of each sound
    for ax in columns:
        ax.grid(axis="x", alpha=0.3)
    columns[0].set(xlim=(0, milliseconds), ylim=(levels[-1] - 1, 1))
    ticks = np.array([0.5, 0, -0.5])
    columns[0].set_yticks((levels[:, None] + ticks).ravel(), [f"{tick:g}" for tick in ticks] * rows)
    figure.supxlabel("time [ms]")
    figure.supylabel("amplitude")
    return Backdrop(figure), levels


@default_style
def strip(title, images, labels):
    """Draw labeled images (H, W) in a row, with a space after the first and before the last."""
    figure = Figure(figsize=(len(images), 1.9))
    figure.suptitle(title)
    widths = [1.0, 0.3, *[1.0] * (len(images) - 2), 0.3, 1.0]  # 0.3 is a space
    columns = [0, *range(2, len(images)), len(images) + 1]
    margins = {"left": 0.01, "right": 0.99, "top": 0.8, "wspace": 0.05}
    grid = figure.add_gridspec(1, len(widths), width_ratios=widths, **margins)
    for column, image, label in zip(columns, images, labels):
        ax = figure.add_subplot(grid[0, column])
        ax.imshow(image, **GREY)
        ax.set(xticks=[], yticks=[], xlabel=label)
    return Backdrop(figure).pixels()


@default_style
def latent_map(title, points, fractions, labels=None, names=None):
    """Draw points (M, 2) on two principal axes, colored by label (M,).

    fractions (2,): fraction of the variance along each axis. names[i]: the name of label i.
    """
    figure = Figure(figsize=(8.5, 7), layout="constrained")
    ax = figure.subplots()
    kinds, index = np.unique([] if labels is None else labels, return_inverse=True)
    if 1 < len(kinds) <= MOST_KINDS:
        colors = matplotlib.colormaps["tab10" if len(kinds) <= 10 else "turbo"]
        limits = {"vmin": -0.5, "vmax": len(kinds) - 0.5}  # centers each integer in its color
        drawn = ax.scatter(*points.T, c=index, s=8, cmap=colors.resampled(len(kinds)), **limits)
        bar = figure.colorbar(drawn, ticks=range(len(kinds)), label="note" if names else "label")
        bar.set_ticklabels([names[kind] if names else kind for kind in kinds])
    else:
        ax.scatter(*points.T, s=8)
    first, second = (f"principal axis of z ({part:.0%} of the variance)" for part in fractions)
    ax.set(title=title, xlabel=f"first {first}", ylabel=f"second {second}", aspect="equal")
    ax.grid(alpha=0.3)
    return Backdrop(figure).pixels()

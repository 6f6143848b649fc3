"""The pictures a run writes, as pixels (height, width, 4), uint8; `save` writes one or more as PNG.

Axes, ticks and labels take most of the time. Of the pictures that a run draws at every checkpoint they are therefore
drawn once, as a `Backdrop`. Figures are made without pyplot: no window is opened.
"""

import functools

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from audio_utils import SPECTRUM_FLOOR_DB, runs, spectrogram_db

COLOUR, GAP_COLOUR = "tab:blue", "tab:red"
GREY = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
CLOSE_UP_SECONDS = 0.05
MOST_KINDS = 32  # of labels that colours still tell apart


class Backdrop:
    """A figure to draw upon: what it has already is drawn only once."""

    def __init__(self, figure):
        self.figure, self.canvas = figure, FigureCanvasAgg(figure)
        self.on_top = [own for ax in figure.axes for own in (*ax.spines.values(), ax.title)]
        for own in self.on_top:
            own.set_animated(
                True
            )  # left out by `draw`: what is drawn later would cover half of a frame
        self.canvas.draw()
        self.empty = self.canvas.copy_from_bbox(figure.bbox)

    def pixels(self, *artists):
        """The figure with these artists of it, the last on top. It is then without them, for others to be drawn."""
        self.canvas.restore_region(self.empty)
        for artist in artists:
            self.figure.draw_artist(artist)
            artist.remove()
        for own in self.on_top:
            self.figure.draw_artist(own)
        return np.array(self.canvas.buffer_rgba())


def save(path, pictures):
    """Write pictures, one below the other, as PNG."""
    stacked = np.concatenate(pictures)
    Image.fromarray(stacked).save(
        path, "png", compress_level=1
    )  # a fifth larger than usual, much faster


def digit_rows(title, rows, holes=None):
    """Rows of images, one title a row. rows: {label: (count, H, W) in [0, 1]}; holes: {label: mask} tints red."""
    images = [_side_by_side(row) for row in rows.values()]
    backdrop = _digit_rows(tuple(rows), images[0].shape)
    drawn = [_title(backdrop.figure, title)]
    for ax, label, row in zip(backdrop.figure.axes, rows, images):
        drawn.append(ax.imshow(row, **GREY))
        if holes and label in holes:
            hole = _side_by_side(holes[label])
            tint = np.zeros((*hole.shape, 4))
            tint[..., 0], tint[..., 3] = 1, 0.45 * hole
            drawn.append(ax.imshow(tint, interpolation="nearest"))
    return backdrop.pixels(*drawn)


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
    """Looks like a `suptitle`, but can be taken out again."""
    return figure.text(0.5, 0.98, text, size="large", ha="center", va="top")


def _side_by_side(images):
    """(count, H, W) -> (H, count * W)."""
    return np.concatenate(list(np.asarray(images)), axis=1)


def sounds(chopped, mask, sample_rate, frequency_limit):
    """What draws two of the article's four rows: (title, name, signal) -> pixels.

    Spectrogram and waveform of a signal, in the scales of the chopped input. All (T,). The spectrogram goes up to
    `frequency_limit` Hz. Gaps are shaded; beside, a close-up of the gap nearest to the middle.
    """
    # Fixed margins: finding them by a constrained layout would take longer than the drawing.
    figure = Figure(figsize=(13, 4.8), dpi=100)
    widths = (5, 0.1, 0.8, 2.4)  # spectrogram and waveform; colour bar; room for labels; close-up
    grid = figure.add_gridspec(
        2,
        4,
        width_ratios=widths,
        left=0.06,
        right=0.98,
        top=0.86,
        bottom=0.11,
        wspace=0.04,
        hspace=0.55,
    )
    gaps = runs(mask) / sample_rate  # (G, 2), s
    seconds = chopped.size / sample_rate
    middle = _middle_gap(chopped, gaps * sample_rate) / sample_rate if len(gaps) else seconds / 2
    near = middle + 0.5 * CLOSE_UP_SECONDS * np.array([-1, 1])
    part = slice(*np.clip(np.round(near * sample_rate).astype(int), 0, chopped.size))
    limit = 1.05 * np.abs(chopped).max()
    shades = [(a, b - a) for a, b in gaps]

    def levels(signal):
        frequencies, times, levels = spectrogram_db(signal, sample_rate)
        return spectrogram.pcolorfast(
            _edges(times),
            _edges(frequencies),
            levels[:-1, :-1],
            cmap="magma",
            vmin=SPECTRUM_FLOOR_DB,
            vmax=0,
        )

    spectrogram = figure.add_subplot(grid[0, 0])
    figure.colorbar(
        levels(np.zeros_like(chopped)),
        cax=figure.add_subplot(grid[0, 1]),
        label="level [dB re full scale]",
    )
    spectrogram.set(xlim=(0, seconds), ylim=(0, frequency_limit), ylabel="frequency [Hz]")
    waveform = figure.add_subplot(grid[1, 0], sharex=spectrogram)
    waveform.set(ylim=(-limit, limit), xlabel="time [s]", ylabel="amplitude")
    close_up = figure.add_subplot(grid[:, 3])
    close_up.set(xlim=near, ylim=(-limit, limit), xlabel="time [s]", ylabel="amplitude")
    backdrop = Backdrop(figure)

    def draw(title, name, signal):
        columns = np.array_split(signal, min(1200, signal.size // 4))
        at = np.linspace(0, seconds, len(columns))
        drawn = [
            figure.text(0.005, 0.985, title, va="top", size="large", weight="bold"),
            levels(signal),
            waveform.fill_between(
                at, [c.min() for c in columns], [c.max() for c in columns], lw=0, facecolor=COLOUR
            ),
            *(
                ax.broken_barh(
                    shades, (-limit, 2 * limit), color=GAP_COLOUR, alpha=0.2, lw=0, label="gap"
                )
                for ax in (waveform, close_up)
            ),
            *close_up.plot(
                np.arange(signal.size)[part] / sample_rate, signal[part], lw=1, color=COLOUR
            ),
            close_up.legend(loc="upper right"),
        ]
        for ax, what in (
            (spectrogram, "Spectrogram"),
            (waveform, "Waveform"),
            (close_up, "Close-up"),
        ):
            ax.set_title(f"{what} of the {name}")
        return backdrop.pixels(*drawn)

    return draw


def _middle_gap(chopped, gaps):
    """The middle of the gap nearest to the signal's middle of those with sound, if any, around: (T,), (G, 2) -> ()."""
    middles = gaps.mean(1)
    around = [np.mean(chopped[max(0, int(2 * a - b)) : int(2 * b - a)] ** 2) for a, b in gaps]
    sounding = middles[np.array(around) >= 0.25 * np.mean(chopped**2)]
    places = sounding if len(sounding) else middles
    return places[np.argmin(np.abs(places - chopped.size / 2))]


def _edges(places):
    """First and last of evenly spaced places."""
    return places[0], places[-1]


def windows(title, signals, sample_rate):
    """Short sounds in four columns, numbered from top to bottom: (count, N) between -1 and 1."""
    rows = -(-len(signals) // 4)
    time = 1000 * np.arange(signals.shape[1]) / sample_rate
    backdrop, levels = _windows(rows, time[-1])
    drawn = [_title(backdrop.figure, title)]
    for column, ax in enumerate(backdrop.figure.axes):
        part = signals[column * rows : (column + 1) * rows]
        drawn += ax.plot(time, part.T + levels[: len(part)], lw=0.8, color=COLOUR)
        drawn.append(ax.hlines(levels + 1, 0, time[-1], color="0.8", lw=0.8))
        for number, level in enumerate(levels[: len(part)], column * rows + 1):
            drawn.append(ax.text(0.01 * time[-1], level + 0.9, number, va="top", color="0.4"))
    return backdrop.pixels(*drawn)


@functools.lru_cache
def _windows(rows, milliseconds):
    figure = Figure(figsize=(13, 1 + 1.4 * rows), dpi=100)
    # An axes a column, not a sound: most of the time goes into drawing axes.
    columns = figure.subplots(1, 4, sharex=True, sharey=True)
    figure.subplots_adjust(left=0.07, right=0.98, top=0.92, bottom=0.1, wspace=0.06)
    levels = -2.0 * np.arange(rows)  # each sound has the room from -1 to 1 around its own
    for ax in columns:
        ax.grid(axis="x", alpha=0.3)
    columns[0].set(xlim=(0, milliseconds), ylim=(levels[-1] - 1, 1))
    ticks = np.array([0.5, 0, -0.5])
    columns[0].set_yticks((levels[:, None] + ticks).ravel(), [f"{tick:g}" for tick in ticks] * rows)
    figure.supxlabel("time [ms]")
    figure.supylabel("amplitude")
    return Backdrop(figure), levels


def strip(title, images, labels):
    """Images (H, W) in [0, 1] side by side, a label under each; the first and the last stand apart from the others."""
    figure = Figure(figsize=(1.0 * len(images), 1.9))
    figure.suptitle(title)
    widths = [1.0] * len(images)
    widths[1:1], widths[-1:-1] = [0.3], [0.3]
    columns = [0, *range(2, len(images)), len(images) + 1]
    grid = figure.add_gridspec(
        1, len(widths), width_ratios=widths, left=0.01, right=0.99, top=0.8, wspace=0.05
    )
    for column, image, label in zip(columns, images, labels):
        ax = figure.add_subplot(grid[0, column])
        ax.imshow(image, **GREY)
        ax.set(xticks=[], yticks=[], xlabel=label)
    return Backdrop(figure).pixels()


def latent_map(title, points, shares, labels=None, names=None):
    """Points (M, 2) on two principal axes with these shares of the variance, coloured by their labels (M,)."""
    figure = Figure(figsize=(8.5, 7), layout="constrained")
    ax = figure.subplots()
    kinds, index = np.unique(labels, return_inverse=True) if labels is not None else ([], None)
    if 1 < len(kinds) <= MOST_KINDS:
        colours = matplotlib.colormaps["tab10" if len(kinds) <= 10 else "turbo"].resampled(
            len(kinds)
        )
        drawn = ax.scatter(*points.T, c=index, s=8, cmap=colours, vmin=-0.5, vmax=len(kinds) - 0.5)
        bar = figure.colorbar(drawn, ticks=range(len(kinds)), label="note" if names else "label")
        bar.set_ticklabels([names[kind] if names else kind for kind in kinds])
    else:
        ax.scatter(*points.T, s=8)
    ax.set(
        title=title,
        xlabel=f"first principal axis of z ({shares[0]:.0%} of the variance)",
        ylabel=f"second principal axis of z ({shares[1]:.0%} of the variance)",
        aspect="equal",
    )
    ax.grid(alpha=0.3)
    return Backdrop(figure).pixels()

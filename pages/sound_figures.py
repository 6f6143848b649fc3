"""Figures and WAVs of the sound experiment, before training and at each checkpoint."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

import audio_utils
from pages import figures

SHOWN = 16  # generated windows in the figure and in the WAV
CLOSE_UP_SECONDS = 0.05
GAP = {"color": "tab:red", "alpha": 0.2, "lw": 0, "label": "gap"}
MOST_COLUMNS = 1200  # maximum columns of the plotted waveform; enough for one per pixel


class Plotter(NamedTuple):
    """Makes the figures and WAVs of one long sound."""

    draw: Callable  # (title, name, signal (T,)) -> pixels
    chopped: np.ndarray  # pixels of the corrupted input's figure, made once
    gain: float  # the same for all WAVs, so levels are comparable; low enough for unclipped inputs
    sample_rate: int  # Hz

    def figure(self, title, name, signal):
        """Return a function save(path) that writes a signal's (T,) figure above the input's."""
        return partial(figures.save, pictures=[self.draw(title, name, signal), self.chopped])

    def wav(self, signal):
        """Return a function save(path) that writes a signal (T,) as a WAV."""
        sound, rate = self.gain * signal, self.sample_rate
        return partial(audio_utils.write_wav, signal=sound, sample_rate=rate)


def plotter(long, sample_rate):
    """Return the `Plotter` of `long`. Its fields corrupted, clean, mask and reference are (T,)."""
    limit = audio_utils.frequency_limit(long.reference, sample_rate)
    draw = long_sound(long.corrupted, long.mask, sample_rate, limit)
    gain = min(1.0, 0.99 / np.abs([long.clean, long.corrupted]).max())
    return Plotter(draw, draw("", "chopped input", long.corrupted), gain, sample_rate)


def inputs(plotter, long, tone_is_known):
    """Return the WAVs that exist before training, as {file name: function save(path)}."""
    sounds = {"clean.wav": long.clean, "chopped.wav": long.corrupted}
    if tone_is_known:
        sounds["tone.wav"] = long.reference
    return {name: plotter.wav(sound) for name, sound in sounds.items()}


def checkpoint(plotter, title, damage, iteration, restored, generated):
    """Return a checkpoint's figures and WAVs as {file name: function save(path)}.

    restored: the reconstructed long sound (T,). generated: windows from the prior (G, N).
    """
    state, generated = f"{damage}, after {iteration} iterations", generated[:SHOWN]
    title = f"{title}, restored ({state})"
    new = figures.windows(f"New sounds from the prior ({state})", generated, plotter.sample_rate)
    new_sound = audio_utils.one_after_the_other(generated, plotter.sample_rate)
    return {
        f"reconstruction_{iteration:06d}.png": plotter.figure(title, "reconstruction", restored),
        f"generated_{iteration:06d}.png": partial(figures.save, pictures=[new]),
        f"reconstruction_{iteration:06d}.wav": plotter.wav(restored),
        f"generated_{iteration:06d}.wav": plotter.wav(new_sound),
    }


def restored(plotter, title, damage, sound):
    """Return the figure and the WAV of the final sound (T,) as {file name: function save(path)}."""
    title = f"{title}: gaps filled, noise taken out ({damage})"
    picture = plotter.figure(title, "restored sound", sound)
    return {"restored.png": picture, "restored.wav": plotter.wav(sound)}


@figures.default_style
def long_sound(chopped, mask, sample_rate, frequency_limit):
    """Return a function draw(title, name, signal) that plots a signal and returns the pixels.

    All signals are (T,). The plots are a spectrogram up to `frequency_limit` Hz, a waveform and a
    close-up of a gap near the middle. Gaps are shaded. The amplitude axes fit `chopped`.
    """
    figure = Figure(figsize=(13, 4.8), dpi=100)
    gaps, seconds = audio_utils.runs(mask), chopped.size / sample_rate
    middle = _middle_gap(chopped, gaps) if len(gaps) else chopped.size / 2
    near = middle / sample_rate + 0.5 * CLOSE_UP_SECONDS * np.array([-1, 1])
    part = slice(*np.clip(np.round(near * sample_rate).astype(int), 0, chopped.size))
    limit = 1.05 * np.abs(chopped).max()
    shades = [(first / sample_rate, (end - first) / sample_rate) for first, end in gaps]
    spectrogram, waveform, close_up = _axes(figure, chopped, sample_rate)
    spectrogram.set(xlim=(0, seconds), ylim=(0, frequency_limit), ylabel="frequency [Hz]")
    amplitude = {"ylim": (-limit, limit), "xlabel": "time [s]", "ylabel": "amplitude"}
    waveform.set(**amplitude)
    close_up.set(xlim=near, **amplitude)
    views = {spectrogram: "Spectrogram", waveform: "Waveform", close_up: "Close-up"}
    backdrop = figures.Backdrop(figure)

    @figures.default_style
    def draw(title, name, signal):
        for ax, view in views.items():
            ax.set_title(f"{view} of the {name}")
        columns = min(MOST_COLUMNS, signal.size // 4)
        starts = np.linspace(0, signal.size, columns, endpoint=False).astype(int)
        low, high = np.minimum.reduceat(signal, starts), np.maximum.reduceat(signal, starts)
        column_times = starts / sample_rate
        drawn = [
            figure.text(0.005, 0.985, title, va="top", size="large", weight="bold"),
            _draw_spectrogram(spectrogram, signal, sample_rate),
            waveform.fill_between(column_times, low, high, lw=0, facecolor=figures.COLOR),
        ]
        for ax in waveform, close_up:
            drawn.append(ax.broken_barh(shades, (-limit, 2 * limit), **GAP))
        times = np.arange(signal.size)[part] / sample_rate
        drawn += close_up.plot(times, signal[part], lw=1, color=figures.COLOR)
        return backdrop.pixels(*drawn, close_up.legend(loc="upper right"))

    return draw


def _axes(figure, chopped, sample_rate):
    """Add the axes of the spectrogram (with its color bar), the waveform and the close-up."""
    widths = 5, 0.1, 0.8, 2.4  # widths of spectrogram and waveform, color bar, its label, close-up
    # The margins are fixed because a constrained layout takes longer than plotting.
    margins = {"left": 0.06, "right": 0.98, "top": 0.86, "bottom": 0.11}
    grid = figure.add_gridspec(2, 4, width_ratios=widths, wspace=0.04, hspace=0.55, **margins)
    spectrogram = figure.add_subplot(grid[0, 0])
    silence = _draw_spectrogram(spectrogram, np.zeros_like(chopped), sample_rate)
    figure.colorbar(silence, cax=figure.add_subplot(grid[0, 1]), label="level [dB re full scale]")
    waveform = figure.add_subplot(grid[1, 0], sharex=spectrogram)
    return spectrogram, waveform, figure.add_subplot(grid[:, 3])


def _draw_spectrogram(ax, signal, sample_rate):
    frequencies, times, levels = audio_utils.spectrogram_db(signal, sample_rate)
    scale = {"cmap": "magma", "vmin": audio_utils.SPECTRUM_FLOOR_DB, "vmax": 0}
    return ax.pcolorfast(times[[0, -1]], frequencies[[0, -1]], levels[:-1, :-1], **scale)


def _middle_gap(chopped, gaps):
    """Return the center of the gap nearest to the middle. Prefers gaps with sound around them.

    gaps: (G, 2), first and end. A gap has sound around it if the power from one gap length before
    it to one gap length after it is at least a quarter of the mean power.
    """
    centers = gaps.mean(1)
    around = [chopped[max(0, 2 * first - end) : 2 * end - first] for first, end in gaps]
    power = np.array([np.mean(part**2) for part in around])
    sounding = centers[power >= 0.25 * np.mean(chopped**2)]
    candidates = sounding if len(sounding) else centers
    return candidates[np.argmin(np.abs(candidates - chopped.size / 2))]

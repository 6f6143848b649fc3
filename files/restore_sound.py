"""Restore a sound file of any length, rate, channels and format with a trained model.

There are three methods. With `keep`, only the gaps change. Autoregression or the network fills
them, whichever predicts the channel better. Without `keep`, a model of notes reconstructs the whole
sound, and a model of recordings fills the gaps and removes the noise (`signals.denoise_sound`).
"""

import contextlib
import os
import threading
from dataclasses import dataclass, field
from tempfile import TemporaryFile
from typing import BinaryIO

import numpy as np
import soxr
from tqdm import tqdm

from audio_utils import runs
from files.gap_labels import read_gaps
from files.sound_reader import SMALLEST, keeps_zeros, open_sound
from files.sound_result import BITS, create, extras, rounded
from harness import UserError
from harness.errors import printable
from harness.result_files import replacing
from harness.threads import in_threads
from inference import restore_long
from signals.denoise_sound import Denoiser
from signals.fill_gaps import CONTEXTS, fill, fill_each
from signals.gaps import clicks, find_gaps, inside
from signals.levels import at_trained_level, explained_fractions
from signals.noise import NO_NOISE_DB, artificial_gaps, typical_size

PIECE_SECONDS = 16  # duration that a thread restores at once
MARGIN_WINDOWS = 3  # sound around a piece; a window's fit depends on those up to 2 windows away
REACH = sum(CONTEXTS[-1])  # seconds that `fill` uses on each side of a gap, plus twice the gap
MOST_MISSING = 2 / 3  # maximum fraction; with more, the zeros probably belong to the sound
SCORED = 64  # windows per piece (up to twice as many) that show how much the network explains
LEAST_EXPLAINED = 0.8  # minimum fraction; known notes in noise have 0.98 or more, other music less
COMPLETE = 0.99  # a file with less of its stated length, by over 0.1 s, is reported as cut short


def restore_sound(model, source, destination, gap_file=None, keep=False):
    """Restore each channel of a sound file. Returns a one-line description of the result.

    model: a `files.model_file.Restorer`. gap_file: from `read_labels`. By default, gaps are runs of
    zeros. keep: change only the gaps. Memory does not grow with the length of the sound.
    Raises UserError if the sound cannot be restored.
    """
    with contextlib.ExitStack() as opened:
        sound, channels = _decoded(model, source, destination, gap_file, opened)
        # The output of a model of notes has no noise anyway.
        change = _Channel.denoised if model.kind.recordings else _Channel.reconstructed
        change = _Channel.filled if keep else change
        remarks = _write(sound, channels, change, destination)
    done = [channel.done for channel in channels]
    if len(set(done)) > 1:
        done = [f"{text} in channel {number}" for number, text in enumerate(done, 1) if text]
    texts = [_found(sound, channels, gap_file), *filter(None, dict.fromkeys(done))]
    texts += [] if keep else _explained(channels)
    count = f"{sound.channels} channel{'s' * (sound.channels > 1)}"
    length = f"{channels[0].samples / sound.rate:.2f} s, {sound.rate} Hz, {count}"
    return f"{length}: {', '.join(texts + remarks)}"


def _decoded(model, source, destination, gap_file, opened):
    """Decode a sound into nameless temporary files beside the destination, with zeros in its gaps.

    opened: an ExitStack that closes the files. Returns the `Sound` and a list of `_Channel`. Gaps
    are detected or read from `gap_file`.
    """
    with open_sound(source) as sound:
        folder, samples = destination.parent, 0
        files = [opened.enter_context(TemporaryFile(dir=folder)) for _ in range(sound.channels)]
        for block in sound.blocks():
            samples += len(block)
            for file, values in zip(files, block.T):
                file.write(values.tobytes())
    if not samples:
        raise UserError(f"{source}: contains no samples; leave it out")
    channels = [_Channel(model, file, sound.rate, samples) for file in files]
    longest = model.input_size / model.kind.sample_rate * sound.rate
    zero, bits = SMALLEST.get(sound.subtype, 0.0), BITS.get(sound.subtype)
    step = 2.0 ** (1 - bits) if bits else 0.0
    searched = samples, sound.rate, longest, zero, step
    listed = read_gaps(gap_file, sound.rate, samples, source) if gap_file else None
    for channel in channels:
        found, channel.silences, channel.abrupt = find_gaps(channel.read, *searched)
        channel.gaps = found if listed is None else listed
        sounding = samples if gap_file else samples - np.ptp(channel.silences, axis=1).sum()
        fraction = np.ptp(channel.gaps, axis=1).sum() / max(sounding, 1)
        if fraction > MOST_MISSING:
            problem = f"too much of the sound is missing ({fraction:.0%})"
            remedy = "list less" if gap_file else "list the real gaps in a file for --gaps"
            raise UserError(f"{gap_file.path if gap_file else source}: {problem}; {remedy}")
        for first, end in channel.pieces():
            channel.fill(first, np.zeros(end - first))
    return sound, channels


def _found(sound, channels, listed):
    """Return a text on how many gaps there are, and whether some may have been overlooked."""
    count = sum(len(channel.gaps) for channel in channels)
    missing = sum(np.ptp(channel.gaps, axis=1).sum() for channel in channels)
    fraction = missing / channels[0].samples / len(channels)
    number = f"{count} gap{'s' * (count > 1)}"
    found = f"{number}, {fraction:.1%} missing" if count else "no gaps found"
    doubts = [] if keeps_zeros(sound.subtype) else [f"{sound.encoding} does not preserve zeros"]
    if abrupt := sum(channel.abrupt for channel in channels):
        doubts.append(f"{abrupt} long silence{'s' * (abrupt > 1)} could be missing sound")
    if listed or not doubts:
        return found
    return f"{found}, but {' and '.join(doubts)}; list overlooked gaps in a file for --gaps"


def _explained(channels):
    """Return texts on how much of a sound the network explains."""
    total, count = np.sum([channel.explained for channel in channels], axis=0)
    if not count:
        return []
    unknown = ": not the kind of sound it was trained on" if total < LEAST_EXPLAINED * count else ""
    return [f"the model explains {total / count:.0%} of this sound{unknown}"]


@dataclass
class _Channel:
    """A channel of a sound, stored in a temporary file of float64 samples."""

    model: object  # a `files.model_file.Restorer`
    file: BinaryIO
    rate: int  # Hz
    samples: int
    gaps: np.ndarray | None = None  # stretches (n, 2) to restore
    silences: np.ndarray | None = None  # stretches (n, 2) that stay silent
    abrupt: int = 0  # number of silences that may be long gaps
    done: str = ""  # description of what was done
    explained: np.ndarray = field(default_factory=lambda: np.zeros(2))  # sum of fractions, windows
    lock: object = field(default_factory=threading.Lock)  # threads share the file and `explained`

    def read(self, first, end):
        """Return the samples [first, end), with zeros beyond the end of the sound."""
        with self.lock:
            self.file.seek(8 * first)
            values = np.frombuffer(self.file.read(8 * (end - first)))
        return np.pad(values, (0, end - first - values.size))

    def fill(self, first, values):
        """Write those of the values (n,) that are in gaps."""
        end = first + len(values)
        if (missing := inside(self.gaps, first, end)).any():
            filled = np.where(missing, values, self.read(first, end))
            with self.lock:
                self.file.seek(8 * first)
                self.file.write(filled.tobytes())

    def silent(self, first, end):
        """Return a mask (end - first,), True in silences that are not gaps."""
        return inside(self.silences, first, end) & ~inside(self.gaps, first, end)

    def pieces(self):
        """Yield the first sample and the end of consecutive pieces."""
        size = round(PIECE_SECONDS * self.rate)
        for first in range(0, self.samples, size):
            yield first, min(first + size, self.samples)

    def reconstructed(self):
        """Yield the network's reconstruction of the channel in pieces (n,)."""
        yield from in_threads(self._drawn, self.pieces())
        self.done = "reconstructed by the network"

    def denoised(self):
        """Yield the channel in pieces (n,), its gaps filled and its noise removed."""
        denoiser = Denoiser(self.read, self.gaps, self.samples, self.rate, self.draw)
        first = 0
        for piece in denoiser.pieces():
            end = first + piece.size
            yield np.where(self.silent(first, end), 0, piece)
            first = end
        self.done = _noise_removed(denoiser)

    def filled(self):
        """Fill the gaps by autoregression or the network, and yield the channel in pieces (n,)."""
        left, autoregression, count = self.gaps, 0, len(self.gaps)
        if not self._network_predicts_better():
            filling, left = fill_each(self.read, self.gaps, self.samples, self.rate), []
            for first, end, values in tqdm(filling, "gaps", count, leave=False, disable=None):
                if values is None:
                    left.append((first, end))
                else:
                    self.fill(first, values)
                    autoregression += 1
            left = np.reshape(left, (-1, 2)).astype(int)
        for first, end in self.pieces():
            if (mask := inside(left, first, end)).any():
                self.fill(first, np.where(mask, self._drawn(first, end), self.read(first, end)))
            yield self.read(first, end)
        if len(left) and autoregression:
            self.done = f"{autoregression} filled by autoregression and {len(left)} by the network"
        elif count:
            self.done = f"filled by {'the network' if len(left) else 'autoregression'}"

    def _drawn(self, first, end):
        """Return the network's output for the samples [first, end), 0 in silences."""
        kind = self.model.kind
        margin = round(MARGIN_WINDOWS * self.model.input_size / kind.sample_rate * self.rate)
        start, stop = max(first - margin, 0), min(end + margin, self.samples)
        drawn = self.draw(self.read(start, stop), np.zeros(stop - start), start)
        return np.where(self.silent(first, end), 0, drawn[first - start : end - start])

    def draw(self, sound, mask, first):
        """Return the network's output for a part of the sound: (T,), (T,) -> (T,).

        The part begins at the sample `first`. The network does not see it where the mask is 1, in
        gaps, in silences and beyond the end of the sound.
        """
        level = np.sqrt(np.mean(sound**2)) or 1.0  # so rounding to float32 does not depend on it
        values, hidden = self._at_model_rate(sound / level, mask, first)
        drawn = level * self._network(values, hidden)
        return soxr.resample(drawn, self.model.kind.sample_rate, self.rate)[: sound.size]

    def _at_model_rate(self, sound, mask, first):
        """Resample a part for `_network`. Returns the samples, 0 where hidden, and a mask."""
        rate, end = self.model.kind.sample_rate, first + sound.size
        unseen = (mask == 1) | inside(self.gaps, first, end) | inside(self.silences, first, end)
        unseen[self.samples - first :] = True
        values = soxr.resample(np.float32(np.where(unseen, 0, sound)), self.rate, rate)
        # Add one sample, so that none is lost when the output is resampled to the sound's rate.
        size = max(values.size + 1, self.model.input_size)
        values, hidden = np.pad(values, (0, size - values.size)), np.arange(size) >= values.size
        for start, end in runs(unseen) * (rate / self.rate):
            hidden[int(start) : int(np.ceil(end))] = True
        return values * ~hidden, hidden

    def _network(self, values, hidden):
        """Return the network's output at its own rate: (T,), (T,) -> (T,)."""
        model, window = self.model, self.model.input_size
        hidden = hidden | clicks(values, ~hidden, model.kind.sample_rate)
        values = values * ~hidden
        reconstruct = at_trained_level(model.reconstruct, model.kind.rms)
        output = restore_long(values, hidden, reconstruct, window)
        whole = values.size // window * window
        step = max(1, whole // window // SCORED)
        parts = (part[:whole].reshape(-1, window)[::step] for part in (values, ~hidden, output))
        fractions = explained_fractions(*parts)
        with self.lock:
            self.explained += fractions.sum(), fractions.size
        return output

    def _network_predicts_better(self):
        """Return True if the network fills artificial gaps better than autoregression does."""
        if not (size := typical_size(self.gaps)):
            return False
        gaps = artificial_gaps(self.gaps, self.samples, size)
        errors = [np.log(self._errors(*gap)) for gap in gaps if not self.silent(*gap).any()]
        network, autoregression = np.mean(errors or [[0, 0]], axis=0)
        return network < autoregression

    def _errors(self, first, end):
        """Return the mean squared errors of network and autoregression in an artificial gap."""
        rate = self.model.kind.sample_rate
        reach = round(max(2 * self.model.input_size / rate, REACH) * self.rate) + 2 * (end - first)
        start, stop = max(first - reach, 0), min(end + reach, self.samples)
        values, hidden = self._at_model_rate(self.read(start, stop), np.zeros(stop - start), start)
        low, high = np.array([first - start, end - start]) * rate / self.rate
        gap = slice(int(low), int(np.ceil(high)))
        truth = values[gap].copy()
        values[gap], hidden[gap] = 0, True
        estimates = self._network(values, hidden), fill(values, runs(hidden), rate)
        floor = 1e-12 * np.mean(truth**2)
        return [np.mean((estimate[gap] - truth) ** 2) + floor for estimate in estimates]


def _noise_removed(denoiser):
    """Return a text on the noise that was removed from a channel."""
    noise, sound, samples = denoiser.removed
    if denoiser.silent:
        return "silent"
    tones = ", ".join(f"{frequency:.0f}" for frequency in denoiser.hum)
    hum = f"removed hum at {tones} Hz, " if tones else ""
    if not samples:
        return f"{hum}no steady noise found within {-NO_NOISE_DB:.0f} dB of the sound"
    level_db = 10 * np.log10(max(noise, 1e-20) / max(sound, 1e-20))
    side, fraction = "above" if level_db > 0.5 else "below", samples / denoiser.samples
    where = f" from {fraction:.0%} of the sound" if fraction < 0.95 else ""
    return f"{hum}removed noise {abs(level_db):.0f} dB {side} the sound{where} (Wiener filter)"


def _write(sound, channels, change, destination):
    """Write the channels, restored by the method `change`. Returns a list of remarks."""
    name, total, clipped = printable(os.path.basename(sound.path)), channels[0].samples, 0
    with (
        replacing(destination) as path,
        create(path, sound, destination) as file,
        tqdm(desc=name, total=total, unit_scale=True, leave=False, disable=None) as bar,
    ):
        for pieces in zip(*map(change, channels), strict=True):
            values, beyond = rounded(np.stack(pieces, 1), file.subtype)
            file.write(values)
            clipped += beyond
            bar.update(len(values))
    gone = ", ".join(sorted(extras(sound.path) - extras(destination)))
    remarks = [f"without its {gone}"] if gone else []
    remarks += [f"{clipped} samples clipped"] if clipped else []
    if change == _Channel.filled and not keeps_zeros(file.subtype):
        remarks.append(f"encoded again as {sound.encoding}")
        if destination.suffix.lower() != ".wav":
            remarks[-1] += "; to keep the rest exactly, give --out a name that ends in .wav"
    if sound.seconds and total / sound.rate < COMPLETE * sound.seconds - 0.1:
        remarks.append(f"cut short or damaged: its length should be {sound.seconds:.2f} s")
    return remarks

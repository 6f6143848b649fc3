"""Restore a sound file of any length, rate, channels and format with a trained model.

There are three methods. With `keep`, only the gaps change. Autoregression or the network fills
them, whichever predicts the channel better. Without `keep`, a model of notes reconstructs the whole
sound, and a model of recordings fills the gaps and removes the noise (`signals.denoise_sound`).
"""

import collections
import contextlib
import functools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

import audio_utils
from files.gap_labels import read_gaps
from files.sound_reader import SMALLEST, keeps_zeros, open_sound
from files.sound_result import Result, how_well_kept, writing
from harness import UserError
from harness.errors import printable
from harness.result_files import replacing
from inference import HOPS_PER_WINDOW, restore_long_blocks
from signals.denoise_sound import Denoiser
from signals.fill_gaps import CONTEXTS, fill, fill_each
from signals.gaps import clicks, find_gaps, inside
from signals.levels import at_trained_level, explained
from signals.noise import NO_NOISE_DB
from signals.resampling import resample

TRIALS = 16  # maximum artificial gaps per channel, to compare network and autoregression
REACH = sum(CONTEXTS[-1])  # seconds of context on each side of an artificial gap, plus gap lengths
MOST_MISSING = 2 / 3  # maximum fraction; more is a sound that contains zeros
LEAST_EXPLAINED = 0.8  # minimum fraction; known notes in noise have 0.98 or more, other music less
# A file is reported as cut short if more than the sum of these is missing.
TOLERANCE = 0.1, 0.01  # seconds, and fraction of the length


@dataclass(frozen=True)
class _Job:
    """A sound file to restore, with its gaps."""

    source: Path
    destination: Path
    rate: int  # Hz
    frames: int
    gaps: list  # per channel: stretches (n, 2) of samples to restore
    silences: list  # per channel: stretches (n, 2) of samples that stay silent


def restore_sound(model, source, destination, gap_file=None, keep=False):
    """Restore each channel of a sound file. Returns a one-line description of the result.

    model: a `files.model_file.Restorer`. gap_file: from `read_labels`. By default, gaps are runs of
    zeros. keep: change only the gaps. Memory does not grow with the length of the sound.
    Raises UserError if the sound cannot be restored.
    """
    with contextlib.ExitStack() as opened:
        sound = opened.enter_context(open_sound(source))
        job = _job(model, source, destination, gap_file)
        # The output of a model of notes has no noise anyway.
        denoise = not keep and model.kind.recordings
        channels = _channels(model, job, sound, keep or denoise, opened)
        method = _denoise if denoise else _fill if keep else _reconstruct
        restored, describe = method(job, channels)
        remarks = _write(restored, job, keep)
        count = f"{sound.channels} channel{'s' * (sound.channels > 1)}"
        found = _found(job, sound, listed=gap_file) + describe()
        found += "" if keep else _explained(channels)
    return f"{job.frames / job.rate:.2f} s, {job.rate} Hz, {count}: {found}{remarks}"


def _job(model, source, destination, gap_file):
    """Return a `_Job` with the gaps of a sound file, detected or read from `gap_file`."""
    with open_sound(source) as sound:
        rate, channels = sound.rate, sound.channels
        longest = model.input_size / model.kind.sample_rate * rate
        zero = SMALLEST.get(sound.subtype, 0.0)
        gaps, silences, frames = find_gaps(sound.blocks(), channels, rate, longest, zero)
    if not frames:
        raise UserError(f"{source}: contains no samples; leave it out")
    if gap_file:
        gaps = [read_gaps(gap_file, rate, frames, source)] * channels
    for listed, silent in zip(gaps, silences):
        sounding = frames if gap_file else frames - np.ptp(silent, axis=1).sum()
        if (fraction := np.ptp(listed, axis=1).sum() / max(sounding, 1)) > MOST_MISSING:
            problem = f"too much of the sound is missing ({fraction:.0%})"
            remedy = "list less" if gap_file else "list the real gaps in a file for --gaps"
            raise UserError(f"{gap_file.path if gap_file else source}: {problem}; {remedy}")
    return _Job(source, destination, rate, frames, gaps, silences)


def _found(job, sound, listed):
    """Return a text on how many gaps there are, and whether some may have been overlooked."""
    count = sum(map(len, job.gaps))
    if not listed and not keeps_zeros(sound.subtype):
        found = f"{count or 'no'} gaps found, but {sound.encoding} does not preserve exact zeros"
        return f"{found}; if any gaps were overlooked, list them in a file for --gaps"
    missing = sum(np.ptp(stretches, axis=1).sum() for stretches in job.gaps)
    fraction = missing / job.frames / len(job.gaps)
    return f"{count} gaps, {fraction:.1%} missing" if count else "nothing missing"


def _explained(channels):
    """Return a text on how much of a sound the network explains."""
    total, count = np.sum([channel.explained for channel in channels], axis=0)
    if not count:
        return ""
    unknown = ": not the kind of sound it was trained on" if total < LEAST_EXPLAINED * count else ""
    return f", the model explains {total / count:.0%} of this sound{unknown}"


def _reconstruct(job, channels):
    """Reconstruct the whole sound with the network.

    Like the other methods, this returns an iterator of restored blocks (n, channels) at the sound's
    rate, and a function that describes the result once all blocks have been read.
    """
    pieces = _side_by_side(channel.reconstruct() for channel in channels)
    restored = resample(pieces, len(channels), channels[0].rate, job.rate)
    return restored, lambda: ", reconstructed by the network"


def _fill(job, channels):
    """Fill the gaps of each channel by autoregression, or by the network if it predicts better."""
    restored, _ = _reconstruct(job, channels)
    methods = collections.Counter()
    for number, (channel, gaps) in enumerate(zip(channels, job.gaps)):
        ratio = channel.rate / job.rate
        if len(gaps) and channel.network_predicts_better(_at_rate([gaps], ratio)):
            filling = ((*gap, None) for gap in gaps)
        else:
            filling = fill_each(channel.read_own, gaps, job.frames, job.rate)
        restored = _with_filling(restored, number, filling, methods)

    def describe():
        if len(methods) > 1:
            network, autoregression = methods["the network"], methods["autoregression"]
            return f", {autoregression} filled by autoregression and {network} by the network"
        return "".join(f", filled by {method}" for method in methods)

    return restored, describe


def _denoise(job, channels):
    """Fill the gaps of each channel and remove its noise."""
    rates = job.rate, channels[0].rate
    denoisers = [
        Denoiser(channel.read_own, gaps, silences, job.frames, rates, channel.reconstruct_part)
        for channel, gaps, silences in zip(channels, job.gaps, job.silences)
    ]

    def describe():
        found = [_noise_removed(denoiser) for denoiser in denoisers]
        if len(set(found)) > 1:
            found = [f"{text} in channel {number}" for number, text in enumerate(found, 1)]
        return "".join(f", {text}" for text in dict.fromkeys(found))

    return _side_by_side(denoiser.pieces() for denoiser in denoisers), describe


def _noise_removed(denoiser):
    """Return a text on the noise that was removed from a channel."""
    noise, sound, samples = denoiser.removed
    if not denoiser.sounds:
        return "silent"
    tones = ", ".join(f"{frequency:.0f}" for frequency in denoiser.hum)
    hum = f"removed hum at {tones} Hz, " if tones else ""
    if not samples:
        return (
            f"{hum}no steady noise within {-NO_NOISE_DB:.0f} dB of the sound, so none was removed"
        )
    level_db = 10 * np.log10(max(noise, 1e-20) / max(sound, 1e-20))
    side, fraction = "above" if level_db > 0.5 else "below", samples / denoiser.samples
    where = f" from {fraction:.0%} of the sound" if fraction < 0.95 else ""
    return f"{hum}removed noise {abs(level_db):.0f} dB {side} the sound{where} (Wiener filter)"


@dataclass
class _Channel:
    """A channel of a sound, stored in temporary files of float32 samples."""

    model: object  # a `files.model_file.Restorer`
    file: BinaryIO  # samples at the model's rate
    own_file: BinaryIO  # samples at the sound's rate, if needed
    hidden: np.ndarray  # sorted stretches (n, 2) to hide from the network, at the model's rate
    samples: int  # number of samples at the model's rate
    explained: np.ndarray  # (2,): sum of the fractions explained, number of windows

    @property
    def rate(self):
        return self.model.kind.sample_rate

    def read(self, first, end):
        """Return samples at the model's rate, 0 where hidden, and a mask, True where hidden."""
        mask = inside(self.hidden, first, end)
        return _read(self.file, first, end) * ~mask, mask

    def read_own(self, first, end):
        """Return samples at the sound's rate, 0 in gaps."""
        return _read(self.own_file, first, end)

    def reconstruct(self):
        """Yield the network's reconstruction of the channel in pieces (n,), at the model's rate."""
        return self._drawn(self.read, self.samples)

    def reconstruct_part(self, values, mask):
        """Reconstruct given samples at the model's rate, hidden at `mask`: (T,), (T,) -> (T,)."""
        padding = 0, max(0, self.model.input_size - values.size)
        padded, hidden = np.pad(values, padding), np.pad(mask, padding, constant_values=True)
        pieces = self._drawn(lambda first, end: (padded[first:end], hidden[first:end]), padded.size)
        return np.concatenate(list(pieces))[: values.size]

    def _drawn(self, read, samples):
        def read_without_clicks(first, end):
            values, mask = read(first, end)
            hidden = mask | clicks(values, ~mask, self.rate)
            return values * ~hidden, hidden

        window, first = self.model.input_size, 0
        reconstruct = at_trained_level(self.model.reconstruct, self.model.kind.rms)
        sizes = samples, reconstruct, window, window // HOPS_PER_WINDOW
        for piece in restore_long_blocks(read_without_clicks, *sizes):
            end = first + piece.size // window * window
            values, mask = read_without_clicks(first, end)
            parts = (part.reshape(-1, window) for part in (values, ~mask, piece[: end - first]))
            fractions = explained(*parts)
            self.explained += fractions.sum(), fractions.size
            yield piece
            first += piece.size

    def network_predicts_better(self, gaps):
        """Return True if the network fills artificial gaps better than autoregression does.

        Each artificial gap is as long as one of the gaps (n, 2), and one gap length away from it.
        """
        errors = []
        for first, end in gaps[np.unique(np.linspace(0, len(gaps) - 1, TRIALS).astype(int))]:
            size = end - first
            for start in (end + size, first - 2 * size):
                if start >= 0 and not self.read(start, start + size)[1].any():
                    errors.append(np.log(self._errors(start, start + size)))
                    break
        network, autoregression = np.mean(errors or [[0, 0]], axis=0)
        return network < autoregression

    def _errors(self, first, end):
        """Return the mean squared errors of network and autoregression in an artificial gap."""
        reach = max(2 * self.model.input_size, round(REACH * self.rate) + 2 * (end - first))
        start, stop = max(first - reach, 0), min(end + reach, self.samples)
        gap = slice(first - start, end - start)
        values, mask = self.read(start, stop)
        truth = values[gap].copy()
        values[gap], mask[gap] = 0, True
        estimates = (
            self.reconstruct_part(values, mask),
            fill(values, audio_utils.runs(mask), self.rate),
        )
        floor = 1e-12 * np.mean(truth**2)
        return [np.mean((estimate[gap] - truth) ** 2) + floor for estimate in estimates]


def _channels(model, job, sound, own, opened):
    """Decode an open sound into nameless temporary files beside the destination.

    own: True to store it at its own rate too. opened: an ExitStack that closes the files. Returns
    a list of `_Channel`.
    """
    blocks, model_rate, files = _without_gaps(sound, job.gaps), model.kind.sample_rate, {}
    for rate in dict.fromkeys([job.rate, model_rate] if own else [model_rate]):
        files[rate] = [
            opened.enter_context(tempfile.TemporaryFile(dir=job.destination.parent))
            for _ in range(sound.channels)
        ]
        blocks = resample(blocks, sound.channels, job.rate, rate)
        blocks = _stored(blocks, files[rate], job.destination)
    collections.deque(blocks, maxlen=0)  # decodes and stores all blocks
    ratio = model_rate / job.rate
    # Add one sample, so that none is lost when the result is resampled to the sound's rate.
    samples = max(model.input_size, int(np.ceil(job.frames * ratio)) + 1)
    beyond = [[job.frames, 2 * samples / ratio]]
    own_files = files.get(job.rate, files[model_rate])
    return [
        _Channel(
            model, file, own_file, _at_rate([gaps, silences, beyond], ratio), samples, np.zeros(2)
        )
        for file, own_file, gaps, silences in zip(
            files[model_rate], own_files, job.gaps, job.silences
        )
    ]


def _without_gaps(sound, gaps):
    """Yield the blocks (n, channels), float32, of an open sound with zeros in its gaps."""
    first = 0
    for block in sound.blocks("float32"):
        yield np.where(_in_each(gaps, first, first + len(block)), np.float32(0), block)
        first += len(block)


def _stored(blocks, files, destination):
    """Yield blocks (n, channels) after writing each of their channels to its own file."""
    for block in blocks:
        for file, values in zip(files, block.T):
            with writing(destination):
                file.write(values.tobytes())
                file.flush()
        yield block


def _read(file, first, end):
    """Return the samples [first, end) of a float32 file, with zeros beyond its end."""
    file.seek(4 * first)
    values = np.frombuffer(file.read(4 * (end - first)), np.float32)
    return np.pad(values, (0, end - first - values.size))


def _at_rate(stretches, ratio):
    """Join a list of stretches (n, 2), sort them and scale them by `ratio`, rounded outwards."""
    starts, ends = np.concatenate(stretches).T * ratio
    return np.sort(np.stack([np.floor(starts), np.ceil(ends)], 1).astype(int), axis=0)


def _in_each(channels, first, end):
    """Return a boolean mask (end - first, channels) of the samples in each channel's stretches."""
    return np.stack([inside(stretches, first, end) for stretches in channels], 1)


def _side_by_side(channels):
    """Join pieces (n,) of each channel into blocks (n, channels)."""
    return (np.stack(pieces, 1) for pieces in zip(*channels))


def _with_filling(blocks, number, filling, methods):
    """Yield restored blocks (n, channels) with the gaps of one channel filled.

    number: index of the channel. filling: yields (first, end, values) per gap, with None as
    values to keep the network's. methods: a Counter of filled gaps per method, updated here.
    """
    first, gap = 0, next(filling, None)
    for block in blocks:
        while gap and gap[0] < first + len(block):
            begin, end, values = gap
            if values is not None:
                low, high = max(begin, first), min(end, first + len(block))
                block[low - first : high - first, number] = values[low - begin : high - begin]
            if end > first + len(block):
                break
            methods["the network" if values is None else "autoregression"] += 1
            gap = next(filling, None)
        yield block
        first += len(block)


def _write(restored, job, keep):
    """Write restored blocks to the destination, with zeros in silences.

    keep: True to write the source's samples outside the gaps. Returns remarks on the result, each
    preceded by a comma.
    """
    name, first = printable(os.path.basename(job.source)), 0
    with (
        open_sound(job.source) as original,
        replacing(job.destination) as path,
        contextlib.closing(Result(path, original, job.destination)) as result,
        tqdm(desc=name, total=job.frames, unit_scale=True, leave=False, disable=None) as bar,
    ):
        for block in restored:
            given = original.read(len(block))
            end = first + len(given)
            missing, silent = _in_each(job.gaps, first, end), _in_each(job.silences, first, end)
            block = np.where(silent & ~missing, 0.0, block[: len(given)])
            result.write(given, block, missing | (not keep))
            first = end
            bar.update(len(given))
    remarks = [f"without its {lost}" for lost in result.lost]
    remarks += [f"{result.clipped} samples clipped"] if result.clipped else []
    if keep and not keeps_zeros(result.subtype):
        missing = functools.partial(_in_each, job.gaps)
        remarks.append(how_well_kept(job.source, job.destination, missing))
    expected = original.seconds
    if expected and expected - job.frames / job.rate > TOLERANCE[0] + TOLERANCE[1] * expected:
        remarks.append(f"cut short or damaged: its length should be {expected:.2f} s")
    return "".join(f", {remark}" for remark in remarks)

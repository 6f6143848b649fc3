"""Restore a sound file of any length, rate, channels and format with a trained model.

There are three methods. The network alone draws the whole sound. With `keep` only the gaps change,
filled by autoregression or by the network, whichever predicts a channel better. A model of
recordings also removes noise, see `signals.denoise_sound`.
"""

import collections
import contextlib
import functools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import soundfile
from tqdm import tqdm

import audio_utils
from files.compressed_sound import MP4, M4AFile
from files.gap_labels import read_gaps
from files.sound_files import SMALLEST, keeps_zeros, open_sound, reason
from harness import UserError
from harness.run_folder import replacing
from inference import HOPS_A_WINDOW, restore_long_blocks
from signals import levels as sound_levels
from signals.denoise_sound import Denoiser
from signals.fill_gaps import fill, fill_each
from signals.gaps import find_gaps, inside
from signals.noise import NO_NOISE_DB
from signals.resampling import resample

BITS = {
    "PCM_S8": 8,
    "PCM_U8": 8,
    "PCM_16": 16,
    "PCM_24": 24,
}  # codes that libsndfile rounds down to
FLOATS = "FLOAT", "DOUBLE"  # codes that do not clip
BEST = {  # the highest bit rate, so that encoding again spoils little
    "MPEG_LAYER_III": {"compression_level": 0, "bitrate_mode": "CONSTANT"},
    "VORBIS": {"compression_level": 0},
    "OPUS": {"compression_level": 0},
}
TRIALS = 16  # gaps of a channel beside which the network and autoregression are compared
REACH = 0.2  # seconds of context on both sides of a trial, as far as autoregression looks
WELL_KEPT_DB = 24.0  # SNR of the sound outside the gaps, after a lossy code
LACKING = 0.1, 0.01  # seconds, and fraction of the sound, that may lack without a remark


@dataclass(frozen=True)
class _Job:
    """A sound file to be restored, and where its gaps are."""

    source: Path
    destination: Path
    rate: int  # Hz
    frames: int
    gaps: list  # of each channel: stretches (n, 2) of samples
    silences: list  # likewise


def restore_sound(model, source, destination, gap_file=None, keep=False):
    """Restore a sound file, each channel on its own. Returns one line on what was done.

    model: has `reconstruct`, `input_size` and `metadata`. gap_file: as `read_gaps` takes it; by
    default the gaps are found. keep: replace only the gaps. Memory does not grow with the length
    of the sound. UserError if it cannot be restored.
    """
    with contextlib.ExitStack() as opened:
        sound = opened.enter_context(open_sound(source))
        job = _job(model, source, destination, gap_file)
        # A model of notes draws whole notes, without their noise; recordings have no notes.
        denoise = not keep and "rms" in model.metadata and "notes" not in model.metadata
        channels = _channels(model, job, sound, keep or denoise, opened)
        method = _denoise if denoise else _fill if keep else _reconstruct
        restored, describe = method(job, channels)
        remarks = _write(restored, job, keep)
        count = f"{sound.channels} channel{'s' * (sound.channels > 1)}"
        found = _found(job, sound, named=gap_file) + describe()
    return f"{job.frames / job.rate:.2f} s, {job.rate} Hz, {count}: {found}{remarks}"


def _job(model, source, destination, gap_file):
    """Find the gaps of a sound file, or read them from `gap_file`."""
    with open_sound(source) as sound:
        rate, channels = sound.rate, sound.channels
        longest = model.input_size / model.metadata["sample_rate"] * rate
        zero = SMALLEST.get(sound.subtype, 0.0)
        blocks = _finite(sound)
        gaps, silences, frames = find_gaps(blocks, channels, rate, longest, zero)
    if not frames:
        raise UserError(f"{source}: contains no samples; leave it out")
    if gap_file:
        gaps = [read_gaps(gap_file, rate, frames, source)] * channels
    return _Job(source, destination, rate, frames, gaps, silences)


def _finite(sound):
    """Read an open sound: blocks (n, channels). UserError for NaN or Inf."""
    for block in sound.blocks():
        if not np.isfinite(block).all():
            raise UserError(f"{sound.path}: contains NaN or Inf; set these samples to 0")
        yield block


def _found(job, sound, named):
    """Say how many gaps there are, and that some may have been overlooked."""
    count = sum(map(len, job.gaps))
    if not named and not keeps_zeros(sound.subtype):
        found = f"{count} gaps found" if count else "no gaps found"
        problem = f"{sound.code} does not preserve exact zeros"
        return f"{found}, but {problem}: name the gaps with --gaps, if there are more"
    missing = sum(np.ptp(stretches, axis=1).sum() for stretches in job.gaps)
    share = missing / job.frames / len(job.gaps)
    return f"{count} gaps, {share:.1%} missing" if count else "nothing missing"


def _reconstruct(job, channels):
    """Have the network draw the whole sound.

    Like all methods, returns restored blocks (n, channels) at the sound's rate, and a function that
    says afterwards what was done.
    """
    pieces = _side_by_side(channel.reconstruct() for channel in channels)
    restored = resample(pieces, len(channels), channels[0].rate, job.rate)
    return restored, lambda: "" if any(map(len, job.gaps)) else ", denoised"


def _fill(job, channels):
    """Fill the gaps of each channel by autoregression, or by the network where that is better."""
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
    """Fill the gaps and remove the noise of each channel."""
    parts = zip(channels, job.gaps, job.silences)
    denoisers = [_denoiser(*part, job.frames, job.rate) for part in parts]
    level_db = max(denoiser.level_db for denoiser in denoisers)
    removed = f", noise {-level_db:.0f} dB below the sound taken out (Wiener filter)"
    said = removed if level_db > NO_NOISE_DB else ", no noise to speak of"
    return _side_by_side(denoiser.pieces() for denoiser in denoisers), lambda: said


def _denoiser(channel, gaps, silences, frames, rate):
    """Return the `Denoiser` of a channel."""

    def draw(sound, hidden, first):
        short = max(0, channel.model.input_size - sound.size)
        values, mask = np.pad(sound, (0, short)), np.pad(hidden, (0, short), constant_values=True)
        pieces = channel.reconstruct(
            lambda low, high: (values[low:high], mask[low:high]), first, values.size
        )
        return np.concatenate(list(pieces))[: sound.size]

    return Denoiser(channel.read_own, gaps, silences, frames, (rate, channel.rate), draw)


@dataclass
class _Channel:
    """A channel of a sound, in files of float32 samples."""

    model: object  # a `files.model_file.Restorer`
    file: BinaryIO  # at the model's rate
    own_file: BinaryIO | None  # at the sound's rate, gaps being zeros
    hidden: np.ndarray  # (n, 2), sorted: what the network must not see, at the model's rate
    samples: int  # at the model's rate

    @property
    def rate(self):
        return self.model.metadata["sample_rate"]

    def read(self, first, end):
        """Read samples at the model's rate, 0 where hidden, and their mask."""
        mask = inside(self.hidden, first, end)
        return _read(self.file, first, end) * ~mask, mask

    def read_own(self, first, end):
        """Read samples at the sound's rate, 0 in gaps."""
        return _read(self.own_file, first, end)

    @functools.cached_property
    def levels(self):
        rms = self.model.metadata.get("rms", audio_utils.RMS)
        return sound_levels.measure(
            self.read, self.samples, self.model.reconstruct, self.model.input_size, rms
        )

    def reconstruct(self, read=None, start=0, samples=None):
        """Have the network draw the channel, at the model's rate: yields pieces (n,).

        The network gets it without its offset and at the level of training; both are put back.
        read: gives other samples and their mask instead, `samples` of them, whose levels are those
        from `start` on.
        """
        read, samples = read or self.read, samples or self.samples

        def leveled(first, end):
            values, mask = read(first, end)
            offset, gain = self.levels.at(start + first, start + end)
            return (values - offset) * gain * ~mask, mask

        window, first = self.model.input_size, start
        for piece in restore_long_blocks(
            leveled, samples, self.model.reconstruct, window, window // HOPS_A_WINDOW
        ):
            offset, gain = self.levels.at(first, first + len(piece))
            yield piece * np.float32(self.levels.correction) / gain + offset
            first += len(piece)

    def network_predicts_better(self, gaps):
        """Return True if the network restores artificial gaps better than autoregression does.

        They are as long as some of the gaps (n, 2) and as far behind or before them.
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
        """Return the errors of network and autoregression from `first` to `end`, made a gap: (2,)."""
        reach = max(2 * self.model.input_size, round(REACH * self.rate))
        start, stop = max(first - reach, 0), min(end + reach, self.samples)
        gap = slice(first - start, end - start)
        values, mask = self.read(start, stop)
        truth = values[gap].copy()
        values[gap], mask[gap] = 0, True
        drawn = self.reconstruct(
            lambda low, high: (values[low:high], mask[low:high]), start, stop - start
        )
        estimates = np.concatenate(list(drawn)), fill(values, audio_utils.runs(mask), self.rate)
        floor = 1e-12 * np.mean(truth**2)
        return [np.mean((estimate[gap] - truth) ** 2) + floor for estimate in estimates]


def _channels(model, job, sound, own, opened):
    """Decode a sound just opened into files on the disk of the destination: a list of `_Channel`.

    own: also keep it at its own rate. `opened` closes the files, which have no names.
    """
    model_rate = model.metadata["sample_rate"]
    files = {
        rate: [
            opened.enter_context(tempfile.TemporaryFile(dir=job.destination.parent))
            for _ in range(sound.channels)
        ]
        for rate in ({job.rate, model_rate} if own else {model_rate})
    }
    blocks = _without_gaps(sound, job.gaps)
    if own and job.rate != model_rate:
        blocks = _stored(blocks, files[job.rate], job.destination)
    blocks = resample(blocks, sound.channels, job.rate, model_rate)
    for _ in _stored(blocks, files[model_rate], job.destination):
        pass
    ratio = model_rate / job.rate
    # One sample more, so that none lacks after resampling to the sound's rate.
    samples = max(model.input_size, int(np.ceil(job.frames * ratio)) + 1)
    beyond = [[job.frames, 2 * samples / ratio]]
    return [
        _Channel(model, file, own_file, _at_rate([gaps, silences, beyond], ratio), samples)
        for file, own_file, gaps, silences in zip(
            files[model_rate], files.get(job.rate, files[model_rate]), job.gaps, job.silences
        )
    ]


def _without_gaps(sound, gaps):
    """Read a sound just opened, its gaps being zeros: blocks (n, channels), float32."""
    first = 0
    for block in sound.blocks("float32"):
        yield np.where(_in_each(gaps, first, first + len(block)), np.float32(0), block)
        first += len(block)


def _stored(blocks, files, destination):
    """Write the channels of blocks (n, channels) to one file each, and yield the blocks."""
    for block in blocks:
        for file, values in zip(files, block.T):
            with _writing(destination):
                file.write(values.tobytes())
                file.flush()
        yield block


def _read(file, first, end):
    """Read samples from a file of float32, with zeros beyond its end."""
    file.seek(4 * first)
    values = np.frombuffer(file.read(4 * (end - first)), np.float32)
    return np.pad(values, (0, end - first - values.size))


def _at_rate(stretches, ratio):
    """Return all samples, at `ratio` times the rate, that a list of (n, 2) touches: (n, 2), sorted."""
    starts, ends = np.concatenate(stretches).T * ratio
    return np.sort(np.stack([np.floor(starts), np.ceil(ends)], 1).astype(int), axis=0)


def _in_each(channels, first, end):
    """Mark the samples in each channel's stretches: (end - first, channels)."""
    return np.stack([inside(stretches, first, end) for stretches in channels], 1)


def _side_by_side(channels):
    """Join the pieces (n,) of all channels to blocks (n, channels)."""
    return (np.stack(pieces, 1) for pieces in zip(*channels))


def _with_filling(blocks, number, filling, methods):
    """Put the filling of a channel's gaps into restored blocks (n, channels).

    filling: first, end and values of each gap; None leaves it to the network. methods: a Counter of
    the methods used.
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


@contextlib.contextmanager
def _writing(destination):
    """UserError that names `destination` if the block cannot write."""
    try:
        yield
    except (soundfile.SoundFileError, av.FFmpegError, AssertionError, OSError) as error:
        # soundfile asserts that all was written.
        problem = reason(error) or "the disk may be full"
        remedy = f"make room on the disk of {destination.parent} or give another --out"
        raise UserError(f"{destination}: cannot be written ({problem}); {remedy}") from error


def _kind(sound, destination):
    """Return format, subtype and endian of the result, as soundfile takes them, or MP4 for M4A.

    A name that ends in .wav makes it a WAV, whatever the input. UserError if it cannot be written.
    """
    suffix, given = (Path(path).suffix.lower() for path in (destination, sound.path))
    if suffix != given and suffix == ".wav":
        subtype = sound.subtype if soundfile.check_format("WAV", sound.subtype) else "PCM_16"
        return "WAV", subtype if keeps_zeros(subtype) else "PCM_16", "FILE"
    if sound.format == MP4 and suffix == ".m4a":
        return MP4, sound.subtype, "FILE"
    for endian in (sound.endian, "FILE"):
        if soundfile.check_format(sound.format, sound.subtype, endian):
            return sound.format, sound.subtype, endian
    problem = f"{sound.format} with {sound.subtype} can be read, but not written"
    raise UserError(f"{sound.path}: {problem}; give --out a name that ends in .wav")


class _Result:
    """A sound file to write blocks (n, channels) to. UserError that names `destination`."""

    def __init__(self, path, sound, destination):
        self.destination = destination
        self.format, self.subtype, endian = _kind(sound, destination)
        with _writing(destination):
            if self.format == MP4:
                self.file = M4AFile(path, sound.decoder, sound.tags)
            else:
                kind = {"format": self.format, "subtype": self.subtype, "endian": endian}
                kind |= BEST.get(self.subtype, {})
                name = os.fsencode(path)  # any bytes; soundfile itself encodes strictly
                self.file = soundfile.SoundFile(name, "w", sound.rate, sound.channels, **kind)

    def write(self, block):
        with _writing(self.destination):
            self.file.write(block)

    def close(self):
        with _writing(self.destination):
            self.file.close()


def _copy_tags(sound, result):
    """Write title, artist and the like. Returns a remark on what is lost."""
    lost = ["pictures"] if sound.decoder and sound.decoder.has_pictures else []
    try:
        for name, text in sound.tags.items():
            if text and result.format != MP4:
                setattr(result.file, name, text)
    except soundfile.SoundFileError:
        lost.append(f"tags, which {result.format} files do not take")
    return f", without its {' and its '.join(lost)}" if lost else ""


def _write(restored, job, keep):
    """Write restored blocks as a file like the source. Returns remarks, each after a comma.

    Silences stay silent. keep: all but the gaps stays as it is.
    """
    first = clipped = 0
    with (
        open_sound(job.source) as original,
        replacing(job.destination) as path,
        contextlib.closing(_Result(path, original, job.destination)) as result,
        tqdm(
            desc=os.path.basename(job.source),
            total=job.frames,
            unit_scale=True,
            leave=False,
            disable=None,
        ) as bar,
    ):
        remarks = _copy_tags(original, result)
        full_scale = 2.0 ** (BITS.get(result.subtype, 32) - 1)
        for block in restored:
            given = original.read(len(block))
            end = first + len(given)
            missing, silent = _in_each(job.gaps, first, end), _in_each(job.silences, first, end)
            block = np.where(silent & ~missing, 0.0, block[: len(given)])
            new = missing | (not keep)
            if result.subtype not in FLOATS:
                clipped += np.count_nonzero((np.abs(block) > 1) & new)
                block = np.round(block * full_scale).clip(-full_scale, full_scale - 1) / full_scale
            result.write(np.where(new, block, given))
            first = end
            bar.update(len(given))
    if clipped:
        remarks += f", {clipped} samples clipped"
    if keep and not keeps_zeros(result.subtype):
        remarks += _how_well_kept(job)
    return remarks + _lacking(original, job)


def _how_well_kept(job):
    """Say how little a lossy code has changed the samples outside the gaps."""
    energy = error = first = 0
    with open_sound(job.source) as original, open_sound(job.destination) as result:
        for given in original.blocks():
            kept = result.read(len(given))
            if len(kept) < len(given):
                error = np.inf
                break
            observed = ~_in_each(job.gaps, first, first + len(given))
            energy += (given[observed] ** 2).sum()
            error += ((given - kept)[observed] ** 2).sum()
            first += len(given)
    ratio_db = 10 * np.log10(energy / error) if error and energy else np.inf
    said = f", the rest kept to {ratio_db:.0f} dB, since {original.code} is encoded again"
    advice = "; to keep it exactly give --out a name that ends in .wav"
    return said + (advice if ratio_db < WELL_KEPT_DB else "")


def _lacking(sound, job):
    """Say if a compressed file ends too early, or has lost something."""
    seconds, expected = job.frames / job.rate, sound.decoder and sound.decoder.seconds
    if expected and expected - seconds > LACKING[0] + LACKING[1] * expected:
        return f", cut short or damaged: {expected:.2f} s were expected"
    return ""

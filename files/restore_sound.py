"""Restore a sound file of any length, rate, channels and format with a trained model."""

import collections
import contextlib
import functools
import os
import tempfile
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import soundfile
from tqdm import tqdm

from audio_utils import runs
from files.gaps import find_gaps, inside, keeps_zeros, read_gaps
from files.sound_files import ReadForward, check_header, read_on, reason, remedy, resample
from harness import UserError
from harness.run_folder import replacing
from inference import HOPS_PER_WINDOW, restore_long_blocks
from signals import levels as sound_levels
from signals.denoise_sound import Denoiser
from signals.fill_gaps import fill, fill_each
from signals.noise import NO_NOISE_DB

BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24}  # what libsndfile would round down to
BEST = {  # the highest bit rate: the input's is not told, and less would spoil what is kept
    "MPEG_LAYER_III": {"compression_level": 0, "bitrate_mode": "CONSTANT"},
    "VORBIS": {"compression_level": 0},
    "OPUS": {"compression_level": 0},
}
TRIALS = 16  # gaps of a channel beside which the network and autoregression are compared
REACH = 0.2  # seconds on each side of where they are: as far as autoregression looks
WELL_KEPT_DB = 24.0  # SNR of what is to be kept after a lossy code


def restore_sound(model, source, destination, gap_file=None, keep=False):
    """Restore a sound file, each channel on its own; one line on what was done. UserError if it cannot be.

    model: has `reconstruct`, `input_size` and `kind`. gap_file: as `read_gaps` takes it; else the gaps are found.
    keep: replace only the gaps. Memory does not grow with the sound's length.
    """
    with contextlib.ExitStack() as opened:
        try:
            # Once to look for gaps, once to be restored, once to be compared.
            first_look, sound, beside = (
                opened.enter_context(ReadForward(source)) for _ in range(3)
            )
            check_header(sound)
            rate, channels, model_rate = (
                sound.samplerate,
                sound.channels,
                model.kind.sample_rate,
            )
            gaps, silences, frames = find_gaps(first_look, model.input_size / model_rate * rate)
            if not frames:
                raise UserError(f"{source}: holds no samples; leave it out")
            if gap_file:
                gaps = [read_gaps(gap_file, rate, frames, source)] * channels
            # A model of notes draws the whole of a note; one of recordings, which has a level and no notes, does not.
            denoises = not keep and model.kind.recordings
            # On the disk the result goes to, files without a name for each channel, at its own rate and the model's.
            fitting = (keep or denoises) and rate != model_rate, True
            files = [
                [
                    opened.enter_context(tempfile.TemporaryFile(dir=destination.parent))
                    for _ in range(channels * kind)
                ]
                for kind in fitting
            ]
            parts = list(_channels(model, sound, files, gaps, silences, frames, destination))
            own = list(zip(parts, files[0] or files[1], gaps, silences))
            ways, denoisers = (
                collections.Counter(),
                [_denoiser(*each, frames, rate) for each in own if denoises],
            )
            if denoises:
                restored = _side_by_side(denoiser.pieces() for denoiser in denoisers)
            else:
                restored = resample(
                    _side_by_side(part.restored() for part in parts), channels, model_rate, rate
                )
                for number, (part, file, stretches, _) in enumerate(own if keep else ()):
                    restored = _filled(
                        restored, number, _filling(part, file, stretches, frames, rate), ways
                    )
            remarks = _write(restored, beside, destination, gaps, silences, frames, keep)
            if keep and not keeps_zeros(sound):
                remarks += _how_well_kept(source, destination, gaps)
        except soundfile.SoundFileError as error:
            problem = f"not a sound that can be read whole ({reason(error)})"
            raise UserError(f"{source}: {problem}; {remedy(source)}") from error
    what = _found(sound, gaps, frames, named=gap_file)
    if len(ways) > 1:
        what += f", {ways[True]} filled by autoregression and {ways[False]} by the network"
    elif ways:
        what += f", filled by {'autoregression' if ways[True] else 'the network'}"
    elif denoises:
        level_db = max(denoiser.level_db for denoiser in denoisers)
        taken_out = f"noise {-level_db:.0f} dB below the sound taken out (Wiener filter)"
        what += f", {taken_out if level_db > NO_NOISE_DB else 'no noise to speak of'}"
    elif not keep and not any(map(len, gaps)):
        what += ", denoised"
    return f"{frames / rate:.2f} s, {rate} Hz, {channels} channel{'s' * (channels > 1)}: {what}{remarks}"


def _found(sound, gaps, frames, named):
    """How many gaps (n, 2) of each channel there are, and what may have been overlooked."""
    count = sum(map(len, gaps))
    if not named and not keeps_zeros(sound):
        found = f"{count} gaps found" if count else "no gaps found"
        return f"{found}, but {_code(sound)} does not preserve exact zeros: name the gaps with --gaps, if there are more"
    share = sum(np.ptp(stretches, axis=1).sum() for stretches in gaps) / frames / len(gaps)
    return f"{count} gaps, {share:.1%} missing" if count else "nothing missing"


def _side_by_side(channels):
    """Of each channel piece after piece, (n,): of all, (n, channels)."""
    return (np.stack(piece, 1) for piece in zip(*channels))


def _code(sound):
    """The name under which people know an open sound file's code."""
    return sound.format if sound.format in ("MP3", "OGG") else sound.subtype


def _in_each(channels, first, end):
    """`inside` of each channel's stretches: (end - first, channels)."""
    return np.stack([inside(stretches, first, end) for stretches in channels], 1)


def _without_gaps(sound, gaps):
    """A sound file just opened, its gaps made zeros: blocks (n, channels), float32."""
    first = 0
    for block in read_on(sound, "float32"):
        yield np.where(_in_each(gaps, first, first + len(block)), np.float32(0), block)
        first += len(block)


def _stored(blocks, files, destination):
    """The blocks (n, channels) as they are, each channel written to its open file on the disk of `destination`."""
    for block in blocks:
        for file, values in zip(files, block.T):
            with _writing(destination):
                file.write(values.tobytes())
                file.flush()
        yield block


@dataclass
class _Channel:
    """A channel of a sound at the model's rate, float32 in a file."""

    model: object  # a `files.model_file.Restorer`
    file: BinaryIO
    hidden: np.ndarray  # (n, 2), sorted: what the network is not to see
    samples: int

    def read(self, first, end):
        """Samples, zeros where missing and beyond the end of the file, and their mask."""
        mask = inside(self.hidden, first, end)
        return _read(self.file, first, end) * ~mask, mask

    @functools.cached_property
    def levels(self):
        rms = self.model.kind.rms
        return sound_levels.measure(
            self.read, self.samples, self.model.reconstruct, self.model.input_size, rms
        )

    def restored(self, read=None, start=0, samples=None):
        """Restored by the network: piece by piece, (n,). Or else so many samples that `read` gives, from `start` on.

        Meanwhile the sound is without its offset, and has the level the model was trained at.
        """
        read, samples = read or self.read, samples or self.samples

        def levelled(first, end):
            values, mask = read(first, end)
            offset, gain = self.levels.at(start + first, start + end)
            return (values - offset) * gain * ~mask, mask

        window, first = self.model.input_size, start
        for piece in restore_long_blocks(
            levelled, samples, self.model.reconstruct, window, window // HOPS_PER_WINDOW
        ):
            offset, gain = self.levels.at(first, first + len(piece))
            yield piece * np.float32(self.levels.correction) / gain + offset
            first += len(piece)

    def network_predicts_better(self, gaps):
        """Whether it does than autoregression what is beside some of the gaps (n, 2), made a gap too."""
        found = []
        for first, end in gaps[np.unique(np.linspace(0, len(gaps) - 1, TRIALS).astype(int))]:
            for start in (
                2 * end - first,
                3 * first - 2 * end,
            ):  # as long as the gap and as far away
                if start >= 0 and (truth := self.read(start, start + end - first)[0]).all():
                    found.append(np.log(self._errors(start, truth)))
                    break
        network, autoregression = np.mean(found or [[0, 0]], axis=0)
        return network < autoregression

    def _errors(self, first, truth):
        """Of the network and of autoregression where the `truth` begins at `first` and is missing too: (2,)."""
        reach = max(2 * self.model.input_size, round(REACH * self.model.kind.sample_rate))
        start, stop = max(first - reach, 0), min(first + truth.size + reach, self.samples)
        judged = slice(first - start, first - start + truth.size)
        values, mask = self.read(start, stop)
        values[judged], mask[judged] = 0, True
        drawn = self.restored(
            lambda low, high: (values[low:high], mask[low:high]), start, stop - start
        )
        ways = (
            np.concatenate(list(drawn)),
            fill(values, runs(mask.astype(int)), self.model.kind.sample_rate),
        )
        return [np.mean((way[judged] - truth) ** 2) + 1e-12 * np.mean(truth**2) for way in ways]


def _channels(model, sound, files, gaps, silences, frames, destination):
    """The channels of a sound file just opened, at the model's rate. files: those in its own, and those in this."""
    rate, model_rate = sound.samplerate, model.kind.sample_rate
    own = _stored(_without_gaps(sound, gaps), files[0], destination)
    collections.deque(
        _stored(resample(own, sound.channels, rate, model_rate), files[-1], destination), maxlen=0
    )
    ratio = model_rate / rate
    # More samples than there are, so that none is lacking once they are back at the sound's rate.
    samples = max(model.input_size, int(np.ceil(frames * ratio)) + 1)
    for file, *stretches in zip(files[-1], gaps, silences):
        yield _Channel(
            model, file, _at_rate([*stretches, [[frames, 2 * samples / ratio]]], ratio), samples
        )


def _at_rate(stretches, ratio):
    """Every sample at another rate that one of the stretches, a list of (n, 2), reaches: (n, 2), sorted."""
    starts, ends = np.concatenate(stretches).T * ratio
    return np.sort(np.stack([np.floor(starts), np.ceil(ends)], 1).astype(int), axis=0)


def _filled(blocks, number, filling, ways):
    """Restored blocks (n, channels), with those gaps of a channel in them filled by other values than the network's.

    filling: first, end, values or None, of one gap after the other. ways: a Counter of by what gaps are filled.
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
            ways[values is not None] += 1
            gap = next(filling, None)
        yield block
        first += len(block)


def _filling(channel, file, gaps, frames, rate):
    """What to fill the gaps of a channel with, as `_filled` takes it. file: open, the channel at its own rate."""
    ratio = channel.model.kind.sample_rate / rate
    if len(gaps) and channel.network_predicts_better(_at_rate([gaps], ratio)):
        return ((*gap, None) for gap in gaps)
    return fill_each(functools.partial(_read, file), gaps, frames, rate)


def _denoiser(channel, file, gaps, silences, frames, rate):
    """What restores a channel whose samples are in an open file at its own rate."""

    def draw(sound, hidden, first):
        short = max(0, channel.model.input_size - sound.size)
        values, mask = np.pad(sound, (0, short)), np.pad(hidden, (0, short), constant_values=True)
        pieces = channel.restored(
            lambda low, high: (values[low:high], mask[low:high]), first, values.size
        )
        return np.concatenate(list(pieces))[: sound.size]

    rates = rate, channel.model.kind.sample_rate
    return Denoiser(functools.partial(_read, file), gaps, silences, frames, rates, draw)


def _read(file, first, end):
    """Samples of a channel, float32, zeros beyond the end of its file."""
    file.seek(4 * first)
    values = np.frombuffer(file.read(4 * (end - first)), np.float32)
    return np.pad(values, (0, end - first - values.size))


@contextlib.contextmanager
def _writing(destination):
    """UserError that names `destination` if the block cannot write."""
    try:
        yield
    except (
        soundfile.SoundFileError,
        AssertionError,
        OSError,
    ) as error:  # soundfile asserts that all was written
        problem = getattr(error, "strerror", None) or reason(error) or "not all was written"
        remedy = f"make room on the disk of {destination.parent} or give another --out"
        raise UserError(f"{destination}: cannot be written ({problem}); {remedy}") from error


class _Result(soundfile.SoundFile):
    """A sound file like another, to write blocks to. UserError that names `destination` where it cannot."""

    def __init__(self, path, like, destination):
        self.destination = destination
        kind = {"format": like.format, "subtype": like.subtype, "endian": like.endian}
        if not soundfile.check_format(**kind):
            kind["endian"] = "FILE"
        if not soundfile.check_format(**kind):
            problem = f"{like.format} with {like.subtype} can be read, but not written"
            raise UserError(f"{like.path}: {problem}; convert it to WAV or FLAC")
        with _writing(destination):
            name = os.fsencode(path)  # any bytes; soundfile itself encodes strictly
        super().__init__(
            name, "w", like.samplerate, like.channels, **kind, **BEST.get(like.subtype, {})
        )

    def write(self, data):
        with _writing(self.destination):
            super().write(data)

    def close(self):
        with _writing(self.destination):
            super().close()


def _copy_tags(original, result):
    """Title, artist and the like; what to say if the format does not take them."""
    try:
        for name, text in original.copy_metadata().items():
            if text:
                setattr(result, name, text)
    except soundfile.SoundFileError:
        return f", without its tags, which {original.format} files do not take"
    return ""


def _write(restored, original, destination, gaps, silences, frames, keep):
    """Write restored blocks in the original's format, with its tags; remarks, each after a comma.

    original: just opened, and read along: what is silent stays so, and with `keep` all but the gaps is the original's.
    """
    full_scale = 2.0 ** (BITS.get(original.subtype, 32) - 1)
    first = clipped = 0
    with (
        replacing(destination) as path,
        _Result(path, original, destination) as result,
        tqdm(
            desc=os.path.basename(original.path),
            total=frames,
            unit_scale=True,
            leave=False,
            disable=None,
        ) as bar,
    ):
        remarks = _copy_tags(original, result)
        for block in restored:
            given = original.read(len(block), always_2d=True)
            end = first + len(given)
            missing, silent = _in_each(gaps, first, end), _in_each(silences, first, end)
            block = np.where(silent & ~missing, 0.0, block[: len(given)])
            new = missing | (not keep)
            if original.subtype not in ("FLOAT", "DOUBLE"):
                clipped += np.count_nonzero((np.abs(block) > 1) & new)
                block = np.round(block * full_scale).clip(-full_scale, full_scale - 1) / full_scale
            result.write(np.where(new, block, given))
            first = end
            bar.update(len(given))
    return remarks + (f", {clipped} samples clipped" if clipped else "")


def _how_well_kept(source, destination, gaps):
    """A remark on how far the samples outside the gaps are the source's after a lossy code."""
    energy, error, first = 0.0, 0.0, 0
    with ReadForward(source) as original, ReadForward(destination) as result:
        for given, kept in zip(read_on(original), read_on(result)):
            observed = ~_in_each(gaps, first, first + len(given))
            energy, first = energy + (given[observed] ** 2).sum(), first + len(given)
            error += (
                ((given - kept[: len(given)])[observed] ** 2).sum()
                if len(kept) >= len(given)
                else np.inf
            )
    ratio_db = 10 * np.log10(energy / error) if error and energy else np.inf
    advice = (
        "" if ratio_db >= WELL_KEPT_DB else "; to keep it whole convert the input to WAV instead"
    )
    return f", the rest kept to {ratio_db:.0f} dB, as {_code(original)} is encoded again{advice}"

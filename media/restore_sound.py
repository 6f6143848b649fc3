"""Restore a sound file of any length, rate, channels and format with a trained model."""

import bisect
import contextlib
import functools
import os
import re
import tempfile

import numpy as np
import soundfile
from tqdm import tqdm

import audio_utils
from harness import UserError
from harness.run_folder import replacing
from inference import HOPS_A_WINDOW, restore_blocks
from media.sound_files import SILENCE_DB, ReadForward, read_on, reason, resample

GAP_SECONDS = 0.001  # exact zeros for at least this long are a gap; what is longer than a window is silence
GAP_JUMP = 0.01  # of the channel's peak: a gap begins or ends with at least such a jump, a fade-out does not
BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24}  # what libsndfile would round down to


def restore_sound(model, source, destination, gap_file=None, keep=False):
    """Restore a sound file, each channel on its own; one line on what was done. UserError if it cannot be.

    model: has `reconstruct`, `input_size` and `metadata`. gap_file: as `read_gaps` takes it; else the gaps are found.
    keep: replace only the gaps. Memory does not grow with the sound's length.
    """
    with contextlib.ExitStack() as opened:
        try:
            # Once to look for gaps, once to be restored, once to be compared.
            first_look, sound, beside = (opened.enter_context(ReadForward(source)) for _ in range(3))
            rate, channels = sound.samplerate, sound.channels
            gaps, silences, frames = find_gaps(first_look, model.input_size / model.metadata["sample_rate"] * rate)
            if not frames:
                raise UserError(f"{source}: holds no samples; leave it out")
            if gap_file:
                gaps = [read_gaps(gap_file, rate, frames, source)] * channels
            # On the disk the result goes to, a file without a name for each channel.
            files = [opened.enter_context(tempfile.TemporaryFile(dir=destination.parent)) for _ in range(channels)]
            restored = _restored(model, sound, files, gaps, silences, frames)
            clipped = _write(restored, beside, destination, gaps, silences, frames, keep)
        except soundfile.SoundFileError as error:
            problem = f"not a sound that can be read or written whole ({reason(error)})"
            raise UserError(f"{source}: {problem}; convert it to WAV or FLAC") from error
    count, share = sum(map(len, gaps)), sum(np.ptp(stretches, axis=1).sum() for stretches in gaps) / frames / channels
    what = f"{count} gaps, {share:.1%} missing" if count else "nothing missing" + ("" if keep else ", denoised")
    what += f", {clipped} samples clipped" if clipped else ""
    return f"{frames / rate:.2f} s, {rate} Hz, {channels} channel{'s' * (channels > 1)}: {what}"


def read_gaps(path, rate, frames, sound="the sound"):
    """The gaps a text file names, (n, 2) in samples. UserError for a line that is not one of this sound.

    A line holds start and end in seconds; empty lines and those that begin with # do not count.
    """
    gaps = []
    for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            start, end = (float(word) for word in re.split(r"[\s,;]+", line.strip())[:2])
        except ValueError:
            raise UserError(f"{path}: line {number} is not a start and an end in seconds, such as 1.25, 1.30") from None
        if not 0 <= start < end <= frames / rate + 0.001:
            problem = f"{start:g} to {end:g} s is no part of {sound}, {frames / rate:.3f} s long"
            raise UserError(f"{path}: line {number}: {problem}; correct it or leave it out")
        gaps.append((round(start * rate), min(round(end * rate), frames)))
    return np.sort(np.array(gaps, int).reshape(-1, 2), axis=0)  # in any order, overlapping or not: the same samples


def find_gaps(sound, longest):
    """Gaps and silences of each channel, lists of (n, 2) in samples, and the number of samples. UserError for NaN.

    Both are runs of exact zeros. A gap has at least GAP_SECONDS and at most `longest` samples, lies between two
    sounds and begins or ends with a jump. Longer runs, and those at the beginning and the end, are silence.
    """
    runs, peaks, frames = _zero_runs(sound)
    gaps, silences = [], []
    for (where, jumps), peak in zip(runs, peaks):
        silent = (where[:, 0] == 0) | (where[:, 1] == frames) | (where[:, 1] - where[:, 0] > longest)
        silences.append(where[silent].astype(int))
        gaps.append(where[~silent & (jumps.max(1) >= GAP_JUMP * peak)].astype(int))
    return gaps, silences, frames


def _zero_runs(sound):
    """Runs of exact zeros, their channels' peaks, and the number of samples.

    Of each channel, where its runs begin and end, in samples, and how far the sound jumps there: (n, 2), (n, 2).
    """
    channels, frames = sound.channels, 0
    last, peaks = np.ones((1, channels)), np.zeros(channels)
    edges, runs = [np.zeros((0, 2))] * channels, [[np.zeros((0, 2, 2))] for _ in range(channels)]
    for block in read_on(sound):
        if not np.isfinite(block).all():
            problem = "has samples that are not finite numbers; make them 0 and it can be mended"
            raise UserError(f"{sound.name}: {problem}")
        for channel, values in enumerate(np.concatenate([last, block]).T):
            at = np.flatnonzero(np.diff(values == 0))  # a run begins or ends after each of these
            found = np.stack([frames + at, np.abs(values[at + 1] - values[at])], 1)  # where, and how far it jumps
            found = np.concatenate([edges[channel], found])
            whole = found[: len(found) // 2 * 2].reshape(-1, 2, 2)
            runs[channel].append(whole[whole[:, 1, 0] - whole[:, 0, 0] >= GAP_SECONDS * sound.samplerate])
            edges[channel] = found[2 * len(whole) :]
        last, peaks, frames = block[-1:], np.maximum(peaks, np.abs(block).max(0)), frames + len(block)
    for parts, begun in zip(runs, edges):
        if len(begun):
            parts.append(np.stack([begun, [[frames, 0]]], 1))
    return [np.moveaxis(np.concatenate(parts), 2, 0) for parts in runs], peaks, frames


def inside(stretches, first, end):
    """Which of the samples first to end lie in one of the stretches (n, 2), both columns sorted: (end - first,), bool.

    It looks at those stretches alone, so that a block's time does not grow with all there are.
    """
    starts, ends = stretches.T
    within = np.zeros(end - first, bool)
    for start, stop in stretches[bisect.bisect_right(ends, first) : bisect.bisect_left(starts, end)] - first:
        within[max(start, 0) : stop] = True
    return within


def level(read, samples, size):
    """RMS of a sound without what is missing, and without pieces of `size` samples that are silent; 0 for none."""
    pieces = []
    for first in range(0, samples, 1024 * size):
        end = min(first + 1024 * size, samples)
        values, mask = (np.pad(part, (0, -(end - first) % size)).reshape(-1, size) for part in read(first, end))
        pieces.append([(values**2).sum(1), (1 - mask).sum(1)])
    energy, observed = np.concatenate(pieces, 1, dtype=float)
    loud = energy > 10 ** (SILENCE_DB / 10) * energy.sum() / max(observed.sum(), 1) * observed
    return np.sqrt(energy[loud].sum() / observed[loud].sum()) if loud.any() else 0.0


def _in_each(channels, first, end):
    """`inside` of each channel's stretches: (end - first, channels)."""
    return np.stack([inside(stretches, first, end) for stretches in channels], 1)


def _without_gaps(sound, gaps):
    """A sound file just opened, its gaps made zeros: blocks (n, channels), float32."""
    first = 0
    for block in read_on(sound, "float32"):
        yield np.where(_in_each(gaps, first, first + len(block)), np.float32(0), block)
        first += len(block)


def _restored(model, sound, files, gaps, silences, frames):
    """A sound file just opened, restored at the model's rate and back at its own: blocks (n, channels).

    files: open, one for each channel, to keep it in at the model's rate.
    """
    rate, channels, model_rate = sound.samplerate, sound.channels, model.metadata["sample_rate"]
    for block in resample(_without_gaps(sound, gaps), channels, rate, model_rate):
        for file, values in zip(files, block.T):
            file.write(values.tobytes())
    ratio = model_rate / rate
    # More samples than there are, so that none is lacking once they are back at the sound's rate.
    samples = max(model.input_size, int(np.ceil(frames * ratio)) + 1)
    pieces = []
    for file, *stretches in zip(files, gaps, silences):
        starts, ends = np.concatenate([*stretches, [[frames, 2 * samples / ratio]]]).T * ratio
        hidden = np.sort(np.stack([np.floor(starts), np.ceil(ends)], 1).astype(int), axis=0)
        pieces.append(_restored_channel(model, file, hidden, samples))
    return resample((np.stack(piece, 1) for piece in zip(*pieces)), channels, model_rate, rate)


def _restored_channel(model, file, hidden, samples):
    """A channel at the model's rate, float32 in a file, restored: piece by piece, (n,).

    hidden: what the network is not to see, stretches (n, 2). Meanwhile the sound has the level the model was
    trained at.
    """
    window = model.input_size
    trained_level = model.metadata.get("rms", audio_utils.RMS)
    found = level(functools.partial(_read, file, hidden, np.float32(1)), samples, window // 4)
    gain = np.float32(trained_level / (found or trained_level))
    read = functools.partial(_read, file, hidden, gain)
    for piece in restore_blocks(read, samples, model.reconstruct, window, window // HOPS_A_WINDOW):
        yield piece / gain


def _read(file, hidden, gain, first, end):
    """Samples of a channel as the network is to see them, zeros beyond the end of its file, and their mask."""
    file.seek(4 * first)
    values = np.frombuffer(file.read(4 * (end - first)), np.float32)
    mask = inside(hidden, first, end)
    return gain * np.pad(values, (0, end - first - values.size)) * ~mask, mask


def _write(restored, original, destination, gaps, silences, frames, keep):
    """Write restored blocks in the original's format; how many samples were clipped.

    original: just opened, and read along: what is silent stays so, and with `keep` all but the gaps is the original's.
    """
    like = {"format": original.format, "subtype": original.subtype, "endian": original.endian}
    full_scale = 2.0 ** (BITS.get(original.subtype, 32) - 1)
    first = clipped = 0
    with (
        replacing(destination) as path,
        soundfile.SoundFile(path, "w", original.samplerate, original.channels, **like) as result,
        tqdm(desc=os.path.basename(original.name), total=frames, unit_scale=True, leave=False, disable=None) as bar,
    ):
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
    return clipped

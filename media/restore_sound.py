"""Restore a sound file of any length, rate, channels and format with a trained model."""

import contextlib
import functools
import os
import tempfile

import numpy as np
import soundfile
from tqdm import tqdm

import audio_utils
from harness import UserError
from harness.run_folder import replacing
from inference import HOPS_A_WINDOW, restore_blocks
from media import sound_levels
from media.gaps import find_gaps, inside, keeps_zeros, read_gaps
from media.sound_files import ReadForward, check_header, read_on, reason, remedy, resample

BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24}  # what libsndfile would round down to
BEST = {  # the highest bit rate: the input's is not told, and less would spoil what is kept
    "MPEG_LAYER_III": {"compression_level": 0, "bitrate_mode": "CONSTANT"},
    "VORBIS": {"compression_level": 0},
    "OPUS": {"compression_level": 0},
}
WELL_KEPT_DB = 24.0  # SNR of what is to be kept after a lossy code


def restore_sound(model, source, destination, gap_file=None, keep=False):
    """Restore a sound file, each channel on its own; one line on what was done. UserError if it cannot be.

    model: has `reconstruct`, `input_size` and `metadata`. gap_file: as `read_gaps` takes it; else the gaps are found.
    keep: replace only the gaps. Memory does not grow with the sound's length.
    """
    with contextlib.ExitStack() as opened:
        try:
            # Once to look for gaps, once to be restored, once to be compared.
            first_look, sound, beside = (opened.enter_context(ReadForward(source)) for _ in range(3))
            check_header(sound)
            rate, channels = sound.samplerate, sound.channels
            gaps, silences, frames = find_gaps(first_look, model.input_size / model.metadata["sample_rate"] * rate)
            if not frames:
                raise UserError(f"{source}: holds no samples; leave it out")
            if gap_file:
                gaps = [read_gaps(gap_file, rate, frames, source)] * channels
            # On the disk the result goes to, a file without a name for each channel.
            files = [opened.enter_context(tempfile.TemporaryFile(dir=destination.parent)) for _ in range(channels)]
            restored = _restored(model, sound, files, gaps, silences, frames, destination)
            remarks = _write(restored, beside, destination, gaps, silences, frames, keep)
            if keep and not keeps_zeros(sound):
                remarks += _how_well_kept(source, destination, gaps)
        except soundfile.SoundFileError as error:
            problem = f"not a sound that can be read whole ({reason(error)})"
            raise UserError(f"{source}: {problem}; {remedy(source)}") from error
    count, share = sum(map(len, gaps)), sum(np.ptp(stretches, axis=1).sum() for stretches in gaps) / frames / channels
    what = f"{count} gaps, {share:.1%} missing" if count else "nothing missing"
    if not gap_file and not keeps_zeros(sound):
        what = f"{count} gaps found" if count else "no gaps found"
        what += f", but {_code(sound)} keeps no exact zeros: name them with --gaps, if there are more"
    what += "" if keep or count else ", denoised"
    return f"{frames / rate:.2f} s, {rate} Hz, {channels} channel{'s' * (channels > 1)}: {what}{remarks}"


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


def _restored(model, sound, files, gaps, silences, frames, destination):
    """A sound file just opened, restored at the model's rate and back at its own: blocks (n, channels).

    files: open, one for each channel, to keep it in at the model's rate, on the disk of `destination`.
    """
    rate, channels, model_rate = sound.samplerate, sound.channels, model.metadata["sample_rate"]
    for block in resample(_without_gaps(sound, gaps), channels, rate, model_rate):
        for file, values in zip(files, block.T):
            with _writing(destination):
                file.write(values.tobytes())
                file.flush()
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

    hidden: what the network is not to see, stretches (n, 2). Meanwhile the sound is without its offset, and has the
    level the model was trained at.
    """
    window = model.input_size
    read = functools.partial(_read, file, hidden)
    levels = sound_levels.measure(read, samples, model.reconstruct, window, model.metadata.get("rms", audio_utils.RMS))
    levelled = functools.partial(_levelled, read, levels)
    first = 0
    for piece in restore_blocks(levelled, samples, model.reconstruct, window, window // HOPS_A_WINDOW):
        offset, gain = levels.at(first, first + len(piece))
        yield piece * np.float32(levels.correction) / gain + offset
        first += len(piece)


def _read(file, hidden, first, end):
    """Samples of a channel, zeros where missing and beyond the end of its file, and their mask."""
    file.seek(4 * first)
    values = np.frombuffer(file.read(4 * (end - first)), np.float32)
    mask = inside(hidden, first, end)
    return np.pad(values, (0, end - first - values.size)) * ~mask, mask


def _levelled(read, levels, first, end):
    """What `read` gives as the network is to see it."""
    values, mask = read(first, end)
    offset, gain = levels.at(first, end)
    return (values - offset) * gain * ~mask, mask


@contextlib.contextmanager
def _writing(destination):
    """UserError that names `destination` if the block cannot write."""
    try:
        yield
    except (soundfile.SoundFileError, AssertionError, OSError) as error:  # soundfile asserts that all was written
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
        super().__init__(name, "w", like.samplerate, like.channels, **kind, **BEST.get(like.subtype, {}))

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
        tqdm(desc=os.path.basename(original.path), total=frames, unit_scale=True, leave=False, disable=None) as bar,
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
            error += ((given - kept[: len(given)])[observed] ** 2).sum() if len(kept) >= len(given) else np.inf
    ratio_db = 10 * np.log10(energy / error) if error and energy else np.inf
    advice = "" if ratio_db >= WELL_KEPT_DB else "; to keep it whole convert the input to WAV instead"
    return f", the rest kept to {ratio_db:.0f} dB, as {_code(original)} is encoded anew{advice}"

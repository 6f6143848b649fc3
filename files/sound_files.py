"""Decode sound files to mono at one sample rate, and load recordings to train on.

Recordings may be hours long. They are decoded once, into a file on the disk, so that memory never
holds even one whole recording.
"""

import os
import tempfile
from dataclasses import dataclass

import numpy as np
import soxr
from tqdm import tqdm

import audio_utils
from files import folders
from files.sound_reader import SUFFIXES, open_sound
from harness import UserError
from harness.errors import printable
from harness.quiet_tensorflow import tf

MAX_HOURS = 24  # maximum total length of recordings, which takes 5.5 GB of disk at 16 kHz
SHORTEST = 2048  # minimum samples per recording; the figure of the long sound needs them
OFFSET = 0.01  # a constant offset above this fraction of a sound's RMS is removed
CANCELS = 0.1  # least power of the mean of the channels, relative to that of the loudest alone
LEAST_RMS = 1e-5  # minimum RMS, -100 dB relative to full scale; a quieter sound is only dither
HELD_OUT_FRACTION = 0.1
SPLIT_BY_FILE_FROM = 5  # minimum files to hold out whole ones; fewer files are split in time
WHOLE_FILES = 0.03, 0.4  # fraction of the sound that whole files may hold out, from and to
MARGIN = 512  # samples left out where a file is split, because beginnings of copies are less exact
PIECE, BEGINNING = 256, 1 << 14  # samples; copies of files are found by their first sound
# Cosine of the angle between magnitude spectra. Copies at 48 kbit/s have at least 0.98, noise has
# pi / 4, and different instruments that play the same melody have at most 0.93.
ALIKE = 0.95


def decode(path, sample_rate):
    """Decode a sound file to mono at `sample_rate` Hz. Yields blocks (n,), float32.

    Mono is the mean of the channels. Raises UserError if the file cannot be read, if it contains
    NaN or Inf, or, at its end, if its channels cancel.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would block
        raise UserError(f"{path}: not a file; give a sound file or a folder of them")
    power = mixed = 0
    try:
        with open_sound(path) as sound:
            stream = soxr.ResampleStream(sound.rate, sample_rate, 1)
            for block in sound.blocks():
                mono = block.mean(1)
                # Use variances, because a constant offset is not sound.
                power, mixed = power + len(block) * block.var(0), mixed + len(block) * mono.var()
                yield stream.resample_chunk(np.float32(mono))
            yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    if mixed < CANCELS * np.max(power) / sound.channels**2:
        raise UserError(f"{path}: its channels cancel; save the loudest as a mono file")


@dataclass(frozen=True, eq=False)
class Recordings:
    """Recordings to train on, made by `load`.

    They are split into two parts, "training" and "held out", whose windows share no sample.
    """

    samples: np.memmap  # (T,), float32: all files one after the other, scaled to the same RMS
    places: dict  # {part: (R, 2)}; windows may begin at the samples in these ranges [first, end)
    long_sound: np.ndarray  # (L,), from the longest held-out stretch
    summary: str  # one line on how much sound there is and what is held out
    skipped: list  # one line per file that cannot be used
    window: int  # samples
    sample_rate: int  # Hz
    metadata: dict  # for the model's file
    provenance: dict  # for config.json
    title = "Held-out sound"
    notes = None  # the notes in a recording are unknown

    def windows(self, part, count, seed):
        """Return random reference and clean windows (count, window), and None for the notes.

        part: "training" or "held out". seed: a pair of integers. The noise in a recording is
        unknown, so the reference is the clean window itself.
        """
        clean = random_windows(self.samples, self.places[part], count, self.window, seed)
        return clean, clean, None

    def long(self, seed):
        """Return the long sound (L,) as both reference and clean sound. The seed has no effect."""
        return self.long_sound, self.long_sound


def load(path, sample_rate, window, rms, folder, seconds=0):
    """Load `Recordings` from a sound file, or from all sound files in a folder and its subfolders.

    Each file is resampled to `sample_rate` Hz and scaled so that its parts that are not silent have
    RMS `rms`. The same whole files are always held out, or the end of each (see `_splits`). The
    long sound lasts at most `seconds`. A nameless temporary file stores the decoded sound, in
    `folder` unless a worker lacks it. Raises UserError if no sound can be used.
    """
    try:
        samples, clips, skipped = _read(path, sample_rate, window, rms, folder)
    except OSError as error:  # also because some network folders cannot be mapped into memory
        problem = f"cannot store the decoded sound here ({error.strerror})"
        raise OSError(f"{folder}: {problem}; give an --out on a local disk with room") from error
    least_power = rms**2 * 10 ** (audio_utils.SILENCE_DB / 10)
    places = {file: _places(samples, *clip, window, least_power) for file, clip in clips.items()}
    splits, held_out = _splits(clips, places, _groups(samples, clips), window)
    training, kept = {}, {}
    for file, (_, end) in clips.items():
        last = splits[file] - window - MARGIN * (splits[file] < end)
        training[file] = _clipped(places[file], 0, last + 1)
        kept[file] = _clipped(places[file], splits[file], end)
    parts = {"training": training, "held out": kept}
    parts = {name: np.concatenate(list(part.values())) for name, part in parts.items()}
    if not all(map(len, parts.values())):
        raise UserError(f"{path}: not enough sound to train on and to hold out; add more")
    long_sound = _long_sound(samples, clips, splits, kept, round(seconds * sample_rate))
    total = samples.size / sample_rate
    held = sum(end - splits[file] for file, (_, end) in clips.items()) / sample_rate
    provenance = {"source": printable(path), "files": len(clips)}
    provenance |= {"training_seconds": total - held, "held_out_seconds": held}
    provenance["sha256"] = folders.sha256(clips)
    summary = f"{total - held:.1f} s of sound to learn from, {held:.1f} s held out ({held_out})"
    metadata = {"sample_rate": sample_rate, "rms": rms, "sha256": provenance["sha256"]}
    return Recordings(
        samples, parts, long_sound, summary, skipped, window, sample_rate, metadata, provenance
    )


def random_windows(samples, places, count, window, seed):
    """Return random windows (count, window) that begin in `places` (R, 2), uniformly distributed.

    Works in a TensorFlow graph. The same `seed`, a pair of integers, gives the same windows.
    """
    total = np.cumsum(places[:, 1] - places[:, 0])
    number = tf.random.stateless_uniform((count,), seed, 0, int(total[-1]), tf.int64)
    start = number + tf.gather(places[:, 1] - total, tf.searchsorted(total, number, "right"))
    every = np.lib.stride_tricks.sliding_window_view(samples, window)
    drawn = tf.numpy_function(lambda start: every[start], [start], tf.float32)
    return tf.ensure_shape(drawn, (count, window))


def _read(path, sample_rate, window, rms, folder):
    """Decode all usable sound files into one file in `folder`, each scaled to `rms`.

    Returns samples (T,), {path: (first, end) in samples}, and one line per skipped file.
    """
    files, skipped, others = [path], [], []
    if os.path.isdir(path):
        files, skipped = folders.walk(path)
        files, others = folders.with_suffixes(files, SUFFIXES, path)
        # Several links to the same file count once.
        files = sorted({os.path.realpath(file): file for file in reversed(files)}.values())
    folder = folder if os.path.isdir(folder) else None  # None: where TMPDIR says
    store, first, clips = tempfile.TemporaryFile(dir=folder), 0, {}
    for file in tqdm(files, "reading", unit="file", leave=False, disable=None):
        try:
            end = _append(store, first, file, sample_rate, max(window, SHORTEST))
            clip = np.memmap(store, np.float32, "r+", 4 * first, (end - first,))
            _scale(clip, window // 4, rms, file)
        except UserError as error:
            skipped.append(str(error))
            continue
        clips[file], first = (first, end), end
    if not clips:
        if len(files) == len(skipped) == 1:
            raise UserError(skipped[0])
        problem = f"the first of {len(skipped)} problems: {skipped[0]}" if skipped else "no files"
        raise UserError(f"{path}: no usable sound; {problem}; looked for {' '.join(SUFFIXES)}")
    store.truncate(4 * first)
    return np.memmap(store, np.float32, "r"), clips, skipped + others


def _append(store, first, file, sample_rate, least):
    """Decode a file into `store` from sample `first` on. Returns the index after its last sample.

    Raises UserError if the file has fewer than `least` samples.
    """
    store.seek(4 * first)
    end = first
    for block in decode(file, sample_rate):
        end += block.size
        if end > MAX_HOURS * 3600 * sample_rate:
            raise UserError(f"{file}: more than {MAX_HOURS} hours of sound in all; give less")
        store.write(block)
    if end - first < least:
        length = f"{(end - first) / sample_rate:.3g} s" if end > first else "no samples"
        raise UserError(f"{file}: too short ({length}); give at least {least / sample_rate:.3g} s")
    return end


def _scale(samples, size, rms, file):
    """Scale samples in place to `rms`, measured over pieces of length `size` that are not silent.

    Also remove a constant offset. It is not sound, but the model would learn it.
    """
    energy, means = _energies(samples, size)
    power = energy / size
    loud = power >= power.mean() * 10 ** (audio_utils.SILENCE_DB / 10)
    offset = means[loud].mean()
    level = np.sqrt(power[loud].mean() + ((means[loud] - offset) ** 2).mean())
    if power[loud].mean() < LEAST_RMS**2:
        raise UserError(f"{file}: silent; leave it out")
    if abs(offset) > OFFSET * level:
        samples -= np.float32(offset)
    else:
        level = np.hypot(level, offset)
    samples *= np.float32(rms / level)


def _energies(samples, size):
    """Return the energy (without offset) and the offset of each piece, two arrays (T // size,)."""
    pieces = samples[: samples.size // size * size].reshape(-1, size)
    means = pieces.mean(1, dtype=np.float64)
    energy = np.einsum("ns,ns->n", pieces, pieces, dtype=np.float64)
    return np.maximum(energy - size * means**2, 0), means


def _splits(clips, places, groups, window):
    """Return {file: sample} and a description of what is held out: what comes after that sample.

    Whole files are held out if these have a reasonable part of the sound, otherwise their ends.
    """
    count, splits, names = round(HELD_OUT_FRACTION * len(groups)) or 1, {}, []
    chosen = folders.fixed_order(len(groups))[:count]
    sizes = [sum(np.ptp(places[file], axis=1).sum() for file in group) for group in groups]
    least, most = np.multiply(WHOLE_FILES, sum(sizes))
    if len(groups) >= SPLIT_BY_FILE_FROM and least <= sum(sizes[n] for n in chosen) <= most:
        for number, group in enumerate(groups):
            held_out = number in chosen
            splits |= {file: clips[file][0 if held_out else 1] for file in group}
            names += [printable(file.name) for file in group] if held_out else []
        names[3:] = ["..."] * (len(names) > 3)
        return splits, ", ".join(names)
    for group in groups:
        longest = max(group, key=lambda file: np.ptp(clips[file]))
        learned = _middle(places[longest], *clips[longest], window) - group[longest]
        splits |= {file: min(start + learned, clips[file][1]) for file, start in group.items()}
    return splits, "the end of each file"


def _groups(samples, clips):
    """Group files whose sounds begin alike, because they are copies. Returns [{file: beginning}].

    Compares magnitudes of spectra, which survive lossy encoding, other levels and short delays.
    """
    spectra, groups = np.zeros((len(clips), BEGINNING // 2 + 1), np.float32), []
    for file, (first, end) in clips.items():
        energy, _ = _energies(samples[first:end], PIECE)
        loud = energy > energy.mean() * 10 ** (audio_utils.SILENCE_DB / 10)
        start = first + PIECE * np.argmax(loud)
        beginning = samples[start : min(start + BEGINNING, end)]
        spectrum = np.abs(np.fft.rfft(beginning * np.hanning(beginning.size), BEGINNING))
        spectrum /= np.linalg.norm(spectrum)
        similarity = spectra[: len(groups)] @ spectrum
        if groups and similarity.max() > ALIKE:
            groups[np.argmax(similarity)][file] = start
        else:
            spectra[len(groups)] = spectrum
            groups.append({file: start})
    return groups


def _places(samples, first, end, window, least_power):
    """Return the ranges (R, 2) of the clip [first, end) in which loud enough windows may begin.

    One step is a quarter of a window. All windows that begin in the same step contain the next
    three. Those three must hold the energy of a whole window of mean power `least_power`.
    """
    step, last = window // 4, end - first - window
    if last < 0:
        return np.zeros((0, 2), np.int64)
    energy, _ = _energies(samples[first:end], step)
    shared = energy[1:-2] + energy[2:-1] + energy[3:]
    loud = shared[: last // step + 1] >= least_power * window
    return first + np.minimum(audio_utils.runs(loud) * step, last + 1)


def _middle(places, first, end, window):
    """Return the sample at which to split a file, with HELD_OUT_FRACTION of window starts after it.

    At least window + MARGIN samples come before it, and max(window, SHORTEST) after it. Returns the
    file's end if the file is too short for this.
    """
    if not len(places):
        return end
    starts = np.cumsum(places[:, 1] - places[:, 0])
    before = round((1 - HELD_OUT_FRACTION) * starts[-1])
    row = np.searchsorted(starts, before)
    middle = min(places[row, 1] - starts[row] + before, end - max(window, SHORTEST))
    return middle if middle - first >= window + MARGIN else end


def _clipped(places, low, high):
    """Return the parts of ranges (R, 2) that are in [low, high)."""
    places = places.clip(low, high)
    return places[places[:, 0] < places[:, 1]]


def _long_sound(samples, clips, splits, places, most):
    """Return up to `most` samples (L,), float64, of the file with the longest part held out.

    The sound begins at the first of its held-out places, or earlier if the rest is too short.
    """
    sounding = [file for file in clips if len(places[file])]
    longest = max(sounding, key=lambda file: clips[file][1] - splits[file])
    end = clips[longest][1]
    length = min(most, end - splits[longest])
    first = min(places[longest][0, 0], end - length)
    return samples[first : first + length].astype(float)

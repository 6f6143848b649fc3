"""Sounds of one's own: any file that libsndfile reads, decoded once onto the disk, and windows drawn from there.

A set may be hours long: neither it nor any file of it is ever in memory as a whole.
"""

import os
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

import draws
from quiet_tensorflow import stderr_held_back, tf

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff")  # looked for in a folder
SAMPLE_RATES = (1000, 768_000)  # Hz; a file outside has a broken header
MOST_CHANNELS = 64
MOST_HOURS = 24  # in all: 5.5 GB on the disk at 16 kHz
FRAMES_A_BLOCK = 1 << 16  # decoded at once
SHORTEST = 2048  # samples: what a picture of the long input needs
SILENCE_DB = -50.0  # relative to the file's RMS
NEARLY_ZERO = 1e-12  # in place of 0, which marks what is missing
LEAST_RMS = 1e-5  # -100 dB relative to full scale: what is below is dither
HELD_OUT_SHARE = 0.1
SPLIT_BY_FILE_FROM = 5  # files; fewer are split by time


class Unusable(OSError):
    """A file that cannot be learned from, or nothing but such files: names it, the problem and a remedy."""


class Sounds(NamedTuple):
    """What `load` has read. Places (R, 2): windows may begin at the samples from the first to before the second."""

    samples: np.memmap  # (T,), float32: all files one after the other, each scaled to the same RMS
    places: dict  # {"training": places, "held out": places}; no window of one shares a sample with one of the other
    long: np.ndarray  # (L,): the beginning of the longest stretch held out
    summary: str  # how much there is and what is held out, in one line
    skipped: list  # of lines: files that cannot be used, and why


class ReadForward(soundfile.SoundFile):
    """Without the seek that soundfile does after every read: in an MP3 each would leave a click behind."""

    def seekable(self):
        return False


def decode(path, sample_rate):
    """A sound file of any rate, channels and sample format as mono at `sample_rate` Hz: yields blocks (n,), float32.

    Unusable if it cannot be read to its end or has samples that are not finite.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):  # to open a pipe would be to wait
            raise Unusable(f"{path}: not a file; give a sound file or a folder of them")
        with open(path, "rb") as file, ReadForward(file) as sound:
            if not SAMPLE_RATES[0] <= sound.samplerate <= SAMPLE_RATES[1] or sound.channels > MOST_CHANNELS:
                header = f"{sound.samplerate} Hz and {sound.channels} channels"
                raise Unusable(f"{path}: its header says {header}, which no recording has; convert it anew")
            resampler = soxr.ResampleStream(sound.samplerate, sample_rate, 1)
            last = False
            while not last:
                frames = sound.read(FRAMES_A_BLOCK, "float32", always_2d=True)
                last = len(frames) < FRAMES_A_BLOCK
                block = resampler.resample_chunk(frames.mean(axis=1), last)
                if not np.isfinite(block).all():
                    raise Unusable(f"{path}: has samples that are not finite numbers; mend or leave out")
                yield block
    except (soundfile.SoundFileError, TypeError) as error:  # TypeError: a .raw file, of which nothing is known
        reason = getattr(error, "error_string", str(error)).rstrip(".")
        raise Unusable(f"{path}: not a sound file, or damaged ({reason}); convert it to WAV or FLAC") from error
    except OSError as error:
        raise error if isinstance(error, Unusable) else Unusable(f"{path}: {error.strerror}") from error


def load(path, sample_rate, window, rms, seconds, folder):
    """Read a sound file, or those in a folder and below it, for windows of `window` samples at `sample_rate` Hz.

    Each is scaled to `rms`, silence not counted. The long input has at most `seconds`. From SPLIT_BY_FILE_FROM files
    on, whole files are held out, always the same; else the end of each. The decoded sound is kept in `folder`, in a
    file without a name, of which nothing is left however the program ends. Unusable if nothing can be used.
    """
    files, skipped = _find(path)
    least = max(window, SHORTEST)
    store = tempfile.TemporaryFile(dir=folder)
    clips = []  # (first, end) in samples
    used = []
    for file in tqdm(files, "reading", unit="file", leave=False, disable=None):
        first = clips[-1][1] if clips else 0
        with stderr_held_back():  # the MP3 decoder has its own lines on what it meets
            try:
                end = _append(store, first, file, sample_rate, least)
                _scale(np.memmap(store, np.float32, "r+", 4 * first, (end - first,)), window // 4, rms, file)
                clips.append((first, end))
                used.append(file)
            except Unusable as error:
                skipped.append(str(error))
    if not used:
        if len(files) == len(skipped) == 1:
            raise Unusable(skipped[0])
        problem = f"none of {len(skipped)} can be used; the first: {skipped[0]}" if skipped else "no sound files"
        raise Unusable(f"{path}: {problem}; looked for {' '.join(SUFFIXES)}")
    store.truncate(4 * clips[-1][1])
    samples = np.memmap(store, np.float32, "r")
    least_power = rms**2 * 10 ** (SILENCE_DB / 10)

    if len(clips) >= SPLIT_BY_FILE_FROM:
        count = round(HELD_OUT_SHARE * len(clips)) or 1
        chosen = sorted(np.random.default_rng(0).permutation(len(clips))[:count])
        held_out = [clips[i] for i in chosen]
        training = [clip for clip in clips if clip not in held_out]
        names = [os.fsencode(used[i].name).decode(errors="replace") for i in chosen]
        held_out_names = ", ".join(names[:3]) + ", ..." * (count > 3)
    else:
        middles = [_middle(_places(samples, *clip, window, least_power), *clip, window, least) for clip in clips]
        training = [(first, middle) for (first, _), middle in zip(clips, middles)]
        held_out = [(middle, end) for (_, end), middle in zip(clips, middles)]
        held_out_names = "the end of each file"

    parts = {"training": training, "held out": held_out}
    places = {
        name: np.concatenate([_places(samples, *clip, window, least_power) for clip in clips])
        for name, clips in parts.items()
    }
    if not all(map(len, places.values())):
        raise Unusable(f"{path}: not enough sound to learn from one part and hold out another; give more")
    starts = places["held out"][:, 0]
    sounding = [(first, end) for first, end in held_out if ((first <= starts) & (starts < end)).any()]
    first, end = max(sounding, key=lambda clip: clip[1] - clip[0])
    length = min(round(seconds * sample_rate), end - first)
    first = min(starts[starts >= first][0], end - length)
    long = samples[first : first + length].astype(float)
    seconds = {name: sum(end - first for first, end in clips) / sample_rate for name, clips in parts.items()}
    summary = "{training:.1f} s of sound to learn from, {held out:.1f} s held out".format(**seconds)
    return Sounds(samples, places, long, f"{summary} ({held_out_names})", skipped)


def random_windows(samples, places, count, window, seed, first=0):
    """Windows drawn at random from places (R, 2), every beginning as likely: (count, window), float32.

    A TensorFlow graph may hold it. Stateless: the same `seed` (a pair of integers) gives the same windows.
    """
    total = np.cumsum(places[:, 1] - places[:, 0])
    number = draws.integers((count,), seed, first, int(total[-1]), "int64")
    start = number + tf.gather(places[:, 1] - total, tf.searchsorted(total, number, "right"))
    every = np.lib.stride_tricks.sliding_window_view(samples, window)
    return tf.ensure_shape(tf.numpy_function(lambda start: every[start], [start], tf.float32), (count, window))


def _find(path):
    """The sound files in a folder and below it, sorted, each once however many links lead there; lines on the rest."""
    if not os.path.isdir(path):
        return [path], []
    skipped, files, walked = [], [], set()
    for folder, below, names in os.walk(
        path, onerror=lambda error: skipped.append(f"{error.filename}: {error.strerror}"), followlinks=True
    ):
        below.sort()
        if os.path.realpath(folder) in walked:  # a link back, or a second one
            below.clear()
            continue
        walked.add(os.path.realpath(folder))
        files += [Path(folder, name) for name in names if name.lower().endswith(SUFFIXES)]
    return sorted({os.path.realpath(file): file for file in sorted(files, reverse=True)}.values()), skipped


def _append(store, first, file, sample_rate, least):
    """Decode a file into `store` from sample `first` on; where it ends. Unusable if it has fewer than `least`."""
    store.seek(4 * first)
    end = first
    for block in decode(file, sample_rate):
        block[block == 0] = NEARLY_ZERO
        end += block.size
        if end > MOST_HOURS * 3600 * sample_rate:
            raise Unusable(f"{file}: would make more than {MOST_HOURS} hours of sound; give less, or cut it shorter")
        try:
            store.write(block)
        except OSError as error:
            raise OSError(f"no room on the disk for the decoded {file} ({error.strerror}); give less sound") from error
    if end - first < least:
        problem = f"{(end - first) / sample_rate:.3g} s" if end > first else "no samples"
        raise Unusable(f"{file}: {problem}, too short; at least {least / sample_rate:.3g} s are needed")
    store.flush()
    return end


def _energies(samples, size):
    """Energy of consecutive pieces of `size` samples, float64: (T,) -> (T // size,)."""
    pieces = samples[: samples.size // size * size].reshape(-1, size)
    return np.einsum("ns,ns->n", pieces, pieces, dtype=np.float64)


def _scale(samples, size, rms, file):
    """Scale a file's samples in place so that pieces of `size` samples which are not silent have `rms` together."""
    power = _energies(samples, size) / size
    level = np.sqrt(power[power >= power.mean() * 10 ** (SILENCE_DB / 10)].mean())
    if level < LEAST_RMS:
        raise Unusable(f"{file}: silent; leave it out or record it anew")
    samples *= np.float32(rms / level)


def _places(samples, first, end, window, least_power):
    """Where windows of at least this mean power may begin between two samples: (R, 2).

    Looked at in steps of a quarter window. From a step to before the next the windows share three quarters; these
    have to have the energy.
    """
    step, last = window // 4, end - first - window
    if last < 0:
        return np.zeros((0, 2), np.int64)
    energy = _energies(samples[first:end], step)
    shared = energy[1:-2] + energy[2:-1] + energy[3:]
    loud = shared[: last // step + 1] >= least_power * window
    runs = np.flatnonzero(np.diff(np.pad(loud, 1).astype(int))).reshape(-1, 2)
    return first + np.minimum(runs * step, last + 1)


def _middle(places, first, end, window, least):
    """Where to divide a file whose windows may begin at these places: HELD_OUT_SHARE of them are behind.

    At its end if it is too short for a window before and `least` samples behind.
    """
    starts = np.cumsum(places[:, 1] - places[:, 0])
    before = round((1 - HELD_OUT_SHARE) * starts[-1])
    row = np.searchsorted(starts, before)
    middle = min(places[row, 1] - starts[row] + before, end - least)
    return middle if middle - first >= window else end

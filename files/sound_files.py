"""Decode sound files to mono at one sample rate, and load recordings to train on.

Recordings may be hours long. They are decoded once, into a file on the disk, so that memory never
holds all of them, nor even one whole file.
"""

import os
import tempfile
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

import audio_utils
from files import folders
from files.sound_reader import open_sound
from harness import UserError
from harness.quiet_tensorflow import stderr_held_back, tf
from signals.resampling import resample

READ_ONLY = ".aac", ".mp4", ".webm", ".wma", ".3gp"  # cannot be written, so results are WAVs
SUFFIXES = ".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".m4a", *READ_ONLY
MAX_HOURS = 24  # of recordings in all: 5.5 GB on the disk at 16 kHz
SHORTEST = 2048  # samples; the figure of the long sound needs this many
OFFSET = 0.01  # of a sound's RMS; a larger constant offset is removed
# Channels cancel if the power of their mean is below this fraction of the loudest's part in it.
CANCELS = 0.1
LEAST_RMS = 1e-5  # -100 dB relative to full scale; a quieter sound is dither
HELD_OUT_FRACTION = 0.1
SPLIT_BY_FILE_FROM = 5  # files; with fewer, each file is split in time


def result_suffixes(path):
    """Return the suffixes that a restored file may have: the input's, and .wav for any sound."""
    given = path.suffix.lower()
    if given not in SUFFIXES:
        return (given,)
    return (".wav",) if given in (".wav", *READ_ONLY) else (given, ".wav")


def result_name(path):
    """Return the path, with the suffix .wav if the format can be read but not written."""
    return path.with_suffix(".wav") if path.suffix.lower() in READ_ONLY else path


def decode(path, sample_rate):
    """Decode a sound file to mono at `sample_rate` Hz. Yields blocks (n,), float32.

    Mono is the mean of the channels, or the loudest channel if they cancel. UserError if the file
    cannot be read or contains NaN or Inf.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # opening a pipe would block
        raise UserError(f"{path}: not a file; give a sound file or a folder of them")
    try:
        weights = _mono_weights(path)
        with open_sound(path) as sound:
            mono = ((block @ weights)[:, None] for block in sound.blocks("float32"))
            for block in resample(mono, 1, sound.rate, sample_rate):
                yield block[:, 0]
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error


def _mono_weights(path):
    """Return the weight of each channel in the mono mix of a file: (channels,), float32."""
    with open_sound(path) as sound:
        channels, samples = sound.channels, 0
        total, squares = np.zeros(channels + 1), np.zeros(channels + 1)
        for block in sound.blocks() if channels > 1 else ():
            block = np.column_stack([block, block.mean(1)])
            samples += len(block)
            total += block.sum(0)
            squares += (block**2).sum(0)
    # Variances, because a constant offset is not sound.
    *power, mixed = squares / max(samples, 1) - (total / max(samples, 1)) ** 2
    if mixed < CANCELS * max(power) / channels**2:
        return np.eye(channels, dtype=np.float32)[np.argmax(power)]
    return np.full(channels, 1 / channels, np.float32)


@dataclass(frozen=True, eq=False)
class Recordings:
    """Recordings to train on, made by `load`.

    They are split into two parts, "training" and "held out", whose windows share no sample.
    """

    samples: np.memmap  # (T,), float32: all files one after the other, scaled to the same RMS
    places: dict  # {part: (R, 2)}, ranges [first, end) of the samples at which a window may begin
    long_sound: np.ndarray  # (L,), from the longest held-out stretch
    summary: str  # one line: seconds of sound, and what is held out
    skipped: list  # one line per file that cannot be used
    window: int  # samples
    sample_rate: int  # Hz
    metadata: dict  # for the model's file
    provenance: dict  # for config.json
    title = "Held-out sound"
    notes = None  # the notes in a recording are unknown

    def windows(self, part, count, seed):
        """Draw `count` windows of a part, with `seed`, a pair of integers.

        Returns the reference and the clean windows, both (count, window), and None for the notes.
        The noise in a recording is unknown, so the reference is the clean window itself.
        """
        clean = random_windows(self.samples, self.places[part], count, self.window, seed)
        return clean, clean, None

    def long(self, seed):
        """Return the long sound, (L,), as reference and as clean sound. The seed has no effect."""
        return self.long_sound, self.long_sound


def load(path, sample_rate, window, rms, seconds, folder):
    """Load `Recordings` from a sound file, or from all sound files in a folder and its subfolders.

    Each file is resampled to `sample_rate` Hz and scaled to `rms`, which is measured without
    silence. With SPLIT_BY_FILE_FROM or more files, whole files are held out, always the same ones;
    with fewer, the end of each file. The long sound lasts at most `seconds`. The decoded sound is
    stored in `folder`, in a temporary file without a name. UserError if no sound can be used.
    """
    samples, clips, skipped = _read(path, sample_rate, window, rms, folder)
    least_power = rms**2 * 10 ** (audio_utils.SILENCE_DB / 10)
    parts, held_out = _split(samples, clips, window, least_power)
    places = {
        name: np.concatenate([_places(samples, *clip, window, least_power) for clip in part])
        for name, part in parts.items()
    }
    if not all(map(len, places.values())):
        raise UserError(f"{path}: not enough sound to train on and to hold out; add more")
    starts = places["held out"][:, 0]
    long_sound = _long_sound(samples, parts["held out"], starts, round(seconds * sample_rate))
    learned, kept = (float(np.ptp(part, axis=1).sum() / sample_rate) for part in parts.values())
    summary = f"{learned:.1f} s of sound to learn from, {kept:.1f} s held out ({held_out})"
    provenance = {
        "source": folders.printable(path),
        "files": len(clips),
        "training_seconds": learned,
        "held_out_seconds": kept,
        "sha256": folders.sha256(clips),
    }
    metadata = {"sample_rate": sample_rate, "rms": rms, "sha256": provenance["sha256"]}
    return Recordings(
        samples, places, long_sound, summary, skipped, window, sample_rate, metadata, provenance
    )


def random_windows(samples, places, count, window, seed):
    """Draw windows that begin in `places` (R, 2), all starts equally likely: (count, window).

    Works in a TensorFlow graph. The same `seed`, a pair of integers, gives the same windows.
    """
    total = np.cumsum(places[:, 1] - places[:, 0])
    number = tf.random.stateless_uniform((count,), seed, 0, int(total[-1]), tf.int64)
    start = number + tf.gather(places[:, 1] - total, tf.searchsorted(total, number, "right"))
    every = np.lib.stride_tricks.sliding_window_view(samples, window)
    drawn = tf.numpy_function(lambda start: every[start], [start], tf.float32)
    return tf.ensure_shape(drawn, (count, window))


def _find(path):
    """List the sound files below a folder, sorted, each once, and a line per unreadable folder."""
    if not os.path.isdir(path):
        return [path], []
    files, problems = folders.walk(path)
    files = [file for file in files if file.name.lower().endswith(SUFFIXES)]
    return sorted({os.path.realpath(file): file for file in reversed(files)}.values()), problems


def _read(path, sample_rate, window, rms, folder):
    """Decode all files that can be used into one file in `folder`, each scaled to `rms`.

    Returns samples (T,), {path: (first, end) in samples}, and one line per skipped file.
    """
    files, skipped = _find(path)
    store, first, clips = tempfile.TemporaryFile(dir=folder), 0, {}
    for file in tqdm(files, "reading", unit="file", leave=False, disable=None):
        try:
            with stderr_held_back():  # libmpg123 prints comments on damaged MP3s
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
        if skipped:
            problem = f"no usable sound; the first of {len(skipped)} problems"
            raise UserError(f"{path}: {problem}: {skipped[0]}")
        raise UserError(f"{path}: no sound files; looked for {' '.join(SUFFIXES)}")
    store.truncate(4 * first)
    return np.memmap(store, np.float32, "r"), clips, skipped


def _append(store, first, file, sample_rate, least):
    """Decode a file into `store`, beginning at sample `first`, and return its end there.

    UserError if it has fewer than `least` samples.
    """
    store.seek(4 * first)
    end = first
    for block in decode(file, sample_rate):
        end += block.size
        if end > MAX_HOURS * 3600 * sample_rate:
            raise UserError(f"{file}: more than {MAX_HOURS} hours of sound in all; give less")
        try:
            store.write(block)
        except OSError as error:  # not a UserError: it concerns all files, not only this one
            problem = f"cannot store the decoded sound ({error.strerror})"
            raise OSError(f"{file}: {problem}; make room on the disk or give less sound") from error
    if end - first < least:
        length = f"{(end - first) / sample_rate:.3g} s" if end > first else "no samples"
        raise UserError(f"{file}: too short ({length}); give at least {least / sample_rate:.3g} s")
    store.flush()
    return end


def _scale(samples, size, rms, file):
    """Scale samples in place to `rms`, measured over those pieces of `size` that are not silent.

    Also remove a constant offset. It is not sound, and the model would learn it.
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
    """Return the energy without offset, and the offset, of each piece: two arrays (T // size,)."""
    pieces = samples[: samples.size // size * size].reshape(-1, size)
    means = pieces.mean(1, dtype=np.float64)
    energy = np.einsum("ns,ns->n", pieces, pieces, dtype=np.float64)
    return np.maximum(energy - size * means**2, 0), means


def _split(samples, clips, window, least_power):
    """Split the sound: {"training": clips, "held out": clips}, and what is held out, in words."""
    training, held_out = [], []
    if len(clips) < SPLIT_BY_FILE_FROM:
        for first, end in clips.values():
            middle = _middle(_places(samples, first, end, window, least_power), first, end, window)
            training.append((first, middle))
            held_out.append((middle, end))
        return {"training": training, "held out": held_out}, "the end of each file"
    count = round(HELD_OUT_FRACTION * len(clips)) or 1
    chosen = sorted(folders.fixed_order(len(clips))[:count])
    for number, clip in enumerate(clips.values()):
        (held_out if number in chosen else training).append(clip)
    names = [folders.printable(list(clips)[i].name) for i in chosen[:3]] + ["..."] * (count > 3)
    return {"training": training, "held out": held_out}, ", ".join(names)


def _places(samples, first, end, window, least_power):
    """Find where windows that are loud enough may begin in the clip [first, end): ranges (R, 2).

    A quarter of a window is one step. All windows that begin within one step share the next three
    steps, and these must hold the energy of a whole window of mean power `least_power`.
    """
    step, last = window // 4, end - first - window
    if last < 0:
        return np.zeros((0, 2), np.int64)
    energy, _ = _energies(samples[first:end], step)
    shared = energy[1:-2] + energy[2:-1] + energy[3:]
    loud = shared[: last // step + 1] >= least_power * window
    return first + np.minimum(audio_utils.runs(loud) * step, last + 1)


def _middle(places, first, end, window):
    """Return the sample at which to split a file, so that HELD_OUT_FRACTION of its places follow.

    Returns the file's end if it is too short for a window before the split and SHORTEST samples, or
    a window if that is longer, after it.
    """
    if not len(places):
        return end
    starts = np.cumsum(places[:, 1] - places[:, 0])
    before = round((1 - HELD_OUT_FRACTION) * starts[-1])
    row = np.searchsorted(starts, before)
    middle = min(places[row, 1] - starts[row] + before, end - max(window, SHORTEST))
    return middle if middle - first >= window else end


def _long_sound(samples, clips, starts, most):
    """Return up to `most` samples of the longest clip that has a place: (L,), float64.

    starts: first samples of all held-out places. The sound begins at the first one in the clip, or
    earlier if the rest of the clip is too short.
    """
    sounding = [(first, end) for first, end in clips if ((first <= starts) & (starts < end)).any()]
    first, end = max(sounding, key=lambda clip: clip[1] - clip[0])
    length = min(most, end - first)
    first = min(starts[starts >= first][0], end - length)
    return samples[first : first + length].astype(float)

"""Your own sounds: any file that libsndfile reads, decoded once onto the disk, and windows drawn from there.

A set may be hours long: neither it nor any file of it is ever in memory as a whole.
"""

import contextlib
import os
import re
import socket
import tempfile
import threading
from dataclasses import dataclass

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

from audio_utils import SAMPLE_RATES
from files import folders
from harness import UserError
from harness.quiet_tensorflow import stderr_held_back, tf

SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff")  # looked for in a folder
MOST_CHANNELS = 64
MOST_HOURS = 24  # in all: 5.5 GB on the disk at 16 kHz
FRAMES_A_BLOCK = 1 << 16  # decoded at once
HEADERLESS = (".raw", ".pcm", ".vox", ".gsm")
MP3_FRAME = rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xef]"  # how one begins: layer III
EMPTY_ID3 = b"TAG" + bytes(125)  # has the decoder of MP3 take a frame that is cut short for the end
HEAD = 1 << 16  # bytes looked at before a file is decoded
PADDING = 64  # zeros
SHORTEST = 2048  # samples: what a picture of the long input needs
SILENCE_DB = -50.0  # relative to a sound's mean power: what is below does not count for its level
NEARLY_ZERO = 1e-12  # in place of 0, which marks what is missing
OFFSET = 0.01  # of a sound's RMS: a constant offset from there on is taken out
CANCELS = 0.1  # of what one channel alone would leave: a mix of less power has channels that cancel
LEAST_RMS = 1e-5  # -100 dB relative to full scale: what is below is dither
HELD_OUT_SHARE = 0.1
SPLIT_BY_FILE_FROM = 5  # files; fewer are split by time


@dataclass(frozen=True, eq=False)
class Recordings:
    """What `load` has read. Places (R, 2): windows may begin at the samples from the first to before the second."""

    samples: np.memmap  # (T,), float32: all files one after the other, each scaled to the same RMS
    places: dict  # {"training": places, "held out": places}; no window of one shares a sample with one of the other
    long_sound: np.ndarray  # (L,): the beginning of the longest stretch held out
    summary: str  # how much there is and what is held out, in one line
    skipped: list  # of lines: files that cannot be used, and why
    window: int  # samples
    sample_rate: int  # Hz
    metadata: dict  # for a model's file
    provenance: dict  # for config.json
    title = "Held-out sound"
    notes = None  # unknown

    def windows(self, part, count, seed):
        """Windows of a part drawn by `seed` (a pair of integers): reference and clean, both (count, window); no notes.

        What is noise in a recording, nobody knows: the reference is the clean window itself.
        """
        clean = random_windows(self.samples, self.places[part], count, self.window, seed)
        return clean, clean, None

    def long(self, seed):
        """The long sound, (L,), as reference and as clean; the same whatever the seed."""
        return self.long_sound, self.long_sound


class ReadForward(soundfile.SoundFile):
    """A sound file read once, from its beginning to its end, whatever length its header claims.

    OSError or SoundFileError if it cannot be opened. It is without the seek that soundfile does after every read: in
    an MP3 each would leave a click behind.
    """

    def __init__(self, path):
        self.path, self.stream = path, None
        file = open(path, "rb")
        pipe = _mp3_without_count(file) or _with_data_size(file)
        file.seek(0)
        self.stream = _piped(file, *pipe) if pipe else file
        try:  # by descriptor: its name would have a .raw file taken for samples of nobody knows what kind
            super().__init__(self.stream.fileno(), closefd=False)
        except BaseException:
            self.stream.close()
            raise

    def close(self):
        super().close()
        if self.stream:
            self.stream.close()

    def seekable(self):
        return False

    def copy_metadata(self):
        """The tags; those of a piped MP3 are not in the pipe."""
        with open(self.path, "rb") as file, soundfile.SoundFile(file) as whole:
            return whole.copy_metadata()


def _piped(file, before, start, after):
    """A socket to read from: bytes, an open file's from `start` on, more bytes. It closes the file."""
    here, there = socket.socketpair()
    quiet = getattr(socket, "MSG_NOSIGNAL", 0)

    def pump():
        with (
            file,
            there,
            contextlib.suppress(OSError),
        ):  # the reader has had enough, or the file cannot be read on
            there.sendall(before, quiet)
            file.seek(start)
            while block := file.read(FRAMES_A_BLOCK):
                there.sendall(block, quiet)
            there.sendall(after, quiet)

    threading.Thread(target=pump, daemon=True).start()
    return here


def _mp3_without_count(file):
    """What to read of an open MP3 through a pipe, as `_piped` takes it, if it does not tell how long it is.

    If it can seek, libsndfile believes an estimate and stops there. Files joined end to end have the first one's count:
    that frame is left out. None for other files.
    """
    tag = file.read(10)
    at = (
        10 + sum((byte & 127) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0)))
        if tag[:3] == b"ID3"
        else 0
    )
    file.seek(at)
    head = file.read(HEAD)
    padding = len(head) - len(head.lstrip(b"\0"))
    head, at = head[padding:], at + padding
    if not re.match(MP3_FRAME, head):
        return None
    count = re.search(b"Xing|Info", head[:64])
    if count:
        flags, told = (
            head[count.end() + 3],
            int.from_bytes(head[count.end() + 8 : count.end() + 12], "big"),
        )
        second = head.find(head[:2], count.end() + 116)
        if (
            flags & 3 != 3
            or second < 0
            or told >= 0.98 * (os.fstat(file.fileno()).st_size - at) - 4096
        ):
            return None
        at += second
    return b"", at, EMPTY_ID3


def _with_data_size(file):
    """What to read, as `_piped` takes it, of an open WAV whose data go on behind the end that its header gives them.

    A recorder that crashes leaves it so: with 0 bytes, or with those that it had when it last wrote its header, HEAD
    bytes ago or more. None for other files.
    """
    file.seek(0)
    head, size = file.read(HEAD), os.fstat(file.fileno()).st_size
    order = {b"RIFF": "little", b"RIFX": "big"}.get(head[:4])
    at = 12
    while order and head[8:12] == b"WAVE" and at + 8 <= len(head):
        length = int.from_bytes(head[at + 4 : at + 8], order)
        if head[at : at + 4] == b"data":
            begin = at + 8
            file.seek(begin + length)
            behind, rest = file.read(PADDING + 1), size - begin - length
            if length:  # behind odd lengths there is a byte more, but not of all programs
                right = rest < HEAD or any(
                    _no_samples(behind[skip:], rest - skip, order) for skip in (0, 1)
                )
            else:
                next_end = begin + 8 + int.from_bytes(behind[4:8], order)
                right = begin >= size or next_end == size  # truly empty, perhaps with tags behind
            return (
                None
                if right
                else (head[: at + 4] + min(size - begin, 2**32 - 1).to_bytes(4, order), begin, b"")
            )
        at += 8 + length + length % 2
    return None


def _no_samples(head, size, order):
    """Whether bytes of a WAV, as many as `size`, that begin like this are tags, padding, or a chunk that fits."""
    fits = 8 + int.from_bytes(head[4:8], order) <= size
    return bool(
        re.match(rb"ID3|\0{%d}" % PADDING, head)
        or (fits and re.match(rb"[A-Za-z_][A-Za-z0-9_ ]{3}", head))
    )


def read_on(sound, dtype="float64"):
    """An open sound file from where it is to its end: blocks (n, channels).

    `SoundFile.blocks` would go on to where the header says a file ends that was cut short, with whatever is in memory.
    """
    while len(block := sound.read(FRAMES_A_BLOCK, dtype, always_2d=True)):
        yield block


def reason(error):
    """What libsndfile has to say, without the file's name."""
    return getattr(error, "error_string", str(error)).rstrip(".")


def check_header(sound):
    """UserError if an open sound file's header tells nonsense."""
    if not SAMPLE_RATES[0] <= sound.samplerate <= SAMPLE_RATES[1] or sound.channels > MOST_CHANNELS:
        header = f"{sound.samplerate} Hz and {sound.channels} channels"
        raise UserError(
            f"{sound.path}: its header says {header}, which no recording has; convert it anew"
        )


def remedy(path):
    """What to do about a file that cannot be read."""
    if os.path.splitext(path)[1].lower() in HEADERLESS:
        return "samples without a header have no known rate or format: import them as raw data and export WAV"
    return "convert it to WAV or FLAC"


def resample(blocks, channels, old_rate, new_rate):
    """Blocks (n, channels), float32, from one rate in Hz to another, without delay."""
    if old_rate == new_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(old_rate, new_rate, channels)
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)


def decode(path, sample_rate):
    """A sound file of any rate, channels and sample format as mono at `sample_rate` Hz: yields blocks (n,), float32.

    The mean of the channels, or if that cancels them, the loudest. UserError if it cannot be read to its end or has
    samples that are not finite.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # to open a pipe would be to wait
        raise UserError(f"{path}: not a file; give a sound file or a folder of them")
    try:
        weights = _mix(path)
        with ReadForward(path) as sound:
            mono = ((block @ weights)[:, None] for block in read_on(sound, "float32"))
            for block in resample(mono, 1, sound.samplerate, sample_rate):
                if not np.isfinite(block).all():
                    raise UserError(
                        f"{path}: has NaN or Inf among its samples; repair it or leave it out"
                    )
                yield block[:, 0]
    except soundfile.SoundFileError as error:
        raise UserError(
            f"{path}: not a sound file, or damaged ({reason(error)}); {remedy(path)}"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error


def _mix(path):
    """What to multiply the channels of a file by for mono: (channels,), float32. UserError for a header of nonsense."""
    with ReadForward(path) as sound:
        check_header(sound)
        channels, frames = sound.channels, 0
        total, squares = np.zeros(channels + 1), np.zeros(channels + 1)
        if channels > 1:
            for block in read_on(sound):
                block = np.column_stack([block, block.mean(1)])
                frames, total, squares = (
                    frames + len(block),
                    total + block.sum(0),
                    squares + (block**2).sum(0),
                )
    *power, mixed = (
        squares / max(frames, 1) - (total / max(frames, 1)) ** 2
    )  # of the sound, without offset
    # Were only one to sound, the mix would have this share of its power.
    if mixed < CANCELS * max(power) / channels**2:
        return np.eye(channels, dtype=np.float32)[np.argmax(power)]
    return np.full(channels, 1 / channels, np.float32)


def load(path, sample_rate, window, rms, seconds, folder):
    """Read a sound file, or those in a folder and below it, for windows of `window` samples at `sample_rate` Hz.

    Each is scaled to `rms`, silence not counted. The long sound has at most `seconds`. From SPLIT_BY_FILE_FROM files
    on, whole files are held out, always the same; else the end of each. The decoded sound is kept in `folder`, in a
    file without a name, of which nothing is left however the program ends. UserError if nothing can be used.
    """
    samples, clips, skipped = _read(path, sample_rate, window, rms, folder)
    least_power = rms**2 * 10 ** (SILENCE_DB / 10)
    parts, what = _divided(samples, clips, window, least_power)
    places = {
        name: np.concatenate([_places(samples, *clip, window, least_power) for clip in part])
        for name, part in parts.items()
    }
    if not all(map(len, places.values())):
        raise UserError(
            f"{path}: not enough sound to learn from one part and hold out another; give more"
        )
    long_sound = _long_sound(
        samples, parts["held out"], places["held out"][:, 0], round(seconds * sample_rate)
    )
    training, held_out = (
        float(sum(end - first for first, end in part) / sample_rate) for part in parts.values()
    )
    summary = f"{training:.1f} s of sound to learn from, {held_out:.1f} s held out ({what})"
    provenance = {"source": folders.printable(path), "files": len(clips)}
    provenance |= {
        "training_seconds": training,
        "held_out_seconds": held_out,
        "sha256": folders.sha256(clips),
    }
    metadata = {"sample_rate": sample_rate, "rms": rms, "sha256": provenance["sha256"]}
    return Recordings(
        samples, places, long_sound, summary, skipped, window, sample_rate, metadata, provenance
    )


def random_windows(samples, places, count, window, seed):
    """Windows drawn at random from places (R, 2), every beginning as likely: (count, window), float32.

    A TensorFlow graph may hold it. Stateless: the same `seed` (a pair of integers) gives the same windows.
    """
    total = np.cumsum(places[:, 1] - places[:, 0])
    number = tf.random.stateless_uniform((count,), seed, 0, int(total[-1]), tf.int64)
    start = number + tf.gather(places[:, 1] - total, tf.searchsorted(total, number, "right"))
    every = np.lib.stride_tricks.sliding_window_view(samples, window)
    return tf.ensure_shape(
        tf.numpy_function(lambda start: every[start], [start], tf.float32), (count, window)
    )


def _find(path):
    """The sound files in a folder and below it, sorted, each once however many links lead there; lines on the rest."""
    if not os.path.isdir(path):
        return [path], []
    files, problems = folders.walk(path)
    files = [file for file in files if file.name.lower().endswith(SUFFIXES)]
    return sorted({os.path.realpath(file): file for file in reversed(files)}.values()), problems


def _read(path, sample_rate, window, rms, folder):
    """All that can be used, scaled, on the disk: samples (T,); {file: (first, end) in samples}; lines on the rest."""
    files, skipped = _find(path)
    store = tempfile.TemporaryFile(dir=folder)
    first, clips = 0, {}
    for file in tqdm(files, "reading", unit="file", leave=False, disable=None):
        with stderr_held_back():  # the MP3 decoder has its own lines on what it meets
            try:
                end = _append(store, first, file, sample_rate, max(window, SHORTEST))
                _scale(
                    np.memmap(store, np.float32, "r+", 4 * first, (end - first,)),
                    window // 4,
                    rms,
                    file,
                )
            except UserError as error:
                skipped.append(str(error))
                continue
        clips[file], first = (first, end), end
    if not clips:
        if len(files) == len(skipped) == 1:
            raise UserError(skipped[0])
        problem = (
            f"none of {len(skipped)} can be used; the first: {skipped[0]}"
            if skipped
            else "no sound files"
        )
        raise UserError(f"{path}: {problem}; looked for {' '.join(SUFFIXES)}")
    store.truncate(4 * first)
    return np.memmap(store, np.float32, "r"), clips, skipped


def _divided(samples, clips, window, least_power):
    """What to learn from and what to hold out, {"training": clips, "held out": clips}; and which that is, in words."""
    ends = list(clips.values())
    if len(clips) >= SPLIT_BY_FILE_FROM:
        count = round(HELD_OUT_SHARE * len(clips)) or 1
        chosen = sorted(folders.fixed_order(len(clips))[:count])
        held_out = [ends[i] for i in chosen]
        training = [clip for clip in ends if clip not in held_out]
        names = [folders.printable(list(clips)[i].name) for i in chosen[:3]]
        return {"training": training, "held out": held_out}, ", ".join(names) + ", ..." * (
            count > 3
        )
    middles = [
        _middle(_places(samples, *clip, window, least_power), *clip, window) for clip in ends
    ]
    training, held_out = zip(
        *(((first, middle), (middle, end)) for (first, end), middle in zip(ends, middles))
    )
    return {"training": training, "held out": held_out}, "the end of each file"


def _long_sound(samples, clips, starts, most):
    """The beginning of the longest held-out clip in which a window starts, at most so many samples: (L,), float64."""
    sounding = [(first, end) for first, end in clips if ((first <= starts) & (starts < end)).any()]
    first, end = max(sounding, key=lambda clip: clip[1] - clip[0])
    length = min(most, end - first)
    first = min(starts[starts >= first][0], end - length)
    return samples[first : first + length].astype(float)


def _append(store, first, file, sample_rate, least):
    """Decode a file into `store` from sample `first` on; where it ends. UserError if it has fewer than `least`."""
    store.seek(4 * first)
    end = first
    for block in decode(file, sample_rate):
        block[block == 0] = NEARLY_ZERO
        end += block.size
        if end > MOST_HOURS * 3600 * sample_rate:
            raise UserError(
                f"{file}: would make more than {MOST_HOURS} hours of sound; give less, or cut it shorter"
            )
        try:
            store.write(block)
        except OSError as error:
            raise OSError(
                f"no room on the disk for the decoded {file} ({error.strerror}); give less sound"
            ) from error
    if end - first < least:
        problem = f"{(end - first) / sample_rate:.3g} s" if end > first else "no samples"
        raise UserError(
            f"{file}: {problem}, too short; at least {least / sample_rate:.3g} s are needed"
        )
    store.flush()
    return end


def _energies(samples, size):
    """Energy of consecutive pieces of `size` samples about each one's mean, and the means: (T,) -> 2 (T // size,).

    A constant offset is no sound. All float64.
    """
    pieces = samples[: samples.size // size * size].reshape(-1, size)
    means = pieces.mean(1, dtype=np.float64)
    return np.maximum(
        np.einsum("ns,ns->n", pieces, pieces, dtype=np.float64) - size * means**2, 0
    ), means


def _scale(samples, size, rms, file):
    """Scale a file's samples in place so that pieces of `size` samples which are not silent have `rms` together.

    Their common offset is taken out: it is no sound, and would be learned. Silence keeps what is left of it.
    """
    energy, means = _energies(samples, size)
    power = energy / size
    loud = power >= power.mean() * 10 ** (SILENCE_DB / 10)
    offset = means[loud].mean()
    level = np.sqrt(power[loud].mean() + ((means[loud] - offset) ** 2).mean())
    if power[loud].mean() < LEAST_RMS**2:
        raise UserError(f"{file}: silent; leave it out or record it anew")
    if abs(offset) > OFFSET * level:
        samples -= np.float32(offset)
        samples[samples == 0] = NEARLY_ZERO
    else:
        level = np.hypot(level, offset)
    samples *= np.float32(rms / level)


def _places(samples, first, end, window, least_power):
    """Where windows of at least this mean power may begin between two samples: (R, 2).

    Looked at in steps of a quarter window. From a step to before the next the windows share three quarters; these
    have to have the energy.
    """
    step, last = window // 4, end - first - window
    if last < 0:
        return np.zeros((0, 2), np.int64)
    energy, _ = _energies(samples[first:end], step)
    shared = energy[1:-2] + energy[2:-1] + energy[3:]
    loud = shared[: last // step + 1] >= least_power * window
    runs = np.flatnonzero(np.diff(np.pad(loud, 1).astype(int))).reshape(-1, 2)
    return first + np.minimum(runs * step, last + 1)


def _middle(places, first, end, window):
    """Where to divide a file whose windows may begin at these places: HELD_OUT_SHARE of them are behind.

    At its end if it is too short for a window before and enough for a long sound behind.
    """
    if not len(places):
        return end
    starts = np.cumsum(places[:, 1] - places[:, 0])
    before = round((1 - HELD_OUT_SHARE) * starts[-1])
    row = np.searchsorted(starts, before)
    middle = min(places[row, 1] - starts[row] + before, end - max(window, SHORTEST))
    return middle if middle - first >= window else end

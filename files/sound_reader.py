"""Open sound files of any format.

FFmpeg reads compressed formats. libsndfile reads all others. Each file is read once, from beginning
to end, in constant memory.
"""

import contextlib
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soundfile

from audio_utils import SAMPLE_RATES
from harness import UserError
from harness.quiet_tensorflow import stderr_held_back

# Suffixes of files to look for. Results have the same format, or are WAVs if it is read only.
WRITABLE = ".wav", ".flac", ".ogg", ".opus", ".mp3", ".aif", ".aiff", ".m4a", ".caf", ".au", ".w64"
READ_ONLY = ".aac .amr .avi .m4b .mka .mkv .mov .mp4 .oga .webm .wma .wv .3gp".split()
SUFFIXES = (*WRITABLE, *READ_ONLY)
HEADERLESS = ".raw", ".pcm", ".vox", ".gsm"  # FFmpeg may take these for MP3s
# Formats that FFmpeg may read. Playlists are left out, because they can open other files.
FORMATS = "aac,amr,asf,avi,matroska,mov,mp3,ogg,wv"
MP4, MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"  # FFmpeg's names; they list variants
# Files that libsndfile writes: FFmpeg's names of format and encoding -> libsndfile's names.
LIBSNDFILE = {
    ("mp3", "mp3float"): ("MP3", "MPEG_LAYER_III"),
    ("ogg", "vorbis"): ("OGG", "VORBIS"),
    ("ogg", "opus"): ("OGG", "OPUS"),
}
TIMED = "ogg", MATROSKA, MP4  # formats that state the full length of a truncated file
VIDEOS = "avi", MATROSKA, MP4  # only the packets of the last two all have times
PAUSE = 0.05, 3600  # seconds; silence replaces such pauses between packets, or before the first
# Encodings whose names begin like this keep zeros exactly; others blur the edges of a gap.
KEEP_ZEROS = "PCM", "FLOAT", "DOUBLE", "ALAW", "ULAW", "ALAC", "DWVW", "DPCM", "FLAC", "WAVPACK"
SMALLEST = {"ALAW": 8 / 32768}  # smallest magnitude in encodings that cannot represent 0
# Tags with the same name in FFmpeg and libsndfile.
TAGS = "title", "artist", "album", "date", "genre", "comment", "copyright", "license"
JOINED = 61, 80  # libsndfile's errors for a second header inside a WAV or AIFF
UNKNOWN = 2**31 - 2**16  # bytes; a program that writes to a pipe states such a length or more
UNCOUNTED = 1 << 16  # bytes; fewer after the last chunk of a WAV are not taken for samples
MAX_CHANNELS = 64
FRAMES_PER_BLOCK = 1 << 16


@dataclass
class Sound:
    """An open sound file, to be read once. Its channels have the order of a WAV."""

    path: Path
    rate: int  # Hz
    channels: int
    format: str  # name of the file format, from libsndfile or FFmpeg
    subtype: str  # name of the encoding, from libsndfile or FFmpeg
    endian: str  # libsndfile's name of the order of bytes
    tags: dict  # {libsndfile's name: text}
    seconds: float | None  # length stated in the file, if known
    decoded: Iterator  # blocks (n, channels) of samples, float64

    @property
    def encoding(self):
        """Name of the encoding, for messages."""
        return "MP3" if self.format == "MP3" else self.subtype

    def blocks(self):
        """Yield all samples in blocks (n, channels), float64. Raises UserError for NaN or Inf."""
        for block in self.decoded:
            if not np.isfinite(block).all():
                raise UserError(f"{self.path}: contains NaN or Inf; repair it or leave it out")
            yield block


def keeps_zeros(subtype):
    """Return True if this encoding preserves exact zeros."""
    return subtype.startswith(KEEP_ZEROS)


@contextlib.contextmanager
def open_sound(path):
    """Open a sound file. Returns a context manager that yields a `Sound`.

    Raises OSError if opening fails, UserError if reading fails, which may be in the `with` block.
    """
    try:
        # Without a buffer, because libsndfile and FFmpeg both move the position in the file.
        with open(path, "rb", buffering=0) as file, contextlib.ExitStack() as opened:
            sound = _open(path, file, opened)
            low, high = SAMPLE_RATES
            if sound.channels > MAX_CHANNELS or not low <= sound.rate <= high:
                found = f"{sound.rate} Hz and {sound.channels} channels"
                raise UserError(f"{path}: the header must be wrong ({found}); convert it again")
            yield sound
    except (soundfile.SoundFileError, av.FFmpegError) as error:
        raise _unreadable(path, error) from error


def _open(path, file, opened):
    if os.path.splitext(path)[1].lower() in HEADERLESS:
        raise UserError(f"{path}: not a sound file; import it as raw data and export WAV")
    try:
        return _with_ffmpeg(path, file, opened)
    except av.FFmpegError as error:
        unknown = error
    with stderr_held_back():  # libmpg123 prints messages about damaged MP3s
        try:
            return _with_libsndfile(path, file, opened)
        except soundfile.LibsndfileError as error:
            if error.code in JOINED:
                raise UserError(f"{path}: several sounds joined end to end; split them") from error
            raise _unreadable(path, unknown if unknown.log else error) from error


def _unreadable(path, error):
    """Return a UserError with the message of an error from libsndfile or FFmpeg."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    log = getattr(error, "log", None)  # FFmpeg's own message is more exact
    text = (log[-1] if log else text).strip().rstrip(".")
    return UserError(f"{path}: not a sound file, or damaged ({text}); convert it to WAV or FLAC")


def _with_libsndfile(path, file, opened):
    file.seek(0)
    # Pass no name, or libsndfile would guess the format of headerless samples from the suffix.
    reader = opened.enter_context(soundfile.SoundFile(file.fileno(), closefd=False))
    reader.seekable = lambda: False  # soundfile would seek after each read, and decode FLAC twice
    notes, seconds = reader.extra_info, None  # libsndfile's notes on the header
    if cut := re.search(r"(?:data|SSND) : (\d+) \(should be (\d+)\)", notes):
        stated, found = map(int, cut.groups())
        if found and stated < UNKNOWN:
            seconds = stated / found * reader.frames / reader.samplerate
    unknown = re.search(r"marker.* at position (\d+)", notes)
    if unknown and reader.format.startswith("WAV"):
        _check_end(path, int(unknown[1]), reader.frames)
    kind = reader.format, reader.subtype, reader.endian
    blocks = (reader.read(FRAMES_PER_BLOCK, always_2d=True) for _ in itertools.count())
    decoded = itertools.takewhile(len, blocks)
    tags = reader.copy_metadata()
    return Sound(path, reader.samplerate, reader.channels, *kind, tags, seconds, decoded)


def _check_end(path, position, frames):
    """Raise UserError if a WAV has samples at `position`, which is after its `frames` frames.

    A recorder that crashes leaves a header that counts no samples, or those at its last update.
    """
    with open(path, "rb") as file:
        file.seek(position)
        after = file.read(UNCOUNTED)
    more = len(after) == UNCOUNTED and any(after)  # zeros are padding
    if (more or not frames) and not after.lstrip(b"\0").startswith((b"ID3", b"id3")):
        problem = "has more samples than its header counts, as if its recorder had crashed"
        remedy = "repair it, for example with: ffmpeg -ignore_length 1 -i OLD.wav NEW.wav"
        raise UserError(f"{path}: {problem}; {remedy}")


def _with_ffmpeg(path, file, opened):
    av.logging.set_level(av.logging.ERROR)
    try:
        with av.logging.Capture():  # errors then have FFmpeg's messages
            options = {"format_whitelist": FORMATS}
            container = av.open(file, options=options, metadata_errors="replace")
    finally:
        av.logging.set_level(None)
    opened.enter_context(container)
    stream, name = container.streams.best("audio"), container.format.name
    if not stream:
        raise UserError(f"{path}: contains no sound; leave it out")
    codec = stream.codec_context.name
    kind = LIBSNDFILE.get((name, codec), (name, codec.upper()))
    tags = {tag.lower(): text for tag, text in (stream.metadata | container.metadata).items()}
    names = {tag: tag for tag in TAGS} | {"track": "tracknumber"}
    tags = {names[tag]: text for tag, text in tags.items() if tag in names}
    seconds = None
    if name in TIMED and stream.duration:
        seconds = float(stream.duration * stream.time_base)
    elif name in TIMED and container.duration and len(container.streams) == 1:
        seconds = container.duration / av.time_base
    frames = _frames(container, stream)
    first = next(frames, stream)  # the header of HE-AAC gives another rate and layout
    # The encoder pads the last frame. The stated duration of MP4 and Ogg excludes this padding.
    stated = round((seconds or 0) * first.rate) if name in (MP4, "ogg") else 0
    frames = [] if first is stream else itertools.chain([first], frames)
    start, channels = (container.start_time or 0) / av.time_base, len(first.layout.channels)
    decoded = _blocks(frames, stated, start if name in VIDEOS else np.inf, name in VIDEOS[1:])
    if name == MP4 and seconds:
        seconds += float((stream.start_time or 0) * stream.time_base) - start
    return Sound(path, first.rate, channels, *kind, "FILE", tags, seconds, decoded)


def _frames(container, stream):
    """Yield decoded frames as float64, with the rate and layout of the first.

    Packets that cannot be decoded are skipped, as players do. There is always such a packet where
    two MP3s are joined.
    """
    convert = kind = None
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            continue
        for frame in frames:
            if kind != (kind := (frame.format.name, frame.layout.name, frame.rate)):
                target = convert or frame
                convert = av.AudioResampler("dbl", target.layout, target.rate)
            yield from convert.resample(frame)


def _blocks(frames, stated, due, timed):
    """Join frames into blocks (n, channels), with silence where their times have pauses.

    Also remove the padding at the end. stated: the number of samples without padding, or 0 if it is
    unknown. due: seconds at which the sound should begin. timed: True if each frame has a time.
    """
    parts, size, total = [], 0, 0
    for frame in frames:
        time = due if frame.time is None else frame.time
        pause = time - due if PAUSE[0] < time - due < PAUSE[1] else 0
        if size >= FRAMES_PER_BLOCK or (pause and parts):
            yield np.concatenate(parts)
            parts, size = [], 0
        parts.append(frame.to_ndarray().reshape(frame.samples, -1))
        if pause:
            silence = np.broadcast_to(0.0, (round(pause * frame.rate), parts[0].shape[1]))
            yield from np.array_split(silence, int(pause) + 1)  # takes no memory
        due = time + frame.samples / frame.rate if timed else np.inf
        size, total = size + frame.samples, total + frame.samples
    if parts:
        padding = total - stated if 0 < total - stated < len(parts[-1]) else 0
        yield np.concatenate(parts)[: size - padding]

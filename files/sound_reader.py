"""Open sound files of any format.

FFmpeg reads compressed formats. libsndfile reads Ogg and all others. Each file is read once, from
beginning to end, in constant memory.
"""

import contextlib
import functools
import io
import mmap
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

import av
import numpy as np
import soundfile

from audio_utils import SAMPLE_RATES
from files.compressed_sound import Decoder
from harness import UserError

HEADERLESS = ".raw", ".pcm", ".vox", ".gsm"
# Encodings whose names begin like this keep zeros exactly; others blur the edges of a gap.
KEEP_ZEROS = ("PCM", "FLOAT", "DOUBLE", "ALAW", "ULAW", "ALAC", "DWVW", "DPCM")
SMALLEST = {"ALAW": 8 / 32768}  # smallest magnitude in encodings that cannot represent 0
MAX_CHANNELS = 64
FRAMES_PER_BLOCK = 1 << 16
HEADER = 1 << 16  # bytes; more than any WAV header, less than samples uncounted by a crash
PADDING = 64  # at least this many zero bytes after a WAV's samples count as padding


@dataclass(frozen=True, eq=False)
class Sound:
    """An open sound file, to be read once from its beginning to its end.

    read(count, dtype="float64") returns the next `count` samples (n, channels), fewer at the end.
    """

    path: str
    rate: int  # Hz
    channels: int
    format: str  # name of the file format, from libsndfile or FFmpeg
    subtype: str  # name of the encoding, from libsndfile or FFmpeg
    endian: str
    tags: dict  # {name: text}
    read: Callable
    decoder: Decoder | None = None  # set if FFmpeg reads the file

    @property
    def encoding(self):
        """Name of the encoding, for messages."""
        return "MP3" if self.format == "MP3" else self.subtype

    def blocks(self, dtype="float64"):
        """Yield the remaining samples in blocks (n, channels). Raises UserError for NaN or Inf."""
        while len(block := self.read(FRAMES_PER_BLOCK, dtype)):
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
    headerless = os.path.splitext(path)[1].lower() in HEADERLESS
    try:
        with open(path, "rb") as file, contextlib.ExitStack() as opened:
            sound = None
            if not headerless and not _is_one_ogg(file):
                sound = _compressed(path, file, opened)
            sound = sound or _other(path, file, opened)
            low, high = SAMPLE_RATES
            if sound.channels > MAX_CHANNELS or not low <= sound.rate <= high:
                found = f"{sound.rate} Hz and {sound.channels} channels"
                raise UserError(f"{path}: the header must be wrong ({found}); convert it again")
            yield sound
    except (soundfile.SoundFileError, av.FFmpegError) as error:
        remedy = "convert it to WAV or FLAC"
        if headerless:
            remedy = "it has no header, so import it as raw data and export WAV"
        problem = f"not a sound file, or damaged ({reason(error)})"
        raise UserError(f"{path}: {problem}; {remedy}") from error


def reason(error):
    """Return the message of an error from libsndfile, FFmpeg or the system, without a file name."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return text.rstrip(".")


def _is_one_ogg(file):
    """Return True if the file is an Ogg file with one stream, not several joined end to end.

    libsndfile reads the first stream to the exact sample, but ignores the others. FFmpeg reads all
    streams, but returns a few hundred samples too many or too few for Vorbis.
    """
    start = file.read(4)
    file.seek(0)
    if start != b"OggS":
        return False
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"OggS\0\2", 1) < 0  # the page that begins a stream


def _compressed(path, file, opened):
    """Return the `Sound` of an open file, or None if FFmpeg cannot read it."""
    with contextlib.suppress(av.FFmpegError):
        decoder = Decoder(file, path)
        opened.callback(decoder.container.close)
        kind = *decoder.kind, "FILE", decoder.tags
        return Sound(path, decoder.rate, decoder.channels, *kind, decoder.read, decoder)


def _other(path, file, opened):
    """Return the `Sound` of an open file, using libsndfile. Raises SoundFileError if it fails."""
    correction = _corrected_size(path, file)
    file.seek(0)
    # Pass no name, or libsndfile would guess the format of headerless samples from the suffix.
    source = _Corrected(file, *correction) if correction else file.fileno()
    sound = opened.enter_context(_Forward(source, closefd=False))
    kind = sound.format, sound.subtype, sound.endian, sound.copy_metadata()
    read = functools.partial(sound.read, always_2d=True)
    return Sound(path, sound.samplerate, sound.channels, *kind, read)


class _Forward(soundfile.SoundFile):
    """A SoundFile that does not seek after each read. Seeking would decode FLAC twice."""

    def seekable(self):
        return False


class _Corrected(io.FileIO):
    """An open file that returns the bytes `size` at position `at`, instead of its own bytes."""

    def __init__(self, file, at, size):
        super().__init__(file.fileno(), closefd=False)
        self.at, self.size = at, size

    def readinto(self, buffer):
        start = self.tell()
        count = super().readinto(buffer)
        view = memoryview(buffer).cast("B")
        for position, byte in enumerate(self.size, self.at - start):
            if 0 <= position < count:
                view[position] = byte
        return count


def _corrected_size(path, file):
    """Find the correct size for the header of a WAV whose recorder crashed.

    The header then gives size 0 or the size at its last update, but more samples follow. Returns
    the position of the size in the file and the correct size as bytes. Returns None if the size
    is right or the file is not a WAV. Raises UserError for several WAVs in one file.
    """
    file.seek(0)
    head, end = file.read(HEADER), os.fstat(file.fileno()).st_size
    order = {b"RIFF": "little", b"RIFX": "big"}.get(head[:4])
    at = 12  # position of a chunk: four letters, four bytes of length, contents
    while order and head[8:12] == b"WAVE" and at + 8 <= len(head):
        length = int.from_bytes(head[at + 4 : at + 8], order)
        if head[at : at + 4] == b"data":
            break
        at += 8 + length + length % 2
    else:
        return None
    file.seek(at + 8 + length)
    after, rest = file.read(PADDING + 1), end - at - 8 - length
    if re.match(rb"RIF[FX]....WAVE", after, re.DOTALL):
        raise UserError(f"{path}: several WAVs joined end to end; split them")
    if _are_samples(after, rest, length, order):
        return at + 4, min(end - at - 8, 2**32 - 1).to_bytes(4, order)
    return None


def _are_samples(after, rest, length, order):
    """Return True if the last `rest` bytes of a WAV are samples, not chunks, ID3 tags or padding.

    after: the first of these bytes. length: bytes of samples before them, given by the header.
    """
    if not length:  # zeros may be silence, so only a chunk that fills the rest rules out samples
        return rest > 0 and 8 + int.from_bytes(after[4:8], order) != rest
    for skip in (0, 1):  # most programs pad an odd number of bytes to an even one, but not all
        start = after[skip:]
        fits = 8 + int.from_bytes(start[4:8], order) <= rest - skip
        chunk = fits and re.match(rb"[A-Za-z_][A-Za-z0-9_ ]{3}", start)
        if chunk or re.match(rb"ID3|\0{%d}" % PADDING, start):
            return False
    return rest >= HEADER

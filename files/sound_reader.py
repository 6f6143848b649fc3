"""Opening sound files of any format.

FFmpeg reads compressed formats, libsndfile all others. Each file is read once, from its beginning
to its end, in constant memory.
"""

import contextlib
import functools
import io
import os
import re
from collections.abc import Callable
from dataclasses import dataclass

import av
import soundfile

from audio_utils import SAMPLE_RATES
from files.compressed_sound import Decoder
from harness import UserError

HEADERLESS = (".raw", ".pcm", ".vox", ".gsm")
# The first letters of codes that give zeros back as zeros; others smear a gap.
KEEP_ZEROS = ("PCM", "FLOAT", "DOUBLE", "ALAW", "ULAW", "ALAC", "DWVW", "DPCM")
SMALLEST = {"ALAW": 8 / 32768}  # magnitude in a code that has no zero
MOST_CHANNELS = 64
FRAMES_PER_BLOCK = 1 << 16
HEADER = 1 << 16  # bytes: a WAV's header is shorter, and recorders update it more often
PADDING = 64  # this many zeros after a WAV's samples are padding


@dataclass(frozen=True, eq=False)
class Sound:
    """An open sound file, to be read once from its beginning to its end.

    read(count, dtype="float64") gives the next samples, (n, channels); n < count at the end.
    """

    path: str
    rate: int  # Hz
    channels: int
    format: str  # libsndfile's or FFmpeg's name
    subtype: str  # the code of the samples, likewise
    endian: str
    tags: dict  # {name: text}
    read: Callable
    decoder: Decoder | None = None  # if FFmpeg reads the file

    @property
    def code(self):
        """The name under which people know the code."""
        return "MP3" if self.format == "MP3" else self.subtype

    def blocks(self, dtype="float64"):
        """Read on to the end: blocks (n, channels)."""
        while len(block := self.read(FRAMES_PER_BLOCK, dtype)):
            yield block


def keeps_zeros(subtype):
    """Return True if a code gives zeros back as zeros; other codes smear a gap."""
    return subtype.startswith(KEEP_ZEROS)


class _Forward(soundfile.SoundFile):
    """A file in which soundfile does not seek after each read, which would decode FLAC again."""

    def seekable(self):
        return False


class _Crashed(io.FileIO):
    """A WAV whose recorder crashed, read with the right size of its samples in the header."""

    def __init__(self, file, at, size):
        super().__init__(file.fileno(), closefd=False)
        self.at, self.size = at, size  # bytes, and where they belong

    def readinto(self, buffer):
        start = self.tell()
        count = super().readinto(buffer)
        view = memoryview(buffer).cast("B")
        for at, byte in enumerate(self.size, self.at - start):
            if 0 <= at < count:
                view[at] = byte
        return count


@contextlib.contextmanager
def open_sound(path):
    """Open a sound file, as a context manager that gives a `Sound`.

    FFmpeg reads compressed formats, libsndfile the others.
    OSError if the file cannot be opened, UserError if it cannot be read, then or later.
    """
    try:
        with open(path, "rb") as file, contextlib.ExitStack() as opened:
            sound = _opened(path, file, opened)
            low, high = SAMPLE_RATES
            if not low <= sound.rate <= high or sound.channels > MOST_CHANNELS:
                found = f"{sound.rate} Hz and {sound.channels} channels"
                raise UserError(f"{path}: the header must be wrong ({found}); convert it again")
            yield sound
    except (soundfile.SoundFileError, av.FFmpegError) as error:
        remedy = "convert it to WAV or FLAC"
        if os.path.splitext(path)[1].lower() in HEADERLESS:
            remedy = "such files have no header: import them as raw data and export WAV"
        problem = f"not a sound file, or damaged ({reason(error)})"
        raise UserError(f"{path}: {problem}; {remedy}") from error


def _opened(path, file, opened):
    """Return the `Sound` of an open file. What else it opens goes to the stack `opened`."""
    if os.path.splitext(path)[1].lower() not in HEADERLESS:
        with contextlib.suppress(av.FFmpegError):
            decoder = opened.enter_context(contextlib.closing(Decoder(file, path)))
            kind = *decoder.kind, "FILE", decoder.tags
            return Sound(path, decoder.rate, decoder.channels, *kind, decoder.read, decoder)
    size = _size_of_crashed(path, file)
    file.seek(0)
    # Not by name, from which libsndfile would take the format of samples without a header.
    source = _Crashed(file, *size) if size else file.fileno()
    sound = opened.enter_context(_Forward(source, closefd=False))
    kind = sound.format, sound.subtype, sound.endian, sound.copy_metadata()
    read = functools.partial(sound.read, always_2d=True)
    return Sound(path, sound.samplerate, sound.channels, *kind, read)


def _size_of_crashed(path, file):
    """Return where an open WAV gives the size of its samples, and the true size, as bytes.

    A recorder that crashes leaves the size 0, or the size at the last time it wrote the header.
    None if the size is right, or for other files. UserError for several WAVs in one file.
    """
    file.seek(0)
    head, end = file.read(HEADER), os.fstat(file.fileno()).st_size
    order = {b"RIFF": "little", b"RIFX": "big"}.get(head[:4])
    at = 12
    while order and head[8:12] == b"WAVE" and at + 8 <= len(head):
        length = int.from_bytes(head[at + 4 : at + 8], order)
        if head[at : at + 4] == b"data":
            rest = end - at - 8 - length
            file.seek(at + 8 + length)
            behind = file.read(PADDING + 1)
            if re.match(rb"RIF[FX]....WAVE", behind, re.DOTALL):
                raise UserError(f"{path}: several WAVs joined end to end; split them")
            size = min(end - at - 8, 2**32 - 1).to_bytes(4, order)
            return (at + 4, size) if _are_samples(behind, rest, length, order) else None
        at += 8 + length + length % 2
    return None


def _are_samples(behind, rest, length, order):
    """Return True if `rest` bytes behind `length` bytes of samples are samples too, not tags.

    behind: the first of them. Tags are chunks, or ID3; there may be padding.
    """
    if not length:  # silence looks like padding, so only a chunk that ends with the file is one
        return rest > 0 and 8 + int.from_bytes(behind[4:8], order) != rest
    for skip in (0, 1):  # some programs write a byte more after an odd number of bytes
        start, size = behind[skip:], rest - skip
        fits = 8 + int.from_bytes(start[4:8], order) <= size
        if re.match(rb"ID3|\0{%d}" % PADDING, start):
            return False
        if fits and re.match(rb"[A-Za-z_][A-Za-z0-9_ ]{3}", start):
            return False
    return rest >= HEADER


def reason(error):
    """What went wrong by libsndfile's or FFmpeg's account, without the file's name."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return text.rstrip(".")

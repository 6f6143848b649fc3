"""Opening sound files of any format.

FFmpeg reads compressed formats, libsndfile all others and Ogg. Each file is read once, from its
beginning to its end, in constant memory.
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

    read(count, dtype="float64") returns the next samples, (n, channels); at the end n < count.
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
        """The name of the code in messages."""
        return "MP3" if self.format == "MP3" else self.subtype

    def blocks(self, dtype="float64"):
        """Read on to the end: yields blocks (n, channels)."""
        while len(block := self.read(FRAMES_PER_BLOCK, dtype)):
            yield block


def keeps_zeros(subtype):
    """Return True if a code gives zeros back as zeros."""
    return subtype.startswith(KEEP_ZEROS)


@contextlib.contextmanager
def open_sound(path):
    """Open a sound file, as a context manager that gives a `Sound`.

    OSError if the file cannot be opened. UserError if it cannot be read, also later.
    """
    headerless = os.path.splitext(path)[1].lower() in HEADERLESS
    try:
        with open(path, "rb") as file, contextlib.ExitStack() as opened:
            own = headerless or _is_one_ogg(file)
            sound = None if own else _compressed(path, file, opened)
            sound = sound or _other(path, file, opened)
            low, high = SAMPLE_RATES
            if sound.channels > MOST_CHANNELS or not low <= sound.rate <= high:
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
    """Return the message of libsndfile, FFmpeg or the system, without a file name."""
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return text.rstrip(".")


def _is_one_ogg(file):
    """Return True for an Ogg file that is not several joined end to end.

    libsndfile reads those exactly, but of joined ones only the first; FFmpeg reads all, but some
    hundred samples of Vorbis too many or too few.
    """
    start = file.read(4)
    file.seek(0)
    if start != b"OggS":
        return False
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(b"OggS\0\2", 1) < 0  # the page that begins a stream


def _compressed(path, file, opened):
    """Return the `Sound` of an open file, or None if FFmpeg does not know it as compressed."""
    with contextlib.suppress(av.FFmpegError):
        decoder = opened.enter_context(contextlib.closing(Decoder(file, path)))
        kind = *decoder.kind, "FILE", decoder.tags
        return Sound(path, decoder.rate, decoder.channels, *kind, decoder.read, decoder)


def _other(path, file, opened):
    """Return the `Sound` of an open file that libsndfile reads. SoundFileError if it cannot."""
    size = _size_of_crashed(path, file)
    file.seek(0)
    # Not by name: libsndfile would take the format of headerless samples from it.
    source = _Crashed(file, *size) if size else file.fileno()
    sound = opened.enter_context(_Forward(source, closefd=False))
    kind = sound.format, sound.subtype, sound.endian, sound.copy_metadata()
    read = functools.partial(sound.read, always_2d=True)
    return Sound(path, sound.samplerate, sound.channels, *kind, read)


class _Forward(soundfile.SoundFile):
    """A file in which soundfile does not seek after each read; FLAC would be decoded again."""

    def seekable(self):
        return False


class _Crashed(io.FileIO):
    """A WAV of a recorder that crashed, with the right size of the samples in its header.

    size: bytes. at: where they belong in the file.
    """

    def __init__(self, file, at, size):
        super().__init__(file.fileno(), closefd=False)
        self.at, self.size = at, size

    def readinto(self, buffer):
        start = self.tell()
        count = super().readinto(buffer)
        view = memoryview(buffer).cast("B")
        for at, byte in enumerate(self.size, self.at - start):
            if 0 <= at < count:
                view[at] = byte
        return count


def _size_of_crashed(path, file):
    """Find a WAV whose samples continue after the end that its header gives.

    A recorder that crashes leaves size 0 in the header, or the size of its last update. Returns
    where the header has the size, and the right size, as bytes; None if it is right, and for other
    files. UserError for several WAVs in one file.
    """
    file.seek(0)
    head, end = file.read(HEADER), os.fstat(file.fileno()).st_size
    order = {b"RIFF": "little", b"RIFX": "big"}.get(head[:4])
    at = 12
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
    """Return True if the `rest` bytes after `length` bytes of samples are samples, too.

    They begin with the bytes `after`. Otherwise they are chunks, ID3 tags or padding.
    """
    if not length:  # silence looks like padding, so only a chunk to the end of the file counts
        return rest > 0 and 8 + int.from_bytes(after[4:8], order) != rest
    for skip in (0, 1):  # an odd number of bytes is padded to an even one, but not by all programs
        start = after[skip:]
        fits = 8 + int.from_bytes(start[4:8], order) <= rest - skip
        chunk = fits and re.match(rb"[A-Za-z_][A-Za-z0-9_ ]{3}", start)
        if chunk or re.match(rb"ID3|\0{%d}" % PADDING, start):
            return False
    return rest >= HEADER

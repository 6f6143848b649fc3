"""Open sound files of any format.

FFmpeg reads compressed formats. libsndfile reads Ogg and all others. Each file is read once, from
beginning to end, in constant memory.
"""

import contextlib
import functools
import mmap
import os
import types
from collections.abc import Callable
from dataclasses import dataclass

import av
import numpy as np
import soundfile

from audio_utils import SAMPLE_RATES
from files.chunks import has_uncounted_samples
from files.compressed_sound import Decoder
from harness import UserError
from harness.quiet_tensorflow import stderr_held_back

HEADERLESS = ".raw", ".pcm", ".vox", ".gsm"
# Encodings whose names begin like this keep zeros exactly; others blur the edges of a gap.
KEEP_ZEROS = ("PCM", "FLOAT", "DOUBLE", "ALAW", "ULAW", "ALAC", "DWVW", "DPCM")
SMALLEST = {"ALAW": 8 / 32768}  # smallest magnitude in encodings that cannot represent 0
TAGS = {  # FFmpeg's names -> libsndfile's names
    **{name: name for name in ("title", "artist", "album", "date", "genre", "comment")},
    "track": "tracknumber",
}
MAX_CHANNELS = 64
FRAMES_PER_BLOCK = 1 << 16


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
    with (
        _named_errors(path),
        # Without a buffer, because libsndfile and FFmpeg both move the position in the file.
        open(path, "rb", buffering=0) as file,
        contextlib.ExitStack() as opened,
    ):
        sound = None
        if not _is_headerless(path) and not _is_one_ogg(file):
            sound = _compressed(path, file, opened)
        sound = sound or _other(path, file, opened)
        low, high = SAMPLE_RATES
        if sound.channels > MAX_CHANNELS or not low <= sound.rate <= high:
            found = f"{sound.rate} Hz and {sound.channels} channels"
            raise UserError(f"{path}: the header must be wrong ({found}); convert it again")
        yield sound


@contextlib.contextmanager
def _named_errors(path):
    """Convert errors of libsndfile and FFmpeg to a UserError that names the file."""
    try:
        yield
    except (soundfile.SoundFileError, av.FFmpegError) as error:
        remedy = "convert it to WAV or FLAC"
        if _is_headerless(path):
            remedy = "it has no header, so import it as raw data and export WAV"
        problem = f"not a sound file, or damaged ({reason(error)})"
        raise UserError(f"{path}: {problem}; {remedy}") from error


def _is_headerless(path):
    return os.path.splitext(path)[1].lower() in HEADERLESS


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
        found = {name.lower(): text for name, text in decoder.metadata.items()}
        kind = *decoder.kind, "FILE", {TAGS[name]: found[name] for name in found.keys() & TAGS}
        return Sound(path, decoder.rate, decoder.channels, *kind, decoder.read, decoder)


def _other(path, file, opened):
    """Return the `Sound` of an open file, using libsndfile. Raises UserError if it fails."""
    uncounted = has_uncounted_samples(path, file)
    file.seek(0)
    with stderr_held_back(), _named_errors(path):  # libmpg123 prints messages about damaged MP3s
        # Pass no name, or libsndfile would guess the format of headerless samples from the suffix.
        sound = opened.enter_context(_Forward(file.fileno(), closefd=False))
    read = functools.partial(sound.read, always_2d=True)
    if uncounted:
        if sound.endian == "BIG":  # FFmpeg would swap the bytes
            raise UserError(f"{path}: its header counts too few samples; convert it again")
        file.seek(0)
        stream = types.SimpleNamespace(read=file.read)  # if it could seek, FFmpeg would do so
        decoder = Decoder(stream, path, format_whitelist="wav", ignore_length="1")
        opened.callback(decoder.container.close)
        read = decoder.read
    kind = sound.format, sound.subtype, sound.endian, sound.copy_metadata()
    return Sound(path, sound.samplerate, sound.channels, *kind, read)


class _Forward(soundfile.SoundFile):
    """A SoundFile that does not seek after each read. Seeking would decode FLAC twice."""

    def seekable(self):
        return False

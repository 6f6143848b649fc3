"""Open sound files of any format.

FFmpeg reads compressed formats. libsndfile reads all others. Each file is read once, from beginning
to end, in constant memory.
"""

import contextlib
import itertools
import os
import types

import av
import numpy as np
import soundfile

from audio_utils import SAMPLE_RATES
from files.chunks import stated_length
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
TIMED = "asf", "ogg", MATROSKA, MP4  # formats that state the full length of a truncated file
VIDEOS = "avi", MATROSKA, MP4
LATE = 0.05  # seconds; a sound that begins later after the picture gets silence before it
# Encodings whose names begin like this keep zeros exactly; others blur the edges of a gap.
KEEP_ZEROS = "PCM", "FLOAT", "DOUBLE", "ALAW", "ULAW", "ALAC", "DWVW", "DPCM", "FLAC", "WAVPACK"
SMALLEST = {"ALAW": 8 / 32768}  # smallest magnitude in encodings that cannot represent 0
# Tags with the same name in FFmpeg and libsndfile.
TAGS = "title", "artist", "album", "date", "genre", "comment", "copyright", "license"
MAX_CHANNELS = 64
FRAMES_PER_BLOCK = 1 << 16


class Sound:
    """An open sound file, to be read once from its beginning to its end.

    rate: in Hz. channels: their number; they have the order of a WAV. format, subtype: names of the
    file format and the encoding, from libsndfile or FFmpeg. tags: {libsndfile's name: text}.
    seconds: length stated in the file, or None. read(count, dtype="float64") returns the next
    `count` samples (n, channels), fewer at the end.
    """

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
    try:
        # Without a buffer, because libsndfile and FFmpeg both move the position in the file.
        with open(path, "rb", buffering=0) as file, contextlib.closing(_open(path, file)) as sound:
            low, high = SAMPLE_RATES
            if sound.channels > MAX_CHANNELS or not low <= sound.rate <= high:
                found = f"{sound.rate} Hz and {sound.channels} channels"
                raise UserError(f"{path}: the header must be wrong ({found}); convert it again")
            yield sound
    except (soundfile.SoundFileError, av.FFmpegError) as error:
        raise _unreadable(path, error) from error


def _open(path, file):
    if os.path.splitext(path)[1].lower() in HEADERLESS:
        problem = "not a sound file with a header"
        raise UserError(f"{path}: {problem}; import it as raw data and export WAV")
    try:
        return FFmpegSound(path, file)
    except av.FFmpegError as error:
        unknown = error
    with stderr_held_back():  # libmpg123 prints messages about damaged MP3s
        try:
            return _LibsndfileSound(path, file)
        except soundfile.SoundFileError as error:
            raise _unreadable(path, unknown if unknown.log else error) from error


def _unreadable(path, error):
    problem = f"not a sound file, or damaged ({reason(error)})"
    return UserError(f"{path}: {problem}; convert it to WAV or FLAC")


def reason(error):
    """Return the message of an error from libsndfile, FFmpeg or the system, without a file name."""
    if log := getattr(error, "log", None):  # FFmpeg's own message is more exact
        return log[-1].strip()
    text = getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error)
    return text.rstrip(".")


class _LibsndfileSound(Sound, soundfile.SoundFile):
    def __init__(self, path, file):
        stated = stated_length(path, file)
        file.seek(0)
        # Pass no name, or libsndfile would guess the format of headerless samples from the suffix.
        soundfile.SoundFile.__init__(self, file.fileno(), closefd=False)
        self.path, self.rate, self.tags = path, self.samplerate, self.copy_metadata()
        self.seconds = stated * self.frames / self.rate if stated > 1 else None
        if stated < 1:
            if self.endian == "BIG":  # FFmpeg would swap the bytes
                raise UserError(f"{path}: its header counts too few samples; convert it again")
            file.seek(0)
            stream = types.SimpleNamespace(read=file.read)  # if it could seek, FFmpeg would do so
            whole = FFmpegSound(path, stream, format_whitelist="wav", ignore_length="1")
            self.read = whole.read

    def read(self, count, dtype="float64"):
        return soundfile.SoundFile.read(self, count, dtype, always_2d=True)

    def seekable(self):
        return False  # soundfile would seek after each read, and so decode FLAC twice


class FFmpegSound(Sound):
    """A sound, decoded in constant memory.

    codec: FFmpeg's name of the encoding. layout: FFmpeg's name of the arrangement of channels.
    metadata: all tags, with FFmpeg's names. options: of FFmpeg. Raises FFmpegError if the file
    cannot be read.
    """

    endian = "FILE"

    def __init__(self, path, file, **options):
        av.logging.set_level(av.logging.ERROR)
        try:
            with av.logging.Capture():  # errors then have FFmpeg's messages
                options = {"format_whitelist": FORMATS, **options}
                self.container = av.open(file, options=options, metadata_errors="replace")
        finally:
            av.logging.set_level(None)
        stream = self.container.streams.best("audio")
        if not stream:
            raise UserError(f"{path}: contains no sound; leave it out")
        self.path, self.codec, name = path, stream.codec_context.name, self.container.format.name
        kind = LIBSNDFILE.get((name, self.codec), (name, _encoding(stream.codec_context)))
        self.format, self.subtype = kind
        self.metadata = {**stream.metadata, **self.container.metadata}
        tags = {tag.lower(): text for tag, text in self.metadata.items()}
        self.tags = {tag: tags[tag] for tag in TAGS if tag in tags}
        self.tags |= {"tracknumber": tags["track"]} if "track" in tags else {}
        blocks = _decoded(self.container, stream)
        first = next(blocks)
        self.rate, self.layout = first.rate, first.layout.name
        self.channels = len(first.layout.channels)
        late, self.seconds = _times(self.container, stream, first)
        count = round(late * self.rate)
        silence = np.broadcast_to(0.0, (count, self.channels))  # takes no memory
        pieces = np.array_split(silence, count // FRAMES_PER_BLOCK + 1)
        self.decoded = itertools.chain(pieces, blocks)
        self.rest = np.zeros((0, self.channels))

    def read(self, count, dtype="float64"):
        parts, size = [self.rest], len(self.rest)
        while size < count and (block := next(self.decoded, None)) is not None:
            parts.append(block)
            size += len(block)
        samples = np.concatenate(parts)
        self.rest = samples[count:]
        return samples[:count].astype(dtype)

    def close(self):
        self.container.close()


def _encoding(codec):
    """Return the name of an encoding. That of lossless samples ends with their number of bits."""
    name = codec.name.upper()
    if not keeps_zeros(name):
        return name
    if codec.format.name.startswith(("flt", "dbl")):
        return "FLOAT" if codec.format.bits == 32 else "DOUBLE"
    # FFmpeg stores 24 bits in 32. An M4A states the exact number.
    return f"{name}_{codec.extradata[17] if name == 'ALAC' else codec.format.bits}"


def _times(container, stream, first):
    """Return how many seconds the sound begins after the picture, and its stated end, or None."""
    name, late, end = container.format.name, 0.0, None
    if name in VIDEOS and getattr(first, "pts", None) is not None:
        late = float(first.pts * first.time_base) - (container.start_time or 0) / av.time_base
    late = late if late > LATE else 0.0
    if name in TIMED and stream.duration:
        end = late + float(stream.duration * stream.time_base)
    elif name in TIMED and container.duration and len(container.streams) == 1:
        end = container.duration / av.time_base
    return late, end


def _decoded(container, stream):
    """Yield the first frame of a stream, and then all samples in blocks (n, channels), float64.

    All blocks have the rate and layout of the first frame, since the header of HE-AAC gives others.
    If there is no frame, the stream is yielded instead. Packets that cannot be decoded are skipped,
    as players do. There is always such a packet where two MP3s are joined.
    """
    convert = kind = block = None
    total = 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.FFmpegError:
            continue
        for frame in frames:
            if not convert:
                yield frame
            if kind != (kind := (frame.format.name, frame.layout.name, frame.rate)):
                target = convert or frame
                convert = av.AudioResampler("dbl", target.layout, target.rate)
            for converted in convert.resample(frame):
                if block is not None:
                    yield block
                block = converted.to_ndarray().reshape(-1, len(converted.layout.channels))
                total += len(block)
    if not convert:
        yield stream
    elif block is not None:
        # The encoder pads the last block. The stated duration of MP4 and Ogg excludes this padding.
        stated = stream.duration if container.format.name in (MP4, "ogg") else None
        padding = total - round((stated or 0) * stream.time_base * convert.rate)
        yield block[:-padding] if 0 < padding < len(block) else block

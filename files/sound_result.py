"""Write a restored sound in the format of its source, or as a WAV."""

import contextlib
import os
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile

from files.sound_reader import FORMATS, MP4, READ_ONLY, keeps_zeros
from harness import UserError

# {encoding: bits}. libsndfile rounds down, so samples of these encodings are rounded first.
BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24}
BEST = {  # highest bit rate, because encoding twice loses quality
    "MPEG_LAYER_III": {"compression_level": 0, "bitrate_mode": "CONSTANT"},
    "VORBIS": {"compression_level": 0},
    "OPUS": {"compression_level": 0},
}
BIT_RATE = 192_000  # bits/s per channel of an M4A
FLOATS = "FLOAT", "DOUBLE", "AAC", *BEST  # encodings that do not clip
LOSSLESS = "aiff,au,caf,flac,w64,wav"  # FFmpeg's names of formats that libsndfile reads
# FFmpeg's names of tags that describe the file, not the sound.
TECHNICAL = {"encoder", "creation_time", "handler_name", "language", "vendor_id", "duration"}
TECHNICAL |= {"major_brand", "minor_version", "compatible_brands"}
# Chunks of WAV and AIFF files that hold or describe the samples or the tags, or only make room.
ORDINARY = {"RIFF", "RIFX", "FORM", "fmt ", "fact", "data", "COMM", "SSND", "FVER", "ds64", "PEAK"}
ORDINARY |= {"LIST", "ID3 ", "id3 ", "NAME", "AUTH", "ANNO", "(c) ", "JUNK", "junk", "PAD ", "FLLR"}
# Formats of files with suffixes that do not name them.
FORMAT_OF = {".wav": ("WAV", "WAVEX", "RF64"), ".m4a": (MP4,), ".aif": ("AIFF",), ".opus": ("OGG",)}


def create(path, sound, destination):
    """Create a sound file in the format of a `Sound`, with its tags. Returns a context manager.

    It yields a soundfile.SoundFile or `_M4A`. The format is WAV if `destination` ends in .wav.
    Raises UserError if it cannot be written.
    """
    kind, subtype, endian = _kind(sound, destination)
    if kind == MP4:
        return contextlib.closing(_M4A(path, sound))
    options = {"format": kind, "endian": endian, **BEST.get(subtype, {})}
    name = os.fsencode(path)  # soundfile rejects names that are not valid Unicode
    file = soundfile.SoundFile(name, "w", sound.rate, sound.channels, subtype, **options)
    with contextlib.suppress(soundfile.SoundFileError):  # this format has no tags
        for tag, text in sound.tags.items():
            setattr(file, tag, text)
    return file


class _M4A:
    """A new M4A file, written in blocks (n, channels)."""

    def __init__(self, path, sound):
        self.subtype, self.rate, self.time = sound.subtype, sound.rate, 0
        self.file = open(path, "wb+")  # FFmpeg cannot open some file names
        self.container = av.open(self.file, "w", format="ipod")
        names = {"tracknumber": "track"}
        self.container.metadata.update({names.get(t, t): text for t, text in sound.tags.items()})
        layout = ("mono", "stereo")[sound.channels - 1]
        self.stream = self.container.add_stream(sound.subtype.lower(), sound.rate, layout=layout)
        self.stream.bit_rate = BIT_RATE * sound.channels

    def write(self, block):
        values = np.ascontiguousarray(block, np.float64).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(values, "dbl", self.stream.layout.name)
        # FFmpeg uses these times to record in the file which samples are the encoder's padding.
        frame.rate, frame.pts, frame.time_base = self.rate, self.time, Fraction(1, self.rate)
        self.time += len(block)
        self.container.mux(self.stream.encode(frame))

    def close(self):
        self.container.mux(self.stream.encode(None))
        self.container.close()
        self.file.close()


def rounded(values, subtype):
    """Round and clip samples if an encoding needs it. Returns them and how many were clipped."""
    if subtype in FLOATS:
        return values, 0
    full_scale = 2.0 ** (BITS.get(subtype, 32) - 1)
    levels = np.round(values * full_scale).clip(-full_scale, full_scale - 1)
    return levels / full_scale, np.count_nonzero(np.abs(values) > 1)


def _kind(sound, destination):
    """Return format, subtype and endianness of a result for soundfile."""
    suffix, subtype = Path(destination).suffix.lower(), sound.subtype
    same = sound.format in FORMAT_OF.get(suffix, (suffix[1:].upper(),))
    # These formats order more than two channels differently than a WAV does.
    same = same and (sound.format not in ("OGG", MP4) or sound.channels <= 2)
    same = same and (suffix, subtype) != (".wav", "MPEG_LAYER_III")  # libsndfile only reads these
    if same and sound.format == MP4 and subtype in ("AAC", "ALAC"):
        return MP4, subtype, "FILE"
    for endian in (sound.endian, "FILE"):
        if same and soundfile.check_format(sound.format, subtype, endian):
            return sound.format, subtype, endian
    if suffix == ".wav":
        exact = subtype if soundfile.check_format("WAV", subtype) else "FLOAT"  # holds 24 bits
        return "WAV", exact if keeps_zeros(subtype) else "PCM_16", "FILE"
    found = f"{sound.format} with {sound.encoding} and {sound.channels} channels"
    problem = f"{found} can be read, but not written as {suffix}"
    raise UserError(f"{sound.path}: {problem}; give --out a name that ends in .wav")


def result_name(path):
    """Return the path, with the suffix .wav if the format can be read but not written."""
    return path.with_suffix(".wav") if path.suffix.lower() in READ_ONLY else path


def extras(path):
    """Return the names of what a sound file contains besides its samples, as a set."""
    options = {"format_whitelist": f"{FORMATS},{LOSSLESS}"}
    found = set()
    with contextlib.suppress(av.FFmpegError), open(path, "rb") as file:
        with av.open(file, options=options, metadata_errors="replace") as container:
            stream = container.streams.best("audio")
            tags = {name.lower() for name in (*container.metadata, *stream.metadata)}
            found |= {f"tag {name}" for name in tags - TECHNICAL}
            found |= {"pictures"} if container.streams.video else set()
            found |= {"other sound tracks"} if len(container.streams.audio) > 1 else set()
            found |= {"markers"} if container.chapters() else set()
            if stream.channels > 2:
                found.add(f"speaker layout {stream.layout.name}")
    with contextlib.suppress(soundfile.SoundFileError):
        with soundfile.SoundFile(os.fsencode(path)) as file:
            if file.format in ("AIFF", "RF64", "WAV", "WAVEX"):
                # libsndfile's notes have a line for each chunk, such as "smpl : 60".
                chunks = re.findall(r"(?m)^(?:\*\*\*)? ?(\S.{3}) : \d+", file.extra_info)
                found |= {f"chunk {name.strip()}" for name in set(chunks) - ORDINARY}
    return found

"""Write a restored sound in the format of its source, or as a WAV."""

import contextlib
import os
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile

from files.chunks import copy_chunks
from files.sound_reader import FORMATS, MP4, READ_ONLY, keeps_zeros, open_sound, reason
from harness import UserError

# {encoding: bits}. libsndfile rounds down, so `Result` rounds samples of these encodings first.
BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24}
FLOATS = "FLOAT", "DOUBLE"  # encodings that do not clip
BEST = {  # highest bit rate, because encoding twice loses quality
    "MPEG_LAYER_III": {"compression_level": 0, "bitrate_mode": "CONSTANT"},
    "VORBIS": {"compression_level": 0},
    "OPUS": {"compression_level": 0},
}
LOSSLESS = "aiff,au,caf,flac,w64,wav"  # FFmpeg's names of formats that libsndfile reads
# FFmpeg's names of tags that describe the file, not the sound.
TECHNICAL = {"encoder", "creation_time", "handler_name", "language", "vendor_id", "duration"}
TECHNICAL |= {"major_brand", "minor_version", "compatible_brands"}
VORBIS_ORDER = {  # number of channels -> position in a WAV of each channel in Vorbis and Opus
    3: (0, 2, 1),
    5: (0, 2, 1, 3, 4),
    6: (0, 2, 1, 4, 5, 3),
    7: (0, 2, 1, 5, 6, 4, 3),
    8: (0, 2, 1, 6, 7, 4, 5, 3),
}
BIT_RATE = 192_000  # bits/s per channel of an M4A
# Formats of files with suffixes that do not name them.
FORMAT_OF = {".wav": ("WAV", "WAVEX", "RF64"), ".m4a": (MP4,), ".aif": ("AIFF",), ".opus": ("OGG",)}
NAMED = 5  # maximum number of lost items to list
WELL_KEPT_DB = 24.0  # minimum SNR outside the gaps; below it, the message recommends a WAV


@contextlib.contextmanager
def writing(destination):
    """Convert errors in writing `destination` to a UserError that names this file."""
    try:
        yield
    except (soundfile.SoundFileError, av.FFmpegError, AssertionError, OSError) as error:
        # soundfile raises AssertionError if it could not write everything.
        problem = reason(error) or "the disk may be full"
        remedy = f"make room on the disk of {destination.parent} or give another --out"
        raise UserError(f"{destination}: cannot write the file ({problem}); {remedy}") from error


class Result:
    """A sound file, written in blocks (n, channels), in the format of an open `Sound`.

    The format is WAV if the destination ends in .wav. Tags are copied, and the chunks of a WAV or
    AIFF. lost: descriptions of what was not copied. clipped: number of clipped samples. Raises
    UserError if writing fails.
    """

    def __init__(self, path, sound, destination):
        self.path, self.source, self.destination = path, sound.path, destination
        self.clipped, self.lost = 0, []
        self.format, self.subtype, endian = _kind(sound, destination)
        with writing(destination):
            if self.format == MP4:
                self.file = _M4AFile(path, sound)
                return
            kind = {"format": self.format, "subtype": self.subtype, "endian": endian}
            kind |= BEST.get(self.subtype, {})
            name = os.fsencode(path)  # soundfile rejects names that are not valid Unicode
            self.file = soundfile.SoundFile(name, "w", sound.rate, sound.channels, **kind)
        with contextlib.suppress(soundfile.SoundFileError):  # this format has no tags
            for tag, text in sound.tags.items():
                setattr(self.file, tag, text)

    def write(self, given, restored, new):
        """Write `restored` where `new` is True and `given` elsewhere. All are (n, channels)."""
        if self.subtype not in FLOATS:
            self.clipped += np.count_nonzero((np.abs(restored) > 1) & new)
            restored = self._rounded(restored)
        if self.subtype in BITS:  # the source may have more bits
            given = self._rounded(given)
        values = np.where(new, restored, given)
        if self.format == "OGG" and (order := VORBIS_ORDER.get(values.shape[1])):
            values = values[:, order]
        with writing(self.destination):
            self.file.write(values)

    def _rounded(self, values):
        full_scale = 2.0 ** (BITS.get(self.subtype, 32) - 1)
        return np.round(values * full_scale).clip(-full_scale, full_scale - 1) / full_scale

    def close(self):
        with writing(self.destination):
            self.file.close()
            copy_chunks(self.source, self.path)
        lost = sorted(_extras(self.source) - _extras(self.path))
        others = [f"{len(lost) - NAMED} others"] * (len(lost) > NAMED)
        self.lost = [", ".join(lost[:NAMED] + others)] if lost else []


class _M4AFile:
    """A new M4A file, written in blocks (n, channels). like: the `FFmpegSound` to imitate."""

    def __init__(self, path, like):
        self.file = open(path, "wb+")  # FFmpeg cannot open some file names
        self.container = av.open(self.file, "w", format="ipod")
        self.container.metadata.update(like.metadata)
        codec = "alac" if like.codec == "alac" else "aac"
        self.stream = self.container.add_stream(codec, like.rate, layout=like.layout)
        self.stream.bit_rate = BIT_RATE * like.channels
        self.rate, self.time = like.rate, 0

    def write(self, block):
        samples = np.ascontiguousarray(block, float).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, "dbl", self.stream.layout.name)
        # FFmpeg uses these times to record in the file which samples are the encoder's padding.
        frame.rate, frame.pts, frame.time_base = self.rate, self.time, Fraction(1, self.rate)
        self.time += len(block)
        self.container.mux(self.stream.encode(frame))

    def close(self):
        self.container.mux(self.stream.encode(None))
        self.container.close()
        self.file.close()


def _kind(sound, destination):
    """Return format, subtype and endianness for soundfile. For an M4A, the format is MP4."""
    suffix = Path(destination).suffix.lower()
    same = sound.format in FORMAT_OF.get(suffix, (suffix[1:].upper(),))
    if same and sound.format == MP4:
        return MP4, sound.subtype, "FILE"
    for endian in (sound.endian, "FILE"):
        if same and soundfile.check_format(sound.format, sound.subtype, endian):
            return sound.format, sound.subtype, endian
    if suffix == ".wav":
        return "WAV", _exact(sound.subtype), "FILE"
    problem = f"{sound.format} with {sound.encoding} can be read, but not written as {suffix}"
    raise UserError(f"{sound.path}: {problem}; give --out a name that ends in .wav")


def _exact(subtype):
    """Return the encoding of a WAV for samples of another: without loss if that has none."""
    if keeps_zeros(subtype) and not soundfile.check_format("WAV", subtype):
        bits = int(re.search(r"\d*$", subtype)[0] or 16)  # such as "ALAC_24"
        return next(f"PCM_{size}" for size in (16, 24, 32) if bits <= size)
    return subtype if keeps_zeros(subtype) else "PCM_16"


def result_suffixes(path):
    """Return the suffixes that the result of a sound may have, the usual one first."""
    given = path.suffix.lower()
    return (".wav",) if given in (".wav", *READ_ONLY) else (given, ".wav")


def result_name(path):
    """Return the path, with the suffix .wav if the format can be read but not written."""
    return path.with_suffix(".wav") if path.suffix.lower() in READ_ONLY else path


def _extras(path):
    """Return the names of what a file contains besides its samples."""
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
    return found


def how_well_kept(source, destination, missing):
    """Return a message with the SNR of the samples outside the gaps after lossy encoding.

    missing(first, end) returns a mask (end - first, channels), True in the gaps.
    """
    energy = error = first = 0
    with open_sound(source) as original, open_sound(destination) as result:
        for given in original.blocks():
            kept = result.read(len(given))
            outside = ~missing(first, first + len(given))
            energy += (given[outside] ** 2).sum()
            given[: len(kept)] -= kept
            error += (given[outside] ** 2).sum()
            first += len(given)
    if not error:
        return "all samples outside the gaps kept"
    ratio_db = 10 * np.log10(max(energy, 1e-20) / error)
    message = f"SNR outside the gaps {ratio_db:.0f} dB, since {original.encoding} is encoded again"
    advice = "; to keep these samples exactly, give --out a name that ends in .wav"
    return message + (advice if ratio_db < WELL_KEPT_DB else "")

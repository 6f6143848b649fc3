"""Write a restored sound in the format of its source, or as a WAV."""

import contextlib
import os
from pathlib import Path

import av
import numpy as np
import soundfile

from files.compressed_sound import MP4, M4AFile
from files.sound_reader import keeps_zeros, open_sound, reason
from harness import UserError

# {encoding: bits}. libsndfile rounds down, so `Result` rounds samples of these encodings first.
BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24}
FLOATS = "FLOAT", "DOUBLE"  # encodings that do not clip
BEST = {  # highest bit rate, because encoding twice loses quality
    "MPEG_LAYER_III": {"compression_level": 0, "bitrate_mode": "CONSTANT"},
    "VORBIS": {"compression_level": 0},
    "OPUS": {"compression_level": 0},
}
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

    The format is WAV if the destination ends in .wav. Tags are copied. lost: descriptions of what
    could not be copied. clipped: number of clipped samples. Raises UserError if writing fails.
    """

    def __init__(self, path, sound, destination):
        self.destination, self.clipped = destination, 0
        self.format, self.subtype, endian = _kind(sound, destination)
        self.lost = ["pictures"] if sound.decoder and sound.decoder.has_pictures else []
        with writing(destination):
            if self.format == MP4:
                self.file = M4AFile(path, sound.decoder)
                return
            kind = {"format": self.format, "subtype": self.subtype, "endian": endian}
            kind |= BEST.get(self.subtype, {})
            name = os.fsencode(path)  # soundfile rejects names that are not valid Unicode
            self.file = soundfile.SoundFile(name, "w", sound.rate, sound.channels, **kind)
        try:
            for tag, text in sound.tags.items():
                setattr(self.file, tag, text)
        except soundfile.SoundFileError:
            self.lost.append(f"tags, which {self.format} files cannot hold")

    def write(self, given, restored, new):
        """Write `restored` where `new` is True and `given` elsewhere. All are (n, channels)."""
        if self.subtype not in FLOATS:
            self.clipped += np.count_nonzero((np.abs(restored) > 1) & new)
            restored = self._rounded(restored)
        if self.subtype in BITS:  # the source may have more bits
            given = self._rounded(given)
        with writing(self.destination):
            self.file.write(np.where(new, restored, given))

    def _rounded(self, values):
        full_scale = 2.0 ** (BITS.get(self.subtype, 32) - 1)
        return np.round(values * full_scale).clip(-full_scale, full_scale - 1) / full_scale

    def close(self):
        with writing(self.destination):
            self.file.close()


def _kind(sound, destination):
    """Return format, subtype and endianness for soundfile. For an M4A, the format is MP4."""
    suffix, given = (Path(path).suffix.lower() for path in (destination, sound.path))
    if suffix == ".wav" != given:
        exact = keeps_zeros(sound.subtype) and soundfile.check_format("WAV", sound.subtype)
        return "WAV", sound.subtype if exact else "PCM_16", "FILE"
    if sound.format == MP4 and suffix == ".m4a":
        return MP4, sound.subtype, "FILE"
    for endian in (sound.endian, "FILE"):
        if soundfile.check_format(sound.format, sound.subtype, endian):
            return sound.format, sound.subtype, endian
    problem = f"{sound.format} with {sound.subtype} can be read, but not written"
    raise UserError(f"{sound.path}: {problem}; give --out a name that ends in .wav")


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

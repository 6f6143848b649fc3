"""Decode compressed sound, and encode M4A, with FFmpeg through PyAV."""

from fractions import Fraction

import av
import numpy as np

from harness import UserError

# Formats that FFmpeg may read. Playlists are left out, because they can open other files.
FORMATS = "aac,asf,matroska,mov,mp3,ogg"
MP4 = "mov,mp4,m4a,3gp,3g2,mj2"  # FFmpeg's name for one format, which lists its variants
# Files that libsndfile writes: FFmpeg's names of format and encoding -> libsndfile's names.
LIBSNDFILE = {
    ("mp3", "mp3float"): ("MP3", "MPEG_LAYER_III"),
    ("ogg", "vorbis"): ("OGG", "VORBIS"),
    ("ogg", "opus"): ("OGG", "OPUS"),
}
TIMED = "asf", "matroska,webm", "ogg"  # formats that state the full length of a truncated file
BIT_RATE = 192_000  # bits/s per channel of an M4A


class Decoder:
    """The sound of an open file, decoded once from beginning to end in constant memory.

    kind: names of format and encoding. codec: FFmpeg's name of the encoding. layout: FFmpeg's name
    of the arrangement of channels. metadata: all tags, with FFmpeg's names. seconds: length stated
    in the file, or None. options: of FFmpeg. Raises FFmpegError if the file cannot be read.
    """

    def __init__(self, file, path, **options):
        options = {"format_whitelist": FORMATS, **options}
        self.container = av.open(file, options=options, metadata_errors="replace")
        stream = self.container.streams.best("audio")
        if not stream:
            raise UserError(f"{path}: contains no sound; leave it out")
        name, self.codec = self.container.format.name, stream.codec_context.name
        self.kind = LIBSNDFILE.get((name, self.codec), (name, self.codec.upper()))
        self.metadata = {**stream.metadata, **self.container.metadata}
        timed = name in TIMED and self.container.duration
        self.seconds = timed / av.time_base if timed else None
        self.blocks = _decoded(self.container, stream)
        first = next(self.blocks)
        self.rate, self.layout = first.rate, first.layout.name
        self.channels = len(first.layout.channels)
        self.rest = np.zeros((0, self.channels))

    def read(self, count, dtype="float64"):
        """Return the next `count` samples (n, channels), or fewer at the end."""
        parts, size = [self.rest], len(self.rest)
        while size < count and (block := next(self.blocks, None)) is not None:
            parts.append(block)
            size += len(block)
        samples = np.concatenate(parts)
        self.rest = samples[count:]
        return samples[:count].astype(dtype)


def _decoded(container, stream):
    """Yield the first frame of a stream, and then all samples in blocks (n, channels), float64.

    All blocks have the rate and layout of the first frame, since the header of HE-AAC gives others.
    If there is no frame, the stream is yielded instead. Packets that cannot be decoded are skipped,
    as players do. There is always such a packet where two MP3s are joined.
    """
    convert = kind = block = None
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
                length = (packet.duration or 0) * packet.time_base * converted.rate
    if not convert:
        yield stream
    elif block is not None:
        # The encoder pads the last block. In MP4, the packet's duration excludes this padding.
        yield block[: round(length) or None] if container.format.name == MP4 else block


class M4AFile:
    """A new M4A file, written in blocks (n, channels). like: `Decoder` of the file to imitate."""

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

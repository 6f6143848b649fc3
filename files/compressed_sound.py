"""Compressed sound: FFmpeg (through PyAV) decodes it, and encodes M4A."""

from fractions import Fraction

import av
import numpy as np

from harness import UserError

# FFmpeg's names. Playlists are not among them: they name other files, which FFmpeg would open.
FORMATS = "aac,asf,matroska,mov,mp3,ogg"
LIBSNDFILE = {  # format and subtype as libsndfile, which writes them, calls them
    ("mp3", "mp3float"): ("MP3", "MPEG_LAYER_III"),
    ("ogg", "vorbis"): ("OGG", "VORBIS"),
    ("ogg", "opus"): ("OGG", "OPUS"),
}
TAGS = {
    name: name for name in ("title", "artist", "album", "date", "genre", "comment", "copyright")
}
TAGS |= {"track": "tracknumber"}
KNOWN_LENGTH = "asf", "matroska,webm", "ogg"  # other formats give an estimate, or end too early
MP4 = "mov,mp4,m4a,3gp,3g2,mj2"  # all read by one reader
BIT_RATE = 192_000  # of M4A, bits/s per channel


class Decoder:
    """The sound of an open binary file, decoded once from beginning to end in constant memory.

    Attributes: format and codec (FFmpeg's names), rate in Hz, channels, layout (their name), tags
    {name: text}, has_pictures, seconds (its length by its header, or None). FFmpegError if FFmpeg
    cannot decode the file.
    """

    def __init__(self, file, path):
        options = {"format_whitelist": FORMATS}
        self.container = av.open(file, options=options, metadata_errors="replace")
        stream = self.container.streams.best("audio")
        if not stream:
            raise UserError(f"{path}: contains no sound; leave it out")
        self.format, self.codec = self.container.format.name, stream.codec_context.name
        self.kind = self.format, self.codec.upper()
        self.kind = LIBSNDFILE.get((self.format, self.codec), self.kind)
        tags = {**self.container.metadata, **stream.metadata}
        tags = {name.lower(): text for name, text in tags.items()}
        self.tags = {TAGS[name]: text for name, text in tags.items() if name in TAGS}
        self.has_pictures = bool(self.container.streams.video)
        exact = self.format in KNOWN_LENGTH and self.container.duration
        self.seconds = exact / av.time_base if exact else None
        self.blocks = _decoded(self.container, stream)
        # The first frame has the true rate: the header of an HE-AAC gives half of it.
        first = next(self.blocks)
        self.rate, self.layout = first.rate, first.layout.name
        self.channels = len(first.layout.channels)
        self.rest = np.zeros((0, self.channels))

    def read(self, count, dtype="float64"):
        """Read up to `count` samples of each channel: (n, channels), n = 0 at the end."""
        parts, size = [self.rest], len(self.rest)
        while size < count and (block := next(self.blocks, None)) is not None:
            parts.append(block)
            size += len(block)
        samples = np.concatenate(parts)
        self.rest = samples[count:]
        return samples[:count].astype(dtype)

    def close(self):
        self.container.close()


def _decoded(container, stream):
    """Decode a stream: yields its first frame, then its samples in blocks (n, channels), floats.

    All have the rate and the layout of the first frame; without frames the stream itself is
    yielded for it. Packets that cannot be decoded are skipped, as players do: there is one where
    MP3s are joined. The last frame of an MP4 ends where its packet does; the rest is padding.
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
                to = convert or frame
                convert = av.AudioResampler("dbl", to.layout, to.rate)
            for converted in convert.resample(frame):
                if block is not None:
                    yield block
                block = converted.to_ndarray().reshape(-1, len(converted.layout.channels))
                length = (packet.duration or 0) * packet.time_base * converted.rate
    if not convert:
        yield stream
    if block is not None:
        yield block[: round(length) or None] if container.format.name == MP4 else block


class M4AFile:
    """An M4A file to write blocks (n, channels) to; like: the Decoder of a similar one."""

    def __init__(self, path, like, tags):
        self.file = open(path, "wb+")  # not by name, which may be any bytes
        self.container = av.open(self.file, "w", format="ipod")
        self.container.metadata.update(tags)
        codec = "alac" if like.codec == "alac" else "aac"
        self.stream = self.container.add_stream(codec, like.rate, layout=like.layout)
        self.stream.bit_rate = BIT_RATE * like.channels
        self.rate, self.time = like.rate, 0

    def write(self, block):
        samples = np.ascontiguousarray(block, float).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, "dbl", self.stream.layout.name)
        # From its times the file knows how much the encoder has added before and after the sound.
        frame.rate, frame.pts, frame.time_base = self.rate, self.time, Fraction(1, self.rate)
        self.time += len(block)
        self.container.mux(self.stream.encode(frame))

    def close(self):
        if not self.file.closed:
            self.container.mux(self.stream.encode(None))
            self.container.close()
            self.file.close()

"""Compressed sound files, written by PyAV as other programs would write them."""

from fractions import Fraction

import av
import numpy as np


def write(path, signal, rate, codec, layout="mono", tags=(), **options):
    """Write a signal (T,) to all channels of a file, whose format its suffix gives."""
    container_format = {".wma": "asf"}.get(path.suffix)
    with av.open(path, "w", format=container_format) as container:
        container.metadata.update(tags)
        stream = container.add_stream(codec, rate, layout=layout)
        stream.bit_rate = 12_200 if codec == "amr_nb" else 128_000
        channels = len(av.AudioLayout(layout).channels)
        frame = av.AudioFrame.from_ndarray(
            np.tile(np.float32(signal), (channels, 1)), "fltp", layout
        )
        frame.rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))

"""Resample long sounds block by block."""

import numpy as np
import soxr


def resample(blocks, channels, old_rate, new_rate):
    """Resample float32 blocks (n, channels) between rates in Hz. Yields blocks, without delay."""
    if old_rate == new_rate:
        yield from blocks
        return
    stream = soxr.ResampleStream(old_rate, new_rate, channels)
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)

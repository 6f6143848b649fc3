"""Resample sounds."""

import soxr


def resample(sound, old_rate, new_rate):
    """Resample a sound between rates in Hz: (T,) -> (T * new_rate / old_rate,)."""
    return sound if old_rate == new_rate else soxr.resample(sound, old_rate, new_rate)

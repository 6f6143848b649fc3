"""What a trained model makes of a corrupted sound longer than its window."""

import numpy as np
import scipy  # its parts load when first used: --help needs none of them
from numpy.lib.stride_tricks import sliding_window_view

from harness.quiet_tensorflow import tf

HOPS_A_WINDOW = 8  # how many windows cover each sample of a long sound
WINDOWS_A_BLOCK = 512  # restored at once: few enough for a core's cache
LEAST_OBSERVED = 1 / 8  # of a window, for its residual to count
NOT_EXPLAINED = np.float32(1e3)  # the residual of a window of which less is observed: far above that of any other
EXPLAINED = (1e-8, 1e8)  # what products of two residuals are told apart: float32 holds their power -4, tapered too


def compiled_reconstruct(model):
    """The model's `reconstruct` as a graph: called block after block, it takes half the time."""
    return tf.function(model.reconstruct, input_signature=[tf.TensorSpec((None, model.input_size))])


def restore(corrupted, mask, reconstruct, window, hop):
    """Restore a long sound from overlapping windows: corrupted, mask (T,) -> (T,), with T >= window.

    `restore_blocks` says how.
    """

    def read(first, end):
        return corrupted[first:end], mask[first:end]

    return np.concatenate(list(restore_blocks(read, corrupted.size, reconstruct, window, hop)))


def restore_blocks(read, samples, reconstruct, window, hop):
    """Restore a long sound from overlapping windows, each trusted as far as it explains what is observed.

    Yields the restored sound piece after piece, float32, in memory that does not grow with its length of `samples` (at
    least one window, else ValueError). read(first, end) gives those samples of the corrupted sound and of its mask;
    `reconstruct` maps windows (B, window), float32, to windows. Every sample is the weighted mean of all the windows
    over it. The weight is a Hann taper, so that no window's edge is heard, times `_trust`. Dividing by the sum of
    weights keeps the level, at both ends too.
    """
    if samples < window:
        raise ValueError(f"{samples} samples are less than one window of {window}")
    taper = np.hanning(window + 2)[1:-1].astype(np.float32)  # above 0 at both ends
    last = samples - window
    for first in range(0, samples, WINDOWS_A_BLOCK * hop):
        end = min(first + WINDOWS_A_BLOCK * hop, samples)
        # All the windows over this block; a few at its borders are computed for the neighbouring block again.
        starts = np.arange(max(0, -(-(first - window + 1) // hop) * hop), min(end, last), hop)
        if end > last:
            starts = np.append(starts, last)
        begin = starts[0]
        values, mask = read(begin, starts[-1] + window)
        corrupted, observed = (
            sliding_window_view(np.asarray(part, np.float32), window)[starts - begin] for part in (values, 1 - mask)
        )
        outputs = np.asarray(reconstruct(corrupted), np.float32)
        trust = taper * _trust(corrupted, observed, outputs)
        restored = _overlap_add(trust * outputs, starts - begin, hop) / _overlap_add(trust, starts - begin, hop)
        yield restored[first - begin : end - begin]


def _overlap_add(windows, starts, hop):
    """Sum of windows (B, N), each at its start: `hop` after the one before, the last perhaps sooner. -> (T,)."""
    window = windows.shape[1]
    total = np.zeros((-(-(starts[-1] + window) // hop), hop), windows.dtype)
    for row, column in enumerate(range(0, window, hop)):  # the same part of all windows at once
        part = windows[:-1, column : column + hop]
        total[row : row + len(part), : part.shape[1]] += part
    total = total.ravel()[: starts[-1] + window]
    total[starts[-1] :] += windows[-1]
    return total


def _trust(inputs, observed, outputs):
    """How far to trust each sample of each window's output: all (B, N), in no particular unit.

    (Mean squared residual over the whole window times that over its neighbourhood, on observed samples) to the power
    -4. Windows that explain their input equally well count equally; one that lies across two notes, which a model of
    single notes cannot draw, fades out where it draws the wrong one. So does one of which next to nothing is observed,
    and which has nothing to explain.
    """
    error = np.square(inputs - outputs) * observed
    count = observed.sum(1, keepdims=True)
    whole = np.where(
        count >= LEAST_OBSERVED * inputs.shape[1], error.sum(1, keepdims=True) / np.maximum(count, 1), NOT_EXPLAINED
    )
    width = inputs.shape[1] // 8
    near, near_count = (scipy.ndimage.uniform_filter1d(part, width, mode="constant") for part in (error, observed))
    local = (near + whole / width) / (near_count + 1 / width)  # as the whole where nothing near was
    return np.square(np.square(1 / np.clip(whole * local, *EXPLAINED)))  # many times faster than ** -4.0

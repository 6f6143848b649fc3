"""Find the gaps in a sound, and mark the samples inside them.

Stretches [first, end) of samples are arrays (n, 2).
"""

import bisect

import numpy as np

GAP_SECONDS = 0.001  # minimum duration; shorter runs of zeros are zero crossings of a quiet sound
GAP_JUMP = 0.01  # minimum jump at a gap's edge, relative to the channel's peak; excludes fade-outs


def find_gaps(blocks, channels, rate, longest, zero=0.0):
    """Find the gaps and the silences in each channel of a sound, read in blocks (n, channels).

    Both are runs of at least GAP_SECONDS in which no magnitude exceeds `zero`. A gap has at most
    `longest` samples, has sound on both sides, and begins or ends with a jump. Longer runs, and
    those at the beginning and the end of the sound, are silences.

    Returns the gaps, the silences and the number of samples. Gaps and silences are lists with one
    array of stretches per channel.
    """
    runs, peaks, samples = _zero_runs(blocks, channels, GAP_SECONDS * rate, zero)
    gaps, silences = [], []
    for (stretches, jumps), peak in zip(runs, peaks):
        starts, ends = stretches.T
        silent = (starts == 0) | (ends == samples) | (ends - starts > longest)
        silences.append(stretches[silent].astype(int))
        gaps.append(stretches[~silent & (jumps.max(1) >= GAP_JUMP * peak)].astype(int))
    return gaps, silences, samples


def _zero_runs(blocks, channels, shortest, zero):
    """Find runs of at least `shortest` zeros. Returns runs and peaks per channel, and sample count.

    The runs of a channel are stretches (n, 2), and the jumps at their starts and ends (n, 2).
    """
    samples, peaks = 0, np.zeros(channels)
    last = np.ones((1, channels))  # as if sound came before, so that a run can start at sample 0
    edges = [np.zeros((0, 2))] * channels  # [(sample, jump)] where an unfinished run started
    runs = [[np.zeros((0, 2, 2))] for _ in range(channels)]
    for block in blocks:
        for channel, values in enumerate(np.concatenate([last, block]).T):
            before = np.flatnonzero(np.diff(np.abs(values) <= zero))
            jumps = np.abs(values[before + 1] - values[before])
            found = np.concatenate([edges[channel], np.stack([samples + before, jumps], 1)])
            pairs = found[: len(found) // 2 * 2].reshape(-1, 2, 2)
            runs[channel].append(pairs[np.diff(pairs[:, :, 0])[:, 0] >= shortest])
            edges[channel] = found[2 * len(pairs) :]
        last, peaks = block[-1:], np.maximum(peaks, np.abs(block).max(0))
        samples += len(block)
    for parts, start in zip(runs, edges):
        if len(start):
            parts.append(np.stack([start, [[samples, 0]]], 1))
    return [np.moveaxis(np.concatenate(parts), 2, 0) for parts in runs], peaks, samples


def inside(stretches, first, end):
    """Return a boolean mask (end - first,) of the samples in [first, end) that fall in a stretch.

    Both columns of the stretches must be sorted, because they are searched by bisection.
    """
    starts, ends = stretches.T
    near = slice(bisect.bisect_right(ends, first), bisect.bisect_left(starts, end))
    marked = np.zeros(end - first, bool)
    for start, stop in stretches[near] - first:
        marked[max(start, 0) : stop] = True
    return marked

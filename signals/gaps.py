"""Find the gaps and clicks in a sound, and mark the samples inside them.

Stretches [first, end) of samples are arrays (n, 2).
"""

import bisect
import itertools

import numpy as np
import scipy  # its submodules load at first use, so --help stays fast

GAP_SECONDS = 0.001  # minimum duration; shorter runs of zeros are zero crossings of a quiet sound
GAP_JUMP = 0.01  # minimum jump at a gap's edge, relative to the sound nearby; excludes fade-outs
GAP_STEPS = 3  # the same in quantization steps; excludes slow zero crossings, dither and pulses
CLICK = 6  # minimum magnitude of a click, relative to the RMS nearby; noise rarely reaches it
CLICK_SECONDS = 0.001, 0.016  # maximum duration of a click; duration of the sound nearby


def find_gaps(blocks, channels, rate, longest, zero=0.0):
    """Find the gaps and the silences in each channel of a sound, read in blocks (n, channels).

    Both are runs of at least GAP_SECONDS in which no magnitude exceeds `zero`. A gap has at most
    `longest` samples, has sound on both sides, and begins or ends with a jump. The jump is compared
    with `longest` samples on each side, so sounds elsewhere have no influence. Longer runs, and
    those at the beginning and the end of the sound, are silences.

    Returns the gaps, the silences and the number of samples. Gaps and silences are lists with one
    array of stretches per channel.
    """
    edges, samples = _edges(blocks, channels, GAP_SECONDS * rate, round(longest), zero)
    gaps, silences = [], []
    for found in edges:
        found += [(samples, 0, 0, 0)] * (len(found) % 2)  # the end of a run
        at, jumps, levels, steps = np.reshape(found, (-1, 2, 4)).transpose(2, 0, 1)
        silent = (at[:, 0] == 0) | (at[:, 1] == samples) | (np.ptp(at, axis=1) > longest)
        least = np.maximum(GAP_JUMP * levels.max(1), GAP_STEPS * steps.min(1))
        silences.append(at[silent].astype(int))
        gaps.append(at[~silent & (jumps.max(1) >= least)].astype(int))
    return gaps, silences, samples


def _edges(blocks, channels, shortest, reach, zero):
    """Find the starts and ends of runs of at least `shortest` zeros.

    Returns a list per channel, and the number of samples. Each edge is a tuple of its sample and
    the properties of up to `reach` samples of sound beside it, see `_beside`.
    """
    edges = [[] for _ in range(channels)]
    held = np.ones((1, channels))  # as if sound came before, so that a run can start at sample 0
    begin = done = -1  # sample number of held[0], and of the last sample searched
    for block in itertools.chain(blocks, [held[:0]]):
        held = np.concatenate([held, block])
        last = max(done, begin + len(held) - 1 - reach * (len(block) > 0))
        for found, values in zip(edges, held.T):
            silent = np.abs(values) <= zero
            at = np.flatnonzero(np.diff(silent)) + 1
            runs = np.diff(at, prepend=-np.inf, append=np.inf)
            long = np.where(silent[at], runs[1:], runs[:-1]) >= shortest
            for edge in at[long & (done < at + begin) & (at + begin <= last)]:
                before = values[max(edge - reach, -begin, 0) : edge][::-1]
                sound = before if silent[edge] else values[edge : edge + reach]
                found.append((edge + begin, *_beside(sound, zero)))
        done, unused = last, max(last - reach - begin, 0)
        held, begin = held[unused:], begin + unused
    return edges, begin + len(held)


def _beside(sound, zero):
    """Return the jump from silence to a sound (n,), its median magnitude and quantization step."""
    if not sound.size:
        return 0, 0, np.inf
    magnitudes = np.abs(sound)
    heard, changes = magnitudes[magnitudes > zero], np.abs(np.diff(sound))
    step = min(heard.min(), changes[changes > 0].min(initial=np.inf))
    return magnitudes[0], np.median(heard), step


def clicks(sound, observed, rate):
    """Return a mask of the samples that are much louder than the sound around them: (T,) -> (T,).

    observed (T,): 1 where the sound is known; it is 0 elsewhere.
    """
    energy, count = np.square(sound, dtype=float), np.asarray(observed, float)
    short, long = (round(seconds * rate) // 2 * 2 + 1 for seconds in CLICK_SECONDS)
    energy_near, count_near = (
        long * scipy.ndimage.uniform_filter1d(part, long, mode="mirror")
        - short * scipy.ndimage.uniform_filter1d(part, short, mode="mirror")
        for part in (energy, count)
    )
    return energy * np.maximum(count_near, 1) > CLICK**2 * np.maximum(energy_near, 0)


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

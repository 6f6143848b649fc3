"""Where a sound has gaps: found in the sound itself, or named in a text file."""

import bisect
import codecs
import re
import sys

import numpy as np
from tqdm import tqdm

from files.sound_files import read_on
from harness import UserError

GAP_SECONDS = (
    0.001  # zeros for at least this long are a gap; what is longer than a window is silence
)
GAP_JUMP = 0.01  # of the channel's peak: a gap begins or ends with at least such a jump, a fade-out does not
ZERO = {"ALAW": 8 / 32768}  # what a code has in place of 0
KEEP_ZEROS = (
    "PCM",
    "FLOAT",
    "DOUBLE",
    "ALAW",
    "ULAW",
    "ALAC",
    "DWVW",
    "DPCM",
)  # codes, by their beginning
NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
MARKS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def keeps_zeros(sound):
    """Whether an open sound file's code gives zeros back as they were; others smear a gap."""
    return sound.subtype.startswith(KEEP_ZEROS)


def read_gaps(path, rate, frames, sound="the sound"):
    """The gaps a text file names, (n, 2) in samples, sorted, none over another.

    A line holds start and end in seconds, with decimal points or commas, as Audacity exports its labels; empty lines,
    those that begin with #, and the frequency ranges below labels do not count. A point label, which ends where it
    starts, is no gap: it is named on stderr. UserError for a line that is not one of this sound, or that can be read
    in two ways.
    """
    content = path.read_bytes()
    gaps = []
    for number, line in enumerate(
        content.decode(MARKS.get(content[:2], "utf-8-sig"), "replace").splitlines(), 1
    ):
        if not line.strip() or line.lstrip()[0] in "#\\":
            continue
        start, end = _times(line.strip(), frames / rate, f"{path}: line {number}")
        if not 0 <= start <= end <= frames / rate + 0.001:
            problem = f"{start:g} to {end:g} s is no part of {sound}, {frames / rate:.3f} s long"
            raise UserError(f"{path}: line {number}: {problem}; correct it or leave it out")
        if start == end:
            tqdm.write(
                f"skipped {path}: line {number}: a point at {start:g} s, no gap", file=sys.stderr
            )
        else:
            gaps.append((round(start * rate), min(round(end * rate), frames)))
    return _joined(sorted(gaps))


def _times(line, seconds, where):
    """Start and end in a line of labels, s. UserError, beginning with `where`, for none, or for two readings."""
    for separator, decimal in ((r"\s*[\t;]\s*", ","), (r"\s+", ","), (r"\s*[,;\t]\s*", "")):
        words = [word.strip("\"' ") for word in re.split(separator, line)[:2]]
        numbers = [word.replace(",", ".") if decimal else word for word in words]
        if len(numbers) == 2 and all(re.fullmatch(NUMBER, number) for number in numbers):
            break
    else:
        raise UserError(f"{where} is not a start and an end in seconds, such as 1.25, 1.30")
    # "1,5" may be one and a half, or 1 to 5; "1,500<TAB>1,550" one and a half to 1.55, or a long sound's 1500 to 1550.
    pairs = not decimal and re.match(r"\d+,\d+(?![\d.])", line)
    thousands = all(re.fullmatch(r"\d{1,3}(,\d{3})+", word) for word in words)
    if pairs or (thousands and float(words[1].replace(",", "")) <= seconds):
        raise UserError(
            f"{where} can be read in two ways; write points for decimals, such as 1.25, 1.30"
        )
    return map(float, numbers)


def _joined(gaps):
    """Sorted pairs, those that overlap made one: (n, 2)."""
    joined = []
    for start, end in gaps:
        if joined and start < joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return np.array(joined, int).reshape(-1, 2)


def find_gaps(sound, longest):
    """Gaps and silences of each channel, lists of (n, 2) in samples, and the number of samples. UserError for NaN.

    Both are runs of exact zeros, or of what the sound's code has in their place. A gap has at least GAP_SECONDS and at
    most `longest` samples, lies between two sounds and begins or ends with a jump. Longer runs, and those at the
    beginning and the end, are silence.
    """
    runs, peaks, frames = _zero_runs(sound)
    gaps, silences = [], []
    for (where, jumps), peak in zip(runs, peaks):
        silent = (
            (where[:, 0] == 0) | (where[:, 1] == frames) | (where[:, 1] - where[:, 0] > longest)
        )
        silences.append(where[silent].astype(int))
        gaps.append(where[~silent & (jumps.max(1) >= GAP_JUMP * peak)].astype(int))
    return gaps, silences, frames


def _zero_runs(sound):
    """Runs of exact zeros, their channels' peaks, and the number of samples.

    Of each channel, where its runs begin and end, in samples, and how far the sound jumps there: (n, 2), (n, 2).
    """
    channels, frames, zero = sound.channels, 0, ZERO.get(sound.subtype, 0)
    last, peaks = np.ones((1, channels)), np.zeros(channels)
    edges, runs = [np.zeros((0, 2))] * channels, [[np.zeros((0, 2, 2))] for _ in range(channels)]
    for block in read_on(sound):
        if not np.isfinite(block).all():
            problem = "has NaN or Inf among its samples; set them to 0"
            raise UserError(f"{sound.path}: {problem}")
        for channel, values in enumerate(np.concatenate([last, block]).T):
            at = np.flatnonzero(
                np.diff(np.abs(values) <= zero)
            )  # a run begins or ends after each of these
            found = np.stack(
                [frames + at, np.abs(values[at + 1] - values[at])], 1
            )  # where, and how far it jumps
            found = np.concatenate([edges[channel], found])
            whole = found[: len(found) // 2 * 2].reshape(-1, 2, 2)
            runs[channel].append(
                whole[whole[:, 1, 0] - whole[:, 0, 0] >= GAP_SECONDS * sound.samplerate]
            )
            edges[channel] = found[2 * len(whole) :]
        last, peaks, frames = (
            block[-1:],
            np.maximum(peaks, np.abs(block).max(0)),
            frames + len(block),
        )
    for parts, begun in zip(runs, edges):
        if len(begun):
            parts.append(np.stack([begun, [[frames, 0]]], 1))
    return [np.moveaxis(np.concatenate(parts), 2, 0) for parts in runs], peaks, frames


def inside(stretches, first, end):
    """Which of the samples first to end lie in one of the stretches (n, 2), both columns sorted: (end - first,), bool.

    It looks at those stretches alone, so that a block's time does not grow with all there are.
    """
    starts, ends = stretches.T
    within = np.zeros(end - first, bool)
    for start, stop in (
        stretches[bisect.bisect_right(ends, first) : bisect.bisect_left(starts, end)] - first
    ):
        within[max(start, 0) : stop] = True
    return within

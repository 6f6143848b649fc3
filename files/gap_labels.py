"""Read text files of labels that list the gaps of a sound."""

import itertools
import re
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from harness import UserError
from harness.errors import say

NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")
# Each layout is the separator of start and end, and True if commas in numbers are decimal commas.
# The first layout that fits a line is used.
LAYOUTS = (r"\s*[\t;]\s*", True), (r"\s+", True), (r"\s*[,;\t]\s*", False)
EXAMPLE = "1.25, 1.30"


class Labels(NamedTuple):
    """The lines of a text file. It is read only once, because it may be a pipe."""

    path: Path
    lines: list


def read_labels(path):
    """Return the `Labels` in a text file, UTF-8 or UTF-16. Raises UserError if it is empty."""
    content = path.read_bytes()
    coding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    if not (text := content.decode(coding, "replace")).strip():
        raise UserError(f"{path}: lists no gaps; leave out --gaps to look for runs of zeros")
    return Labels(path, text.splitlines())


def read_gaps(labels, rate, frames, sound="the sound"):
    r"""Return the gaps that `Labels` list for a sound of `frames` samples at `rate` Hz.

    Each line has a start and an end in seconds, with decimal points or commas, as in labels from
    Audacity. Empty lines are skipped, and so are lines that begin with # or with \, which marks the
    frequency range of an Audacity label. If there is no sample between start and end, the line is
    skipped with a message on stderr. Returns sorted, disjoint stretches (n, 2) of samples. Raises
    UserError for any other line.
    """
    seconds, gaps = frames / rate, []
    for number, line in enumerate(labels.lines, 1):
        if not line.strip() or line.lstrip()[0] in "#\\":
            continue
        where = f"{labels.path}: line {number}"
        start, end = _times(line.strip(), seconds, where)
        if not 0 <= start <= end <= seconds + 0.001:
            problem = f"{start:g} to {end:g} s must be in order and within the {seconds:.3f} s"
            raise UserError(f"{where}: {problem} of {sound}; correct or remove it")
        gap = round(start * rate), min(round(end * rate), frames)
        if gap[0] < gap[1]:
            gaps.append(gap)
        else:
            say(f"skipped {where}: a point at {start:g} s, not a gap", sys.stderr)
    merged = []
    for start, end in sorted(gaps):
        if merged and start < merged[-1][1]:  # they overlap
            start, end = merged[-1][0], max(end, merged.pop()[1])
        merged.append((start, end))
    return np.array(merged, int).reshape(-1, 2)


def _times(line, seconds, where):
    """Return start and end of a label in seconds. Raises UserError if missing or ambiguous."""
    for separator, decimal_commas in LAYOUTS:
        words = [word.strip("\"' ") for word in re.split(separator, line)[:4]]
        numbers = [word.replace(",", ".") if decimal_commas else word for word in words]
        if len(numbers) > 1 and all(map(NUMBER.fullmatch, numbers[:2])):
            break
    else:
        expected = f"a start and an end in seconds, such as {EXAMPLE}"
        raise UserError(f"{where}: expected {expected}, got {line!r}; correct or remove it")
    start, end, *others = map(float, itertools.takewhile(NUMBER.fullmatch, numbers))
    # "1,5" may be 1.5, or 1 to 5.
    ambiguous = not decimal_commas and re.match(r"\d+,\d+(?![\d.])", line)
    # "1,500<TAB>1,550" may be 1.5 to 1.55, or 1500 to 1550 if the sound is that long.
    thousands = all(re.fullmatch(r"\d{1,3}(,\d{3})+", word) for word in words[:2])
    ambiguous = ambiguous or (thousands and float(words[1].replace(",", "")) <= seconds)
    # "1<TAB>1.25<TAB>1.30" may be 1 to 1.25, or line 1 of a numbered table. "1 1.1 2 2.1" has two.
    several = others and (re.fullmatch(r"\d+\.?", words[0]) or others < others[1:])
    if ambiguous or (several and end <= others[0] <= seconds + 0.001):
        remedy = f"write only start and end, with decimal points, such as {EXAMPLE}"
        raise UserError(f"{where}: ambiguous; {remedy}")
    return start, end

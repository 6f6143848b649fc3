"""Folders of files that people bring."""

import os
import sys
from pathlib import Path

NAMED = 5  # skipped files; the others are counted


def walk(folder):
    """The files in a folder and all below it, sorted, and a line on each folder that cannot be read.

    Links are followed, each real folder is entered once, and hidden files and folders are left out. A link that leads
    nowhere and what is no regular file are among the files.
    """
    files, problems, walked = [], [], set()
    for place, below, names in os.walk(
        folder, onerror=lambda error: problems.append(f"{error.filename}: {error.strerror}"), followlinks=True
    ):
        below[:] = sorted(name for name in below if name[0] != ".")
        if os.path.realpath(place) in walked:  # a link back, or a second one
            below.clear()
            continue
        walked.add(os.path.realpath(place))
        files += [Path(place, name) for name in names if name[0] != "."]
    return sorted(files), problems


def print_skipped(lines):
    """Name on stderr the first few of the files that cannot be used, a line on each, and count the others."""
    for line in lines[:NAMED]:
        print(f"skipped {line}", file=sys.stderr)
    if len(lines) > NAMED:
        print(f"skipped {len(lines) - NAMED} more files", file=sys.stderr)


def printable(path):
    """A path as text that can be printed and written to files; a name may be any bytes."""
    return os.fsencode(path).decode(errors="replace")

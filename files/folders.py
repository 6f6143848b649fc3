"""Folders of the user's files."""

import hashlib
import os
import sys
from pathlib import Path

import numpy as np

NAMED = 5  # skipped files; the others are only counted


def walk(folder):
    """Return the files in a folder and below it, sorted, and a line per folder that is unreadable.

    Hidden files and folders are left out. Links are followed, and each real folder is entered once.
    Broken links, pipes and the like count as files.
    """
    files, problems, entered = [], [], set()

    def unreadable(error):
        problems.append(f"{error.filename}: {error.strerror}")

    for place, below, names in os.walk(folder, onerror=unreadable, followlinks=True):
        below[:] = sorted(name for name in below if name[0] != ".")
        if os.path.realpath(place) in entered:  # through a second link, or one that leads back
            below.clear()
            continue
        entered.add(os.path.realpath(place))
        files += [Path(place, name) for name in names if name[0] != "."]
    return sorted(files), problems


def print_skipped(lines):
    """Print the first few lines on skipped files to stderr, and count the others."""
    for line in lines[:NAMED]:
        print(f"skipped {line}", file=sys.stderr)
    if len(lines) > NAMED:
        print(f"skipped {len(lines) - NAMED} more files", file=sys.stderr)


def printable(path):
    """Return a path as valid text; a file's name may be any bytes."""
    return os.fsencode(path).decode(errors="replace")


def fixed_order(count):
    """Return a permutation of range(count), (count,), that never changes.

    It sorts the SHA-256 of the numbers; NumPy's generators may change between versions (NEP 19).
    """
    digests = b"".join(hashlib.sha256(b"%d" % number).digest()[:8] for number in range(count))
    return np.argsort(np.frombuffer(digests, ">u8"), kind="stable")


def sha256(files):
    """Return a hash of the contents of files, in their order, in hexadecimal."""
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()

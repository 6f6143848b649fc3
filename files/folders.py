"""Folders of your own files."""

import hashlib
import os
import sys
from pathlib import Path

import numpy as np

NAMED = 5  # skipped files; the others are counted


def walk(folder):
    """The files in a folder and all below it, sorted, and a line on each folder that cannot be read.

    Links are followed, each real folder is entered once, and hidden files and folders are left out. A link that leads
    nowhere and what is no regular file are among the files.
    """
    files, problems, walked = [], [], set()
    for place, below, names in os.walk(
        folder,
        onerror=lambda error: problems.append(f"{error.filename}: {error.strerror}"),
        followlinks=True,
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


def fixed_order(count):
    """The numbers below `count`, as if mixed at random, (count,): in the order of their SHA-256.

    That will be the same for ever; NumPy's generators may draw others in another version (NEP 19).
    """
    digests = b"".join(hashlib.sha256(b"%d" % number).digest()[:8] for number in range(count))
    return np.argsort(np.frombuffer(digests, ">u8"), kind="stable")


def sha256(files):
    """A hash of what files hold, in their order: hexadecimal."""
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()

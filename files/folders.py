"""Search folders of the user's files; name, order and hash files."""

import hashlib
import os
import sys
from pathlib import Path

import numpy as np

from harness.errors import say

NAMED = 5  # maximum number of skipped files to list; the others are only counted


def walk(folder):
    """Return the sorted files in a folder and below it, and one line per problem.

    Problems are unreadable folders, pipes and broken links. Hidden files and folders are left out.
    Links are followed, but no folder is entered twice.
    """
    files, errors, entered = [], [], set()
    for parent, below, names in os.walk(folder, onerror=errors.append, followlinks=True):
        below[:] = sorted(name for name in below if name[0] != ".")
        if (real := os.path.realpath(parent)) in entered:  # already entered by another path
            below.clear()
            continue
        entered.add(real)
        files += [Path(parent, name) for name in names if name[0] != "."]
    usable = {file: file.is_file() for file in sorted(files)}
    problems = [f"{error.filename}: {error.strerror}" for error in errors]
    problems += [f"{file}: not a file, or a broken link" for file in usable if not usable[file]]
    return [*filter(usable.get, usable)], problems


def with_suffixes(files, suffixes, folder):
    """Return the files with one of these suffixes, and a list of one line if there are others."""
    found = [file for file in files if file.suffix.lower() in suffixes]
    kinds = sorted({file.suffix.lower() or file.name for file in files} - set(suffixes))
    named = " ".join(kinds[:NAMED] + (["..."] if kinds[NAMED:] else []))
    count = len(files) - len(found)
    return found, [f"{folder}: {count} files of other kinds ({named})"] if count else []


def print_skipped(lines):
    """Print the first few lines about skipped files to stderr, and the number of the others."""
    for line in lines[:NAMED]:
        say(f"skipped {line}", sys.stderr)
    if len(lines) > NAMED:
        say(f"skipped {len(lines) - NAMED} more files", sys.stderr)


def short_hashes(contents):
    """Return the 64-bit hashes (count,) of byte strings or arrays."""
    digests = b"".join(hashlib.sha256(bytes(content)).digest()[:8] for content in contents)
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def fixed_order(count):
    """Return a permutation (count,) of range(count), the same in every version of NumPy.

    Sorts by hashes, because NumPy's generators may change between versions (NEP 19).
    """
    return np.argsort(short_hashes(b"%d" % number for number in range(count)), kind="stable")


def sha256(files):
    """Return one hexadecimal hash of the contents of all files, in the given order."""
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()

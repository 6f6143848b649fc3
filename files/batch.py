"""Restore many files, one after the other; a file that fails does not stop the others."""

import collections
import errno
import os
import sys
import traceback
from pathlib import Path

from tqdm import tqdm

from files import folders
from files.pictures import SUFFIXES as IMAGES
from files.restore_image import completion_paths
from files.sound_reader import SUFFIXES as SOUNDS
from files.sound_result import result_name
from harness import UserError, cli
from harness.errors import say
from harness.result_files import claimed

DISK_FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG


def plan(inputs, out, protected, completions=0):
    """Return a list of (source, destination), one per input file and per file in an input folder.

    out: a path as text; with a slash at its end, it is a folder. Among several inputs, each folder
    gets a folder of its name. protected: other files that must not be overwritten. completions:
    number per image. Raises UserError if a result would replace an input or a protected file.
    """
    folder, out = out.endswith(("/", os.sep)), Path(out)
    single = len(inputs) == 1 and not (folder or inputs[0].is_dir() or out.is_dir())
    if not single and out.exists() and not out.is_dir():
        raise UserError(f"{out}: a file, but a folder is needed; give another --out")
    pairs = []
    for path in inputs:
        if path.is_dir():
            below = out / os.path.basename(os.path.abspath(path)) if len(inputs) > 1 else out
            files = files_below(path, out)
            pairs += [(file, below / result_name(file.relative_to(path))) for file in files]
        elif path.exists() and not path.is_file():
            raise UserError(f"{path}: neither a file nor a folder; give a sound or an image")
        else:
            path.stat()  # raises FileNotFoundError or another OSError
            pairs.append((path, out if single else out / result_name(path).name))
    usual = result_name(inputs[0]).suffix.lower()
    allowed = (usual,) if usual in (".wav", *IMAGES) else (usual, ".wav")
    if single and out.suffix.lower() not in allowed:
        remedy = f"give a name that ends in {' or '.join(allowed)}, or in / for a folder"
        raise UserError(f"{out}: has a suffix that does not fit this input; {remedy}")
    originals = {_inode(path): path for path in [*protected, *(source for source, _ in pairs)]}
    for _, path in _results(pairs, completions):
        if path.exists() and (original := originals.get(_inode(path))):
            raise UserError(f"{path}: is the input {original}; give another --out")
    return [*dict.fromkeys(pairs)]  # the same file may be given twice


def _results(pairs, completions):
    """Yield (source, path) of all results, including the completions of images."""
    for source, destination in pairs:
        count = 0 if source.suffix.lower() in SOUNDS else completions
        for path in (destination, *completion_paths(destination, count)):
            yield source, path


def _ambiguous(pairs, completions):
    """Return {source: message} for all sources with a result that would replace another one."""
    results = collections.defaultdict(list)
    for source, path in _results(pairs, completions):
        target = os.path.normcase(os.path.realpath(path))  # Windows ignores case
        results[target].append((source, path))
    messages = {}
    for (source, path), *others in results.values():
        for other, _ in others:
            problem = f"{path}: {source} and {other} would both be saved here"
            messages[other] = f"{problem}; restore each with its own --out"
            messages.setdefault(source, messages[other])
    return messages


def _inode(path):
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def files_below(folder, out):
    """Return the sounds and images in a folder and below it, without results already in `out`."""
    files, skipped = folders.walk(folder)
    results = out.resolve()
    if not folder.resolve().is_relative_to(results):
        files = [file for file in files if not file.resolve().is_relative_to(results)]
    found, others = folders.with_suffixes(files, SOUNDS + IMAGES, folder)
    folders.print_skipped(skipped + others)
    if not found:
        expected = " ".join(SOUNDS + IMAGES)
        raise UserError(f"{folder}: no sounds or images in this folder; expected {expected}")
    return found


def restore_each(pairs, restore, overwrite, completions=0):
    """Restore each (source, destination). Print a line per file, then a count if there are several.

    restore(source, destination) returns a one-line summary. Files that would be saved in the same
    place are not restored. Raises SystemExit with status 2 if some files cannot be restored. If an
    error is a bug, prints its traceback and uses status 1.
    """
    existing, failed, tracebacks, ambiguous = 0, 0, {}, _ambiguous(pairs, completions)
    disable = len(pairs) == 1 or None  # None: show progress only on a terminal
    for source, destination in tqdm(pairs, unit=" files", leave=False, disable=disable):
        try:
            if source in ambiguous:
                raise UserError(ambiguous[source])
            with claimed(destination):
                kept = is_there(destination) and not overwrite
                said = None if kept else restore(source, destination)
        except Exception as error:
            failed += 1
            if isinstance(error, OSError) and not error.filename:
                error.filename = destination.parent if error.errno in DISK_FULL else source
            if (line := cli.known(error)) is None:
                tracebacks[traceback.format_exc()] = None  # as a key, so each bug is shown once
                line = f"{source}: {type(error).__name__}, a bug in these scripts; please report it"
            say(f"denoise.py: {line}", sys.stderr)
        else:
            if said is None:
                existing += 1
            else:
                say(f"{source}: {said}; saved as {destination}")
    if len(pairs) > 1 or existing:
        counts = [f"{len(pairs) - existing - failed} of {len(pairs)} files restored"]
        counts += [f"{existing} already existed (--overwrite replaces them)"] if existing else []
        counts += [f"{failed} failed"] if failed else []
        say(", ".join(counts))
    if failed:
        sys.stderr.write("".join(tracebacks))
        raise SystemExit(1 if tracebacks else 2)


def is_there(path):
    """Return True if `path` exists and is not a folder. A broken link counts as existing."""
    return os.path.lexists(path) and not path.is_dir()

"""Many files, one after the other: what becomes of each, and that one which cannot be restored stops no other."""

import errno
import os
import sys
import traceback

from tqdm import tqdm

from files import folders
from files.image_files import SUFFIXES as IMAGES
from files.sound_files import SUFFIXES as SOUNDS
from files.sound_files import result_name, result_suffixes
from harness import UserError, cli
from harness.run_folder import claimed

DISK_FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG


def plan(inputs, out, protected):
    """Pairs (source, destination) for files and folders, in order. UserError if one would destroy a file it needs."""
    single = len(inputs) == 1 and not inputs[0].is_dir() and not out.is_dir()
    if not single and out.exists() and not out.is_dir():
        raise UserError(f"{out}: a file, and the results need a folder; give another --out")
    pairs = []
    for path in inputs:
        if path.is_dir():
            files = files_below(path, out)
            pairs += [(file, out / result_name(file.relative_to(path))) for file in files]
        elif path.exists() and not path.is_file():
            raise UserError(f"{path}: neither a file nor a folder; give a sound or an image")
        else:
            path.stat()  # raises what the system has to say
            pairs.append((path, out if single else out / result_name(path).name))
    if single and out.suffix.lower() not in result_suffixes(inputs[0]):
        allowed = " or ".join(result_suffixes(inputs[0]))
        problem = f"must have the input's format; give a name that ends in {allowed}"
        raise UserError(f"{out}: {problem}")
    taken = {}
    for source, destination in pairs:
        if destination in taken:
            raise UserError(
                f"{source}: would become {destination}, as would {taken[destination]}; do one at a time"
            )
        taken[destination] = source
    originals = {
        (s.st_dev, s.st_ino): path for path in [*taken.values(), *protected] for s in [path.stat()]
    }
    for destination in taken:
        if (
            destination.exists()
            and (here := destination.stat())
            and (here.st_dev, here.st_ino) in originals
        ):
            raise UserError(
                f"{destination}: is the input {originals[here.st_dev, here.st_ino]}; give another --out"
            )
    return pairs


def files_below(folder, out):
    """The sounds and images in a folder and below it, without the results of an earlier run."""
    files, skipped = folders.walk(folder)
    files = [file for file in files if file.suffix.lower() in SOUNDS + IMAGES]
    folders.print_skipped(
        skipped + [f"{file}: not a file, or a broken link" for file in files if not file.is_file()]
    )
    files = [file for file in files if file.is_file()]
    results, own = out.resolve(), folder.resolve()
    if results not in (own, *own.parents):
        files = [file for file in files if results not in file.resolve().parents]
    if not files:
        raise UserError(
            f"{folder}: no sounds or images in this folder; looked for {' '.join(SOUNDS + IMAGES)}"
        )
    return files


def restore_each(pairs, restore, overwrite):
    """Restore each of (source, destination), whatever others raise, with a line on each, and a count if several.

    restore(source, destination) -> what was done. SystemExit: status 2 if a file cannot be restored, 1 with the
    tracebacks at the end if that is a fault of ours.
    """
    done, there, failed, faults = 0, 0, 0, {}
    for source, destination in tqdm(
        pairs, unit=" files", leave=False, disable=len(pairs) == 1 or None
    ):
        try:
            if is_there(destination) and not overwrite:
                there += 1
                continue
            destination.parent.mkdir(parents=True, exist_ok=True)
            with claimed(destination):
                if is_there(destination) and not overwrite:
                    raise UserError(
                        f"{destination}: another process has just written it; --overwrite replaces it"
                    )
                said = restore(source, destination)
        except Exception as error:
            failed += 1
            if isinstance(error, OSError) and not error.filename:
                error.filename = destination.parent if error.errno in DISK_FULL else source
            if (line := cli.known(error)) is None:
                faults[traceback.format_exc()] = None  # many files may show the same fault
                line = f"{source}: {type(error).__name__}, a bug in these scripts; please report it"
            tqdm.write(f"denoise.py: {line}", file=sys.stderr)
        else:
            done += 1
            tqdm.write(" ".join(f"{source}: {said}; now {destination}".splitlines()))
    if len(pairs) > 1 or there:
        were_there = f", {there} were there already and --overwrite replaces them" if there else ""
        print(
            f"{done} of {len(pairs)} files restored{were_there}"
            + (f", {failed} could not be" if failed else "")
        )
    if failed:
        sys.stderr.write("".join(faults))
        raise SystemExit(1 if faults else 2)


def is_there(path):
    """Whether something would be replaced; a folder cannot be, and the system says so."""
    return os.path.lexists(path) and not path.is_dir()

"""Mend sounds or images of your own with a model that one of the two experiments has trained.

    python denoise.py plots/sound chopped.wav -o mended.wav
    python denoise.py plots/sound recordings -o mended --keep       # a folder; only the gaps are replaced
    python denoise.py plots/mnist torn.png -o whole.png --mask hole.png

A sound keeps its length, rate, channels and format, whatever rate the model was trained at; an image its size.
"""

import harness  # noqa: F401  sets NumPy's threads, so before NumPy

# isort: split
import errno
import functools
import os
import sys
import traceback
from pathlib import Path

from tqdm import tqdm

from harness import UserError, cli
from harness.run_folder import claimed
from media import folders
from media.image_files import SUFFIXES as IMAGES
from media.restore_image import completion_paths, restore_image
from media.restore_sound import restore_sound
from media.sound_files import SUFFIXES as SOUNDS

DISK_FULL = errno.ENOSPC, errno.EDQUOT, errno.EFBIG

MOST_COMPLETIONS = 32


def read_flags():
    flags = cli.Parser(description=__doc__.splitlines()[0])
    add = flags.add_argument
    add("model", type=Path, metavar="MODEL", help="the folder of a finished run, or its model.keras")
    add("inputs", type=Path, nargs="+", metavar="INPUT", help="a sound or image, or a folder of them")
    add("-o", "--out", type=Path, required=True, help="a file for one input file, else a folder")
    add("--keep", action="store_true", help="replace only what is missing; the rest stays bit for bit")
    add(
        "--completions",
        type=cli.whole_number,
        default=0,
        metavar="N",
        help="images: write N other ways to fill the hole too, as NAME-1, NAME-2, ...",
    )
    add("--overwrite", action="store_true", help="replace results that are there already")
    add("--gaps", type=Path, help="text file: start and end of a gap in seconds, a line each; else runs of zeros")
    add("--mask", type=Path, help="image of the input's size, white where it is missing; else where it is transparent")
    settings = flags.parse_intermixed_args()
    if settings.completions > MOST_COMPLETIONS:
        flags.error(f"argument --completions: at most {MOST_COMPLETIONS}")
    return settings


def plan(inputs, out, protected):
    """Pairs (source, destination) for files and folders, in order. UserError if one would destroy a file it needs."""
    single = len(inputs) == 1 and not inputs[0].is_dir() and not out.is_dir()
    if not single and out.exists() and not out.is_dir():
        raise UserError(f"{out}: a file, and the results need a folder; give another --out")
    pairs = []
    for path in inputs:
        if path.is_dir():
            pairs += [(file, out / file.relative_to(path)) for file in files_below(path, out)]
        elif path.exists() and not path.is_file():
            raise UserError(f"{path}: neither a file nor a folder; give a sound or an image")
        else:
            path.stat()  # raises what the system has to say
            pairs.append((path, out if single else out / path.name))
    if single and out.suffix.lower() != inputs[0].suffix.lower():
        problem = f"the result has the input's format; give it a name that ends in {inputs[0].suffix}"
        raise UserError(f"{out}: {problem}")
    taken = {}
    for source, destination in pairs:
        if destination in taken:
            raise UserError(f"{source}: would become {destination}, as would {taken[destination]}; do one at a time")
        taken[destination] = source
    originals = {(s.st_dev, s.st_ino): path for path in [*taken.values(), *protected] for s in [path.stat()]}
    for destination in taken:
        if destination.exists() and (here := destination.stat()) and (here.st_dev, here.st_ino) in originals:
            raise UserError(f"{destination}: is the input {originals[here.st_dev, here.st_ino]}; give another --out")
    return pairs


def files_below(folder, out):
    """The sounds and images in a folder and below it, without the results of an earlier run."""
    files, skipped = folders.walk(folder)
    files = [file for file in files if file.suffix.lower() in SOUNDS + IMAGES]
    folders.print_skipped(skipped + [f"{file}: no file, or leads to none" for file in files if not file.is_file()])
    files = [file for file in files if file.is_file()]
    results, own = out.resolve(), folder.resolve()
    if results not in (own, *own.parents):
        files = [file for file in files if results not in file.resolve().parents]
    if not files:
        raise UserError(f"{folder}: no sounds or images in this folder; looked for {' '.join(SOUNDS + IMAGES)}")
    return files


def restore_each(pairs, restore, overwrite):
    """Restore each of (source, destination), whatever others raise, with a line on each, and a count if several.

    restore(source, destination) -> what was done. SystemExit: status 2 if a file cannot be restored, 1 with the
    tracebacks at the end if that is a fault of ours.
    """
    done, there, failed, faults = 0, 0, 0, {}
    for source, destination in tqdm(pairs, unit=" files", leave=False, disable=len(pairs) == 1 or None):
        try:
            if is_there(destination) and not overwrite:
                there += 1
                continue
            destination.parent.mkdir(parents=True, exist_ok=True)
            with claimed(destination):
                if is_there(destination) and not overwrite:
                    raise UserError(f"{destination}: another process has just written it; --overwrite replaces it")
                said = restore(source, destination)
        except Exception as error:
            failed += 1
            if isinstance(error, OSError) and not error.filename:
                error.filename = destination.parent if error.errno in DISK_FULL else source
            if (line := cli.known(error)) is None:
                faults[traceback.format_exc()] = None  # many files may show the same fault
                line = f"{source}: {type(error).__name__}, a fault of these scripts; please report it"
            tqdm.write(f"denoise.py: {line}", file=sys.stderr)
        else:
            done += 1
            tqdm.write(" ".join(f"{source}: {said}; now {destination}".splitlines()))
    if len(pairs) > 1 or there:
        were_there = f", {there} were there already and --overwrite replaces them" if there else ""
        print(f"{done} of {len(pairs)} files mended{were_there}" + (f", {failed} could not be" if failed else ""))
    if failed:
        sys.stderr.write("".join(faults))
        raise SystemExit(1 if faults else 2)


def is_there(path):
    """Whether something would be replaced; a folder cannot be, and the system says so."""
    return os.path.lexists(path) and not path.is_dir()


def main(settings):
    path = settings.model / "model.keras" if settings.model.is_dir() else settings.model
    pairs = plan(settings.inputs, settings.out, [file for file in (path, settings.gaps, settings.mask) if file])
    if len(settings.inputs) == 1 and not settings.inputs[0].is_dir() and not settings.overwrite:
        ((_, destination),) = pairs
        if is_there(destination):
            raise UserError(f"{destination}: is there already; --overwrite replaces it, or give another --out")

    # only now that the files are there: TensorFlow takes seconds to load
    from media.model_file import knows_sounds, load_restorer

    model = load_restorer(path)
    if knows_sounds(path, model.metadata, model.input_size):
        what, suffixes = "sounds", SOUNDS
        wrong_flag = "--mask" if settings.mask else "--completions" if settings.completions else None
        restore = functools.partial(restore_sound, gap_file=settings.gaps, keep=settings.keep)
    else:
        what, suffixes, wrong_flag = "images", IMAGES, settings.gaps and "--gaps"
        options = {"mask_file": settings.mask, "keep": settings.keep, "count": settings.completions}
        restore = functools.partial(restore_image, **options)
    if wrong_flag:
        raise UserError(f"argument {wrong_flag}: {path} has learned {what}; leave it out")
    pairs = [pair for pair in pairs if pair[0] in settings.inputs or pair[0].suffix.lower() in suffixes]
    if not pairs:
        raise UserError(f"{settings.inputs[0]}: no {what} in it, which {path} has learned")

    def restore_one(source, destination):
        if source.suffix.lower() in set(SOUNDS + IMAGES) - set(suffixes):
            raise UserError(f"{source}: not of the kind {path} has learned, which is {what}; leave it out")
        for other in completion_paths(destination, settings.completions):
            if is_there(other) and (not settings.overwrite or other in settings.inputs):
                raise UserError(f"{other}: is there already; give another --out for the completions")
        return restore(model, source, destination)

    restore_each(pairs, restore_one, settings.overwrite)


if __name__ == "__main__":
    with cli.one_line_errors():
        main(read_flags())

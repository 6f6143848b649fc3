"""Mend sounds or images of your own with a model that one of the two experiments has trained.

    python denoise.py plots/sound chopped.wav -o mended.wav
    python denoise.py plots/sound recordings -o mended --keep       # a folder; only the gaps are replaced
    python denoise.py plots/mnist torn.png -o whole.png --mask hole.png

A sound keeps its length, rate, channels and format, whatever rate the model was trained at; an image its size.
"""

import harness  # noqa: F401  sets NumPy's threads, so before NumPy

# isort: split
import functools
import sys
from pathlib import Path

from tqdm import tqdm

from harness import UserError, cli
from media import folders
from media.image_files import SUFFIXES as IMAGES
from media.restore_image import restore_image
from media.restore_sound import restore_sound
from media.sound_files import SUFFIXES as SOUNDS


def read_flags():
    flags = cli.Parser(description=__doc__.splitlines()[0])
    add = flags.add_argument
    add("model", type=Path, metavar="MODEL", help="the folder of a finished run, or its model.keras")
    add("inputs", type=Path, nargs="+", metavar="INPUT", help="a sound or image, or a folder of them")
    add("-o", "--out", type=Path, required=True, help="a file for one input file, else a folder")
    add("--keep", action="store_true", help="replace only what is missing; the rest stays bit for bit")
    add("--gaps", type=Path, help="text file: start and end of a gap in seconds, a line each; else runs of zeros")
    add("--mask", type=Path, help="image of the input's size, white where it is missing; else where it is transparent")
    return flags.parse_intermixed_args()


def plan(inputs, out, protected):
    """Pairs (source, destination) for files and folders, in order. UserError if one would destroy a file it needs."""
    single = len(inputs) == 1 and not inputs[0].is_dir() and not out.is_dir()
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
    files, unreadable = folders.walk(folder)
    folders.print_skipped(unreadable)
    files = [file for file in files if file.suffix.lower() in SOUNDS + IMAGES and file.is_file()]
    results, own = out.resolve(), folder.resolve()
    if results not in (own, *own.parents):
        files = [file for file in files if results not in file.resolve().parents]
    if not files:
        raise UserError(f"{folder}: no sounds or images in this folder; looked for {' '.join(SOUNDS + IMAGES)}")
    return files


def main(settings):
    path = settings.model / "model.keras" if settings.model.is_dir() else settings.model
    pairs = plan(settings.inputs, settings.out, [file for file in (path, settings.gaps, settings.mask) if file])

    from media.model_file import load_restorer  # only now that the files are there: TensorFlow takes seconds to load

    model = load_restorer(path)
    if model.metadata["experiment"] == "sound":
        what, suffixes, wrong_flag = "sounds", SOUNDS, settings.mask and "--mask"
        restore = functools.partial(restore_sound, gap_file=settings.gaps, keep=settings.keep)
    else:
        what, suffixes, wrong_flag = "images", IMAGES, settings.gaps and "--gaps"
        restore = functools.partial(restore_image, mask_file=settings.mask, keep=settings.keep)
    if wrong_flag:
        raise UserError(f"argument {wrong_flag}: {path} has learned {what}; leave it out")
    pairs = [pair for pair in pairs if pair[0] in settings.inputs or pair[0].suffix.lower() in suffixes]
    if not pairs:
        raise UserError(f"{settings.inputs[0]}: no {what} in it, which {path} has learned")
    failed = False
    for source, destination in tqdm(pairs, unit=" files", leave=False, disable=len(pairs) == 1 or None):
        try:
            if source.suffix.lower() in set(SOUNDS + IMAGES) - set(suffixes):
                raise UserError(f"{source}: not of the kind {path} has learned, which is {what}; leave it out")
            destination.parent.mkdir(parents=True, exist_ok=True)
            tqdm.write(f"{source}: {restore(model, source, destination)}; now {destination}")
        except (UserError, OSError) as error:
            failed = True
            reason = error if isinstance(error, UserError) else f"{error.filename or source}: {error.strerror or error}"
            tqdm.write(f"denoise.py: {reason}", file=sys.stderr)
    if failed:
        raise SystemExit(2)


if __name__ == "__main__":
    with cli.one_line_errors():
        main(read_flags())

"""Restore your own sounds or images with a trained model.

    python denoise.py plots/sound chopped.wav -o mended.wav
    python denoise.py plots/sound recordings -o mended --keep       # a folder; only the gaps are replaced
    python denoise.py plots/mnist torn.png -o whole.png --mask hole.png

A sound keeps its length, rate, channels and format, whatever rate the model was trained at; an image its size.
"""

import harness  # noqa: F401  sets NumPy's threads, so before NumPy

# isort: split
import functools
from pathlib import Path

from files.batch import is_there, plan, restore_each
from files.image_files import SUFFIXES as IMAGES
from files.model_file import knows_sounds, load_restorer
from files.restore_image import completion_paths, restore_image
from files.restore_sound import restore_sound
from files.sound_files import SUFFIXES as SOUNDS
from harness import UserError, cli

MOST_COMPLETIONS = 32


def read_flags():
    flags = cli.Parser(__doc__)
    add = flags.add_argument
    add(
        "model", type=Path, metavar="MODEL", help="the folder of a finished run, or its model.keras"
    )
    add(
        "inputs",
        type=Path,
        nargs="+",
        metavar="INPUT",
        help="a sound or image, or a folder of them",
    )
    add(
        "-o",
        "--out",
        type=Path,
        required=True,
        help="output file for a single input file, else a folder",
    )
    add(
        "--keep",
        action="store_true",
        help="change only gaps and holes; lossless formats keep the rest bit for bit",
    )
    add(
        "--completions",
        type=cli.whole_number,
        default=0,
        metavar="N",
        help="images: also write N other ways to fill the hole, NAME-1, NAME-2, ...",
    )
    add("--overwrite", action="store_true", help="replace existing results")
    add(
        "--gaps",
        type=Path,
        help="text file with a gap per line, start and end in seconds; default: runs of zeros",
    )
    add(
        "--mask",
        type=Path,
        help="image of the input's size, white in the hole; default: where it is transparent",
    )
    settings = flags.parse_intermixed_args()
    if settings.completions > MOST_COMPLETIONS:
        flags.error(f"argument --completions: at most {MOST_COMPLETIONS}")
    return settings


def main(settings):
    path = settings.model / "model.keras" if settings.model.is_dir() else settings.model
    pairs = plan(
        settings.inputs,
        settings.out,
        [file for file in (path, settings.gaps, settings.mask) if file],
    )
    if len(settings.inputs) == 1 and not settings.inputs[0].is_dir() and not settings.overwrite:
        ((_, destination),) = pairs
        if is_there(destination):
            raise UserError(
                f"{destination}: already exists; --overwrite replaces it, or give another --out"
            )

    model = load_restorer(path)
    if knows_sounds(path, model.metadata, model.input_size):
        what, suffixes = "sounds", SOUNDS
        wrong_flag = (
            "--mask" if settings.mask else "--completions" if settings.completions else None
        )
        restore = functools.partial(restore_sound, gap_file=settings.gaps, keep=settings.keep)
    else:
        what, suffixes, wrong_flag = "images", IMAGES, settings.gaps and "--gaps"
        options = {"mask_file": settings.mask, "keep": settings.keep, "count": settings.completions}
        restore = functools.partial(restore_image, **options)
    if wrong_flag:
        raise UserError(f"argument {wrong_flag}: {path} was trained on {what}; leave it out")
    pairs = [
        pair for pair in pairs if pair[0] in settings.inputs or pair[0].suffix.lower() in suffixes
    ]
    if not pairs:
        raise UserError(f"{settings.inputs[0]}: no {what} in it, which {path} was trained on")

    def restore_one(source, destination):
        if source.suffix.lower() in set(SOUNDS + IMAGES) - set(suffixes):
            raise UserError(f"{source}: {path} was trained on {what}; leave it out")
        for other in completion_paths(destination, settings.completions):
            if is_there(other) and (not settings.overwrite or other in settings.inputs):
                raise UserError(f"{other}: already exists; give another --out for the completions")
        return restore(model, source, destination)

    restore_each(pairs, restore_one, settings.overwrite)


if __name__ == "__main__":
    with cli.one_line_errors():
        main(read_flags())

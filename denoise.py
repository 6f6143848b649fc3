"""Restore your own sounds or images with a trained model.

    python denoise.py plots/sound chopped.wav -o restored.wav
    python denoise.py plots/sound recordings -o restored --keep   # a folder; only gaps change
    python denoise.py plots/mnist torn.png -o whole.png --mask hole.png

A sound keeps its length, sample rate, channels and format. An image keeps its size.
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # `python -P` leaves it out

from files.batch import is_there, plan, restore_each
from files.folders import walk
from files.gap_labels import read_labels
from files.model_file import load_restorer, model_path
from files.pictures import SUFFIXES as IMAGES
from files.restore_image import completion_paths, mask_for, restore_image
from files.restore_sound import restore_sound
from files.sound_reader import SUFFIXES as SOUNDS
from harness import UserError, cli
from harness.errors import say
from harness.result_files import EXISTS

MAX_COMPLETIONS = 32


def read_flags():
    flags = cli.Parser(__doc__)
    add = flags.add_argument
    text = "folder of a finished run, or its model.keras"
    add("model", type=cli.path, metavar="MODEL", help=text)
    text = "a sound or an image, or a folder of them"
    add("inputs", type=cli.path, nargs="+", metavar="INPUT", help=text)
    text = "output file for a single input file, otherwise a folder (always if it ends in /)"
    add("-o", "--out", type=cli.text, required=True, help=text)
    text = "change only gaps and holes; in lossless formats the rest stays bit-identical"
    add("--keep", action="store_true", help=text)
    text = "images: also write N random completions of the hole: NAME-1, NAME-2, ..."
    number = partial(cli.integer, high=MAX_COMPLETIONS)
    add("--completions", type=number, default=0, metavar="N", help=text)
    add("--overwrite", action="store_true", help="replace existing results")
    text = "sounds: text file, one gap per line, start and end in seconds; default: runs of zeros"
    add("--gaps", type=cli.path, help=text)
    text = "images: white in the hole; a file, or a folder of the same names; default: transparency"
    add("--mask", type=cli.path, help=text)
    return flags.parse_intermixed_args(without_separator(sys.argv[1:]))


def without_separator(arguments):
    """Remove "--" from the arguments, and put "./" before later ones that look like flags.

    `parse_intermixed_args` of Python 3.11 treats arguments after "--" as flags too.
    """
    end = arguments.index("--") if "--" in arguments else len(arguments)
    after = [f"./{name}" if name.startswith("-") else name for name in arguments[end + 1 :]]
    return arguments[:end] + after


def refuse_flags(settings, sounds, trained_on):
    """Raise a UserError for a flag that does not apply to this kind of model."""
    for_images = {"--mask": settings.mask, "--completions": settings.completions}
    for flag, value in (for_images if sounds else {"--gaps": settings.gaps}).items():
        if value:
            raise UserError(f"{flag}: {trained_on}; leave it out")


def restore(settings, model, trained_on, source, destination):
    """Restore one file. Returns one line that describes the result."""
    sounds = model.kind.sounds
    if source.suffix.lower() in (IMAGES if sounds else SOUNDS):
        raise UserError(f"{source}: {trained_on}; leave it out")
    if sounds:
        return restore_sound(model, source, destination, settings.gaps, settings.keep)
    count = settings.completions
    for path in completion_paths(destination, count):
        if is_there(path) and not settings.overwrite:
            raise UserError(f"{path}: {EXISTS}")
    out = Path(settings.out)
    below = destination.relative_to(out) if destination != out else Path(source.name)
    mask = mask_for(settings.mask, source, below)
    if mask and mask.samefile(source):
        raise UserError(f"{mask}: is the image itself; draw the hole in another file for --mask")
    return restore_image(model, source, destination, mask, settings.keep, count)


def main(settings):
    path = model_path(settings.model)
    masks = walk(settings.mask)[0] if settings.mask and settings.mask.is_dir() else [settings.mask]
    needed = [file for file in (path, settings.gaps, *masks) if file]
    pairs = plan(settings.inputs, settings.out, needed, settings.completions)
    single = len(settings.inputs) == 1 and not settings.inputs[0].is_dir()
    if single and is_there(out := pairs[0][1]) and not settings.overwrite:
        raise UserError(f"{out}: {EXISTS}")

    model = load_restorer(path)
    what, suffixes = ("sounds", SOUNDS) if model.kind.sounds else ("images", IMAGES)
    trained_on = f"{path} was trained on {what}"
    refuse_flags(settings, model.kind.sounds, trained_on)
    named = settings.inputs  # any suffix is accepted if the user named the file
    fitting = [pair for pair in pairs if pair[0] in named or pair[0].suffix.lower() in suffixes]
    if not fitting:
        raise UserError(f"{named[0]}: no {what} found; {trained_on}")
    if count := len(pairs) - len(fitting):
        say(f"skipped files of other kinds: {count}; {trained_on}", sys.stderr)
    settings.gaps = settings.gaps and read_labels(settings.gaps)
    restoring = partial(restore, settings, model, trained_on)
    restore_each(fitting, restoring, settings.overwrite, settings.completions)


if __name__ == "__main__":
    with cli.one_line_errors():
        main(read_flags())

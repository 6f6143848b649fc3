"""Sample new digits or sounds from a trained model, interpolate, or map its latent space.

    python sample.py plots/mnist                   # new digits: plots/mnist/generated.png
    python sample.py plots/mnist --blend 3 17      # from one held-out digit to another: blend.png
    python sample.py plots/sound --blend C4 G4     # from one note to another: blend.wav
    python sample.py plots/sound --map             # latent space in two dimensions: map.png

Results are written beside the model, or to the folder --out.
"""

import os
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # `python -P` leaves it out

import numpy as np

from audio_utils import note_fades, one_after_the_other, write_wav
from files import held_out, model_file
from files.pictures import read_image
from harness import UserError, cli
from harness.errors import say
from harness.result_files import EXISTS, claimed, replacing
from inference import principal_axes
from kind import kind_of
from pages import figures
from signals import blending

NEW_DIGITS, NEW_SOUNDS, MAX_COUNT = 96, 16, 500
DIGITS_PER_ROW = 16
BLEND_STEPS = 12  # reconstructions in a blend of images, including its ends
MAPPED = 2000  # maximum number of examples on a map


def read_flags():
    flags = cli.Parser(__doc__)
    add = flags.add_argument
    text = "folder of a finished run, or its model.keras"
    add("model", type=cli.path, metavar="MODEL", help=text)
    what = flags.add_mutually_exclusive_group()
    text = "interpolate from A to B, two held-out images (by number, from 0) or image files; "
    text += "or two notes or sound files"
    what.add_argument("--blend", nargs=2, type=cli.text, metavar=("A", "B"), help=text)
    text = "plot held-out examples along the two principal axes of latent space"
    what.add_argument("--map", action="store_true", help=text)
    text = f"number of new digits ({NEW_DIGITS}) or sounds ({NEW_SOUNDS})"
    what.add_argument("--count", type=partial(cli.integer, high=MAX_COUNT), help=text)
    add("--seed", type=partial(cli.integer, low=0), default=0, help="random seed (0)")
    add("--data", type=cli.text, help="where the training data are now, for --blend and --map")
    text = "output folder (default: beside the model)"
    add("-o", "--out", type=cli.path, metavar="FOLDER", help=text)
    add("--overwrite", action="store_true", help="replace existing results")
    settings = flags.parse_args()
    if settings.data and not (settings.blend or settings.map):
        flags.error("--data: works with --blend and --map only")
    return settings


def result_path(settings, name):
    out = settings.out or (settings.model if settings.model.is_dir() else settings.model.parent)
    return out / name


def refuse_to_replace(settings, path):
    """Raise a UserError if `path` is one of the files to blend, or exists without --overwrite."""
    for source in settings.blend or ():
        if path.exists() and os.path.exists(source) and path.samefile(source):
            raise UserError(f"{path}: is one of the files to blend; give another --out")
    if os.path.lexists(path) and not settings.overwrite:
        raise UserError(f"{path}: {EXISTS}")


def write(settings, name, save):
    """Write a result to the output folder. The function save(path) writes the file."""
    path = result_path(settings, name)
    with claimed(path), replacing(path) as unfinished:
        refuse_to_replace(settings, path)  # another process may have just written it
        save(unfinished)
    say(f"wrote {path}")


def write_picture(settings, name, picture):
    write(settings, name, partial(figures.save, pictures=[picture]))


def write_sound(settings, name, sound, rate):
    write(settings, name, partial(write_wav, signal=sound, sample_rate=rate))


def new_images(model, kind, settings):
    count = settings.count or NEW_DIGITS
    new = model.generate(count, (settings.seed, 0)).numpy()
    columns = min(count, DIGITS_PER_ROW)
    rows = np.pad(new, ((0, -count % columns), (0, 0))).reshape(-1, columns, *kind.shape)
    rows = {str(1 + number * columns): row for number, row in enumerate(rows)}
    title = f"New images from the prior (seed {settings.seed})"
    write_picture(settings, "generated.png", figures.digit_rows(title, rows))


def new_sounds(model, kind, settings):
    new = model.generate(settings.count or NEW_SOUNDS, (settings.seed, 0)).numpy()
    rate, title = kind.sample_rate, f"New sounds from the prior (seed {settings.seed})"
    write_sound(settings, "generated.wav", one_after_the_other(new, rate), rate)
    write_picture(settings, "generated.png", figures.windows(title, new, rate))


def blend_images(model, kind, settings):
    numbers = [int(name) for name in settings.blend if name.isdecimal()]
    known = held_out.images(kind, settings.model, settings.data)[0] if numbers else []
    if numbers and max(numbers) >= len(known):
        expected = f"must be a held-out image's number, from 0 to {len(known) - 1}"
        raise UserError(f"--blend: {expected}, got {max(numbers)}")
    ends, names = [], []
    for name in settings.blend:
        number = name.isdecimal()
        ends.append(known[int(name)] if number else read_image(name, kind.shape))
        names.append(f"no. {name}" if number else os.path.basename(name))
    ends = np.stack(ends) / np.float32(255)  # (2, H, W)
    means = model.encode(ends.reshape(2, -1))[0].numpy()
    weights = np.linspace(0, 1, BLEND_STEPS)[:, None]
    codes = (1 - weights) * means[:1] + weights * means[1:]  # (BLEND_STEPS, L)
    steps = model.expectation(codes.astype(np.float32)).numpy().reshape(-1, *kind.shape)
    labels = [names[0], *(f"{weight:.0%}" for weight in weights[:, 0]), names[1]]
    title = "Two images (outside), and the interpolation between them in latent space"
    picture = figures.strip(title, [ends[0], *steps, ends[1]], labels)
    write_picture(settings, "blend.png", picture)


def blend_sounds(model, kind, settings):
    if settings.data:
        raise UserError("--data: not used to blend notes and sound files; leave it out")
    rate = kind.sample_rate
    samples = model.input_size + rate // blending.LOWEST_PITCH + 1
    ends = [held_out.sound(name, samples, kind) for name in settings.blend]
    sound = blending.glide(model, ends, rate)
    say(blending.summary(sound, ends, rate))
    write_sound(settings, "blend.wav", sound * note_fades(sound.size, rate), rate)


def draw_map(model, kind, settings):
    path = settings.model
    if model.latent < 2:
        raise UserError(f"{path}: a map needs 2 latent dimensions, and --latent was 1; retrain it")
    size, data = model.input_size, settings.data
    examples, labels, names, what = held_out.examples(kind, size, path, data, MAPPED)
    means = model.encode(examples)[0].numpy()
    if len(means) < 3 or not np.ptp(means, axis=0).any():
        problem = f"a map needs 3 different points, and the {len(means)} {what} give fewer"
        raise UserError(f"{path}: {problem}; give more by --data")
    mean, axes, fractions = principal_axes(means, 2)
    points = (means - mean) @ axes.T
    title = f"{len(points):,} {what} in latent space (posterior means)"
    picture = figures.latent_map(title, points, fractions, labels, names)
    write_picture(settings, "map.png", picture)


def main(settings):
    model = model_file.load_model(settings.model)
    kind = kind_of(model.metadata, model.input_size, settings.model)
    if settings.map:
        draw, names = draw_map, ["map.png"]
    elif settings.blend and kind.sounds:
        draw, names = blend_sounds, ["blend.wav"]
    elif settings.blend:
        draw, names = blend_images, ["blend.png"]
    elif kind.sounds:
        draw, names = new_sounds, ["generated.wav", "generated.png"]
    else:
        draw, names = new_images, ["generated.png"]
    for name in names:
        refuse_to_replace(settings, result_path(settings, name))
    draw(model, kind, settings)


if __name__ == "__main__":
    with cli.one_line_errors():
        main(read_flags())

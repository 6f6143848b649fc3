"""Sample new digits or sounds from a trained model, interpolate, or map its latent space.

python sample.py plots/mnist                   # new digits: plots/mnist/generated.png
python sample.py plots/mnist --blend 3 17      # one held-out digit becomes another: blend.png
python sample.py plots/sound --blend C4 G4     # one note becomes another: blend.wav
python sample.py plots/sound --map             # map.png
"""

import harness  # noqa: F401  sets NumPy's threads, so before NumPy

# isort: split
import os
from functools import partial
from pathlib import Path

import numpy as np

from audio_utils import note_fades, one_after_the_other, write_wav
from files import held_out
from files.pictures import read_image
from harness import UserError, cli
from harness.run_folder import claimed, replacing
from pages import figures
from pages.figures import principal_axes
from signals import blending as blend_sound

NEW_DIGITS, NEW_SOUNDS, MOST = 96, 16, 500
A_ROW, STEPS, MAPPED = (
    16,
    12,
    2000,
)  # new digits a row; images of a blend, its ends included; examples on a map


def read_flags():
    flags = cli.Parser(__doc__)
    add = flags.add_argument
    add(
        "model", type=Path, metavar="MODEL", help="the folder of a finished run, or its model.keras"
    )
    what = flags.add_mutually_exclusive_group()
    ends = "numbers of held-out images (0 is the first) or image files; or notes such as C4, or sound files"
    what.add_argument(
        "--blend", nargs=2, metavar=("A", "B"), help=f"interpolate from A to B: {ends}"
    )
    what.add_argument(
        "--map", action="store_true", help="plot held-out examples on two latent axes"
    )
    what.add_argument(
        "--count",
        type=cli.whole_number,
        help=f"how many: digits ({NEW_DIGITS}), sounds ({NEW_SOUNDS})",
    )
    add("--seed", type=cli.seed, default=0, help="random seed (0)")
    add("--data", help="where the training data are now, to interpolate or map held-out examples")
    add(
        "-o", "--out", type=Path, metavar="FOLDER", help="output folder (default: beside the model)"
    )
    settings = flags.parse_args()
    if settings.count and settings.count > MOST:
        flags.error(f"argument --count: at most {MOST} at once")
    if settings.data and not (settings.blend or settings.map):
        flags.error("argument --data: for --blend and --map only")
    return settings


def write(settings, name, save):
    """Write a result, save(path), into the output folder. UserError if it would replace what it was made from."""
    out = settings.out or (settings.model if settings.model.is_dir() else settings.model.parent)
    if any(
        os.path.realpath(source) == os.path.realpath(out / name) for source in settings.blend or ()
    ):
        raise UserError(f"{out / name}: is what was to be blended; give another folder, --out")
    out.mkdir(parents=True, exist_ok=True)
    with claimed(out / name), replacing(out / name) as path:
        save(path)
    print(f"wrote {out / name}")


def blend_images(model, settings):
    numbers = [int(name) for name in settings.blend if name.isdecimal()]
    known = held_out.images(model, settings.model, settings.data)[0] if numbers else []
    if numbers and max(numbers) >= len(known):
        raise UserError(
            f"{max(numbers)}: the images held out are 0 to {len(known) - 1}; choose among them"
        )
    shape = tuple(model.metadata["shape"])
    ends = [
        known[int(name)] if name.isdecimal() else read_image(name, shape) for name in settings.blend
    ]
    ends = np.stack(ends) / np.float32(255)
    means = model.encode(ends.reshape(2, -1))[0].numpy()
    shares = np.linspace(0, 1, STEPS)[:, None]
    steps = model.expectation(
        ((1 - shares) * means[:1] + shares * means[1:]).astype(np.float32)
    ).numpy()
    strip = [ends[0], *steps.reshape(-1, *shape), ends[1]]
    names = [
        f"no. {name}" if name.isdecimal() else os.path.basename(name) for name in settings.blend
    ]
    labels = [names[0], *(f"{share:.0%}" for share in shares[:, 0]), names[1]]
    title = (
        "Outside, two images as they are; inside, the interpolation between them in latent space"
    )
    write(
        settings, "blend.png", partial(figures.save, pictures=[figures.strip(title, strip, labels)])
    )


def blend_sounds(model, settings):
    rate = model.metadata["sample_rate"]
    sound, description = blend_sound.blend(model, settings.blend)
    print(description)
    write(
        settings,
        "blend.wav",
        partial(write_wav, signal=sound * note_fades(sound.size, rate), sample_rate=rate),
    )


def draw_map(model, settings):
    if model.latent < 2:
        raise UserError(
            f"{settings.model}: its --latent is 1, and a map needs 2 dimensions or more"
        )
    examples, labels, names, what = held_out.examples(model, settings.model, settings.data, MAPPED)
    means = model.encode(examples)[0].numpy()
    if len(means) < 3 or not np.ptp(means, axis=0).any():
        raise UserError(
            f"{settings.model}: fewer than 3 places to map in {len(means)} {what}; give more by --data"
        )
    points, shares, _ = principal_axes(means)
    title = f"{len(points):,} {what} in latent space (posterior means)"
    picture = figures.latent_map(title, points, shares, labels, names)
    write(settings, "map.png", partial(figures.save, pictures=[picture]))


def new_ones(model, settings):
    digits = "shape" in model.metadata
    count = settings.count or (NEW_DIGITS if digits else NEW_SOUNDS)
    new = model.generate(count, (settings.seed, 0)).numpy()
    title = f"New {'images' if digits else 'sounds'} from the prior (seed {settings.seed})"
    if digits:
        columns = min(count, A_ROW)
        new = np.pad(new, ((0, -count % columns), (0, 0))).reshape(
            -1, columns, *model.metadata["shape"]
        )
        picture = figures.digit_rows(
            title, {str(1 + number * columns): row for number, row in enumerate(new)}
        )
    else:
        rate = model.metadata["sample_rate"]
        write(
            settings,
            "generated.wav",
            partial(write_wav, signal=one_after_the_other(new, rate), sample_rate=rate),
        )
        picture = figures.windows(title, new, rate)
    write(settings, "generated.png", partial(figures.save, pictures=[picture]))


def main(settings):
    from files.model_file import (  # not before the flags are good: it loads TensorFlow
        knows_sounds,
        load_model,
    )

    model = load_model(settings.model)
    images = not knows_sounds(settings.model, model.metadata, model.input_size)
    if settings.data and settings.blend and not images:
        raise UserError(
            f"{settings.model}: blends notes and sound files alone, without --data; leave it out"
        )
    blend = blend_images if images else blend_sounds
    (blend if settings.blend else draw_map if settings.map else new_ones)(model, settings)


if __name__ == "__main__":
    with cli.one_line_errors():
        main(read_flags())

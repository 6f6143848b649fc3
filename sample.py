"""New digits or sounds from a trained model, blends of two, and a map of what it tells apart.

python sample.py plots/mnist                   # new digits: plots/mnist/generated.png
python sample.py plots/mnist --blend 3 17      # one held-out digit becomes another: blend.png
python sample.py plots/sound --blend C4 G4     # one note becomes another: blend.wav
python sample.py plots/sound --map             # map.png
"""

import harness  # noqa: F401  sets NumPy's threads, so before NumPy

# isort: split
import os
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from audio_utils import C_MAJOR, noisy_notes, note_fades, one_after_the_other, write_wav
from harness import UserError, cli
from harness.run_folder import claimed, replacing
from media import blend_sound, folders, sound_files
from media.image_files import load_images, read_image
from pages import figures

NEW_DIGITS, NEW_SOUNDS, MOST = 96, 16, 500
A_ROW, STEPS, MAPPED = 16, 12, 2000  # new digits a row; images of a blend, its ends included; examples on a map
LONG_SECONDS = 1  # of the long sound that recordings are read with, and nothing here uses


def read_flags():
    flags = cli.Parser(description=__doc__.splitlines()[0])
    add = flags.add_argument
    add("model", type=Path, metavar="MODEL", help="the folder of a finished run, or its model.keras")
    what = flags.add_mutually_exclusive_group()
    ends = "numbers of held-out images (0 is the first) or image files; or notes such as C4, or sound files"
    what.add_argument("--blend", nargs=2, metavar=("A", "B"), help=f"from A to B: {ends}")
    what.add_argument("--map", action="store_true", help="where examples lie in latent space, on its principal axes")
    what.add_argument("--count", type=cli.whole_number, help=f"new digits ({NEW_DIGITS}) or sounds ({NEW_SOUNDS})")
    add("--seed", type=cli.seed, default=0, help="of new ones (0)")
    add("--data", help="where the data now are that the model was trained with, to blend or map those held out")
    add("-o", "--out", type=Path, metavar="FOLDER", help="folder to write to (beside the model)")
    settings = flags.parse_args()
    if settings.count and settings.count > MOST:
        flags.error(f"argument --count: at most {MOST} at once")
    if settings.data and not (settings.blend or settings.map):
        flags.error("argument --data: for --blend and --map only")
    return settings


def write(settings, name, save):
    """Write a result, save(path), into the output folder. UserError if it would replace what it was made from."""
    out = settings.out or (settings.model if settings.model.is_dir() else settings.model.parent)
    if any(os.path.realpath(source) == os.path.realpath(out / name) for source in settings.blend or ()):
        raise UserError(f"{out / name}: is what was to be blended; give another folder, --out")
    out.mkdir(parents=True, exist_ok=True)
    with claimed(out / name), replacing(out / name) as path:
        save(path)
    print(f"wrote {out / name}")


def principal_axes(points):
    """Points (M, L) on their two principal axes (M, 2), and the share of the variance along each."""
    centred = points - points.mean(axis=0)
    _, lengths, axes = np.linalg.svd(centred, full_matrices=False)
    return centred @ axes[:2].T, lengths[:2] ** 2 / np.sum(lengths**2)


def check_data(model, settings, data, provenance):
    """UserError unless the data are those the model was trained with: what is held out of others, it may have seen."""
    learned = model.metadata.get("sha256")
    if learned and provenance.get("sha256") != learned:
        raise UserError(f"{settings.model}: not trained with {data} as found there; say by --data where its own are")


def held_out_images(model, settings):
    """The held-out images of the model's data, as grey levels (M, H, W), and their labels or None.

    UserError if they are not to be found, or others.
    """
    shape = tuple(model.metadata["shape"])
    data = settings.data or model.metadata.get("data")
    if data and not os.path.exists(data):
        raise UserError(f"{data}: not there any more; say by --data where the images are that the model learned from")
    found = load_images(data, shape[0])
    images = found.test
    if images.shape[1:] != shape:
        raise UserError(f"{data or 'MNIST'}: images of {images.shape[1:]} pixels, the model knows {shape}; see --data")
    check_data(model, settings, data or f"digits ({found.provenance['source']})", found.provenance)
    return images, found.test_labels


def held_out_windows(model, settings):
    """Windows (M, N) of the sounds that the model has heard, which note each is, and the notes' names.

    Of recordings, those held out, without notes. UserError if they are not given, or others.
    """
    rate, rms = model.metadata["sample_rate"], model.metadata.get("rms")
    notes = model.metadata.get("notes", None if rms else C_MAJOR)  # the first scripts had no others and wrote no level
    if notes:
        if settings.data:
            raise UserError(f"{settings.model}: a model of the built-in notes; leave --data out")
        timbre = model.metadata.get("timbre", "sine")
        _, examples, labels = noisy_notes(notes, MAPPED, model.input_size, rate, (0, 0), timbre)
        return examples, labels, notes
    if not settings.data:
        raise UserError(f"{settings.model}: a model of recordings; say by --data where those are that it learned from")
    with tempfile.TemporaryDirectory() as folder:
        sounds = sound_files.load(settings.data, rate, model.input_size, rms, LONG_SECONDS, folder)
        folders.print_skipped(sounds.skipped)
        check_data(model, settings, settings.data, sounds.provenance)
        return sounds.windows("held out", MAPPED, (0, 0))[0], None, None


def blend_images(model, settings):
    numbers = [int(name) for name in settings.blend if name.isdecimal()]
    held_out = held_out_images(model, settings)[0] if numbers else []
    if numbers and max(numbers) >= len(held_out):
        raise UserError(f"{max(numbers)}: the images held out are 0 to {len(held_out) - 1}; choose among them")
    shape = tuple(model.metadata["shape"])
    ends = [held_out[int(name)] if name.isdecimal() else read_image(name, shape) for name in settings.blend]
    ends = np.stack(ends) / np.float32(255)
    means = model.encode(ends.reshape(2, -1))[0].numpy()
    shares = np.linspace(0, 1, STEPS)[:, None]
    steps = model.expectation(((1 - shares) * means[:1] + shares * means[1:]).astype(np.float32)).numpy()
    strip = [ends[0], *steps.reshape(-1, *shape), ends[1]]
    names = [f"no. {name}" if name.isdecimal() else os.path.basename(name) for name in settings.blend]
    labels = [names[0], *(f"{share:.0%}" for share in shares[:, 0]), names[1]]
    title = "Outside, two images as they are; inside, decoded on the way between them in latent space"
    write(settings, "blend.png", partial(figures.save, pictures=[figures.strip(title, strip, labels)]))


def blend_sounds(model, settings):
    rate, seconds = model.metadata["sample_rate"], blend_sound.SECONDS
    sound, asked, reached = blend_sound.blend(model, settings.blend)
    levels = 10 * np.log10(np.convolve(sound**2, np.full(rate // 20, 20 / rate), "valid"))  # over 50 ms
    print(
        f"{seconds} s from {reached[0]:.0f} to {reached[1]:.0f} Hz (asked: {asked[0]:.0f} and {asked[1]:.0f}), "
        f"level {np.min(levels) - levels[0]:+.1f} to {np.max(levels) - levels[0]:+.1f} dB relative to the beginning"
    )
    write(settings, "blend.wav", partial(write_wav, signal=sound * note_fades(sound.size, rate), sample_rate=rate))


def draw_map(model, settings):
    if model.latent < 2:
        raise UserError(f"{settings.model}: its --latent is 1, and a map needs 2 dimensions or more")
    if "shape" in model.metadata:
        images, labels = held_out_images(model, settings)
        examples, names, what = images[:MAPPED].reshape(-1, model.input_size) / np.float32(255), None, "held-out images"
        labels = None if labels is None else labels[:MAPPED]
    else:
        examples, labels, names = held_out_windows(model, settings)
        what = "noisy notes" if names else "held-out windows"
    means = model.encode(examples)[0].numpy()
    if len(means) < 3 or not np.ptp(means, axis=0).any():
        raise UserError(f"{settings.model}: fewer than 3 places to map in {len(means)} {what}; give more by --data")
    points, shares = principal_axes(means)
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
        new = np.pad(new, ((0, -count % columns), (0, 0))).reshape(-1, columns, *model.metadata["shape"])
        picture = figures.digit_rows(title, {str(1 + number * columns): row for number, row in enumerate(new)})
    else:
        rate = model.metadata["sample_rate"]
        write(settings, "generated.wav", partial(write_wav, signal=one_after_the_other(new, rate), sample_rate=rate))
        picture = figures.windows(title, new, rate)
    write(settings, "generated.png", partial(figures.save, pictures=[picture]))


def main(settings):
    # not before the flags are known to be good: it loads TensorFlow
    from media.model_file import knows_sounds, load_model

    model = load_model(settings.model)
    images = not knows_sounds(settings.model, model.metadata, model.input_size)
    if settings.data and settings.blend and not images:
        raise UserError(f"{settings.model}: blends notes and sound files alone, without --data; leave it out")
    make = draw_map if settings.map else new_ones
    if settings.blend:
        make = blend_images if images else blend_sounds
    make(model, settings)


if __name__ == "__main__":
    with cli.one_line_errors():
        main(read_flags())

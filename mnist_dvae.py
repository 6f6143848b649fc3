"""Train a denoising VAE to complete digits with holes.

    python mnist_dvae.py                       # half a minute on a laptop's CPU
    python mnist_dvae.py --iters 16000         # longer, better digits
    python mnist_dvae.py --data photos --size 32    # a folder of your own images

The encoder sees MNIST digits with a random rectangle, a fifth of the image, blacked out; the target is
the whole digit, so the decoder learns to draw what must have been there.
"""

import harness  # noqa: F401  sets NumPy's threads, so before NumPy

# isort: split
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

import baselines
import corrupt
import image_utils
import inference
import training
from files import image_files
from harness import UserError, cli
from harness.quiet_tensorflow import tf
from harness.run_folder import METHOD, REFINED, Run
from image_utils import mean_squared_error
from pages import figures, play, report
from pages.verdict import verdict

HELD_OUT = 2000  # digits scored, at most
SCORED_PIXELS = 2**25  # in all, at most: there are fewer of large images
NEAREST_PIXELS = 2**27  # of training images that are searched for the nearest, at most
GENERATED = 1000  # new digits scored at each checkpoint
SHOWN, NEW_ROWS = 16, 6  # digits a row in the figures; rows of new ones
COMPLETIONS = 2  # completions shown
COLUMNS = (
    "iteration",
    "loss",
    "hole_mse_over_mean_fill",
    "classifier_error",
)  # printed at each checkpoint


@dataclass(frozen=True)
class Settings(corrupt.Settings):
    """The settings of `mnist_dvae.py`."""

    experiment = "mnist"
    kl_warm_up = 0.5
    iters: int = 3200
    learning_rate: float = 3e-3
    data: str = cli.flag(
        None,
        "your own images instead of MNIST: a folder of images that Pillow reads, searched recursively; or of "
        "MNIST's original files; or an .npz file with Keras's keys or one array (count, H, W)",
    )
    size: int = cli.flag(
        28, "pixels per side of a folder's images, their middle square rescaled; 4 to 256"
    )
    deform: float = cli.flag(
        0.1,
        "augmentation: training images are rotated and sheared; standard deviation of the slopes, 0 for none",
        type=float,
        with_data=0.0,
    )

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.deform < 1:
            raise UserError(
                f"argument --deform: {self.deform:g} is not a number from 0 to below 1 (see --help)"
            )
        if not 4 <= self.size <= 256:
            raise UserError(
                f"argument --size: {self.size} is not between 4 and 256 pixels (see --help)"
            )


class HeldOut(NamedTuple):
    """What is scored and shown, drawn once, so that two checkpoints differ by training alone: (M, H, W) in [0, 1]."""

    corrupted: np.ndarray
    clean: np.ndarray
    mask: np.ndarray
    mean_filled: np.ndarray  # the corrupted ones, holes filled with the mean training image
    greyness: (
        np.ndarray
    )  # (H, W): each pixel's mean of x (1 - x) in the training images; 0 if black and white
    labels: np.ndarray | None  # (M,)
    classify: (
        Callable | None
    )  # the judge, which has learned from whole training images; None without labels


def flat(images):
    """(B, H, W) -> (B, H * W)."""
    return tf.reshape(images, (images.shape[0], -1))


def make_batch(settings, train_images, seed, count):
    """A training batch: corrupted and clean images, flat, (count, H * W) each. train_images: (M, H, W), uint8."""
    image_seed, deform_seed, corruption_seed = tf.unstack(tf.random.split(seed, 3))
    clean = image_utils.random_images(train_images, count, image_seed)
    if settings.deform:
        clean = image_utils.deformed(clean, settings.deform, deform_seed)
    corrupted, _ = corrupt.apply(settings, clean, corruption_seed)
    return flat(corrupted), flat(clean)


def held_out(settings, images):
    """The held-out examples, and the classifier that judges them, which knows training images alone."""
    at_most = SCORED_PIXELS // images.train[0].size
    clean = image_utils.grey(images.test[: min(HELD_OUT, at_most)])
    corrupted, mask = (
        part.numpy() for part in corrupt.apply(settings, clean, training.HELD_OUT_SEED)
    )
    mean_filled = np.where(mask == 1, image_utils.mean_image(images.train), corrupted)
    greyness = image_utils.mean_image(images.train[:at_most], lambda x: x * (1 - x))
    labels = classify = None
    if images.train_labels is not None:
        labels = images.test_labels[: len(clean)]
        classify = baselines.digit_classifier(images.train[:at_most], images.train_labels[:at_most])
    return HeldOut(corrupted, clean.numpy(), mask, mean_filled, greyness, labels, classify)


def score(held, images):
    """The scores of an estimate (M, H, W) of the held-out digits."""
    hole_error = mean_squared_error(held.clean, images, held.mask)
    scores = {
        "hole_mse": hole_error,
        "hole_mse_over_mean_fill": hole_error
        / mean_squared_error(held.clean, held.mean_filled, held.mask),
        "mse": mean_squared_error(held.clean, images),
    }
    if held.classify:
        scores["classifier_error"] = np.mean(held.classify(flat(images))[0] != held.labels)
    return scores


def evaluate(settings, model, held):
    """The model's scores, and its estimates: the held-out digits reconstructed (M, H, W), new ones (N, H * W)."""
    reconstructed = np.reshape(model.reconstruct(flat(held.corrupted)), held.clean.shape)
    new = min(GENERATED, SCORED_PIXELS // held.clean[0].size)
    generated = model.generate(new, (settings.seed, training.PRIOR)).numpy()
    losses = training.held_out_losses(model, flat(held.corrupted), flat(held.clean))
    scores = {**losses, **score(held, reconstructed)}
    if held.classify:
        kinds, confidence = held.classify(generated)
        scores["generated_confidence"] = confidence.mean()
        scores["generated_classes"] = baselines.effective_number(kinds)
    return scores, (reconstructed, generated)


def refined(model, refine, corrupted, mask, greyness):
    """Reconstruct by refined posteriors, with predictive standard deviation: (M, H, W), (M, H, W).

    greyness (H, W): the within-pixel variance, see `inference.predictive_std`.
    """
    mean, log_var, _ = refine(flat(corrupted), flat(1 - mask), *model.encode(flat(corrupted)))
    reconstructed = model.expectation(mean).numpy()
    holes = mask.reshape(len(mask), -1)
    deviation = inference.predictive_std(
        model, mean, log_var, holes, greyness.ravel(), training.PRIOR
    )
    return reconstructed.reshape(mask.shape), deviation.reshape(mask.shape)


def imagine(settings, model, refine, held):
    """Rows of the figure: what is made of the first digits by refined posteriors, ways to complete them, doubt."""
    if not settings.tells_missing:
        return {}
    corrupted, mask = held.corrupted[:SHOWN], held.mask[:SHOWN]
    reconstructed, deviation = refined(model, refine, corrupted, mask, held.greyness)
    seed = settings.seed, training.PRIOR
    drawn = inference.completions(
        model, refine, flat(corrupted), flat(1 - mask), COMPLETIONS, seed
    ).numpy()
    ways = {f"completion {i + 1}": row.reshape(mask.shape) for i, row in enumerate(drawn)}
    return {"refined": reconstructed, **ways, "doubt": deviation}


def honesty(held, reconstructed, deviation):
    """Whether doubt is calibrated: error in the hole over the deviation claimed, root mean squares; nats per pixel."""
    hole = held.mask == 1
    clean, claimed = held.clean[hole], np.clip(reconstructed[hole], 1e-3, 1 - 1e-3)
    error = np.sqrt(
        np.mean((clean - reconstructed[hole]) ** 2) / max(1e-12, np.mean(deviation[hole] ** 2))
    )
    nats = -np.mean(clean * np.log(claimed) + (1 - clean) * np.log(1 - claimed))
    return {"hole_error_over_claimed": error, "hole_nats_a_pixel": nats}


def compared_estimates(kind, held, train_images, ours):
    """Estimates of the held-out digits, from the input to the best there can be: {method: (M, H, W)}.

    ours: those of the model. The others are the baselines.
    """
    nearest = baselines.nearest_fill(
        held.corrupted, held.mask, train_images[: NEAREST_PIXELS // held.clean[0].size]
    )
    filled = {
        f"holes filled by the {name}": np.where(held.mask == 1, each, held.corrupted)
        for name, each in ours.items()
    }
    return {
        "holes black (the input)": held.corrupted,
        f"holes filled with the mean {kind}": held.mean_filled,
        f"holes filled from the nearest {kind}": nearest,
        **ours,
        **filled,
        "originals": held.clean,
    }


def render(settings, kind, held, estimates, imagined, iteration):
    """The pictures of a checkpoint: {file name: save(path)}. imagined: further rows, {label: (SHOWN, H, W)}."""
    reconstructed, generated = estimates
    what = f"{settings.damage}, after {iteration} iterations"
    rows = {"original": held.clean, "damaged": held.corrupted, "reconstructed": reconstructed}
    mended = figures.digit_rows(
        f"Held-out {kind}s restored ({what}); red: missing",
        {label: images[:SHOWN] for label, images in (rows | imagined).items()},
        {"damaged": held.mask[:SHOWN]},
    )
    new = generated[: NEW_ROWS * SHOWN].reshape(NEW_ROWS, SHOWN, *held.clean.shape[1:])
    new = figures.digit_rows(
        f"New {kind}s from the prior ({what})", {str(i + 1): row for i, row in enumerate(new)}
    )
    return {
        f"reconstruction_{iteration:06d}.png": partial(figures.save, pictures=[mended]),
        f"generated_{iteration:06d}.png": partial(figures.save, pictures=[new]),
    }


def main(settings):
    with Run(settings, report.write, report.WRITTEN, COLUMNS) as run:
        images = image_files.load_images(settings.data, settings.size)
        provenance = images.provenance
        run.record(provenance)
        print(images.summary)
        kind, shape = "image" if settings.data else "digit", images.train.shape[1:]
        held = held_out(settings, images)
        train_images = (
            images.train if isinstance(images.train, np.memmap) else tf.constant(images.train)
        )

        from models import (
            DVAE,  # not before flags, folder and data are known to be good: it loads TensorFlow
        )

        tf.keras.utils.set_random_seed(settings.seed)  # for the weights' first values
        data = settings.data and os.path.abspath(settings.data)
        metadata = {
            "experiment": "mnist",
            "shape": list(shape),
            "data": data,
            "sha256": provenance["sha256"],
        }
        network = settings.hidden, settings.latent, settings.components
        with run.workers.strategy.scope():
            model = DVAE(int(np.prod(shape)), "bernoulli", *network, metadata=metadata)
        refine = inference.refiner(model)
        for iteration, train_loss in training.train(
            model, partial(make_batch, settings, train_images), settings, run
        ):
            scores, estimates = evaluate(settings, model, held)
            files = render(
                settings, kind, held, estimates, imagine(settings, model, refine, held), iteration
            )
            run.log(iteration, {"train_loss": train_loss, **scores}, files)
        ours = {METHOD: estimates[0]}
        if settings.tells_missing:
            ours[REFINED], deviation = refined(
                model, refine, held.corrupted, held.mask, held.greyness
            )
        methods = compared_estimates(kind, held, images.train, ours)
        rows = [{"method": method, **score(held, estimate)} for method, estimate in methods.items()]
        if REFINED in ours:
            next(row for row in rows if row["method"] == REFINED).update(
                honesty(held, ours[REFINED], deviation)
            )
        run.save(play.files(model, held.clean, held.labels))
        run.finish(model, rows)
        print(verdict(rows))
    print(f"Look at {settings.out / 'index.html'}")


if __name__ == "__main__":
    with cli.one_line_errors():
        main(cli.parse(Settings, __doc__))

"""Train a denoising VAE to complete digits with holes.

    python mnist_dvae.py                            # about half a minute on a laptop's CPU
    python mnist_dvae.py --iters 16000              # longer, better digits
    python mnist_dvae.py --data photos --size 32    # a folder of your own images

The encoder sees MNIST digits with a random rectangle, a fifth of the image, blacked out. The target
is the whole digit, so the decoder learns to fill the hole.
"""

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent))  # `python -P` leaves it out

import numpy as np

import baselines
import corrupt
import image_utils
import inference
import training
from files import image_files
from harness import cli
from harness.cli import flag
from harness.errors import say
from harness.quiet_tensorflow import tf
from harness.run_folder import METHOD, REFINED, Run
from image_utils import mean_squared_error
from pages import digit_figures, play, report, verdict
from pages.digit_figures import SHOWN


@dataclass(frozen=True)
class Settings(cli.Settings):
    """Hyperparameters for digits. Each field is also a command-line flag."""

    experiment = "mnist"
    training_version = 3  # 1 had ReLU and corrupted all inputs; 1 and 2 had beta_2 = 0.999
    activation = "silu"  # of the hidden layers
    kl_warm_up = 0.5  # fraction of the iterations in which the KL weight rises to 1
    beta_2 = 0.99  # decay of Adam's mean squared gradients
    iters: int = flag(3200, "optimizer steps")
    batch_size: int = flag(128, "images per step")
    learning_rate: float = flag(3e-3, "peak after a warm-up, then cosine decay to 0", above=0)
    hidden: tuple = flag((512, 512), "widths of the encoder's layers, e.g. 256,128")
    latent: int = flag(32, "latent dimensions")
    components: int = flag(200, "Gaussians in the mixture prior")
    corruption: str = flag("block", "how the input is corrupted", choices=corrupt.CORRUPTIONS)
    amount: float = flag(
        0.2, "fraction corrupted; for gaussian, the noise std", above=0, below=corrupt.amount_limit
    )
    noise: float = flag(0.0, "maximum standard deviation of added white noise", low=0, high=10)
    deform: float = flag(
        0.1, "augmentation: strength of random rotation and shear", low=0, below=1, with_data=0.0
    )
    data: str = flag(
        None,
        "your own images instead of MNIST: a folder of images, searched recursively; a folder of "
        "MNIST's original files; or an .npz file with Keras's keys or one array (count, H, W)",
    )
    size: int = flag(28, "side in pixels to which a folder's images are rescaled", low=4, high=256)


HELD_OUT = 2000  # maximum images scored
SCORED_PIXELS = 2**25  # maximum total pixels scored, to limit memory
NEAREST_PIXELS = 2**27  # maximum total pixels of training images searched for the nearest
GENERATED = 1000  # samples from the prior scored at each checkpoint
COMPLETIONS = 2  # number of rows with completions in a figure
COLUMNS = "iteration", "loss", "hole_mse_over_mean_fill", "classifier_error"  # printed scores


class HeldOut(NamedTuple):
    """Examples to score and show, flat (M, D) in [0, 1], the same at every checkpoint."""

    corrupted: np.ndarray
    clean: np.ndarray
    mask: np.ndarray  # 1 where missing
    mean_filled: np.ndarray  # `corrupted` with holes filled from the mean training image
    grey_variance: np.ndarray  # (D,): mean of x (1 - x) over training images; 0 if they are binary
    labels: np.ndarray | None  # (M,)
    classify: Callable | None  # see baselines.digit_classifier; None without labels


def make_batch(settings, train_images, seed, count):
    """Return a random batch (corrupted, clean), each (count, D), of uint8 images (M, H, W).

    Half of the inputs stay whole. Their codes are precise, so the decoder learns finer strokes, and
    refined posteriors fit better.
    """
    image_seed, deform_seed, corruption_seed = tf.unstack(tf.random.split(seed, 3))
    clean = image_utils.random_images(train_images, count, image_seed)
    if settings.deform:
        clean = image_utils.deformed(clean, settings.deform, deform_seed)
    whole, others = clean[: count // 2], clean[count // 2 :]
    corrupted, _ = corrupt.apply(settings, others, corruption_seed)
    corrupted = tf.concat([whole, corrupted], axis=0)
    return tf.reshape(corrupted, (count, -1)), tf.reshape(clean, (count, -1))


def held_out(settings, images):
    """Return the held-out examples. Their classifier is trained on training images only."""
    limit = SCORED_PIXELS // images.train[0].size  # in images
    count = min(HELD_OUT, limit, len(images.test))
    clean = image_utils.grey(images.test[:count])
    corrupted, mask = corrupt.apply(settings, clean, training.HELD_OUT_SEED)
    corrupted, clean, mask = (np.reshape(part, (count, -1)) for part in (corrupted, clean, mask))
    mean = image_utils.mean_image(images.train).ravel()
    grey_variance = image_utils.mean_image(images.train[:limit], lambda x: x * (1 - x)).ravel()
    labels = classify = None
    if images.train_labels is not None:
        labels = images.test_labels[:count]
        classify = baselines.digit_classifier(images.train[:limit], images.train_labels[:limit])
    mean_filled = np.where(mask == 1, mean, corrupted)
    return HeldOut(corrupted, clean, mask, mean_filled, grey_variance, labels, classify)


def score(held, estimate):
    """Return the scores of an estimate (M, D) of the held-out images."""
    hole_mse, mean_fill_mse = (
        mean_squared_error(held.clean, each, held.mask) for each in (estimate, held.mean_filled)
    )
    scores = {"hole_mse": hole_mse, "hole_mse_over_mean_fill": hole_mse / mean_fill_mse}
    scores["mse"] = mean_squared_error(held.clean, estimate)
    if held.classify:
        scores["classifier_error"] = np.mean(held.classify(estimate)[0] != held.labels)
    return scores


def evaluate(settings, model, held):
    """Return the scores, then a pair: reconstructions (M, D) and samples of the prior (N, D)."""
    reconstructed = model.reconstruct(held.corrupted, 1 - held.mask).numpy()
    count = min(GENERATED, SCORED_PIXELS // held.clean.shape[1])
    generated = model.generate(count, (settings.seed, training.PRIOR)).numpy()
    losses = training.held_out_losses(model, held.corrupted, held.clean)
    scores = {**losses, **score(held, reconstructed)}
    if held.classify:
        classes, confidence = held.classify(generated)
        scores["generated_confidence"] = confidence.mean()
        scores["generated_classes"] = baselines.effective_number(classes)
    return scores, (reconstructed, generated)


def refined(model, refine, corrupted, mask, grey_variance):
    """Return reconstructions (M, D) from refined posteriors, and their predictive std (M, D)."""
    mean, log_var, _ = refine(corrupted, 1 - mask, *model.encode(corrupted))
    std = inference.predictive_std(model, mean, log_var, mask, grey_variance, training.PRIOR)
    return model.expectation(mean).numpy(), std


def posterior_rows(settings, model, refine, held):
    """Return rows from refined posteriors: {label: (SHOWN, D)}, or {} if none can be refined.

    The uncertainty is shown in the holes only.
    """
    if not corrupt.exact_where_observed(settings):
        return {}
    corrupted, mask = held.corrupted[:SHOWN], held.mask[:SHOWN]
    reconstructed, std = refined(model, refine, corrupted, mask, held.grey_variance)
    seed = settings.seed, training.PRIOR
    samples = inference.completions(model, refine, corrupted, 1 - mask, COMPLETIONS, seed).numpy()
    completions = {f"completion {i + 1}": row for i, row in enumerate(samples)}
    return {"refined": reconstructed, **completions, "uncertainty": std * mask}


def calibration(held, reconstructed, std):
    """Compare the predictive std (M, D) with the actual error in the holes.

    Returns the RMS error divided by the RMS std, which is 1 if calibrated. Also returns the NLL of
    the missing pixels under the reconstruction, in nats per pixel.
    """
    hole = held.mask == 1
    clean, p = held.clean[hole], np.clip(reconstructed[hole], 1e-3, 1 - 1e-3)
    variance = max(1e-12, np.mean(std[hole] ** 2))
    ratio = np.sqrt(np.mean((clean - reconstructed[hole]) ** 2) / variance)
    nll = -np.mean(clean * np.log(p) + (1 - clean) * np.log(1 - p))
    return {"hole_error_over_std": ratio, "hole_nats_per_pixel": nll}


def baseline_estimates(kind, held, train_images, ours):
    """Return {method: estimate (M, D)}: the input first, the originals last.

    ours: the model's estimates, {method: (M, D)}. Each also fills the holes of the input.
    """
    size = train_images[0].size
    searched = train_images[: NEAREST_PIXELS // size].reshape(-1, size)
    nearest = baselines.nearest_fill(held.corrupted, held.mask, searched)
    filled = {
        f"holes filled by the {name}": np.where(held.mask == 1, estimate, held.corrupted)
        for name, estimate in ours.items()
    }
    return {
        "holes black (the input)": held.corrupted,
        f"holes filled with the mean {kind}": held.mean_filled,
        f"holes filled from the nearest {kind}": nearest,
        **ours,
        **filled,
        "originals": held.clean,
    }


def final_table(settings, model, refine, held, images, reconstructed):
    """Return the scores of the model and the baselines, one row per method."""
    ours = {METHOD: reconstructed}
    if corrupt.exact_where_observed(settings):
        ours[REFINED], std = refined(model, refine, held.corrupted, held.mask, held.grey_variance)
    methods = baseline_estimates(image_kind(settings), held, images.train, ours)
    rows = {name: {"method": name, **score(held, each)} for name, each in methods.items()}
    if REFINED in ours:
        rows[REFINED].update(calibration(held, ours[REFINED], std))
    return [*rows.values()]


def draw(settings, shape, held, estimates, further_rows, iteration):
    """Return a checkpoint's figures as {file name: function that saves it to a path}."""
    reconstructed, generated = estimates
    rows = {"original": held.clean, "corrupted": held.corrupted, "reconstructed": reconstructed}
    rows |= further_rows
    rows = {label: np.reshape(row[:SHOWN], (-1, *shape)) for label, row in rows.items()}
    mask = held.mask[:SHOWN].reshape(-1, *shape)
    damage = corrupt.describe(settings.corruption, settings.amount, settings.noise)
    generated = generated.reshape(-1, *shape)
    one_hole, kind = settings.corruption == "block", image_kind(settings)
    return digit_figures.checkpoint(kind, damage, iteration, rows, mask, one_hole, generated)


def image_kind(settings):
    return "image" if settings.data else "digit"


def main(settings):
    with Run(settings, report.files, report.WRITTEN, COLUMNS) as run:
        images = image_files.load_images(settings.data, settings.size)
        run.record(images.provenance)
        print(images.summary)
        held, shape = held_out(settings, images), images.train.shape[1:]
        data = settings.data and os.path.abspath(settings.data)
        metadata = {"experiment": settings.experiment, "shape": list(shape), "data": data}
        metadata["sha256"] = images.provenance["sha256"]
        size, strategy = held.clean.shape[1], run.workers.strategy
        model = training.build_model(settings, size, "bernoulli", metadata, strategy)
        refine = inference.refiner(model)
        batches = partial(make_batch, settings, tf.constant(images.train))
        for iteration, train_loss in training.train(model, batches, settings, run):
            scores, estimates = evaluate(settings, model, held)
            rows = posterior_rows(settings, model, refine, held)
            files = draw(settings, shape, held, estimates, rows, iteration)
            run.log(iteration, {"train_loss": train_loss, **scores}, files)
        table = final_table(settings, model, refine, held, images, estimates[0])
        variance = held.grey_variance
        run.save(play.files(model, held.clean, held.labels, grey_variance=variance))
        run.finish(model, table)
        print(verdict.digits(table))
    say(f"Look at {settings.out / 'index.html'}")


if __name__ == "__main__":
    with cli.one_line_errors():
        main(cli.parse(Settings, __doc__))

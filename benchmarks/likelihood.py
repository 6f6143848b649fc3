"""Test likelihood of MNIST under a plain VAE and denoising VAEs, at equal budget.

    python benchmarks/likelihood.py --iters 20000 --seeds 2          # train what is missing, then print the table
    python benchmarks/likelihood.py --table                          # print it from what is saved

Dynamically binarized digits, all 60,000 for training; log p(x) of the test digits by importance sampling, the
encoder shown the clean digit (arXiv 1511.06406). Needs the full MNIST: Keras's cache, a network, or --data. Each
trained model stays in the results folder, and so does a JSON file with each of its scores: a run that was stopped
goes on with the next model, and more importance samples need no new training.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

import image_utils
import training
from corrupt import CORRUPTIONS
from harness import cli
from harness.quiet_tensorflow import tf
from harness.run_folder import replacing
from media.image_files import load_images
from media.model_file import load_model
from mnist_dvae import flat
from models import DVAE, keras

MODELS = {  # name: corruption, amount
    "VAE": ("none", 0.0),
    "DVAE, salt-and-pepper 5 %": ("salt-pepper", 0.05),
    "DVAE, salt-and-pepper 10 %": ("salt-pepper", 0.10),
    "DVAE, block 20 %": ("block", 0.20),
}
GROUPED = "iters", "network", "samples", "digits", "model"  # a row of the table is of results alike in these
PUBLISHED = {  # test NLL in nats, dynamic binarization, 5,000 importance samples: arXiv 1509.00519, table 1
    "VAE, one stochastic layer (Burda et al. 2016)": 86.76,
    "IWAE, k = 50, one stochastic layer (same)": 84.78,
}


def binarized(images, seed):
    """Pixels drawn anew from their grey levels: (B, H, W) in [0, 1] -> the same of 0 and 1."""
    return tf.cast(tf.random.stateless_uniform(images.shape, seed) < images, tf.float32)


def fitted(settings, name, seed, train_images):
    """The model trained at the settings: from its file, or trained now and saved, its CPU minutes in its metadata."""
    path = settings.results / f"{stem(settings, name, seed)}.keras"
    if path.exists():
        return load_model(path)
    corruption, amount = MODELS[name]
    keras.utils.set_random_seed(seed)
    network = settings.hidden, settings.latent, settings.components
    model = DVAE(28 * 28, "bernoulli", *network, metadata={"experiment": "likelihood"})

    def make_batch(batch_seed, count):
        image_seed, pixel_seed, damage_seed = tf.unstack(tf.random.split(batch_seed, 3))
        clean = binarized(image_utils.random_images(train_images, count, image_seed), pixel_seed)
        corrupted, _ = CORRUPTIONS[corruption](clean, amount, damage_seed)
        return flat(corrupted), flat(clean)

    started = time.process_time()
    for _ in training.train(model, make_batch, argparse.Namespace(**vars(settings), seed=seed)):
        pass
    model.metadata["minutes"] = (time.process_time() - started) / 60
    with replacing(path) as beside:
        model.save(beside)
    return model


def test_scores(model, images, samples):
    """Importance-sampled NLL and negative ELBO of each test digit, nats: (M,), (M,)."""

    @tf.function(reduce_retracing=True)
    def score(clean, seed):
        noise = tf.random.stateless_normal((len(clean), model.latent), seed)
        decoded, *posterior = model(clean, noise=noise)
        return -model.log_likelihood(clean, clean, samples, seed), model.nll(clean, decoded) + model.kl(*posterior)

    clean = flat(binarized(image_utils.grey(images), training.HELD_OUT_SEED))
    parts = [score(part, tf.constant((7, k))) for k, part in enumerate(tf.split(clean, max(1, len(images) // 1000)))]
    return (np.concatenate(values) for values in zip(*parts))


def stem(settings, name, seed):
    """The name of a model's files: everything that makes it what it is."""
    what = "-".join(map(str, settings.hidden)), settings.latent, settings.components, settings.iters
    what = name, *what, settings.batch_size, f"{settings.learning_rate:g} seed", seed
    return " ".join(map(str, what)).replace(" %", "%")


def table(results):
    """Markdown rows: model, mean NLL over the seeds, its standard error, the same for the ELBO, CPU time."""
    lines = [
        "| model | network, components | iterations | test NLL [nats] | - ELBO [nats] | training [CPU min] | seeds |",
        "|---|---|---|---|---|---|---|",
    ]
    groups = {}
    for path in sorted(results.glob("*.json")):
        result = json.loads(path.read_text())
        groups.setdefault(tuple(result[name] for name in GROUPED), []).append(result)
    for group, runs in sorted(groups.items()):
        iters, network, samples, digits, model = group
        nll, elbo, minutes = (np.array([one[name] for one in runs]) for name in ("nll", "negative_elbo", "minutes"))
        spread = f" ± {nll.std(ddof=1) / np.sqrt(len(nll)):.2f}" if len(nll) > 1 else ""
        lines.append(
            f"| {model} ({samples} samples, {digits} digits) | {network} | {iters} | {nll.mean():.2f}{spread} "
            f"| {elbo.mean():.2f} | {minutes.mean():.1f} | {len(runs)} |"
        )
    lines += [f"| {name} | 784-200-200-50, 1 | | {nll:.2f} | | | |" for name, nll in PUBLISHED.items()]
    return "\n".join(lines)


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--iters", type=int, default=20000)
    flags.add_argument("--seeds", type=int, default=2)
    flags.add_argument("--hidden", type=cli.layer_widths, default=(512, 512))
    flags.add_argument("--latent", type=int, default=50)
    flags.add_argument(
        "--components", type=int, default=500, help="of the prior; 1 is the plain autoencoder's Gaussian"
    )
    flags.add_argument("--batch-size", type=int, default=128)
    flags.add_argument("--learning-rate", type=float, default=2e-3)
    flags.add_argument("--samples", type=int, default=5000, help="importance samples a digit")
    flags.add_argument("--digits", type=int, default=10000, help="test digits scored")
    flags.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    flags.add_argument("--results", type=Path, default=Path("plots/likelihood"))
    flags.add_argument("--data", help="an .npz file with Keras's keys")
    flags.add_argument("--table", action="store_true", help="only print the table of what is saved")
    settings = flags.parse_args()

    settings.results.mkdir(parents=True, exist_ok=True)
    if not settings.table:
        images = load_images(settings.data)
        if len(images.train) != 60000:
            raise SystemExit(f"{images.source}. The published figures are for all of them.")
        train_images = tf.constant(images.train)
        for seed in range(settings.seeds):
            for name in settings.models:
                samples, digits = settings.samples, settings.digits
                path = settings.results / f"{stem(settings, name, seed)} {samples}x{digits}.json"
                if path.exists():
                    continue
                print(path.stem, flush=True)
                model = fitted(settings, name, seed, train_images)
                nll, negative_elbo = test_scores(model, images.test[:digits], samples)
                result = {"model": name, "iters": settings.iters, "seed": seed, "samples": samples, "digits": digits}
                result["network"] = (
                    f"784-{'-'.join(map(str, settings.hidden))}-{settings.latent}, {settings.components}"
                )
                result |= {"nll": float(nll.mean()), "nll_standard_error": float(nll.std() / len(nll) ** 0.5)}
                result |= {"negative_elbo": float(negative_elbo.mean()), "minutes": model.metadata["minutes"]}
                with replacing(path) as beside:
                    beside.write_text(json.dumps(result, indent=2) + "\n")
                print(json.dumps(result), flush=True)
    print(table(settings.results))


if __name__ == "__main__":
    main()

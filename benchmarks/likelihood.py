"""Test likelihood of MNIST under a plain VAE and denoising VAEs, at equal budget.

    python benchmarks/likelihood.py --iters 20000 --seeds 2          # train what is missing, then print the table
    python benchmarks/likelihood.py --table                          # print it from what is saved

Dynamically binarized digits, all 60,000 for training; log p(x) of the test digits by importance sampling, the
encoder shown the clean digit (arXiv 1511.06406), and of some training digits. Needs the full MNIST: Keras's cache, a
network, or --data. Each trained model's weights stay in the results folder, and so does a JSON file with each of its
scores: a run that was stopped goes on with the next model, and more importance samples need no new training.
"""

import argparse
import itertools
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

import image_utils
import training
from corrupt import CORRUPTIONS
from files.image_files import load_images
from harness import UserError, cli
from harness.quiet_tensorflow import tf
from harness.run_folder import replacing
from mnist_dvae import flat
from models import DVAE, keras

MODELS = {  # name: corruption, amount
    "VAE": ("none", 0.0),
    "DVAE, salt-and-pepper 5 %": ("salt-pepper", 0.05),
    "DVAE, salt-and-pepper 10 %": ("salt-pepper", 0.10),
    "DVAE, block 20 %": ("block", 0.20),
}
DRAWS, FINISH_BATCH, FINISH_RATE = (
    5,
    64,
    0.25,
)  # the last iterations': draws of z, digits, share of the learning rate
KL_WARM_UP = 0.2  # of the iterations
TRAIN_DIGITS = 2000  # scored beside the test digits
SETTINGS = (
    "iters",
    "finish",
    "batch_size",
    "learning_rate",
    "samples",
    "digits",
)  # flags that a result depends on
GROUPED = "network", *SETTINGS, "model"  # a row of the table is of results alike in these
PUBLISHED = {  # test NLL in nats, dynamic binarization, 5,000 importance samples: arXiv 1509.00519, table 1
    "VAE, one stochastic layer (Burda et al. 2016)": 86.76,
    "IWAE, k = 50, one stochastic layer (same)": 84.78,
}


def binarized(images, seed):
    """Pixels drawn anew from their grey levels: (B, H, W) in [0, 1] -> the same of 0 and 1."""
    return tf.cast(tf.random.stateless_uniform(images.shape, seed) < images, tf.float32)


def gated_layers(name, sizes, scales):
    """As `models.dense_layers`, with gated linear units instead of ReLU: Dauphin et al. 2017 (arXiv 1612.08083).

    All kernels start at Glorot's scale: `scales` is ignored.
    """
    values = inputs = keras.Input(sizes[:1])
    for size in sizes[1:-1]:
        values, gate = keras.ops.split(keras.layers.Dense(2 * size)(values), 2, axis=-1)
        values = values * keras.ops.sigmoid(gate)
    return keras.Model(inputs, keras.layers.Dense(sizes[-1])(values), name=name)


class Trained(DVAE):
    """A DVAE for the importance-weighted bound too: Burda et al. 2016 (arXiv 1509.00519), equation 8.

    Each `draws` rows are then one example, encoded once and decoded from so many draws of z.
    """

    draws = 1

    def encode(self, inputs):
        return [
            tf.repeat(part, self.draws, axis=0) for part in super().encode(inputs[:: self.draws])
        ]

    def kl(self, z, mean, log_var):
        """Its gradient goes through z alone: the same on average, less noisy near the end, but it may diverge early.

        Roeder, Wu, Duvenaud 2017 (arXiv 1703.09194).
        """
        return super().kl(z, tf.stop_gradient(mean), tf.stop_gradient(log_var))

    def nll_and_kl(self, clean, outputs):
        """The two parts of the negative ELBO, or the negative bound and 0."""
        if self.draws == 1:
            return super().nll_and_kl(clean, outputs)
        decoded, *posterior = (
            outputs  # with the whole gradient: without a part of it, the bound's would be biased
        )
        log_weights = tf.reshape(
            -self.nll(clean, decoded) - super().kl(*posterior), (-1, self.draws)
        )
        return tf.reduce_mean(
            np.log(self.draws) - tf.reduce_logsumexp(log_weights, axis=1)
        ), tf.constant(0.0)


class Gated(Trained):
    side = staticmethod(gated_layers)


def fitted(settings, name, seed, train_images):
    """The model trained at the settings, and its CPU minutes: from its file, or trained now and saved."""
    path = settings.results / f"{stem(settings, name, seed)}.npz"
    keras.utils.set_random_seed(seed)
    network = settings.hidden, settings.latent, settings.components
    model = (Gated if settings.gated else Trained)(28 * 28, "bernoulli", *network)
    if path.exists():
        with np.load(path) as saved:
            model.set_weights([saved[f"arr_{i}"] for i in range(len(model.weights))])
            return model, float(saved["minutes"])
    (corruption, amount), train_images = MODELS[name], tf.constant(train_images)

    def make_batch(batch_seed, rows):
        image_seed, pixel_seed, damage_seed = tf.unstack(tf.random.split(batch_seed, 3))
        grey = image_utils.random_images(train_images, rows // model.draws, image_seed)
        clean = binarized(grey, pixel_seed)
        corrupted, _ = CORRUPTIONS[corruption](clean, amount, damage_seed)
        return tuple(tf.repeat(flat(part), model.draws, axis=0) for part in (corrupted, clean))

    started = time.process_time()
    rate = settings.learning_rate
    _train(
        model,
        make_batch,
        seed=seed,
        iters=settings.iters,
        learning_rate=rate,
        batch_size=settings.batch_size,
    )
    if settings.finish:
        model.draws, size = DRAWS, FINISH_BATCH * DRAWS
        options = {
            "iters": settings.finish,
            "learning_rate": FINISH_RATE * rate,
            "batch_size": size,
        }
        _train(model, make_batch, seed=seed + 1000, **options)  # other batches than before
        model.draws = 1
    minutes = (time.process_time() - started) / 60
    with replacing(path) as beside, open(beside, "wb") as file:
        np.savez(file, *model.get_weights(), minutes=minutes)
    return model, minutes


def _train(model, make_batch, **settings):
    for _ in training.train(
        model, make_batch, argparse.Namespace(kl_warm_up=KL_WARM_UP, **settings)
    ):
        pass


def test_scores(model, images, samples):
    """Importance-sampled NLL and negative ELBO of each test digit, nats: (M,), (M,)."""

    @tf.function(reduce_retracing=True)
    def score(clean, seed):
        noise = tf.random.stateless_normal((len(clean), model.latent), seed)
        decoded, *posterior = model(clean, noise=noise)
        return -model.log_likelihood(clean, clean, samples, seed), model.nll(
            clean, decoded
        ) + model.kl(*posterior)

    clean = flat(binarized(image_utils.grey(images), training.HELD_OUT_SEED))
    parts = [
        score(part, tf.constant((7, k)))
        for k, part in enumerate(tf.split(clean, max(1, len(images) // 1000)))
    ]
    return (np.concatenate(values) for values in zip(*parts))


def scored(settings, name, seed, images):
    """The scores of one model, trained if need be, and what it is: the contents of its JSON file."""
    model, minutes = fitted(settings, name, seed, images.train)
    nll, negative_elbo = test_scores(model, images.test[: settings.digits], settings.samples)
    train_nll, _ = test_scores(
        model, images.train[:: len(images.train) // TRAIN_DIGITS], settings.samples
    )
    network = (
        f"784-{'-'.join(map(str, settings.hidden))}-{settings.latent}{' gated' * settings.gated}"
    )
    return {
        **{
            "model": name,
            "network": f"{network}, {settings.components}",
            "seed": seed,
            "minutes": minutes,
        },
        **{flag: getattr(settings, flag) for flag in SETTINGS},
        **{"nll": float(nll.mean()), "nll_standard_error": float(nll.std() / len(nll) ** 0.5)},
        **{"train_nll": float(train_nll.mean()), "negative_elbo": float(negative_elbo.mean())},
    }


def stem(settings, name, seed):
    """The name of a model's files: all flags that make it what it is."""
    what = (
        "-".join(map(str, settings.hidden)),
        "gated" if settings.gated else "ReLU",
        settings.latent,
    )
    what = (
        name,
        *what,
        settings.components,
        f"{settings.iters}+{settings.finish}",
        settings.batch_size,
    )
    return " ".join(map(str, (*what, f"{settings.learning_rate:g} seed", seed))).replace(" %", "%")


def table(results):
    """Markdown rows: mean NLL over the seeds and its standard error, of training digits too, ELBO, CPU time."""
    lines = [
        "| model | network, components | iterations | test NLL | train NLL | test - ELBO | CPU minutes | each seed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    groups = {}
    for path in sorted(results.glob("*.json")):
        result = json.loads(path.read_text())
        groups.setdefault(tuple(result[name] for name in GROUPED), []).append(result)
    for group, runs in sorted(groups.items()):
        what = dict(zip(GROUPED, group))
        nll = np.array([one["nll"] for one in runs])
        others = (
            np.mean([one[name] for one in runs])
            for name in ("train_nll", "negative_elbo", "minutes")
        )
        spread = f" ± {nll.std(ddof=1) / np.sqrt(len(nll)):.2f}" if len(nll) > 1 else ""
        cells = (
            f"{what['model']} ({what['samples']} samples, {what['digits']} digits)",
            what["network"],
        )
        cells = (
            *cells,
            f"{what['iters']} + {what['finish']} of {what['batch_size']} at {what['learning_rate']:g}",
        )
        cells = *cells, f"{nll.mean():.2f}{spread}", *(f"{other:.2f}" for other in others)
        lines.append(f"| {' | '.join(cells)} | {', '.join(f'{one:.2f}' for one in nll)} |")
    lines += [
        f"| {name} | 784-200-200-50, 1 | | {nll:.2f} | | | | |" for name, nll in PUBLISHED.items()
    ]
    return "\n".join(lines)


def main():
    flags = cli.Parser(__doc__)
    flags.add_argument("--iters", type=int, default=20000)
    flags.add_argument(
        "--finish", type=int, default=0, help="further iterations, on the importance-weighted bound"
    )
    flags.add_argument("--seeds", type=int, default=2)
    flags.add_argument("--hidden", type=cli.layer_widths, default=(512, 512))
    flags.add_argument(
        "--gated", action="store_true", help="hidden layers of gated linear units instead of ReLU"
    )
    flags.add_argument("--latent", type=int, default=50)
    flags.add_argument(
        "--components",
        type=int,
        default=500,
        help="of the prior; 1 is the plain autoencoder's Gaussian",
    )
    flags.add_argument("--batch-size", type=int, default=128)
    flags.add_argument("--learning-rate", type=float, default=2e-3)
    flags.add_argument("--samples", type=int, default=5000, help="importance samples a digit")
    flags.add_argument("--digits", type=int, default=10000, help="test digits scored")
    flags.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    flags.add_argument("--results", type=Path, default=Path("plots/likelihood"))
    flags.add_argument(
        "--data", help="an .npz file with Keras's keys, or a folder of MNIST's original files"
    )
    flags.add_argument("--table", action="store_true", help="only print the table of what is saved")
    settings = flags.parse_args()

    settings.results.mkdir(parents=True, exist_ok=True)
    if not settings.table:
        images = load_images(settings.data)
        if len(images.train) != 60000:
            raise UserError(f"{images.source}. The published figures are for all of them.")
        for seed, name in itertools.product(range(settings.seeds), settings.models):
            path = (
                settings.results
                / f"{stem(settings, name, seed)} {settings.samples}x{settings.digits}.json"
            )
            if not path.exists():
                print(path.stem, flush=True)
                result = scored(settings, name, seed, images)
                with replacing(path) as beside:
                    beside.write_text(json.dumps(result, indent=2) + "\n")
                print(json.dumps(result), flush=True)
    print(table(settings.results))


if __name__ == "__main__":
    with cli.one_line_errors():
        main()

"""Compare the test likelihood of MNIST under a VAE and denoising VAEs, trained equally long.

    python benchmarks/likelihood.py --iters 20000 --seeds 2    # train missing models, print table
    python benchmarks/likelihood.py --table                    # print the table of saved results

Training uses all 60,000 digits, dynamically binarized. The log likelihood of the test digits and of
some training digits is estimated by importance sampling. The encoder's input is the clean digit
(arXiv 1511.06406). The full MNIST is needed. It is read from --data or from Keras's cache, or
downloaded.

The results folder stores the weights and scores of each model. An interrupted run therefore resumes
with the first unfinished model, and scoring with more importance samples needs no training.
"""

import argparse
import itertools
import json
import math
import operator
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
from harness.result_files import replacing
from models import DVAE, gaussian_log_density, keras, reparameterize

MODELS = {  # name: corruption, fraction of the pixels
    "VAE": ("none", 0.0),
    "DVAE, salt-and-pepper 5%": ("salt-pepper", 0.05),
    "DVAE, salt-and-pepper 10%": ("salt-pepper", 0.10),
    "DVAE, block 20%": ("block", 0.20),
}
KL_WARM_UP = 0.2  # fraction of the iterations over which the weight of the KL divergence rises to 1
FINISH_DRAWS = 5  # samples of z per digit in --finish iterations
FINISH_BATCH = 64  # digits per batch in --finish iterations
FINISH_RATE = 0.25  # learning rate in --finish iterations, as a fraction of --learning-rate
TRAIN_DIGITS = 2000  # number of training digits that are scored
SETTINGS = "iters", "finish", "batch_size", "learning_rate", "samples", "digits"
GROUPED = "network", *SETTINGS, "model"  # results that agree in all of these share a table row
HEADER = """\
| model | network, components | iterations | test NLL | train NLL | test - ELBO | CPU minutes \
| test NLL of each seed |
|---|---|---|---|---|---|---|---|
"""
# From arXiv 1509.00519, table 1: dynamic binarization, 5,000 importance samples
PUBLISHED = """
| VAE, one stochastic layer (Burda et al. 2016) | 784-200-200-50, 1 | | 86.76 | | | | |
| IWAE, k = 50, one stochastic layer (same) | 784-200-200-50, 1 | | 84.78 | | | | |"""


def flat(images):
    """Flatten digits: (B, 28, 28) -> (B, 784)."""
    return tf.reshape(images, (-1, 28 * 28))


def binarized(images, seed):
    """Sample binary pixels whose probabilities are the grey levels: (B, H, W) -> (B, H, W)."""
    return tf.cast(tf.random.stateless_uniform(images.shape, seed) < images, tf.float32)


def log_likelihood(model, inputs, clean, samples, seed):
    """Estimate log p(clean), in nats, by importance sampling: (B, D), (B, D) -> (B,).

    Returns log 1/K sum_k p(x | z_k) p(z_k) / q(z_k) for K = `samples` draws z_k from q(z | inputs).
    Its expectation is a lower bound (Burda, Grosse, Salakhutdinov 2016, arXiv 1509.00519, eq. 8).
    seed: a pair of integers. Also works inside a `tf.function`.
    """
    mean, log_var = model.encode(inputs)
    total = tf.fill(tf.shape(mean)[:1], -math.inf)
    for k in tf.range(samples):
        noise = tf.random.stateless_normal(tf.shape(mean), tf.random.fold_in(seed, k))
        z = reparameterize(mean, log_var, noise)
        log_joint = model.log_prior(z) - model.nll(clean, model.decoder(z))
        log_weight = log_joint - gaussian_log_density(z, mean, log_var)
        total = tf.experimental.numpy.logaddexp(total, log_weight)
    return total - tf.math.log(tf.cast(samples, tf.float32))


def gated_layers(name, sizes, scales, activation):
    """Return dense layers with gated linear units (Dauphin et al. 2017, arXiv 1612.08083).

    Has the signature of `models.dense_layers`, but ignores `scales` (kernels use Glorot's scale)
    and `activation`.
    """
    values = inputs = keras.Input(sizes[:1])
    for size in sizes[1:-1]:
        values, gate = keras.ops.split(keras.layers.Dense(2 * size)(values), 2, axis=-1)
        values = values * keras.ops.sigmoid(gate)
    return keras.Model(inputs, keras.layers.Dense(sizes[-1])(values), name=name)


class Trained(DVAE):
    """A DVAE that can also be trained on the importance-weighted bound (arXiv 1509.00519, eq. 8).

    For this bound, `draws` consecutive rows of a batch are the same example. The example is encoded
    once, and each row gets its own sample of z.
    """

    draws = 1

    def encode(self, inputs):
        codes = super().encode(inputs[:: self.draws])
        return [tf.repeat(part, self.draws, axis=0) for part in codes]

    def kl(self, z, mean, log_var):
        """Return log q(z) - log p(z) with a gradient through z alone.

        It has the same mean as the full gradient and less noise near convergence, but training can
        diverge early (Roeder, Wu, Duvenaud 2017, arXiv 1703.09194).
        """
        return super().kl(z, tf.stop_gradient(mean), tf.stop_gradient(log_var))

    def nll_and_kl(self, clean, outputs):
        """Return the NLL and the KL divergence, or the negative bound and 0 if `draws` > 1."""
        if self.draws == 1:
            return super().nll_and_kl(clean, outputs)
        decoded, *posterior = outputs
        # Use the full gradient of the KL divergence; otherwise this gradient would be biased.
        log_weights = -self.nll(clean, decoded) - super().kl(*posterior)
        log_sums = tf.reduce_logsumexp(tf.reshape(log_weights, (-1, self.draws)), axis=1)
        return tf.reduce_mean(np.log(self.draws) - log_sums), tf.constant(0.0)


class Gated(Trained):
    build_layers = staticmethod(gated_layers)


def fit(settings, model, name, seed, train_images):
    """Train a model on the ELBO, then for --finish iterations on the importance-weighted bound."""
    corruption, amount = MODELS[name]

    def make_batch(batch_seed, rows):
        image_seed, pixel_seed, corruption_seed = tf.unstack(tf.random.split(batch_seed, 3))
        grey = image_utils.random_images(train_images, rows // model.draws, image_seed)
        clean = binarized(grey, pixel_seed)
        corrupted, _ = CORRUPTIONS[corruption](clean, amount, corruption_seed)
        return tuple(tf.repeat(flat(part), model.draws, axis=0) for part in (corrupted, clean))

    def train(draws, digits, **options):
        model.draws = draws
        options |= {"batch_size": draws * digits, "kl_warm_up": KL_WARM_UP, "beta_2": 0.999}
        for _ in training.train(model, make_batch, argparse.Namespace(**options)):
            pass

    rate = settings.learning_rate
    train(1, settings.batch_size, iters=settings.iters, learning_rate=rate, seed=seed)
    if settings.finish:
        rate, seed = FINISH_RATE * rate, seed + 1000  # a new seed, for other batches
        train(FINISH_DRAWS, FINISH_BATCH, iters=settings.finish, learning_rate=rate, seed=seed)
    model.draws = 1


def load_or_fit(settings, name, seed, train_images):
    """Train a model, or load it if its file exists. Returns it and its CPU minutes of training."""
    path = settings.results / f"{stem(settings, name, seed)}.npz"
    keras.utils.set_random_seed(seed)
    network = settings.hidden, settings.latent, settings.components
    model = (Gated if settings.gated else Trained)(28 * 28, "bernoulli", *network)
    if path.exists():
        with np.load(path) as saved:
            model.set_weights([saved[f"arr_{i}"] for i in range(len(model.weights))])
            return model, float(saved["minutes"])
    started = time.process_time()
    fit(settings, model, name, seed, tf.constant(train_images))
    minutes = (time.process_time() - started) / 60
    with replacing(path) as beside, open(beside, "wb") as file:
        np.savez(file, *model.get_weights(), minutes=minutes)
    return model, minutes


def score(model, images, samples):
    """Binarize digits. Returns the NLL (M,) and the negative ELBO (M,) of each, in nats."""

    @tf.function(reduce_retracing=True)
    def score_part(clean, seed):
        noise = tf.random.stateless_normal((len(clean), model.latent), seed)
        decoded, *posterior = model(clean, noise=noise)
        negative_elbo = model.nll(clean, decoded) + model.kl(*posterior)
        return -log_likelihood(model, clean, clean, samples, seed), negative_elbo

    clean = flat(binarized(image_utils.grey(images), training.HELD_OUT_SEED))
    parts = tf.split(clean, max(1, len(images) // 1000))
    scores = [score_part(part, tf.constant((7, k))) for k, part in enumerate(parts)]
    return [np.concatenate(values) for values in zip(*scores)]


def result_of(settings, name, seed, images):
    """Train or load a model, and return its settings and scores for JSON."""
    model, minutes = load_or_fit(settings, name, seed, images.train)
    nll, negative_elbo = score(model, images.test[: settings.digits], settings.samples)
    some = images.train[:: len(images.train) // TRAIN_DIGITS]
    train_nll, _ = score(model, some, settings.samples)
    network = f"784-{'-'.join(map(str, settings.hidden))}-{settings.latent}"
    return {
        "model": name,
        "network": f"{network}{' gated' * settings.gated}, {settings.components}",
        "seed": seed,
        "minutes": minutes,
        **{flag: getattr(settings, flag) for flag in SETTINGS},
        "nll": float(nll.mean()),
        "nll_standard_error": float(nll.std() / len(nll) ** 0.5),
        "train_nll": float(train_nll.mean()),
        "negative_elbo": float(negative_elbo.mean()),
    }


def stem(settings, name, seed):
    """Return the stem of a model's file names, with all settings that determine its weights."""
    s, layers = settings, "gated" if settings.gated else "ReLU"
    network = f"{'-'.join(map(str, s.hidden))} {layers} {s.latent} {s.components}"
    schedule = f"{s.iters}+{s.finish} {s.batch_size} {s.learning_rate:g}"
    return f"{name} {network} {schedule} seed {seed}"


def table(folder):
    """Return the results in a folder as a Markdown table, with one row per model and settings."""
    results = [json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))]
    key = operator.itemgetter(*GROUPED)
    groups = itertools.groupby(sorted(results, key=key), key)
    return HEADER + "\n".join(row(list(runs)) for _, runs in groups) + PUBLISHED


def row(runs):
    """Return the table row of runs with different seeds: means, NLL standard error, each NLL."""
    values = {name: np.array([run[name] for run in runs]) for name in runs[0]}
    one, nll = runs[0], values["nll"]
    spread = f" ± {nll.std(ddof=1) / np.sqrt(len(nll)):.2f}" if len(nll) > 1 else ""
    cells = [
        f"{one['model']} ({one['samples']} samples, {one['digits']} digits)",
        one["network"],
        f"{one['iters']} + {one['finish']} of {one['batch_size']} at {one['learning_rate']:g}",
        f"{nll.mean():.2f}{spread}",
        *(f"{values[name].mean():.2f}" for name in ("train_nll", "negative_elbo", "minutes")),
        ", ".join(f"{each:.2f}" for each in nll),
    ]
    return f"| {' | '.join(cells)} |"


def read_flags():
    flags = cli.Parser(__doc__)
    add = flags.add_argument
    add("--iters", type=int, default=20000)
    add("--finish", type=int, default=0, help="more iterations, on the importance-weighted bound")
    add("--seeds", type=int, default=2)
    add("--hidden", type=cli.integers, default=(512, 512))
    add("--gated", action="store_true", help="gated linear units instead of ReLU")
    add("--latent", type=int, default=50)
    add("--components", type=int, default=500, help="Gaussians in the mixture prior")
    add("--batch-size", type=int, default=128)
    add("--learning-rate", type=float, default=2e-3)
    add("--samples", type=int, default=5000, help="importance samples per digit")
    add("--digits", type=int, default=10000, help="test digits scored")
    add("--models", nargs="+", choices=MODELS, default=list(MODELS))
    add("--results", type=Path, default=Path("plots/likelihood"))
    add("--data", help="MNIST: its original files in a folder, or an .npz file with Keras's keys")
    add("--table", action="store_true", help="only print the table of saved results")
    return flags.parse_args()


def main(settings):
    settings.results.mkdir(parents=True, exist_ok=True)
    if not settings.table:
        images = load_images(settings.data)
        if len(images.train) != 60000:
            found = f"expected 60,000 training digits, got {len(images.train):,}"
            raise UserError(f"--data: {found} ({images.source}); give all of MNIST")
        for seed, name in itertools.product(range(settings.seeds), settings.models):
            scoring = f"{settings.samples}x{settings.digits}"
            path = settings.results / f"{stem(settings, name, seed)} {scoring}.json"
            if not path.exists():
                print(path.stem, flush=True)
                result = result_of(settings, name, seed, images)
                with replacing(path) as beside:
                    beside.write_text(json.dumps(result, indent=2) + "\n")
                print(json.dumps(result), flush=True)
    print(table(settings.results))


if __name__ == "__main__":
    with cli.one_line_errors():
        main(read_flags())

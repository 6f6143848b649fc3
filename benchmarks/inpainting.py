"""SNR inside gaps of clean recordings: ours, each context alone, the plain autoregression, published figures.

    python benchmarks/inpainting.py sqam FOLDER             # ten recordings of a published comparison, its gaps.json
    python benchmarks/inpainting.py set FOLDER [MODEL]      # 20 ms every second and in every 64 ms, at 16 kHz
    python benchmarks/inpainting.py hour                    # time of an hour at 16 kHz with 20 ms every second

Mean over the gaps of each recording, then over the recordings, dB.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import soundfile

from audio_utils import snr_db
from baselines import autoregress as janssen
from media import fill_gaps, sound_files

LENGTHS = (5, 10, 20, 30, 40, 50)  # ms
PUBLISHED = {  # Mokry and Rajmic 2020 (IEEE/ACM TASLP), from the repository's own WAVs
    "Janssen (published)": (22.40, 18.82, 14.77, 10.08, 6.18, 3.64),
    "A-SPAIN (published)": (21.35, 17.90, 13.70, 10.11, 5.09, 2.63),
    "S-SPAIN H (published)": (21.33, 17.55, 13.32, 8.44, 4.28, 4.05),
    "l1, time-domain compensation (published)": (19.25, 16.24, 11.51, 9.55, 7.54, 6.03),
}
RATE = 16000  # Hz, of the sets
SECONDS = 10  # of each recording of a set
PLAIN = (1024, 2048, 4096, 8192)  # contexts of the plain autoregression, samples on each side


def plain(signal, gaps, number, context):
    """A gap by `baselines.autoregress` with a context, all gaps in it unknown: (end - first,)."""
    first, end = gaps[number]
    start, stop = max(first - context, 0), min(end + context, signal.size)
    mask = np.zeros(signal.size)
    for other in gaps:
        mask[slice(*other)] = 1
    part = janssen(signal[None, start:stop], mask[None, start:stop])[0]
    return part[first - start : end - start]


def scores(signal, gaps, network=None, classics=PLAIN):
    """Of one recording (T,), the mean SNR over its gaps by each way: {way: dB}. Gaps in silence do not count."""
    chopped = np.array(signal)
    for first, end in gaps:
        chopped[first:end] = 0
    ours = fill_gaps.fill(chopped, gaps)
    ways = {"**ours**": [ours[slice(*gap)] for gap in gaps]}
    if network is not None:
        network = network(chopped)
        ways["network"] = [network[slice(*gap)] for gap in gaps]
        both = fill_gaps.fill(chopped, gaps, network)
        ways["**ours with the network**"] = [both[slice(*gap)] for gap in gaps]
    for way in fill_gaps.CONTEXTS:  # the other gaps as our own rule has filled them
        found = [fill_gaps.autoregress(ours, [gap], *way)[0] for gap in gaps]
        ways["context {}, order {}".format(*way)] = found
    for context in classics:
        ways[f"plain autoregression, {context}"] = [plain(chopped, gaps, n, context) for n in range(len(gaps))]
    loud = [number for number, gap in enumerate(gaps) if np.std(signal[slice(*gap)]) > 1e-4]
    return {
        way: np.mean([snr_db(signal[slice(*gaps[number])], found[number]) for number in loud]) if loud else np.nan
        for way, found in ways.items()
    }


def print_means(columns, published=None):
    """{column: [{way: dB} of each recording]} as a Markdown table, its best-known rivals below."""
    rows = {
        way: [np.nanmean([recording[way] for recording in recordings]) for recordings in columns.values()]
        for way in next(iter(columns.values()))[0]
    }
    print("| dB |", " | ".join(columns), "|\n|" + "---|" * (len(columns) + 1))
    for way, values in {**rows, **(published or {})}.items():
        print(f"| {way} |", " | ".join(f"{value:.2f}" for value in values), "|", flush=True)


def sqam(folder):
    stretches, columns = json.loads((folder / "gaps.json").read_text()), {f"{length} ms": [] for length in LENGTHS}
    for path in sorted(folder.glob("*.wav")):
        signal = soundfile.read(path)[0]
        for length in LENGTHS:
            columns[f"{length} ms"].append(scores(signal, stretches[f"{path.stem[:3]}_{length}"], classics=()))
    print_means(columns, PUBLISHED)


def a_set(folder, model):
    network = model and _network(model)
    columns = {"20 ms every second": [], "20 ms in every 64 ms": []}
    paths, _ = sound_files._find(folder)
    for path in paths:
        signal = np.concatenate(list(sound_files.decode(path, RATE)))[: SECONDS * RATE].astype(float)
        for name, step in zip(columns, (RATE, 1024)):
            used = signal if step == RATE else signal[: 2 * RATE]
            starts = np.arange(used.size // step) * step
            starts += np.random.default_rng(0).integers(0, step - 320, starts.size)
            columns[name].append(scores(used, np.stack([starts, starts + 320], 1), network))
    print_means(columns)


def _network(path):
    """The restorer of a model at RATE, its input brought to the level it was trained at: (T,) -> (T,)."""
    from inference import HOPS_A_WINDOW, restore
    from media.model_file import load_restorer

    model = load_restorer(path)

    def estimate(chopped):
        gain = model.metadata["rms"] / np.sqrt(np.mean(chopped[chopped != 0] ** 2))
        options = model.reconstruct, model.input_size, model.input_size // HOPS_A_WINDOW
        return restore((gain * chopped).astype(np.float32), (chopped == 0).astype(np.float32), *options) / gain

    return estimate


def hour(minutes=1):
    rng, tone = np.random.default_rng(0), np.sin(np.arange(60 * minutes * RATE) / 5)
    starts = np.arange(60 * minutes) * RATE + rng.integers(0, RATE - 320, 60 * minutes)
    started = time.perf_counter()
    fill_gaps.fill(tone + 0.1 * rng.standard_normal(tone.size), np.stack([starts, starts + 320], 1))
    print(f"{(time.perf_counter() - started) * 60 / minutes:.0f} s for an hour, from {minutes} minute")


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("what", choices=["sqam", "set", "hour"])
    flags.add_argument("folder", type=Path, nargs="?")
    flags.add_argument("model", type=Path, nargs="?", help="a finished run of sound_dvae.py")
    settings = flags.parse_args()
    if settings.what == "hour":
        hour()
    elif settings.what == "sqam":
        sqam(settings.folder)
    else:
        a_set(settings.folder, settings.model)


if __name__ == "__main__":
    main()

"""SNR inside the gaps of clean recordings: our rule, each of its contexts alone, plain autoregression, published ones.

    python benchmarks/inpainting.py sqam FOLDER             # ten recordings of a published comparison, gaps.json
    python benchmarks/inpainting.py set FOLDER [MODEL]      # 20 ms every second and in every 64 ms, at 16 kHz

Mean over the gaps of a recording, then over recordings, dB; and what our rule took for a gap, ms of one core.
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
from baselines import autoregress
from inference import HOPS_A_WINDOW, restore
from media import fill_gaps, sound_files
from media.gaps import inside
from media.model_file import load_restorer

LENGTHS = (5, 10, 20, 30, 40, 50)  # ms
PUBLISHED = {  # Mokry and Rajmic 2020 (IEEE/ACM TASLP), recomputed from that repository's WAVs
    "Janssen": (22.40, 18.82, 14.77, 10.08, 6.18, 3.64),
    "A-SPAIN": (21.35, 17.90, 13.70, 10.11, 5.09, 2.63),
    "S-SPAIN H": (21.33, 17.55, 13.32, 8.44, 4.28, 4.05),
    "l1, time-domain compensation": (19.25, 16.24, 11.51, 9.55, 7.54, 6.03),
}
RATE = 16000  # of the sets
PLAIN = (1024, 2048, 4096, 8192)  # contexts of plain autoregression, samples on each side


def plain(chopped, mask, gap, context):
    """A gap by `baselines.autoregress`, all gaps of its context unknown: (end - first,)."""
    start, stop = max(gap[0] - context, 0), gap[1] + context
    return autoregress(chopped[None, start:stop], mask[None, start:stop])[0, gap[0] - start : gap[1] - start]


def scores(signal, gaps, network=None, contexts=()):
    """{way: mean SNR over the gaps of a recording (T,), dB}; gaps in silence do not count."""
    mask = inside(np.array(gaps), 0, signal.size)
    chopped, started = signal * ~mask, time.process_time()
    ours = fill_gaps.fill(chopped, gaps)
    took = 1e3 * (time.process_time() - started) / len(gaps)
    ways = {"**our rule**": lambda gap: ours[slice(*gap)]}
    if network:
        drawn = network(chopped)
        both = fill_gaps.fill(chopped, gaps, drawn)
        ways |= {"network": lambda gap: drawn[slice(*gap)], "**rule and network**": lambda gap: both[slice(*gap)]}
    for way in fill_gaps.CONTEXTS:  # the other gaps as our rule has filled them
        ways["context {}, order {}".format(*way)] = lambda gap, way=way: fill_gaps.autoregress(ours, [gap], *way)[0]
    for context in contexts:
        ways[f"plain, context {context}"] = lambda gap, context=context: plain(chopped, mask, gap, context)
    loud = [gap for gap in gaps if np.std(signal[slice(*gap)]) > 1e-4]
    dB = {way: [snr_db(signal[slice(*gap)], fill(gap)) for gap in loud] for way, fill in ways.items()}
    return {way: np.mean(values) if values else np.nan for way, values in dB.items()} | {"ms": took}


def print_means(columns, published):
    """{column: [{way: dB} of each recording]} as a Markdown table."""
    rows = {way: [] for recordings in columns.values() for way in recordings[0]}
    for way, values in rows.items():
        found = [[row[way] for row in part if np.isfinite(row.get(way, np.nan))] for part in columns.values()]
        values += [np.mean(part) if part else np.nan for part in found]
    print("| dB |", " | ".join(columns), "|\n|" + "---|" * (len(columns) + 1))
    for way, values in {**rows, **published}.items():
        print(f"| {way} |", " | ".join("" if np.isnan(value) else f"{value:.2f}" for value in values), "|")


def estimator(folder):
    """A model's `restore`, its input brought to the level that it was trained at: (T,) -> (T,)."""
    model = load_restorer(folder)
    options = model.reconstruct, model.input_size, model.input_size // HOPS_A_WINDOW

    def estimate(chopped):
        gain = model.metadata["rms"] / np.sqrt(np.mean(chopped[chopped != 0] ** 2))
        return restore(np.float32(gain * chopped), np.float32(chopped == 0), *options) / gain

    return estimate


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("kind", choices=("sqam", "set"))
    flags.add_argument("folder", type=Path)
    flags.add_argument("model", type=Path, nargs="?", help="a finished run of sound_dvae.py")
    settings = flags.parse_args()
    published, columns = PUBLISHED if settings.kind == "sqam" else {}, {}
    network = settings.model and estimator(settings.model)
    for path in sorted(path for path in settings.folder.rglob("*") if path.suffix in sound_files.SUFFIXES):
        if published:
            for length in LENGTHS:
                gaps = json.loads((settings.folder / "gaps.json").read_text())[f"{path.stem[:3]}_{length}"]
                given = scores(soundfile.read(path)[0], gaps)
                columns.setdefault(f"{length} ms", []).append(given)
            continue
        signal = np.concatenate(list(sound_files.decode(path, RATE))).astype(float)
        for name, step, part in (
            ("every second", RATE, signal[: 10 * RATE]),
            ("in every 64 ms", 1024, signal[: 2 * RATE]),
        ):
            starts = np.random.default_rng(0).integers(0, step - 320, part.size // step)
            starts += np.arange(starts.size) * step
            given = scores(part, np.stack([starts, starts + 320], 1), network, PLAIN[: 4 if step == RATE else 1])
            columns.setdefault(f"20 ms {name}", []).append(given)
    print_means(columns, published)


if __name__ == "__main__":
    main()

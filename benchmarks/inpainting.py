"""Compare methods of filling the gaps of clean recordings, by the SNR in the gaps.

    python benchmarks/inpainting.py FOLDER ... [--model RUN]

The methods are autoregression one gap at a time, which `denoise.py --keep` uses, the same with one
fixed context, and plain autoregression in blocks. --model adds `denoise.py --keep` itself and the
network alone. A folder with a gaps.json holds the recordings of a published comparison. Recordings
in any other folder are mixed to mono at 16 kHz and get one gap of 20, 100 or 200 ms per second.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import soundfile

from audio_utils import snr_db
from baselines import autoregress_long
from benchmarks.noisy import by_model
from files import sound_files
from files.model_file import load_restorer
from signals import fill_gaps
from signals.gaps import inside

LENGTHS = 5, 10, 20, 30, 40, 50  # gap lengths in the published comparison, ms
LONG = 100, 200  # more gap lengths, ms; these gaps have the centers of the longest published ones
# SNR in dB for each of LENGTHS, from the WAV files of Mokry and Rajmic 2020:
# github.com/ondrejmokry/InpaintingRevisited
PUBLISHED = {
    "Janssen (published)": (22.40, 18.82, 14.77, 10.08, 6.18, 3.64),
    "A-SPAIN (published)": (21.35, 17.90, 13.70, 10.11, 5.09, 2.63),
    "S-SPAIN H (published)": (21.33, 17.55, 13.32, 8.44, 4.28, 4.05),
    "l1, time-domain compensation (published)": (19.25, 16.24, 11.51, 9.55, 7.54, 6.03),
}
# For other folders: sample rate in Hz, maximum seconds per recording
RATE, MAX_SECONDS = 16000, 30
BLOCKS = 1024, 2048, 4096, 8192  # block lengths of plain autoregression, samples
AUDIBLE = 1e-4  # minimum standard deviation; quieter stretches count as silence and get no gap


def estimates(signal, gaps, rate, blocks, model):
    """Fill the gaps. Returns {method: filled (T,)}, and the first method's time per gap in ms."""
    mask = inside(gaps, 0, signal.size)
    chopped, started = signal * ~mask, time.process_time()
    filled = {"**one gap at a time**": fill_gaps.fill(chopped, gaps, rate)}
    took = 1e3 * (time.process_time() - started) / len(gaps)
    for context in fill_gaps.CONTEXTS:
        with patch.object(fill_gaps, "CONTEXTS", (context,)):
            name = f"context of {1000 * context[0]:.0f} ms"
            filled[name] = fill_gaps.fill(chopped, gaps, rate)
    for block in blocks:
        enough = chopped.size >= block
        in_blocks = autoregress_long(chopped, np.float32(mask), block) if enough else np.nan * mask
        filled[f"blocks of {block}"] = in_blocks
    if model:
        filled["**`denoise.py --keep`**"] = by_model(model, chopped, gaps, rate, keep=True)
        filled["the network alone"] = by_model(model, chopped, gaps, rate)
    return filled, took


def published_rows(folder, model):
    """Score the published comparison, and add the published scores.

    Returns {method: [dB for each length]}: the SNR, averaged over gaps, then over recordings.
    """
    named, rows = json.loads((folder / "gaps.json").read_text(encoding="utf-8")), {}
    for length in LENGTHS + LONG:
        scores = {}
        for path in sorted(folder.glob("*.wav")):
            signal, rate = soundfile.read(path)
            gaps = np.array(named[f"{path.stem.split('_')[0]}_{min(length, LENGTHS[-1])}"])
            if length in LONG:
                middles, size = gaps.mean(1).astype(int), length * rate // 1000
                gaps = middles[:, None] + [-size // 2, size // 2]
            for method, filled in estimates(signal, gaps, rate, (), model)[0].items():
                score = np.mean([snr_db(signal[a:b], filled[a:b]) for a, b in gaps])
                scores.setdefault(method, []).append(score)
        for method, values in scores.items():
            rows.setdefault(method, []).append(np.mean(values))
    return rows | PUBLISHED


def with_gaps(path, size):
    """Return the start of a recording (T,) and random gaps (n, 2): one per second, if audible."""
    signal = np.concatenate(list(sound_files.decode(path, RATE)), dtype=float)
    signal = signal[: MAX_SECONDS * RATE]
    starts = np.arange(0, signal.size - RATE, RATE)
    starts = starts + np.random.default_rng(0).integers(0, RATE - size, starts.size)
    audible = [first for first in starts if signal[first : first + size].std() > AUDIBLE]
    return signal, np.array([(first, first + size) for first in audible])


def set_scores(folder, length, model):
    """Score a set of recordings with gaps of `length` ms.

    Returns {method: (SNR of all gaps together, mean SNR of the gaps)} in dB, and the ms per gap.
    """
    energies, took = {}, []
    for path in sorted(path for path in folder.rglob("*") if path.suffix in sound_files.SUFFIXES):
        signal, gaps = with_gaps(path, length * RATE // 1000)
        if not len(gaps):
            continue
        methods, milliseconds = estimates(signal, gaps, RATE, BLOCKS, model)
        took.append(milliseconds)
        for method, filled in methods.items():
            energies.setdefault(method, []).extend(
                (np.sum(signal[a:b] ** 2), np.sum((signal - filled)[a:b] ** 2)) for a, b in gaps
            )
    scores = {}
    for method, pairs in energies.items():
        power, error = np.array([pair for pair in pairs if np.isfinite(pair[1])]).reshape(-1, 2).T
        pooled = power.sum() / error.sum()
        scores[method] = 10 * np.log10(pooled), np.mean(10 * np.log10(power / error))
    return scores, np.mean(took)


def print_table(columns, rows):
    print("| dB |", " | ".join(columns), "|\n|" + "---|" * (len(columns) + 1))
    for method, values in rows.items():
        print(f"| {method} |", " | ".join(values), "|")


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    flags.add_argument("--model", type=Path, metavar="RUN", help="a finished run of sound_dvae.py")
    settings = flags.parse_args()
    model = settings.model and load_restorer(settings.model)
    others = [folder for folder in settings.folders if not (folder / "gaps.json").exists()]
    for folder in set(settings.folders) - set(others):
        rows = published_rows(folder, model)
        rows = {method: [f"{score:.2f}" for score in row] for method, row in rows.items()}
        print_table([f"{length} ms" for length in LENGTHS + LONG], rows)
    for length in (20, *LONG) if others else ():
        sets = {}
        for folder in others:
            sets[folder.name], took = set_scores(folder, length, model)
            print(f"{folder.name}: {took:.1f} ms per gap", file=sys.stderr)
        rows = {}
        for method in next(iter(sets.values())):
            scores = [each[method] for each in sets.values()]
            scores.append(np.mean(scores, axis=0))
            rows[method] = [f"{pooled:.1f} / {mean:.1f}" for pooled, mean in scores]
        print(f"\n{length} ms: SNR of all gaps of a set together / mean SNR of its gaps:\n")
        print_table([*sets, "mean"], rows)


if __name__ == "__main__":
    main()

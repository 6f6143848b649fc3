"""SNR in the gaps of clean recordings, by method: one gap at a time, plain autoregression, a model.

    python benchmarks/inpainting.py FOLDER ... [--model RUN]

A folder with a gaps.json holds the recordings of a published comparison. Any other is a set of
recordings, mixed to mono at 16 kHz, with a gap of 20 ms per second. With a model, there are also
the results of `denoise.py --keep` and of the network alone.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import soundfile

from audio_utils import snr_db
from baselines import autoregress_long
from files import sound_files
from files.model_file import load_restorer
from files.restore_sound import restore_sound
from signals import fill_gaps
from signals.gaps import inside

LENGTHS = 5, 10, 20, 30, 40, 50  # ms
PUBLISHED = {  # from the WAVs of Mokry and Rajmic 2020, github.com/ondrejmokry/InpaintingRevisited
    "Janssen (published)": (22.40, 18.82, 14.77, 10.08, 6.18, 3.64),
    "A-SPAIN (published)": (21.35, 17.90, 13.70, 10.11, 5.09, 2.63),
    "S-SPAIN H (published)": (21.33, 17.55, 13.32, 8.44, 4.28, 4.05),
    "l1, time-domain compensation (published)": (19.25, 16.24, 11.51, 9.55, 7.54, 6.03),
}
OURS = "**a gap at a time**"
RATE, GAP, MAX_SECONDS = 16000, 320, 30  # of the sets: Hz, samples, seconds per recording
BLOCKS = 1024, 2048, 4096, 8192  # samples, of plain autoregression
AUDIBLE = 1e-4  # RMS: gaps in silence do not count


def plain(chopped, mask, block):
    """Autoregression in blocks, all gaps of a block at once: (T,), (T,) -> (T,)."""
    if chopped.size < block:
        return np.full(chopped.size, np.nan)
    return autoregress_long(chopped, np.float32(mask), block)


def by_model(model, chopped, gaps, rate):
    """Restore a sound with `denoise.py`, with --keep and without: {method: (T,)}."""
    with tempfile.TemporaryDirectory() as folder:
        source, result, labels = (Path(folder) / name for name in ("a.wav", "b.wav", "gaps"))
        soundfile.write(source, chopped, rate, subtype="DOUBLE")
        labels.write_text("".join(f"{first / rate:.7f} {end / rate:.7f}\n" for first, end in gaps))
        filled = {}
        for method, keep in (("**`denoise.py --keep`**", True), ("the network alone", False)):
            restore_sound(model, source, result, labels, keep)
            filled[method] = soundfile.read(result)[0]
    return filled


def estimates(signal, gaps, rate, blocks, model):
    """Fill the gaps by each method: {method: (T,)}, and ms per gap."""
    mask = inside(gaps, 0, signal.size)
    chopped, started = signal * ~mask, time.process_time()
    filled = {OURS: fill_gaps.fill(chopped, gaps, rate)}
    took = 1e3 * (time.process_time() - started) / len(gaps)
    filled |= {f"blocks of {block}": plain(chopped, mask, block) for block in blocks}
    return filled | (by_model(model, chopped, gaps, rate) if model else {}), took


def published_rows(folder, model):
    """SNR for each length, the mean over gaps, then over recordings: {method: [dB]}."""
    named, rows = json.loads((folder / "gaps.json").read_text(encoding="utf-8")), {}
    for length in LENGTHS:
        scores = {}
        for path in sorted(folder.glob("*.wav")):
            signal, rate = soundfile.read(path)
            gaps = np.array(named[f"{path.stem.split('_')[0]}_{length}"])
            for method, filled in estimates(signal, gaps, rate, (), model)[0].items():
                score = np.mean([snr_db(signal[a:b], filled[a:b]) for a, b in gaps])
                scores.setdefault(method, []).append(score)
        for method, values in scores.items():
            rows.setdefault(method, []).append(np.mean(values))
    return rows | PUBLISHED


def with_gaps(path):
    """Start of a recording (T,) and a gap at random in each of its seconds, but not in silence."""
    signal = np.concatenate(list(sound_files.decode(path, RATE)))[: MAX_SECONDS * RATE]
    signal = signal.astype(float)
    starts = np.arange(0, signal.size - RATE, RATE)
    starts = starts + np.random.default_rng(0).integers(0, RATE - GAP, starts.size)
    audible = [first for first in starts if signal[first : first + GAP].std() > AUDIBLE]
    return signal, np.array([(first, first + GAP) for first in audible])


def set_scores(folder, model):
    """SNR over all gaps of a set and mean over its gaps, dB: {method: (2,)}, and ms per gap."""
    energies, took = {}, []
    for path in sorted(path for path in folder.rglob("*") if path.suffix in sound_files.SUFFIXES):
        signal, gaps = with_gaps(path)
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
        ratios = power.sum() / error.sum(), np.exp(np.mean(np.log(power / error)))
        scores[method] = 10 * np.log10(ratios)
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
    model = settings.model and load_restorer(settings.model / "model.keras")
    sets = {}
    for folder in settings.folders:
        if (folder / "gaps.json").exists():
            rows = published_rows(folder, model)
            rows = {method: [f"{score:.2f}" for score in row] for method, row in rows.items()}
            print_table([f"{length} ms" for length in LENGTHS], rows)
        else:
            sets[folder.name], took = set_scores(folder, model)
            print(f"{folder.name}: {took:.1f} ms per gap", file=sys.stderr)
    if sets:
        rows = {}
        for method in next(iter(sets.values())):
            scores = [each[method] for each in sets.values()]
            scores.append(np.mean(scores, axis=0))
            rows[method] = [f"{pooled:.1f} / {mean:.1f}" for pooled, mean in scores]
        print("\nOver all gaps of a set / mean over its gaps:\n")
        print_table([*sets, "mean"], rows)


if __name__ == "__main__":
    main()

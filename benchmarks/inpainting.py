"""SNR in the gaps of clean recordings: the gaps filled one at a time, plain autoregression, and a model's network.

    python benchmarks/inpainting.py FOLDER ... [--model RUN]

A folder with a gaps.json holds the recordings of a published comparison; any other is a set of recordings, mixed to
mono at 16 kHz with a 20 ms gap a second. With a model, also as `denoise.py --keep` fills them, and its network alone.
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
from baselines import autoregress
from files import sound_files
from files.model_file import load_restorer
from files.restore_sound import restore_sound
from inference import restore_long
from signals import fill_gaps
from signals.gaps import inside

LENGTHS = (5, 10, 20, 30, 40, 50)  # ms
PUBLISHED = {  # recomputed from the WAVs of Mokry and Rajmic 2020, github.com/ondrejmokry/InpaintingRevisited
    "Janssen (published)": (22.40, 18.82, 14.77, 10.08, 6.18, 3.64),
    "A-SPAIN (published)": (21.35, 17.90, 13.70, 10.11, 5.09, 2.63),
    "S-SPAIN H (published)": (21.33, 17.55, 13.32, 8.44, 4.28, 4.05),
    "l1, time-domain compensation (published)": (19.25, 16.24, 11.51, 9.55, 7.54, 6.03),
}
OURS = "**a gap at a time**"
RATE, GAP, MOST_SECONDS = 16000, 320, 30  # of the sets
BLOCKS = (
    1024,
    2048,
    4096,
    8192,
)  # of plain autoregression: all gaps of one unknown at once, order 3 M + 2 at most
AUDIBLE = 1e-4  # RMS: a gap in silence does not count


def plain(chopped, mask, block):
    """Autoregression of blocks at half overlap: (T,), (T,) -> (T,)."""
    if chopped.size < block:
        return np.full(chopped.size, np.nan)
    options = lambda windows: autoregress(windows, windows == 0), block, block // 2
    return restore_long(np.float32(chopped), np.float32(mask), *options)


def by_model(model, chopped, gaps, rate):
    """What `denoise.py` makes of it, with --keep and without: {way: (T,)}."""
    with tempfile.TemporaryDirectory() as folder:
        source, result, labels = (Path(folder) / name for name in ("a.wav", "b.wav", "gaps"))
        soundfile.write(source, chopped, rate, subtype="DOUBLE")
        labels.write_text("".join(f"{first / rate:.7f} {end / rate:.7f}\n" for first, end in gaps))
        filled = {}
        for way, keep in (("**`denoise.py --keep`**", True), ("the network alone", False)):
            restore_sound(model, source, result, labels, keep)
            filled[way] = soundfile.read(result)[0]
    return filled


def estimates(signal, gaps, rate, blocks, model):
    """{way: signal filled (T,)}, and ms a gap."""
    mask = inside(gaps, 0, signal.size)
    chopped, started = signal * ~mask, time.process_time()
    ways = {OURS: fill_gaps.fill(chopped, gaps, rate)}
    took = 1e3 * (time.process_time() - started) / len(gaps)
    ways |= {f"blocks of {block}": plain(chopped, mask, block) for block in blocks}
    return ways | (by_model(model, chopped, gaps, rate) if model else {}), took


def published_rows(folder, model):
    """SNR by length: {way: [dB of each length]}, the mean over gaps, then over recordings."""
    named, rows = json.loads((folder / "gaps.json").read_text()), {}
    for length in LENGTHS:
        found = {}
        for path in sorted(folder.glob("*.wav")):
            signal, rate = soundfile.read(path)
            gaps = np.array(named[f"{path.stem.split('_')[0]}_{length}"])
            for way, filled in estimates(signal, gaps, rate, (), model)[0].items():
                found.setdefault(way, []).append(
                    np.mean([snr_db(signal[a:b], filled[a:b]) for a, b in gaps])
                )
        for way, values in found.items():
            rows.setdefault(way, []).append(np.mean(values))
    return rows | PUBLISHED


def set_scores(folder, model):
    """{way: (SNR over all gaps of a set, mean over its gaps), dB}, and ms a gap."""
    energies, took = {}, []
    for path in sorted(path for path in folder.rglob("*") if path.suffix in sound_files.SUFFIXES):
        signal = np.concatenate(list(sound_files.decode(path, RATE)))[: MOST_SECONDS * RATE].astype(
            float
        )
        starts = np.arange(0, signal.size - RATE, RATE)
        starts = starts + np.random.default_rng(0).integers(0, RATE - GAP, starts.size)
        gaps = np.array(
            [
                (first, first + GAP)
                for first in starts
                if signal[first : first + GAP].std() > AUDIBLE
            ]
        )
        if len(gaps):
            ways, milliseconds = estimates(signal, gaps, RATE, BLOCKS, model)
            took.append(milliseconds)
            for way, filled in ways.items():
                pairs = [
                    (np.sum(signal[a:b] ** 2), np.sum((signal - filled)[a:b] ** 2)) for a, b in gaps
                ]
                energies.setdefault(way, []).extend(pairs)
    scores = {}
    for way, pairs in energies.items():
        power, error = np.array([pair for pair in pairs if np.isfinite(pair[1])]).reshape(-1, 2).T
        scores[way] = 10 * np.log10(
            [power.sum() / error.sum(), np.exp(np.mean(np.log(power / error)))]
        )
    return scores, np.mean(took)


def print_table(columns, rows):
    print("| dB |", " | ".join(columns), "|\n|" + "---|" * (len(columns) + 1))
    for way, values in rows.items():
        print(f"| {way} |", " | ".join(values), "|")


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
            rows = {way: [f"{value:.2f}" for value in values] for way, values in rows.items()}
            print_table([f"{length} ms" for length in LENGTHS], rows)
        else:
            sets[folder.name], took = set_scores(folder, model)
            print(f"{folder.name}: {took:.1f} ms a gap", file=sys.stderr)
    if sets:
        table = {
            way: [scores[way] for scores in sets.values()] for way in next(iter(sets.values()))
        }
        rows = {
            way: [
                f"{pooled:.1f} / {mean:.1f}" for pooled, mean in [*values, np.mean(values, axis=0)]
            ]
            for way, values in table.items()
        }
        print("\nOver all gaps of a set / mean over its gaps:\n")
        print_table([*sets, "mean"], rows)


if __name__ == "__main__":
    main()

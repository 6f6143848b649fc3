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
from harness import run_folder
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


def print_means(columns):
    """{column: [{way: dB} of each recording]} as a table."""
    ways = next(iter(columns.values()))[0]
    run_folder.print_table(
        [
            {"dB": way} | {name: f"{np.nanmean([row[way] for row in rows]):.2f}" for name, rows in columns.items()}
            for way in ways
        ]
    )

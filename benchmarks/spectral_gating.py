"""Spectral gating (the package noisereduce) on the long chopped sound of `sound_dvae.py`, scored as there.

python benchmarks/spectral_gating.py                   # takes that script's flags
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import noisereduce

import sound_dvae
from harness import cli, run_folder


def main(settings):
    held = sound_dvae.held_out(settings, sound_dvae.load(settings))
    chopped, rate = held.long_corrupted, settings.sample_rate
    rows = []
    for method, estimate in {
        "chopped input": chopped,
        "spectral gating, stationary": noisereduce.reduce_noise(chopped, rate, stationary=True),
        "spectral gating, adaptive": noisereduce.reduce_noise(chopped, rate, stationary=False),
    }.items():
        scores = sound_dvae.score(settings, held, held.corrupted, estimate)
        rows.append({"method": method} | {name: value for name, value in scores.items() if name.startswith("long")})
    run_folder.print_table(rows)


if __name__ == "__main__":
    with cli.one_line_errors():
        main(cli.parse(sound_dvae.Settings, __doc__.splitlines()[0]))

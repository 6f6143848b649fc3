"""Spectral gating (the package noisereduce) on the long chopped sound of a finished run, scored as the run was.

python benchmarks/spectral_gating.py plots/sound
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import noisereduce

import run
from audio_utils import log_spectral_distance_db, read_wav, si_sdr_db, snr_db


def main(folder):
    (tone, rate), (chopped, _) = (read_wav(folder / f"{name}.wav") for name in ("tone", "chopped"))
    gaps = chopped == 0
    rows = []
    for method, estimate in {
        "chopped input": chopped,
        "spectral gating, stationary": noisereduce.reduce_noise(chopped, rate, stationary=True),
        "spectral gating, adaptive": noisereduce.reduce_noise(chopped, rate, stationary=False),
    }.items():
        row = {
            "method": method,
            "long_snr_db": snr_db(tone, estimate),
            "long_gap_snr_db": snr_db(tone[gaps], estimate[gaps]),
            "long_si_sdr_db": si_sdr_db(tone, estimate),
            "long_lsd_db": log_spectral_distance_db(tone, estimate, rate),
        }
        rows.append(row)
    run.print_table(rows)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "plots/sound"))

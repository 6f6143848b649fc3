"""Time and memory of mending long sounds with `denoise.py`, from file to file.

    python sound_dvae.py && python benchmarks/mending.py plots/sound

The chopped scale of that run is repeated to 10 s, 100 s, 1,000 s and an hour. Each length is mended in a process of its
own; memory is the peak of that process above what it held after its imports and a warm-up of one second.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import wave
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

SECONDS = (10, 100, 1000, 3600)


def measure(folder, seconds):
    """Mend `seconds` of sound from a WAV into a WAV: {"seconds", "took", "megabytes"}."""
    import harness  # noqa: F401  before NumPy, as in the scripts

    # isort: split
    import soundfile

    from files.model_file import load_restorer
    from files.restore_sound import restore_sound

    model = load_restorer(folder)
    scale, rate = soundfile.read(folder / "chopped.wav", dtype="int16")
    with tempfile.TemporaryDirectory() as temporary:
        source, result = Path(temporary, "chopped.wav"), Path(temporary, "mended.wav")

        def mend(seconds):
            with wave.open(str(source), "wb") as file:
                file.setparams((1, 2, rate, 0, "NONE", ""))
                for first in range(0, seconds * rate, scale.size):
                    file.writeframes(scale[: seconds * rate - first].tobytes())
            started = time.perf_counter()
            restore_sound(model, source, result)
            return time.perf_counter() - started

        mend(1)  # warm up
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        took = mend(seconds)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - held) / 1024
    return {"seconds": seconds, "took": took, "megabytes": grown}


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument(
        "folder", type=Path, nargs="?", default=Path("plots/sound"), help="a finished run"
    )
    flags.add_argument("--seconds", type=int, help="measure this length only, in this process")
    settings = flags.parse_args()
    if settings.seconds:
        print(json.dumps(measure(settings.folder, settings.seconds)))
        return
    print(
        "| sound [s] | took [s] | times faster than it plays | peak memory above imports [MB] |\n|---|---|---|---|"
    )
    for seconds in SECONDS:
        command = [sys.executable, __file__, str(settings.folder), "--seconds", str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        print(
            f"| {seconds} | {row['took']:.2f} | {seconds / row['took']:.0f} | {row['megabytes']:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

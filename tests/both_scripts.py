"""Train both scripts in one process, each started as by a user. The fixtures of conftest.py use it.

    python tests/both_scripts.py FOLDER

Each run is in FOLDER/<script> run/new folder, its output in FOLDER/<script> stdout and stderr. One
process loads the libraries once, which takes a third of the time of a short run.
"""

import os
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RUNS = {"sound_dvae.py": ("--seed", "1"), "mnist_dvae.py": ()}
# Fewer scored examples, but more windows than play.html keeps, which are 1,000.
FEWER = {"HELD_OUT": 200, "HELD_OUT_WINDOWS": 1024, "AUTOREGRESSED": 16}


def output_to(folder, script):
    """Write into files from now on, including messages of C++ code."""
    sys.stdout.flush()
    for number, name in enumerate(("stdout", "stderr"), 1):
        file = os.open(folder / f"{script} {name}", os.O_CREAT | os.O_WRONLY)
        os.dup2(file, number)
        os.close(file)


def changed():
    """Import the project anew, as a fresh process does, and let scripts score fewer examples."""
    for name, module in list(sys.modules.items()):
        path = Path(getattr(module, "__file__", None) or "/")
        if path.is_relative_to(ROOT) and ".venv" not in path.parts and name != "__main__":
            del sys.modules[name]
    from harness import cli

    parse = cli.parse

    def parsed(*given):
        vars(sys.modules["__main__"]).update(FEWER)  # before `main` of the script
        return parse(*given)

    cli.parse = parsed


def forget():
    """Reset the names of Keras's layers and TensorFlow's counts of traced functions."""
    from tensorflow.python.eager.polymorphic_function import polymorphic_function as functions

    sys.modules["keras"].utils.clear_session()
    functions._frequent_tracing_detector_manager = functions._FrequentTracingDetectorManager()


def main(folder):
    sys.path.insert(0, str(ROOT))
    for script, flags in RUNS.items():
        changed()
        output_to(folder, script)
        out = folder / f"{script} run" / "new folder"
        size = "--iters", "200", "--batch-size", "64"
        sys.argv[:] = [str(ROOT / script), *size, *flags, "--out", str(out)]
        runpy.run_path(sys.argv[0], run_name="__main__")
        forget()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

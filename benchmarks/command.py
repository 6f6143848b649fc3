"""Where the time of a whole command goes, beside a bare `import tensorflow`.

    python benchmarks/command.py
    python benchmarks/command.py --rounds 1 sound_dvae.py --iters 1600

Each command runs as a process of its own, in turn with the bare import; the table gives medians over the rounds. A
thread in that process looks 100 times a second at what the main thread is doing.
"""

import argparse
import collections
import json
import os
import runpy
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMMANDS = (["sound_dvae.py", "--iters", "800"], ["mnist_dvae.py"])
WRITING = {"figures.py", "report.py", "run_folder.py", "checkpoint.py"}  # or drawing


def phase(frame):
    """What the main thread is at, told by its innermost telling frame."""
    while frame:
        file, function = os.path.basename(frame.f_code.co_filename), frame.f_code.co_name
        if file.startswith("<frozen importlib") or (
            function == "load" and file == "quiet_tensorflow.py"
        ):
            return "importing"
        if file in WRITING:
            return "drawing, writing"
        if file == "training.py" and function == "train":
            return "training" if frame.f_locals.get("done") else "building, tracing, compiling"
        frame = frame.f_back
    return "data, scoring"


def watch(main_thread, spent):
    last = time.perf_counter()
    while True:
        time.sleep(0.01)
        frame = sys._current_frames().get(main_thread)
        now = time.perf_counter()
        spent[phase(frame)] += now - last
        last = now


def inside(command):
    """Run the script in this process, watched; prints the seconds of each phase as JSON."""
    spent = collections.Counter()
    threading.Thread(target=watch, args=(threading.get_ident(), spent), daemon=True).start()
    sys.path.insert(0, str(ROOT))
    sys.argv = [str(ROOT / command[0]), *command[1:]]
    runpy.run_path(sys.argv[0], run_name="__main__")
    print(json.dumps(spent))


def timed(command):
    """Wall and CPU seconds and peak memory in MB of a process, and the last line it printed."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(map(str, command))} failed")
    return {
        "wall": time.perf_counter() - started,
        "CPU": usage.ru_utime + usage.ru_stime,
        "peak memory [MB]": usage.ru_maxrss / 1024,
    }, printed.splitlines()[-1:]


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--rounds", type=int, default=3)
    flags.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    flags.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        help="a script and its flags; by default both experiments",
    )
    settings = flags.parse_args()
    if settings.inside:
        inside(settings.command)
        return
    commands = [settings.command] if settings.command else COMMANDS
    rows = collections.defaultdict(list)
    for _ in range(settings.rounds):
        bare, _ = timed([sys.executable, "-c", "import tensorflow"])
        rows["import tensorflow"].append(bare)
        for command in commands:
            with tempfile.TemporaryDirectory() as out:
                script = [sys.executable, __file__, "--inside", *command, "--out", f"{out}/run"]
                figures, (spent,) = timed(script)
            rows[" ".join(command)].append(figures | json.loads(spent))
    names = [
        "wall",
        "importing",
        "building, tracing, compiling",
        "training",
        "data, scoring",
        "drawing, writing",
        "CPU",
        "peak memory [MB]",
    ]
    print(f"| [s] | {' | '.join(names)} |\n{'|---' * (len(names) + 1)}|")
    for command, measured in rows.items():
        medians = [
            statistics.median(row[name] for row in measured) if name in measured[0] else ""
            for name in names
        ]
        print(
            f"| `{command}` | {' | '.join(f'{value:.4g}' if value else '' for value in medians)} |"
        )


if __name__ == "__main__":
    main()

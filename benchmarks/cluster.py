"""Two workers on this machine, over its loopback, beside one: the same losses, the same scores, and what they survive.

    python benchmarks/cluster.py               # some minutes; `make cluster` is this
    python benchmarks/cluster.py losses scores faults

losses: those of the first 20 iterations of both experiments. scores: the last ones of a run. faults: a worker killed,
one stopped, one that never comes, one told to end, and the run resumed on two workers and on one.
"""

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from faults import contents, differences, make_digits

ROOT = Path(__file__).parent.parent
FIRST = 20  # iterations whose losses are compared
# Runs a script as far as its first losses, and prints them.
LOSSES = f"""
import json, runpy, sys
sys.argv = sys.argv[1:]
import workers
workers.join()
import training
train = training.train
def first_losses(*args, **settings):
    training.checkpoint_iterations = lambda iterations: list(range({FIRST} + 1))
    print(json.dumps([float(loss) for _, loss in train(*args, **{{**settings, "folder": None}})][1:]))
    raise SystemExit
training.train = first_losses
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def start(count, script, *flags, code=None, only=None, **environment):
    """`count` workers (or those in `only`) as processes; one is a process on its own."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    processes = []
    for index in range(count) if only is None else only:
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        env = {**os.environ, **environment, **({"TF_CONFIG": json.dumps(config)} if count > 1 else {})}
        command = [sys.executable, *(("-c", code) if code else ()), ROOT / script, *map(str, flags)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, "text": True}
        processes.append(subprocess.Popen(command, cwd=ROOT, env=env, **pipes))
    return processes


def finish(processes):
    """Wait for them: (exit status, stdout, stderr) of each."""
    ends = [process.communicate(timeout=1200) for process in processes]
    return [(process.returncode, *end) for process, end in zip(processes, ends)]


def finish_well(processes):
    """What each printed; an error if one did not end well, or if any but the first said something."""
    ends = finish(processes)
    assert all(status == 0 and not err for status, _, err in ends), ends
    assert not any(out for _, out, _ in ends[1:]), ends
    return ends[0][1]


def last_scores(folder):
    with open(folder / "scores.csv") as file:
        *_, last = (row for row in csv.DictReader(file) if row["method"] == "DVAE" and row["iteration"])
    return {name: float(value) for name, value in last.items() if name not in ("method", "iteration", "train_loss")}


def compare_losses(runs, folder):
    for script, flags in runs.items():
        one, two = (
            json.loads(finish_well(start(count, script, *flags, "--out", folder / f"losses{count}", "--overwrite",
                                         code=LOSSES)).splitlines()[-1])
            for count in (1, 2)
        )  # fmt: skip
        difference = np.abs(np.divide(two, one) - 1)
        print(
            f"{script}: loss {one[0]:.1f} to {one[-1]:.1f} nats; two workers differ by {difference.max():.1e}",
            flush=True,
        )
        assert len(one) == FIRST and difference.max() < 1e-5, difference


def compare_scores(runs, folder):
    for script, flags in runs.items():
        seconds = []
        for count in (1, 2):
            begun = time.monotonic()
            finish_well(start(count, script, *flags, "--out", folder / f"{script}{count}"))
            seconds.append(time.monotonic() - begun)
        one, two = (last_scores(folder / f"{script}{count}") for count in (1, 2))
        print(f"{script} on one worker ({seconds[0]:.0f} s) and on two ({seconds[1]:.0f} s):")
        for name, value in one.items():
            print(f"    {name:24} {value:10.4g} {two[name]:10.4g}", flush=True)


def faults(digits, folder):
    flags = (*("--iters", 600, "--batch-size", 32, "--hidden", 32, "--latent", 4), "--data", digits)
    whole, out = folder / "whole", folder / "stopped"
    finish_well(start(2, "mnist_dvae.py", *flags, "--out", whole))

    def ended(name, worker, number, statuses):
        """Two workers, one of which gets a signal once there are scores; what the others say, and when."""
        shutil.rmtree(out, ignore_errors=True)
        processes = start(2, "mnist_dvae.py", *flags, "--out", out)
        while not (out / "reconstruction_000200.png").exists():
            assert processes[0].poll() is None, finish(processes)
            time.sleep(0.01)
        processes[worker].send_signal(number)
        begun = time.monotonic()
        processes[1 - worker].wait(100)
        seconds = time.monotonic() - begun
        if number == signal.SIGSTOP:
            processes[worker].kill()
        ends = finish(processes)
        print(f"{name}: the other ended after {seconds:.1f} s: {ends[1 - worker][2].strip()}", flush=True)
        assert [status for status, _, _ in ends] == statuses, ends
        assert len(ends[1 - worker][2].splitlines()) == 1 and seconds < 60, ends

    ended("worker 1 killed", 1, signal.SIGKILL, [2, -9])
    shutil.copytree(out, folder / "on one")
    finish_well(start(2, "mnist_dvae.py", *flags, "--out", out, "--resume"))
    different = [
        name for name in differences(contents(out), contents(whole)) if name != "index.html"
    ]  # has the command
    print(f"resumed on two workers: {different or 'every file as that of a run never stopped'}")
    finish_well(start(1, "mnist_dvae.py", *flags, "--out", folder / "on one", "--resume"))
    print(f"resumed on one: loss {last_scores(folder / 'on one')['loss']}, on two {last_scores(whole)['loss']}")
    ended("worker 0 killed", 0, signal.SIGKILL, [-9, 2])
    ended("worker 1 stopped", 1, signal.SIGSTOP, [2, -9])
    ended("worker 1 told to end", 1, signal.SIGTERM, [130, 143])
    begun = time.monotonic()
    ((status, _, err),) = finish(start(2, "mnist_dvae.py", *flags, "--out", folder / "n", only=[0], DVAE_WAIT="5"))
    print(f"worker 1 never came: after {time.monotonic() - begun:.1f} s in all: {err.strip()}")
    assert status == 2 and len(err.splitlines()) == 1 and not different


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        temporary = Path(temporary)
        parts = sys.argv[1:] or ["losses", "scores", "faults"]
        make_digits(temporary / "digits.npz", 2000, 28)
        if "losses" in parts:
            compare_losses({"sound_dvae.py": (), "mnist_dvae.py": ("--data", temporary / "digits.npz")}, temporary)
        if "scores" in parts:
            compare_scores({"sound_dvae.py": (), "mnist_dvae.py": ("--iters", 800)}, temporary)
        if "faults" in parts:
            faults(temporary / "digits.npz", temporary)

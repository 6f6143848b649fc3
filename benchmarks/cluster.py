"""Compare runs on one worker and on two, and test that a run survives faults of its workers.

    python benchmarks/cluster.py               # takes some minutes; same as `make cluster`
    python benchmarks/cluster.py scores        # or: faults

scores: train on one worker and on two, and print the last scores. They differ as two seeds do,
because each worker samples its own examples.
faults: one of two workers never starts, or is killed, stopped or interrupted. Every run that had
started is then resumed on one or two workers.
"""

import argparse
import csv
import json
import os
import signal
import socket
import tempfile
import time
from pathlib import Path

import faults

SIGNAL_AT, LAST = 100, 300  # checkpoint at which a signal is sent, and last iteration of a run
INTERRUPTIONS = signal.SIGTERM, signal.SIGINT  # signals on which a run saves and ends
STOPPING = "stopping after this step; press again to stop at once"


def start(count, script, *flags, only=None, cwd=faults.ROOT, **environment):
    """Start `count` workers, or only those with an index in `only`. Returns their processes."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    processes = []
    for index in only or range(count):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        env = {**os.environ, **environment}
        if count > 1:
            env["TF_CONFIG"] = json.dumps(config)
        processes.append(faults.start(script, *flags, cwd=cwd, env=env))
    return processes


def finish_well(processes):
    """Wait for processes. All must succeed without errors, and only the first may print."""
    ends = [faults.finish(process) for process in processes]
    assert all(status == 0 and not err for status, _, err in ends), ends
    assert not any(out for _, out, _ in ends[1:]), ends


def last_scores(folder):
    """Return {name: score} on the held-out data at a run's last checkpoint."""
    with open(folder / "scores.csv", encoding="utf-8") as file:
        *_, last = (row for row in csv.DictReader(file) if row["iteration"])
    others = "method", "iteration", "train_loss"
    return {name: float(value) for name, value in last.items() if value and name not in others}


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


def begin(folder, *more, count=2, **options):
    """Start a small run in `folder` and return its processes.

    All runs have the same flags, so that their files can be compared. more: further flags.
    options: keyword arguments of `start`.
    """
    folder.mkdir(exist_ok=True)
    sizes = "--iters", LAST, "--batch-size", 32, "--hidden", 32, "--latent", 4
    flags = *sizes, "--data", "../digits.npz", "--out", "run", *more
    return start(count, "mnist_dvae.py", *flags, cwd=folder, **options)


def one_missing(wait, processes):
    """Check that a worker ends if the other one does not start within `wait` seconds."""
    begun = time.monotonic()
    status, out, err = faults.finish(*processes)
    print(f"one missing: ended after {time.monotonic() - begun:.1f} s: {err.strip()}", flush=True)
    assert status == 2 and not out and len(err.splitlines()) == 1, err
    assert f"did not come within {wait} s" in err, err


def send_signal(folder, number, worker):
    """Start two workers, and send a signal to one of them at the checkpoint SIGNAL_AT.

    Returns a list of both workers' (status, stdout, stderr), and the seconds until the other ended.
    """
    processes = begin(folder)
    try:
        faults.wait_for(folder / f"run/reconstruction_{SIGNAL_AT:06d}.png", processes[0])
        processes[worker].send_signal(number)
        begun = time.monotonic()
        processes[1 - worker].wait(100)
        seconds = time.monotonic() - begun
        processes[worker].send_signal(signal.SIGCONT)  # wakes up a stopped worker
        return [faults.finish(process) for process in processes], seconds
    finally:
        for process in processes:
            process.kill()


def try_signal(folder, number, worker, statuses, words, resumed_on):
    """Send a signal to one of two workers. Check how both end and that their run can be resumed.

    statuses: expected exit statuses of workers 0 and 1. words: text expected in their last lines.
    """
    name = f"{number.name} to worker {worker}"
    out, whole = folder / name / "run", folder / "whole/run"
    ends, seconds = send_signal(folder / name, number, worker)
    saved, last = faults.saved_at(out), ends[1 - worker][2].strip()
    print(f"{name}: the other ended after {seconds:.1f} s, saved at {saved}: {last}", flush=True)
    assert [status for status, _, _ in ends] == statuses and seconds < 60, ends
    for index, (status, _, err) in enumerate(ends):
        lines = err.splitlines()
        if number in INTERRUPTIONS and index == worker:
            assert lines[:2] == ["", STOPPING], ends
            lines = lines[2:]
        if status != -signal.SIGKILL:
            assert len(lines) == 1 and words in lines[0], ends
            assert ("--resume" in lines[0]) == (index == 0), ends
    # This run is too short to save between checkpoints, unless it is interrupted.
    assert saved >= SIGNAL_AT, saved
    assert number not in INTERRUPTIONS or SIGNAL_AT < saved < LAST, saved
    finish_well(begin(folder / name, "--resume", count=resumed_on))
    check_resumed(out, whole, resumed_on)


def check_resumed(out, whole, workers):
    """Check a run resumed on one or two workers against `whole`, uninterrupted on two."""
    different = faults.differences(out, whole)
    if workers == 2:
        print(f"    resumed on two: {different or 'all files are identical'}", flush=True)
        assert not different
        return
    # One worker uses other random numbers than two, so only files of earlier checkpoints are equal.
    names = {path.name for path in whole.iterdir()}
    assert {path.name for path in out.iterdir()} == names
    early = {name for name in names if f"_{SIGNAL_AT:06d}" in name or "_000000" in name}
    assert len(early) == 4 and not (early | {"config.json"}) & set(different), different
    one, two = (last_scores(each)["loss"] for each in (out, whole))
    print(f"    resumed on one: loss {one}; uninterrupted on two: {two}", flush=True)
    assert abs(one / two - 1) < 0.05


def try_faults(folder):
    faults.make_digits(folder / "digits.npz", 2000, 28)
    one_missing(60, begin(folder / "no worker 0", only=[1]))
    one_missing(5, begin(folder / "no worker 1", only=[0], DVAE_WAIT="5"))
    finish_well(begin(folder / "whole"))
    for number, worker, statuses, words, resumed_on in (
        (signal.SIGKILL, 1, [2, -9], "worker 0 of 2 has lost another worker", 2),
        (signal.SIGKILL, 0, [-9, 2], "worker 1 of 2 has lost another worker", 1),
        (signal.SIGSTOP, 1, [2, 2], "has lost another worker", 2),
        (signal.SIGSTOP, 0, [2, 2], "has lost another worker", 2),
        (signal.SIGTERM, 1, [130, 143], "interrupted", 2),
        (signal.SIGINT, 0, [130, 130], "interrupted", 1),
    ):
        try_signal(folder, number, worker, statuses, words, resumed_on)


if __name__ == "__main__":
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("part", nargs="?", choices=("scores", "faults"), help="default: both")
    part = flags.parse_args().part
    with tempfile.TemporaryDirectory() as temporary:
        if part != "faults":
            runs = {"sound_dvae.py": (), "mnist_dvae.py": ("--iters", 800)}
            compare_scores(runs, Path(temporary))
        if part != "scores":
            try_faults(Path(temporary))

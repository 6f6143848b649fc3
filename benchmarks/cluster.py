"""Two workers on this machine, over its loopback, beside one: the same scores, and what they survive.

    python benchmarks/cluster.py               # some minutes; `make cluster` is this
    python benchmarks/cluster.py scores faults

scores: the last ones of a run. They differ as those of two seeds do, for each worker draws its own part of a batch.
faults: a worker that never comes; one killed, stopped or told to end, and each time the run resumed, on two workers
or on one.
"""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from faults import contents, differences, make_digits, saved_at, wait_for

ROOT = Path(__file__).parent.parent
STRUCK_AT, LAST = 100, 300  # the checkpoint in which a signal comes, and the last one of that run
ENDING = (signal.SIGTERM, signal.SIGINT)  # these ask a run to end; others do not ask


def start(count, script, *flags, only=None, cwd=ROOT, **environment):
    """`count` workers (or those in `only`) as processes; one is a process on its own."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    processes = []
    for index in range(count) if only is None else only:
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        env = {
            **os.environ,
            **environment,
            **({"TF_CONFIG": json.dumps(config)} if count > 1 else {}),
        }
        command = [sys.executable, ROOT / script, *map(str, flags)]
        pipes = {
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "stdin": subprocess.DEVNULL,
            "text": True,
        }
        processes.append(subprocess.Popen(command, cwd=cwd, env=env, **pipes))
    return processes


def finish(processes):
    """Wait for them: (exit status, stdout, stderr) of each."""
    ends = [process.communicate(timeout=1200) for process in processes]
    return [(process.returncode, *end) for process, end in zip(processes, ends)]


def finish_well(processes):
    """Wait for them; an error if one did not end well, or if any but the first said something."""
    ends = finish(processes)
    assert all(status == 0 and not err for status, _, err in ends), ends
    assert not any(out for _, out, _ in ends[1:]), ends


def last_scores(folder):
    with open(folder / "scores.csv") as file:
        *_, last = (
            row for row in csv.DictReader(file) if row["method"] == "DVAE" and row["iteration"]
        )
    return {
        name: float(value)
        for name, value in last.items()
        if name not in ("method", "iteration", "train_loss")
    }


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
    """A small run in a folder of its own, with the same flags as the others: config.json and the page name them."""
    folder.mkdir(exist_ok=True)
    sizes = "--iters", LAST, "--batch-size", 32, "--hidden", 32, "--latent", 4
    return start(
        count,
        "mnist_dvae.py",
        *sizes,
        "--data",
        "../digits.npz",
        "--out",
        "run",
        *more,
        cwd=folder,
        **options,
    )


def never_came(wait, processes):
    begun = time.monotonic()
    ((status, out, err),) = finish(processes)
    print(
        f"the other never came: after {time.monotonic() - begun:.1f} s in all: {err.strip()}",
        flush=True,
    )
    assert (
        status == 2
        and not out
        and len(err.splitlines()) == 1
        and f"did not come within {wait} s" in err
    ), err


def strike(folder, number, worker):
    """Two workers, one of which gets a signal once there are scores: their ends, and seconds until the other's."""
    processes = begin(folder)
    try:
        wait_for(folder / f"run/reconstruction_{STRUCK_AT:06d}.png", processes[0])
        processes[worker].send_signal(number)
        begun = time.monotonic()
        processes[1 - worker].wait(100)
        seconds = time.monotonic() - begun
        processes[worker].send_signal(
            signal.SIGCONT
        )  # one that had fallen silent wakes up when all is over
        return finish(processes), seconds
    finally:
        for process in processes:
            process.kill()


def struck(folder, number, worker, statuses, words, resumed_on):
    """What workers say, of which one gets a signal, and when; then on with the run."""
    name = f"{number.name} to worker {worker}"
    out, whole = folder / name / "run", folder / "whole/run"
    ends, seconds = strike(folder / name, number, worker)
    saved = saved_at(out)
    said = ends[1 - worker][2].strip()
    print(f"{name}: the other ended after {seconds:.1f} s, saved at {saved}: {said}", flush=True)
    assert [status for status, _, _ in ends] == statuses and seconds < 60, ends
    for index, (status, _, err) in enumerate(ends):
        lines = err.splitlines()
        if number in ENDING and index == worker:
            assert lines[:2] == ["", "finishing what is under way; once more stops at once"], ends
            lines = lines[2:]
        if status != -signal.SIGKILL:
            assert (
                len(lines) == 1 and words in lines[0] and ("--resume" in lines[0]) == (index == 0)
            ), ends
    # Nothing but a checkpoint would be saved in so short a run, had they not been told to end.
    assert STRUCK_AT < saved < LAST if number in ENDING else saved >= STRUCK_AT, saved

    finish_well(begin(folder / name, "--resume", count=resumed_on))
    ours, theirs = contents(out), contents(whole)
    different = differences(ours, theirs)
    if (
        resumed_on == 1
    ):  # other random numbers from there on; nothing else in what was written before
        early = [
            "config.json",
            *(each for each in theirs if f"_{STRUCK_AT:06d}" in each or "_000000" in each),
        ]
        assert len(early) == 5 and not set(early) & set(different) and ours.keys() == theirs.keys()
        one, two = (last_scores(each)["loss"] for each in (out, whole))
        print(f"    resumed on one: loss {one}, on two, never stopped: {two}", flush=True)
        assert abs(one / two - 1) < 0.05
    else:
        print(
            f"    resumed on two: {different or 'every file as that of a run never stopped'}",
            flush=True,
        )
        assert not different


def faults(folder):
    make_digits(folder / "digits.npz", 2000, 28)
    never_came(60, begin(folder / "no worker 0", only=[1]))
    never_came(5, begin(folder / "no worker 1", only=[0], DVAE_WAIT="5"))
    finish_well(begin(folder / "whole"))
    struck(folder, signal.SIGKILL, 1, [2, -9], "worker 0 of 2 has lost another", resumed_on=2)
    struck(folder, signal.SIGKILL, 0, [-9, 2], "worker 1 of 2 has lost another", resumed_on=1)
    struck(folder, signal.SIGSTOP, 1, [2, 2], "has lost another", resumed_on=2)
    struck(folder, signal.SIGSTOP, 0, [2, 2], "has lost another", resumed_on=2)
    struck(folder, signal.SIGTERM, 1, [130, 143], "interrupted", resumed_on=2)
    struck(folder, signal.SIGINT, 0, [130, 130], "interrupted", resumed_on=1)


if __name__ == "__main__":
    parts = sys.argv[1:] or ["scores", "faults"]
    with tempfile.TemporaryDirectory() as temporary:
        if "scores" in parts:
            compare_scores(
                {"sound_dvae.py": (), "mnist_dvae.py": ("--iters", 800)}, Path(temporary)
            )
        if "faults" in parts:
            faults(Path(temporary))

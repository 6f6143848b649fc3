"""Several workers: who they are, that they meet, and that together they do what one does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import draws
import run
import workers

HERE = Path(__file__).parent
ITERATIONS, TOLD_AT, KILLED_AT = 40, 10, 24


@pytest.fixture
def environment(monkeypatch):
    for name in [name for name in os.environ if name == "TF_CONFIG" or name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    return monkeypatch


def told(cluster, **task):
    return json.dumps({"cluster": cluster, "task": task, "environment": "cloud"})


def test_tf_config_says_who_this_is(environment):
    assert workers.task() == (0, [])
    two = {"worker": ["a:1", "10.0.0.2:22"]}
    with_chief = {"worker": ["b:1", "c:1"], "chief": ["a:1"], "evaluator": ["e:1"]}
    for text, expected in {
        "": (0, []),
        "{}": (0, []),
        told({"worker": ["a:1"]}, type="worker", index=0): (0, []),
        told(two, type="worker", index=1): (1, [("a", 1), ("10.0.0.2", 22)]),
        told(two, type="worker", index="1"): (1, [("a", 1), ("10.0.0.2", 22)]),
        told(with_chief, type="chief", index=0): (0, [("a", 1), ("b", 1), ("c", 1)]),
        told(with_chief, type="worker", index=1): (2, [("a", 1), ("b", 1), ("c", 1)]),
    }.items():
        environment.setenv("TF_CONFIG", text)
        assert workers.task() == expected
    for text in (
        "no JSON",
        "[]",
        told(two, type="worker", index=2),
        told(two),
        told(with_chief, type="evaluator", index=0),
        told({"worker": ["a", "b"]}, type="worker", index=0),
    ):
        environment.setenv("TF_CONFIG", text)
        with pytest.raises(OSError, match=r"TF_CONFIG=.* does not say which worker this is"):
            workers.task()


def test_a_step_of_a_slurm_job_says_who_this_is(environment):
    values = {"STEP_NUM_TASKS": 3, "STEP_NODELIST": "n[1-2]", "STEP_TASKS_PER_NODE": "2,1", "PROCID": 2, "JOB_ID": 7}
    for name, value in values.items():
        environment.setenv(f"SLURM_{name}", str(value))
    environment.setenv("SLURMD_NODENAME", "n2")
    number, addresses = workers.task()
    assert number == 2 and [host for host, _ in addresses] == ["n1", "n1", "n2"]
    assert addresses[0][1] != addresses[1][1]
    environment.setenv("SLURMD_NODENAME", "n1")
    with pytest.raises(OSError, match="worker 2 for n2:"):
        workers.task()
    environment.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert workers.task() == (0, [])


def free_ports(count):
    doors = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [door.getsockname()[1] for door in doors]
    for door in doors:
        door.close()
    return ports


def test_a_worker_that_does_not_come_is_named():
    addresses = [("127.0.0.1", port) for port in free_ports(3)]
    with socket.create_server(addresses[1]):
        with pytest.raises(OSError, match=rf"worker 2 of 3 at 127.0.0.1:{addresses[2][1]} did not come .* DVAE_WAIT"):
            workers._meet(0, addresses, 0.5)
        with pytest.raises(OSError, match=rf"127.0.0.1:{addresses[1][1]}, this worker's address: .*in use"):
            workers._meet(1, addresses, 0.5)


def test_only_the_chief_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "_number", 1)
    run.start(type("Settings", (), {"out": tmp_path / "out"}))
    with run.replacing(tmp_path / "file") as path:
        path.write_text("anything")
    assert list(tmp_path.iterdir()) == []


def losses(folder=None, number=None, made_before=None):
    """Each iteration's loss in a small run that saves at every one.

    The worker sends itself the signal `number` while it makes a batch, after `made_before` others.
    """
    import training
    from models import DVAE, keras
    from quiet_tensorflow import tf

    made = []

    def made_one(_):
        if len(made) == made_before:
            os.kill(os.getpid(), number)
        made.append(1)

    def make_batch(seed, first, count):
        clean = draws.normal((count, 1), seed, first) * tf.ones((1, 16))
        clean += 0.1 * draws.normal((count, 16), tf.random.fold_in(seed, 1), first)
        tf.py_function(made_one, [seed], [])
        return clean, clean

    keras.utils.set_random_seed(1)
    with workers.strategy().scope():
        model = DVAE(16, "gaussian", hidden=(8,), latent=2)
    settings = {"batch_size": 25, "iterations": ITERATIONS, "learning_rate": 0.01, "seed": 1, "folder": folder}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "checkpoint_iterations", lambda iterations: list(range(iterations + 1)))
        for iteration, loss in training.train(model, make_batch, **settings):
            yield iteration, float(loss)


def as_process(folder, *signals, devices=1):
    """What each process of the test below runs; its losses are printed as they come, and where it was told to end.

    signals: the last two arguments of `losses`, for a first run and for one that goes on with it, and so on.
    """
    with run.one_line_errors():
        workers.join()
        from quiet_tensorflow import load

        if devices > 1:
            tf = load(devices=False)
            cpu = tf.config.list_physical_devices("CPU")[0]
            tf.config.set_logical_device_configuration(cpu, devices * [tf.config.LogicalDeviceConfiguration()])
            strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(devices)])
            workers.strategy = lambda: strategy
        for each in signals or [()]:
            try:
                for row in losses(Path(folder), *each):
                    print(json.dumps(row), flush=True)
            except KeyboardInterrupt as interrupted:
                print(json.dumps(["interrupted", interrupted.args]), flush=True)


def test_two_workers_or_devices_do_what_one_does_and_end_together(tmp_path):
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    out = tmp_path / "two"
    out.mkdir()
    (tmp_path / "devices").mkdir()

    inherited = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}

    def start(call, **environment):
        return subprocess.Popen(
            [sys.executable, "-c", f"import test_workers; test_workers.as_process({call})"],
            env={**inherited, "PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parent))), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    # One batch is made before the first iteration, to tell the data by.
    strikes = [(int(signal.SIGTERM), TOLD_AT - 1), (int(signal.SIGKILL), KILLED_AT - TOLD_AT)]
    chief = start(f"{str(out)!r}, (), ()", TF_CONFIG=told(cluster, type="worker", index=0))
    other = start(f"{str(tmp_path / 'no')!r}, *{strikes}", TF_CONFIG=told(cluster, type="worker", index=1))
    mirrored = start(f"{str(tmp_path / 'devices')!r}, devices=2")
    alone = dict(losses())

    said, error = other.communicate(timeout=200)
    killed = time.monotonic()
    assert other.returncode == -signal.SIGKILL and not said
    assert error == "\nfinishing what is under way; once more stops at once\n"
    said, error = chief.communicate(timeout=60)
    assert time.monotonic() - killed < 60
    assert chief.returncode == 2 and len(error.splitlines()) == 1 and "worker 0 of 2 has lost another" in error
    together = dict(map(json.loads, said.splitlines()))
    assert list(together) == [*range(TOLD_AT), "interrupted", *range(TOLD_AT, KILLED_AT)]
    np.testing.assert_allclose(*([run[i] for i in range(1, 21)] for run in (together, alone)), rtol=1e-5)

    gone_on = dict(losses(out))
    assert list(gone_on) == list(range(KILLED_AT - 1, ITERATIONS + 1))
    np.testing.assert_allclose(gone_on[ITERATIONS], alone[ITERATIONS], rtol=1e-4)

    said, error = mirrored.communicate(timeout=200)
    assert mirrored.returncode == 0, error
    mirrored = dict(map(json.loads, said.splitlines()))
    np.testing.assert_allclose(*([run[i] for i in range(1, 21)] for run in (mirrored, alone)), rtol=1e-5)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["checkpoint.npz", "checkpoint.npz", "devices", "two"]

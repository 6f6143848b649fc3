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

from harness import UserError, cli, workers
from harness.run_folder import Run

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
    assert workers.task() == (0, ())
    two = {"worker": ["a:1", "10.0.0.2:22"]}
    with_chief = {"worker": ["b:1", "c:1"], "chief": ["a:1"], "evaluator": ["e:1"]}
    for text, expected in {
        "": (0, ()),
        "{}": (0, ()),
        told({"worker": ["a:1"]}, type="worker", index=0): (0, ()),
        told(two, type="worker", index=1): (1, (("a", 1), ("10.0.0.2", 22))),
        told(two, type="worker", index="1"): (1, (("a", 1), ("10.0.0.2", 22))),
        told(with_chief, type="chief", index=0): (0, (("a", 1), ("b", 1), ("c", 1))),
        told(with_chief, type="worker", index=1): (2, (("a", 1), ("b", 1), ("c", 1))),
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
        with pytest.raises(UserError, match=r"TF_CONFIG=.* does not say which worker this is"):
            workers.task()


def test_a_step_of_a_slurm_job_says_who_this_is(environment):
    values = {
        "STEP_NUM_TASKS": 3,
        "STEP_NODELIST": "n[1-2]",
        "STEP_TASKS_PER_NODE": "2,1",
        "PROCID": 2,
        "JOB_ID": 7,
    }
    for name, value in values.items():
        environment.setenv(f"SLURM_{name}", str(value))
    environment.setenv("SLURMD_NODENAME", "n2")
    number, addresses = workers.task()
    assert number == 2 and [host for host, _ in addresses] == ["n1", "n1", "n2"]
    assert addresses[0][1] != addresses[1][1]
    environment.setenv("SLURMD_NODENAME", "n1")
    with pytest.raises(UserError, match="worker 2 for n2:"):
        workers.task()
    environment.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert workers.task() == (0, ())


def free_ports(count):
    doors = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [door.getsockname()[1] for door in doors]
    for door in doors:
        door.close()
    return ports


def test_a_worker_that_does_not_come_is_named():
    addresses = [("127.0.0.1", port) for port in free_ports(3)]
    with socket.create_server(addresses[1]):
        with pytest.raises(
            UserError,
            match=rf"worker 2 of 3 at 127.0.0.1:{addresses[2][1]} did not come .* DVAE_WAIT",
        ):
            workers._meet(0, addresses, 0.5)
        with pytest.raises(
            UserError, match=rf"127.0.0.1:{addresses[1][1]}, this worker's address: .*in use"
        ):
            workers._meet(1, addresses, 0.5)


class Settings(cli.Settings):
    experiment = "test"
    kl_warm_up = 0.25


def test_only_the_chief_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "join", lambda: workers.Workers(1, (("a", 1), ("b", 1))))
    with Run(Settings(out=tmp_path / "out")) as run:
        run.record({})
        run.save({"file": lambda path: path.write_text("anything")})
        assert run.checkpoint is None
    assert list(tmp_path.iterdir()) == []


def make_batch(seed, count):
    """16 values that share a factor, half of them hidden."""
    from harness.quiet_tensorflow import tf

    clean = tf.random.stateless_normal((count, 1), seed) * tf.ones((1, 16))
    clean += 0.1 * tf.random.stateless_normal((count, 16), tf.random.fold_in(seed, 1))
    return clean * tf.cast(tf.range(16) < 8, tf.float32), clean


def losses(folder=None, number=None, made_before=None, resume=False):
    """The held-out loss after each iteration of a small run that saves at every one.

    The worker sends itself the signal `number` while it makes a batch, after `made_before` others.
    """
    import training
    from harness.quiet_tensorflow import tf
    from models import DVAE, keras

    made = []

    def counted(seed, count):
        def made_one(_):
            if len(made) == made_before:
                os.kill(os.getpid(), number)
            made.append(1)

        tf.py_function(made_one, [seed], [])
        return make_batch(seed, count)

    settings = Settings(
        iters=ITERATIONS,
        batch_size=25,
        learning_rate=0.01,
        seed=1,
        out=Path(folder or "none"),
        resume=resume,
    )
    with Run(settings) as run, pytest.MonkeyPatch.context() as patch:
        run.record({})
        keras.utils.set_random_seed(1)
        with run.workers.strategy.scope():
            model = DVAE(16, "gaussian", hidden=(8,), latent=2)
        patch.setattr(
            training, "checkpoint_iterations", lambda iterations: list(range(iterations + 1))
        )
        for iteration, _ in training.train(model, counted, settings, run):
            yield iteration, training.held_out_losses(model, *make_batch((5, 5), 1000))["loss"]


def as_process(folder, *signals):
    """What each worker of the test below runs; its losses are printed as they come, and where it was told to end.

    signals: the middle arguments of `losses`, for a first run and for one that goes on with it, and so on.
    """
    with cli.one_line_errors():
        together = workers.join()  # once; each run's own joining finds them met
        workers.join = lambda: together
        for turn, each in enumerate(signals or [()]):
            try:
                for row in losses(folder, *each, resume=turn > 0):
                    print(json.dumps(row), flush=True)
            except KeyboardInterrupt as interrupted:
                print(json.dumps(["interrupted", interrupted.args]), flush=True)


def gradients_of_two_replicas():
    """Prints how far one step of two replicas on their parts is from one on both: the largest relative difference."""
    import training
    from harness.quiet_tensorflow import load

    tf = load(devices=False)
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    from models import DVAE, keras

    settings = Settings(iters=4, batch_size=25, out=Path("none"))
    with strategy.scope():
        keras.utils.set_random_seed(1)
        model = DVAE(16, "gaussian", hidden=(8,), latent=2)
        optimizer = keras.optimizers.SGD(1.0)  # so that a step is the gradient
        optimizer.build(model.trainable_variables)
    before = [variable.numpy() for variable in model.trainable_variables]
    i = tf.constant(3)
    parts = [training.draw_batch(make_batch, 2, settings, i, number, 2) for number in (0, 1)]
    sizes = [len(part[0]) for part in parts]
    corrupted, clean, noise = (tf.concat(part, 0) for part in zip(*parts))
    with tf.GradientTape() as tape:
        nll, kl = model.nll_and_kl(clean, model(corrupted, noise=noise))
        loss = nll + training.kl_weight(i, settings.kl_warm_up * settings.iters) * kl
    expected = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    advance = training.build_advance(
        strategy, training.build_step(model, optimizer, make_batch, settings)
    )
    sums, _ = advance(i, tf.constant(1), tf.constant(0.0))
    moved = [old - new.numpy() for old, new in zip(before, model.trainable_variables)]
    worst = max(
        np.abs(ours - theirs).max() / np.abs(theirs).max() for ours, theirs in zip(moved, expected)
    )
    print(
        json.dumps(
            {
                "sizes": sizes,
                "worst": float(worst),
                "loss": float(sums[0]),
                "expected": float(nll + kl),
            }
        )
    )


def start(call, **environment):
    inherited = {
        name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"
    }
    return subprocess.Popen(
        [sys.executable, "-c", f"import test_workers; test_workers.{call}"],
        env={
            **inherited,
            "PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parent))),
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_replicas_on_their_parts_do_what_one_does_on_both():
    said, error = (process := start("gradients_of_two_replicas()")).communicate(timeout=200)
    assert process.returncode == 0, error
    found = json.loads(said.splitlines()[-1])
    assert found["sizes"] == [12, 13]
    assert found["worst"] < 1e-6 and found["loss"] == pytest.approx(found["expected"], rel=1e-6)


def test_two_workers_learn_what_one_does_and_end_together(tmp_path):
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    out = tmp_path / "two"
    # One batch is made before the first iteration, to tell the data by.
    strikes = [(int(signal.SIGTERM), TOLD_AT - 1), (int(signal.SIGKILL), KILLED_AT - TOLD_AT)]
    chief = start(
        f"as_process({str(out)!r}, (), ())", TF_CONFIG=told(cluster, type="worker", index=0)
    )
    other = start(
        f"as_process({str(tmp_path / 'no')!r}, *{strikes})",
        TF_CONFIG=told(cluster, type="worker", index=1),
    )
    alone = dict(losses(tmp_path / "alone"))

    said, error = other.communicate(timeout=200)
    killed = time.monotonic()
    assert other.returncode == -signal.SIGKILL and not said
    assert error == "\nfinishing what is under way; press again to stop at once\n"
    said, error = chief.communicate(timeout=60)
    assert time.monotonic() - killed < 60
    assert (
        chief.returncode == 2
        and "worker 0 of 2 has lost another" in error
        and error.count("\n") == 1
    )
    assert "to go on: python -c" in error or "--resume" in error
    together = dict(map(json.loads, said.splitlines()))
    assert list(together) == [*range(TOLD_AT), "interrupted", *range(TOLD_AT, KILLED_AT)]
    # Other random numbers from the same weights: the curves are alike, not the same.
    fallen = alone[0] - alone[ITERATIONS]
    assert together[0] == pytest.approx(alone[0], rel=1e-5)
    assert 1e-4 < abs(together[TOLD_AT - 1] - alone[TOLD_AT - 1]) < 0.1 * fallen
    gone_on = dict(losses(out, resume=True))
    assert list(gone_on) == list(range(KILLED_AT - 1, ITERATIONS + 1))
    assert gone_on[ITERATIONS] == pytest.approx(alone[ITERATIONS], abs=0.1 * fallen)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "two"]

"""Workers find their numbers, meet, and train together as one process does."""

import dataclasses
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
from commands import posix, without_xla

from harness import UserError, cli, workers
from harness.run_folder import Run

HERE = Path(__file__).parent
ITERATIONS, INTERRUPTED_AT, KILLED_AT = 40, 10, 14


@pytest.fixture
def environment(monkeypatch):
    for name in [name for name in os.environ if name == "TF_CONFIG" or name.startswith("SLURM")]:
        monkeypatch.delenv(name)
    return monkeypatch


def tf_config(cluster, **task):
    return json.dumps({"cluster": cluster, "task": task, "environment": "cloud"})


def test_tf_config_gives_number_and_addresses(environment):
    assert workers.task() == (0, ())
    two = {"worker": ["a:1", "10.0.0.2:22"]}
    with_chief = {"worker": ["b:1", "c:1"], "chief": ["a:1"], "evaluator": ["e:1"]}
    for text, expected in {
        "": (0, ()),
        "{}": (0, ()),
        tf_config({"worker": ["a:1"]}, type="worker", index=0): (0, ()),
        tf_config(two, type="worker", index=1): (1, (("a", 1), ("10.0.0.2", 22))),
        tf_config(two, type="worker", index="1"): (1, (("a", 1), ("10.0.0.2", 22))),
        tf_config(with_chief, type="chief", index=0): (0, (("a", 1), ("b", 1), ("c", 1))),
        tf_config(with_chief, type="worker", index=1): (2, (("a", 1), ("b", 1), ("c", 1))),
    }.items():
        environment.setenv("TF_CONFIG", text)
        assert workers.task() == expected
    for text in (
        "no JSON",
        "[]",
        tf_config(two, type="worker", index=2),
        tf_config(two),
        tf_config(with_chief, type="evaluator", index=0),
        tf_config({"worker": ["a", "b"]}, type="worker", index=0),
    ):
        environment.setenv("TF_CONFIG", text)
        with pytest.raises(UserError, match=r"TF_CONFIG=.* does not say which worker this is"):
            workers.task()


def test_a_slurm_step_gives_number_and_addresses(environment):
    values = {"STEP_NUM_TASKS": 3, "STEP_NODELIST": "n[1-2]", "STEP_TASKS_PER_NODE": "2,1"}
    for name, value in {**values, "PROCID": 2, "JOB_ID": 7}.items():
        environment.setenv(f"SLURM_{name}", str(value))
    environment.setenv("SLURMD_NODENAME", "n2")
    number, addresses = workers.task()
    assert number == 2 and [host for host, _ in addresses] == ["n1", "n1", "n2"]
    assert addresses[0][1] != addresses[1][1]
    environment.setenv("SLURMD_NODENAME", "n1")
    with pytest.raises(UserError, match=r"worker 2 runs on n1, .* on n2"):
        workers.task()
    environment.setenv("SLURM_STEP_NUM_TASKS", "1")
    assert workers.task() == (0, ())


def free_ports(count):
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def test_a_missing_worker_is_named():
    addresses = [("127.0.0.1", port) for port in free_ports(3)]
    with socket.create_server(addresses[1]):
        missing = rf"worker 2 of 3 at 127.0.0.1:{addresses[2][1]} did not come .* DVAE_WAIT"
        with pytest.raises(UserError, match=missing):
            workers._meet(0, addresses, 0.5)
        in_use = rf"127.0.0.1:{addresses[1][1]}: cannot open this worker's port \(.*in use"
        with pytest.raises(UserError, match=in_use):
            workers._meet(1, addresses, 0.5)


def test_the_environment_says_how_long_to_wait(environment):
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    environment.setenv("TF_CONFIG", tf_config(cluster, type="worker", index=0))
    for wait, message in (("soon", "DVAE_WAIT=soon: must be a number"), ("0.1", "within 0.1 s")):
        environment.setenv("DVAE_WAIT", wait)
        with pytest.raises(UserError, match=message):
            workers.join()


@dataclasses.dataclass(frozen=True)
class Settings(cli.Settings):
    experiment = "test"
    kl_warm_up, beta_2 = 0.25, 0.999
    iters: int = cli.flag(ITERATIONS, "optimizer steps")
    batch_size: int = cli.flag(25, "examples per iteration")
    learning_rate: float = cli.flag(0.01, "peak learning rate")
    data: str = cli.flag(None, "not used")


def test_only_the_chief_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "join", lambda: workers.Workers(1, (("a", 1), ("b", 1))))
    with Run(Settings(out=tmp_path / "out")) as run:
        run.record({})
        run.save({"file": lambda path: path.write_text("anything")})
        assert run.checkpoint is None
    assert list(tmp_path.iterdir()) == []


def make_batch(seed, count):
    """16 values with a common factor, half of them missing."""
    from harness.quiet_tensorflow import tf

    clean = tf.random.stateless_normal((count, 1), seed) * tf.ones((1, 16))
    clean += 0.1 * tf.random.stateless_normal((count, 16), tf.random.fold_in(seed, 1))
    return clean * tf.cast(tf.range(16) < 8, tf.float32), clean


def losses(folder=None, number=None, made_before=None, resume=False):
    """Yield (iteration, held-out loss) of a small run that saves at every iteration.

    After making `made_before` batches, the worker sends itself the signal `number`.
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

    settings = Settings(seed=1, out=Path(folder or "none"), resume=resume)
    with Run(settings) as run, pytest.MonkeyPatch.context() as patch, without_xla():
        run.record({})
        keras.utils.set_random_seed(1)
        with run.workers.strategy.scope():
            model = DVAE(16, "gaussian", hidden=(), latent=2)
        patch.setattr(training, "checkpoint_iterations", lambda last: list(range(last + 1)))
        for iteration, _ in training.train(model, counted, settings, run):
            yield iteration, training.held_out_losses(model, *make_batch((5, 5), 1000))["loss"]


def as_process(folder, *signals):
    """Run one worker of the test below; print its losses and interruptions.

    signals: (number, made_before) of a first run, of a run that resumes it, and so on.
    """
    with cli.one_line_errors():
        joined = workers.join()  # workers can meet only once
        workers.join = lambda: joined
        for turn, each in enumerate(signals or [()]):
            try:
                for row in losses(folder, *each, resume=turn > 0):
                    print(json.dumps(row), flush=True)
            except KeyboardInterrupt as interrupted:
                print(json.dumps(["interrupted", interrupted.args]), flush=True)


def gradients_of_two_replicas():
    """Print the difference between a step of two replicas and one of a single replica."""
    import training
    from harness.quiet_tensorflow import load

    tf = load(devices=False)
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, 2 * [tf.config.LogicalDeviceConfiguration()])
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    from models import DVAE, keras

    settings = Settings(iters=4, out=Path("none"))
    with strategy.scope():
        keras.utils.set_random_seed(1)
        model = DVAE(16, "gaussian", hidden=(), latent=2)
        optimizer = keras.optimizers.SGD(1.0)  # a step is then the gradient
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
    step = training.build_step(model, optimizer, make_batch, settings)
    advance = training.build_advance(strategy, step)
    sums, *_ = advance(i, tf.constant(1), tf.constant(0.0))
    moved = [old - new.numpy() for old, new in zip(before, model.trainable_variables)]
    pairs = zip(moved, expected)
    worst = max(np.abs(ours - theirs).max() / np.abs(theirs).max() for ours, theirs in pairs)
    found = {"worst": float(worst), "loss": float(sums[0]), "expected": float(nll + kl)}
    print(json.dumps({"sizes": sizes, **found}))


def start(call, **environment):
    environment = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}", **environment}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    return subprocess.Popen(
        [sys.executable, "-c", f"import test_workers; test_workers.{call}"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_step_of_two_replicas_equals_one_on_the_whole_batch():
    process = start("gradients_of_two_replicas()")
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, err
    found = json.loads(out.splitlines()[-1])
    assert found["sizes"] == [12, 13]
    assert found["worst"] < 1e-6 and found["loss"] == pytest.approx(found["expected"], rel=1e-6)


@posix
def test_two_workers_learn_as_one_does_and_end_together(tmp_path):
    """SIGTERM to the second worker interrupts both. SIGKILL to it later ends the first too."""
    cluster = {"worker": [f"127.0.0.1:{port}" for port in free_ports(2)]}
    configs = [tf_config(cluster, type="worker", index=index) for index in (0, 1)]
    out = tmp_path / "two"
    # One batch is made before the first iteration, to identify the data.
    first = int(signal.SIGTERM), INTERRUPTED_AT - 1
    second = int(signal.SIGKILL), KILLED_AT - INTERRUPTED_AT
    chief = start(f"as_process({str(out)!r}, (), ())", TF_CONFIG=configs[0])
    call = f"as_process({str(tmp_path / 'no')!r}, {first}, {second})"
    other = start(call, TF_CONFIG=configs[1])
    alone = dict(losses(tmp_path / "alone"))

    printed, error = other.communicate(timeout=200)
    killed = time.monotonic()
    assert other.returncode == -signal.SIGKILL and not printed
    assert error == "\nstopping after this step; press again to stop at once\n"
    printed, error = chief.communicate(timeout=60)
    assert time.monotonic() - killed < 60
    assert chief.returncode == 2 and error.count("\n") == 1
    assert "worker 0 of 2 has lost another worker" in error and "--resume" in error
    together = dict(map(json.loads, printed.splitlines()))
    before, after = range(INTERRUPTED_AT), range(INTERRUPTED_AT, KILLED_AT)
    assert list(together) == [*before, "interrupted", *after]
    # Initial weights are equal and random numbers are not, so the curves are only similar.
    drop = alone[0] - alone[ITERATIONS]
    assert together[0] == pytest.approx(alone[0], rel=1e-5)
    assert 1e-4 < abs(together[INTERRUPTED_AT - 1] - alone[INTERRUPTED_AT - 1]) < 0.1 * drop
    resumed = dict(losses(out, resume=True))
    assert list(resumed) == list(range(KILLED_AT - 1, ITERATIONS + 1))
    assert resumed[ITERATIONS] == pytest.approx(alone[ITERATIONS], abs=0.1 * drop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "two"]

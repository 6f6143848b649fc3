"""Workers find their numbers, meet, and train together as one process does."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import numpy as np
import pytest
from commands import eagerly, posix, without_xla

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
    environment.setenv("CUDA_VISIBLE_DEVICES", "5")  # assigned by Slurm
    load, loaded = workers.load, []
    environment.setattr(workers, "load", lambda devices=True: loaded.append(devices) or load(False))
    number, addresses = workers.task()
    assert not any(loaded)  # later, workers could not connect any more
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "5"
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
    """The replicas are the two logical processors of conftest.py."""
    import training
    from harness.quiet_tensorflow import tf
    from models import DVAE, keras

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    settings = Settings(iters=4, out=Path("none"))
    with strategy.scope():
        keras.utils.set_random_seed(1)
        model = DVAE(16, "gaussian", hidden=(), latent=2)
        optimizer = keras.optimizers.SGD(1.0)  # a step is then the gradient
        optimizer.build(model.trainable_variables)
    before = [variable.numpy() for variable in model.trainable_variables]
    i = tf.constant(3)
    parts = [training.draw_batch(make_batch, 2, settings, i, number, 2) for number in (0, 1)]
    assert [len(part[0]) for part in parts] == [12, 13]
    corrupted, clean, noise = (tf.concat(part, 0) for part in zip(*parts))
    with tf.GradientTape() as tape:
        nll, kl = model.nll_and_kl(clean, model(corrupted, noise=noise))
        loss = nll + training.kl_weight(i, settings.kl_warm_up * settings.iters) * kl
    expected = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    step = training.build_step(model, optimizer, make_batch, settings)
    sums, *_ = training.build_advance(strategy, step)(i, tf.constant(1), tf.constant(0.0))
    moved = [old - new.numpy() for old, new in zip(before, model.trainable_variables)]
    for ours, theirs in zip(moved, expected):
        assert np.abs(ours - theirs).max() < 1e-6 * np.abs(theirs).max()
    assert float(sums[0]) == pytest.approx(float(nll + kl), rel=1e-6)


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
    last = list(together)[-1]
    assert KILLED_AT - 2 <= last < KILLED_AT  # the kill may reach the last step
    expected = *range(INTERRUPTED_AT), "interrupted", *range(INTERRUPTED_AT, last + 1)
    assert list(together) == list(expected)
    # Initial weights are equal and random numbers are not, so the curves are only similar.
    drop = alone[0] - alone[ITERATIONS]
    assert together[0] == pytest.approx(alone[0], rel=1e-5)
    assert 1e-4 < abs(together[INTERRUPTED_AT - 1] - alone[INTERRUPTED_AT - 1]) < 0.1 * drop
    resumed = dict(losses(out, resume=True))
    assert list(resumed) == list(range(last, ITERATIONS + 1))
    assert resumed[ITERATIONS] == pytest.approx(alone[ITERATIONS], abs=0.1 * drop)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "two"]


def test_a_worker_that_comes_late_is_waited_for():
    addresses = [("127.0.0.1", port) for port in free_ports(2)]

    def come():
        time.sleep(0.2)
        with socket.create_server(addresses[1]) as server:
            server.accept()[0].close()

    late = threading.Thread(target=come)
    late.start()
    workers._meet(0, addresses, 30)
    late.join()


def test_a_silent_address_is_no_connection(monkeypatch):
    """The error of a timeout has no text from the system."""

    def silent(address, timeout):
        assert address == ("a", 1) and 0 < timeout < 60
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", silent)
    assert "timed out" in str(workers._connection_error("a", 1))


def test_steps_of_slurm_have_their_own_ports(environment):
    """Two jobs, or two steps of a job, may run on a node at the same time."""
    values = {"STEP_NUM_TASKS": 2, "STEP_NODELIST": "n1", "STEP_TASKS_PER_NODE": "2", "PROCID": 1}
    for name, value in values.items():
        environment.setenv(f"SLURM_{name}", str(value))
    ports = []
    for job, step in ((7, 0), (7, 3), (5, 0), (9_999, 0), (987_654_321, 0)):
        environment.setenv("SLURM_JOB_ID", str(job))
        environment.setenv("SLURM_STEP_ID", str(step))
        number, addresses = workers.task()  # the node need not be named
        assert number == 1 and [host for host, _ in addresses] == ["n1", "n1"]
        ports.append([port for _, port in addresses])
    assert len({tuple(each) for each in ports}) == len(ports)
    assert all(1024 < port < 32_768 for each in ports for port in each)  # none the system gives
    environment.setenv("TF_CONFIG", tf_config({"worker": ["a:1", "b:2"]}, type="worker", index=0))
    assert workers.task() == (0, (("a", 1), ("b", 2)))  # it is the remedy for wrong addresses


def test_errors_of_a_lost_worker_are_told_from_others():
    from harness.quiet_tensorflow import tf

    several = workers.Workers(1, (("a", 1), ("b", 1), ("c", 1)))
    for kind in (
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.DeadlineExceededError,
    ):
        error = kind(None, None, "a long message")
        expected = f"worker 1 of 3 has lost another worker ({kind.__name__}) and ends too"
        assert several.lost(error) == expected
        assert workers.Workers().lost(error) is None
    for error in (tf.errors.InvalidArgumentError(None, None, ""), ValueError()):
        assert several.lost(error) is None


@pytest.mark.parametrize("count", range(4))
def test_several_gpus_share_a_batch(monkeypatch, count):
    from harness.quiet_tensorflow import load

    tf = load()

    def devices(kind=None):
        return [f"{kind}:{number}" for number in range(count if kind == "GPU" else 1)]

    monkeypatch.setattr(tf.config, "list_logical_devices", devices)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda: "mirrored")
    expected = "mirrored" if count > 1 else tf.distribute.get_strategy()
    assert workers.Workers().strategy == expected


class Cluster:
    """Stands in for TensorFlow's strategy and replica context of one of two workers.

    other: what the other worker adds to each sum.
    """

    def __init__(self, number, other):
        self.replica_id_in_sync_group, self.other = number, other

    def run(self, function):
        return function()

    def experimental_local_results(self, value):
        return [value]

    def all_reduce(self, how, values):
        assert how == "SUM"
        return [value + other for value, other in zip(values, self.other, strict=True)]


@pytest.mark.parametrize(
    "settings, example, differs",
    [
        ((800, 256, 0.003), 0.5, False),
        ((800, 256, 0.003), 0.5 * (1 + 1e-5), False),
        ((800, 256, 0.003), 0.5 * (1 + 1e-2), True),
        ((801, 256, 0.003), 0.5, True),
        ((800, 256, 0.0030001), 0.5, True),
    ],
)
@pytest.mark.parametrize("number", [0, 1])
def test_workers_start_with_the_chiefs_weights(monkeypatch, number, settings, example, differs):
    from harness.quiet_tensorflow import load
    from models import keras

    tf = load()
    own, theirs = keras.Variable([1.0, 2.0]), np.array([3.0, -4.0])
    others = [theirs, np.array(settings), example] if number else [0, 0, 0]
    cluster = Cluster(number, [tf.constant(each, tf.float64) for each in others])
    monkeypatch.setattr(tf.distribute, "get_replica_context", lambda: cluster)
    with eagerly():
        if differs and number:
            with pytest.raises(UserError, match="flags or data differ from the chief's"):
                workers.broadcast_state(cluster, [own], (800, 256, 0.003), 0.5)
            assert own.numpy().tolist() == [1, 2]
        else:
            workers.broadcast_state(cluster, [own], (800, 256, 0.003), 0.5)
            assert own.numpy().tolist() == (theirs.tolist() if number else [1, 2])


@pytest.mark.parametrize("job, index, number", [("chief", 0, 0), ("worker", 1, 2)])
@pytest.mark.parametrize("wait", [0.5, 90, None])
def test_joining_ends_the_process_if_it_blocks(environment, job, index, number, wait):
    """TensorFlow gets a cluster of workers alone. A timer runs while it connects, and not after.

    TensorFlow is loaded before the workers meet, so the timer does not measure how long that takes.
    """
    timers, connected, met = [], [], []
    cluster = {"worker": ["b:2", "c:3"], "chief": ["a:1"]}
    environment.setenv("TF_CONFIG", tf_config(cluster, type=job, index=index))
    environment.setenv("DVAE_WAIT", str(wait))
    if wait is None:
        environment.delenv("DVAE_WAIT")
        wait = 60  # as docs/several_machines.md says
    environment.setattr(sys, "stdout", sys.stdout)

    def strategy(joined):
        connected.append(json.loads(os.environ["TF_CONFIG"]))
        ((seconds, ends),) = timers
        assert ends and seconds >= max(wait, 5)

    def start(seconds, exit, file):
        timers.append((seconds, exit))
        os.close(file)

    timer = types.SimpleNamespace(
        dump_traceback_later=start, cancel_dump_traceback_later=timers.clear
    )
    environment.setattr(workers, "faulthandler", timer)
    environment.setattr(workers, "load", lambda devices: met.append(devices))
    environment.setattr(workers, "_meet", lambda *given: met.append(given))
    environment.setattr(workers.Workers, "strategy", property(strategy))
    joined = workers.join()
    assert (joined.number, joined.addresses) == (number, (("a", 1), ("b", 2), ("c", 3)))
    assert met == [False, (number, joined.addresses, wait)]
    task = {"type": "worker", "index": number}
    assert connected == [{"cluster": {"worker": ["a:1", "b:2", "c:3"]}, "task": task}]
    assert timers == []
    assert (sys.stdout.name == os.devnull) == (number > 0)  # only the chief prints

"""Run as one process or as several workers that share every batch.

Workers find each other through TF_CONFIG (set by Kubernetes operators) or Slurm's variables.
Worker 0 is the chief. Only the chief scores, prints and writes.
"""

import dataclasses
import faulthandler
import functools
import json
import os
import socket
import sys
import time

import numpy as np

from harness import UserError
from harness.quiet_tensorflow import load, stderr_held_back

WAIT = 60  # seconds to wait for the other workers, unless DVAE_WAIT is set
RETRY_SECONDS = 0.3  # between attempts to connect


@dataclasses.dataclass(frozen=True)
class Workers:
    """Number of this worker and (host, port) of all workers, or () for a single process."""

    number: int = 0
    addresses: tuple = ()

    @property
    def is_chief(self):
        return self.number == 0

    @property
    def several(self):
        return len(self.addresses) > 1

    @functools.cached_property
    def strategy(self):
        """TensorFlow's strategy for several workers, several GPUs in one machine, or one device."""
        if self.several:
            with stderr_held_back():
                return load(devices=False).distribute.MultiWorkerMirroredStrategy()
        tf = load()
        if len(tf.config.list_logical_devices("GPU")) > 1:
            return tf.distribute.MirroredStrategy()
        return tf.distribute.get_strategy()

    def lost(self, error):
        """Return a message if TensorFlow's error shows that another worker ended, else None."""
        if not self.several:
            return None
        errors = load().errors
        lost = errors.UnavailableError | errors.AbortedError | errors.DeadlineExceededError
        if not isinstance(error, lost):
            return None
        name = f"worker {self.number} of {len(self.addresses)}"
        return f"{name} has lost another worker ({type(error).__name__}) and ends too"


def join():
    """Wait for the other workers, if any, and connect to them. Returns a `Workers`.

    This must be the first use of TensorFlow. Raises UserError if a worker does not come in time.
    """
    workers = Workers(*task())
    if not workers.several:
        return workers
    if not workers.is_chief:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")
    load(devices=False)
    try:
        wait = float(os.environ.get("DVAE_WAIT", WAIT))
    except ValueError as error:
        value = os.environ["DVAE_WAIT"]
        raise UserError(f"DVAE_WAIT={value}: must be a number of seconds") from error
    _meet(workers.number, workers.addresses, wait)
    # TensorFlow waits for the others without a timeout and blocks Python. All are running, so the
    # wait is short. If one ends at this moment, faulthandler ends this process.
    faulthandler.dump_traceback_later(max(10, wait), exit=True, file=os.dup(2))
    cluster = {"worker": [f"{host}:{port}" for host, port in workers.addresses]}
    this = {"type": "worker", "index": workers.number}
    os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": this})
    _ = workers.strategy  # connects to the other workers
    faulthandler.cancel_dump_traceback_later()
    return workers


def task():
    """Return this worker's number and every (host, port), chief first, or (0, ()) if alone.

    Raises UserError if TF_CONFIG does not say which worker this is.
    """
    if "TF_CONFIG" not in os.environ and _slurm("STEP_NUM_TASKS") > 1:
        return _slurm_task()
    text = os.environ.get("TF_CONFIG") or "{}"
    try:
        config = json.loads(text)
        cluster = config.get("cluster", {})
        tasks = [(job, i) for job in ("chief", "worker") for i in range(len(cluster.get(job, [])))]
        if len(tasks) < 2:
            return 0, ()
        number = tasks.index((config["task"]["type"], int(config["task"]["index"])))
        return number, tuple(_host_and_port(cluster[job][i]) for job, i in tasks)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"TF_CONFIG={text}: does not say which worker this is ({type(error).__name__}: "
            f"{error}); see docs/several_machines.md for an example"
        ) from error


def _slurm_task():
    """Return the result of `task` for a Slurm job step, where each Slurm task is one worker.

    Slurm assigns the GPUs. The resolver could do it too, but fails on nodes without GPUs.
    """
    resolver = load(devices=False).distribute.cluster_resolver.SlurmClusterResolver(
        port_base=20_000 + (_slurm("JOB_ID") + _slurm("STEP_ID")) % 10_000,
        gpus_per_node=_slurm("STEP_NUM_TASKS"),
        gpus_per_task=1,
        auto_set_gpu=False,
    )
    addresses = tuple(map(_host_and_port, resolver.cluster_spec().as_dict()["worker"]))
    number = _slurm("PROCID")
    node = os.environ.get("SLURMD_NODENAME")
    if node and addresses[number][0] != node:  # TensorFlow sorts node10 before node9
        raise UserError(
            f"Slurm: worker {number} runs on {node}, but TensorFlow expects it on "
            f"{addresses[number][0]}; set TF_CONFIG"
        )
    return number, addresses


def _slurm(name):
    return int(os.environ.get(f"SLURM_{name}", 0))


def _host_and_port(address):
    host, port = address.rsplit(":", 1)
    return host, int(port)


def _meet(number, addresses, wait):
    """Open this worker's port and wait until all others have opened theirs.

    Raises UserError after `wait` seconds, or if this worker's port cannot be opened.
    """
    deadline = time.monotonic() + wait
    host, port = addresses[number]
    try:
        server = socket.create_server(("", port))
    except OSError as error:
        problem = f"cannot open this worker's port ({error.strerror})"
        raise UserError(f"{host}:{port}: {problem}; choose another in TF_CONFIG") from error
    with server:
        for other, (host, port) in enumerate(addresses):
            while other != number and (problem := _connection_error(host, port)):
                if time.monotonic() > deadline:
                    raise UserError(
                        f"worker {other} of {len(addresses)} at {host}:{port} did not come within "
                        f"{wait:g} s ({problem}); start it too, or wait longer with DVAE_WAIT=300"
                    )
                time.sleep(RETRY_SECONDS)


def _connection_error(host, port):
    """Return the reason why connecting to this address fails, or None if it succeeds."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError as error:
        return error.strerror or error


def broadcast_state(strategy, variables, settings, example):
    """Assign the chief's values to the variables of every worker.

    settings: numbers. example: the mean of the first example. Raises UserError if the settings
    differ from the chief's, or if the example differs by more than rounding.
    """
    tf = load()
    values = [*variables, tf.constant(settings, "float64"), example]

    def from_chief():
        replica = tf.distribute.get_replica_context()
        chief = tf.get_static_value(replica.replica_id_in_sync_group) == 0
        own = [tf.cast(value, tf.float64) * float(chief) for value in values]
        return replica.all_reduce("SUM", own)

    sums = tf.function(lambda: strategy.run(from_chief))()
    sums = [strategy.experimental_local_results(value)[0] for value in sums]
    *values, chief_settings, chief_example = sums
    same_data = np.isclose(chief_example, example, rtol=1e-3, atol=1e-6)
    if not same_data or not np.array_equal(chief_settings, np.float64(settings)):
        problem = "this worker's flags or data differ from the chief's"
        raise UserError(f"{problem}; start all workers with the same ones")
    for variable, value in zip(variables, values):
        variable.assign(value)

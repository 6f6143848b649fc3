"""One process, or several that share every batch: which of them this is, and TensorFlow's strategy for them.

Several are told of each other by TF_CONFIG, as Kubernetes' operators set it, or by Slurm's `srun`. The first of them
is the chief: it alone scores, prints and writes.
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

WAIT = 60  # seconds for all workers to come; DVAE_WAIT is another number of them
RETRY_SECONDS = 0.3


@dataclasses.dataclass(frozen=True)
class Workers:
    """Who this process is: its number, 0 the chief's, and all workers' (host, port); () for a process on its own."""

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
        """TensorFlow's strategy: for several workers, several GPUs of this machine, or the one device there is."""
        if self.several:
            with stderr_held_back():
                return load(devices=False).distribute.MultiWorkerMirroredStrategy()
        tf = load()
        if len(tf.config.list_logical_devices("GPU")) > 1:
            return tf.distribute.MirroredStrategy()
        return tf.distribute.get_strategy()

    def lost(self, error):
        """One line if this is what TensorFlow raises for want of another worker, else None."""
        if self.several:
            errors = load().errors
            if isinstance(
                error, errors.UnavailableError | errors.AbortedError | errors.DeadlineExceededError
            ):
                which = f"worker {self.number} of {len(self.addresses)}"
                return f"{which} has lost another ({type(error).__name__}) and ends too"


def join():
    """Meet the other workers, if any, before TensorFlow does anything else. UserError if one does not come."""
    workers = Workers(*task())
    if not workers.several:
        return workers
    if not workers.is_chief:
        sys.stdout = open(os.devnull, "w")
    load(devices=False)
    try:
        wait = float(os.environ.get("DVAE_WAIT", WAIT))
    except ValueError as error:
        raise UserError(f"DVAE_WAIT={os.environ['DVAE_WAIT']}: not a number of seconds") from error
    _meet(workers.number, workers.addresses, wait)
    # TensorFlow's own wait for the others has no end, and stops all of Python. It is short, for they are all there;
    # should one be lost at this very moment, this ends it.
    faulthandler.dump_traceback_later(max(10, wait), exit=True, file=os.dup(2))
    cluster = {"worker": [f"{host}:{port}" for host, port in workers.addresses]}
    os.environ["TF_CONFIG"] = json.dumps(
        {"cluster": cluster, "task": {"type": "worker", "index": workers.number}}
    )
    _ = workers.strategy  # made now
    faulthandler.cancel_dump_traceback_later()
    return workers


def task():
    """This worker's number and all workers' (host, port), the chief's first; 0 and () for a process on its own.

    UserError if the environment speaks of several, but not clearly.
    """
    text = os.environ.get("TF_CONFIG") or "{}"
    if "TF_CONFIG" not in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        text = _slurm()
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
            f"TF_CONFIG={text}: does not say which worker this is ({type(error).__name__}: {error}); "
            "docs/several_machines.md shows how"
        ) from error


def _host_and_port(address):
    host, port = address.rsplit(":", 1)
    return host, int(port)


def _slurm():
    """What TF_CONFIG would say in this step of a Slurm job, each task a worker.

    Slurm itself shows each task its GPUs, so TensorFlow's resolver is not asked to: it could not do without any.
    """
    tf = load(devices=False)
    step = int(os.environ["SLURM_JOB_ID"]) + int(os.environ.get("SLURM_STEP_ID", 0))
    tasks = int(os.environ["SLURM_STEP_NUM_TASKS"])
    resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
        port_base=20_000 + step % 10_000, gpus_per_node=tasks, gpus_per_task=1, auto_set_gpu=False
    )
    workers = resolver.cluster_spec().as_dict()["worker"]
    number, node = int(os.environ["SLURM_PROCID"]), os.environ.get("SLURMD_NODENAME")
    if (
        node and workers[number].rsplit(":", 1)[0] != node
    ):  # it sorts node10 before node9, Slurm does not
        raise UserError(
            f"Slurm: TensorFlow takes worker {number} for {workers[number]}, not {node}; set TF_CONFIG"
        )
    return json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": number}})


def _meet(number, addresses, wait):
    """Return once every other worker's port is open, with this one's open meanwhile. UserError after `wait` seconds."""
    until = time.monotonic() + wait
    host, port = addresses[number]
    try:
        door = socket.create_server(("", port))
    except OSError as error:
        raise UserError(
            f"{host}:{port}, this worker's address: {error.strerror}; give another in TF_CONFIG"
        ) from error
    with door:
        missing = [i for i in range(len(addresses)) if i != number]
        while missing:
            try:
                socket.create_connection(addresses[missing[0]], timeout=5).close()
                missing.pop(0)
            except OSError as error:
                if time.monotonic() > until:
                    host, port = addresses[missing[0]]
                    raise UserError(
                        f"worker {missing[0]} of {len(addresses)} at {host}:{port} did not come within {wait:g} s "
                        f"({error.strerror or error}); start it too, or wait longer with DVAE_WAIT=300"
                    ) from error
                time.sleep(RETRY_SECONDS)


def broadcast_state(strategy, variables, settings, example):
    """Give the variables the chief's values on every worker. UserError if this one's settings are not the chief's.

    settings: numbers; example: the mean of the first one, which may be rounded otherwise there.
    """
    *values, theirs, other = _from_chief(
        strategy, [*variables, load().constant(settings, "float64"), example]
    )
    if not np.array_equal(theirs, np.float64(settings)) or not np.isclose(
        other, example, rtol=1e-3, atol=1e-6
    ):
        raise UserError("this worker's flags or data are not the chief's; start all with the same")
    for variable, value in zip(variables, values):
        variable.assign(value)


def _from_chief(strategy, values):
    """The chief's values on every worker: a list of tensors of numbers, float64, each of a shape that all know."""
    tf = load()

    def share():
        replica = tf.distribute.get_replica_context()
        chief = tf.get_static_value(replica.replica_id_in_sync_group) == 0
        return replica.all_reduce(
            "SUM", [tf.cast(value, tf.float64) * float(chief) for value in values]
        )

    shared = tf.function(lambda: strategy.run(share))()
    return [strategy.experimental_local_results(value)[0] for value in shared]

"""The loop: checkpoints, schedule, and that a run can be repeated."""

import json
import os
import resource
import signal

import numpy as np
import pytest

import training
from models import DVAE, keras
from quiet_tensorflow import tf


@pytest.mark.parametrize(
    "iterations, expected",
    [
        (1, [0, 1]),
        (100, [0, 100]),
        (101, [0, 100, 101]),
        (800, [0, 100, 200, 400, 800]),
        (2000, [0, 100, 200, 400, 800, 1600, 2000]),
    ],
)
def test_checkpoints_double_and_end_with_the_run(iterations, expected):
    assert training.checkpoint_iterations(iterations) == expected


def test_the_learning_rate_warms_up_and_falls_to_zero_as_a_cosine():
    rate = training.adam(450, 0.01).learning_rate  # of a built optimizer: at its iteration 0
    schedule = training.adam(450, 0.01)._learning_rate
    assert float(rate) == 0
    rates = np.array([float(schedule(i)) for i in range(451)])
    np.testing.assert_allclose(rates[:50], 0.01 * np.arange(50) / 50, atol=1e-8)
    np.testing.assert_allclose(rates[50:], 0.005 * (1 + np.cos(np.pi * np.arange(401) / 400)), atol=1e-7)


def test_the_kl_divergence_counts_from_nothing_to_all():
    weights = [float(training.kl_weight(tf.constant(i), 400)) for i in range(401)]
    np.testing.assert_allclose(weights, np.minimum(1, np.arange(401) / 100), atol=1e-6)
    keras.utils.set_random_seed(1)
    first = DVAE(16, "gaussian", hidden=(8,), latent=2)
    for iterations, moves in ((1, False), (2, True)):  # the first update is without it, and only it meets the prior
        _, weights = run(1, iterations)
        moved = [not np.array_equal(new, old) for new, old in zip(weights, first.weights)]
        assert [move for move, old in zip(moved, first.weights) if "prior" in old.name] == [moves] * 3
        assert all(move for move, old in zip(moved, first.weights) if "kernel" in old.name)


@pytest.fixture(scope="module", autouse=True)
def without_xla():
    """Compiling takes longer than all else here; what is compiled is tested with the scripts."""
    traced = tf.function
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf, "function", lambda *function, **_: traced(*function) if function else traced)
        yield


@pytest.fixture(scope="module")
def whole():
    return run(1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The file of a run stopped before it could draw its checkpoint at iteration 100."""
    folder = tmp_path_factory.mktemp("stopped")
    run(1, folder=folder, stop_at=100)
    return (folder / "checkpoint.npz").read_bytes()


def correlated(batch_seed):
    clean = tf.random.stateless_normal((32, 1), batch_seed) * tf.ones((1, 16))
    return clean, clean


def run(seed, iterations=130, make_batch=correlated, folder=None, stop_at=None):
    """Train, with a row a checkpoint as the scripts do, up to the moment a checkpoint is yielded: rows, weights."""
    keras.utils.set_random_seed(seed)
    model = DVAE(16, "gaussian", hidden=(8,), latent=2)
    rows = []
    for iteration, loss in training.train(
        model,
        lambda batch_seed, first, count: make_batch(batch_seed),
        batch_size=32,
        iterations=iterations,
        learning_rate=0.01,
        seed=seed,
        rows=rows,
        folder=folder,
    ):
        if iteration == stop_at:
            break
        rows.append({"iteration": iteration, "loss": loss, "held_out": training.held_out_losses(model, *held_out())})
    return rows, [weight.numpy() for weight in model.weights]


def held_out():
    return correlated((1, 1))


def same(ours, theirs):
    """The same rows and weights, bit for bit (nan equals nan, a float32 its double)."""
    rows = [json.dumps(rows, default=float) for rows, _ in (ours, theirs)]
    return rows[0] == rows[1] and all(np.array_equal(a, b) for a, b in zip(ours[1], theirs[1]))


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    first, again, other = run(1), run(1), run(2)
    assert [row["iteration"] for row in first[0]] == [0, 100, 130]
    assert first[0][2]["loss"] < first[0][1]["loss"]
    assert same(first, again) and not same(first, other)


def test_each_iteration_has_examples_of_its_own():
    seen = []
    model = DVAE(4, "gaussian", hidden=(3,), latent=2)

    def make_batch(batch_seed, first, count):
        clean = tf.random.stateless_normal((count, 4), batch_seed)
        tf.py_function(lambda batch: seen.append(batch.numpy().tobytes()), [clean], [])
        return clean, clean

    for _ in training.train(model, make_batch, batch_size=2, iterations=45, learning_rate=0.01, seed=0):
        pass
    assert len(seen) == len(set(seen)) == 45


def test_a_run_stopped_before_it_has_drawn_goes_on_to_the_same_end(tmp_path, whole):
    for stop_at in (0, 100, 130):
        run(1, folder=tmp_path, stop_at=stop_at)
    assert same(run(1, folder=tmp_path), whole)


def test_an_interrupted_run_saves_where_it_is_and_goes_on_to_the_same_end(tmp_path, whole):
    for number, at in ((signal.SIGINT, 50), (signal.SIGTERM, 30)):
        calls = []

        def interrupting(batch_seed, number=number, at=at, calls=calls):
            def call(_):
                calls.append(1)
                if len(calls) == at:
                    os.kill(os.getpid(), number)

            tf.py_function(call, [batch_seed], [])
            return correlated(batch_seed)

        before = signal.getsignal(number)
        with pytest.raises(KeyboardInterrupt) as interrupted:
            run(1, make_batch=interrupting, folder=tmp_path)
        assert interrupted.value.args == (number,)
        assert signal.getsignal(number) == before
        with np.load(tmp_path / "checkpoint.npz") as file:
            state = json.loads(str(file["state"]))
        assert state["iteration"] in (60, 80, 100)  # after the iterations under way
    assert same(run(1, folder=tmp_path), whole)


def test_a_finished_run_goes_on_for_more_iterations_at_the_longer_runs_learning_rate(tmp_path):
    run(1, iterations=30, folder=tmp_path)
    _, before = run(1, iterations=30, folder=tmp_path)  # at its end: nothing is left to train
    rows, after = run(1, iterations=60, folder=tmp_path)
    assert [row["iteration"] for row in rows] == [0, 30, 60]
    assert rows[2]["loss"] < rows[1]["loss"]
    # AdamW moves a weight by about the learning rate at most; at a rate of 0, not at all.
    moved = max(np.abs(new - old).max() for new, old in zip(after, before))
    assert 0.03 < moved < 30 * 0.01


def test_saving_in_between_changes_nothing(tmp_path, monkeypatch, whole):
    monkeypatch.setattr(training, "SAVE_SECONDS", 0)
    saved = []
    monkeypatch.setattr(training, "save", lambda path, variables, state: saved.append(state["iteration"]))
    assert same(run(1, folder=tmp_path), whole)
    assert saved == [20, 40, 60, 80, 100, 120, 130]


@pytest.mark.parametrize("bad, at, told", [("loss", 116, 117), ("gradient", 116, 118), ("gradient", 129, 130)])
def test_numbers_that_are_not_finite_stop_the_run(tmp_path, monkeypatch, bad, at, told):
    the_seed = tf.random.split(tf.random.fold_in((1, training.TRAINING), at))[0]

    def poisoned(batch_seed):
        corrupted, clean = correlated(batch_seed)
        poison = tf.reduce_all(batch_seed == the_seed)
        return corrupted, tf.where(poison, np.float32("nan" if bad == "loss" else 0), clean)

    def nll_with_a_root(model, clean, decoded):  # its derivative at 0, where only the poisoned batch is, is infinite
        return whole_nll(model, clean, decoded) + tf.sqrt(model.log_std**2 * tf.reduce_sum(clean**2))

    whole_nll = DVAE.nll
    if bad == "gradient":
        monkeypatch.setattr(DVAE, "nll", nll_with_a_root)
    with pytest.raises(FloatingPointError, match=rf"iteration {told}: .* learning rate \S+; .* iteration 100 is kept"):
        run(1, make_batch=poisoned, folder=tmp_path)
    with np.load(tmp_path / "checkpoint.npz") as file:
        assert json.loads(str(file["state"]))["iteration"] == 100
        assert all(np.isfinite(file[name]).all() for name in file.files if name != "state")


def test_a_checkpoint_is_whole_or_the_one_before(tmp_path):
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(b"the one before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
        with pytest.raises(OSError, match="File too large") as refused:
            training.save(path, [tf.Variable(np.ones(2000))], {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refused.value.filename == str(path)
    assert path.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, saved):
    path = tmp_path / "checkpoint.npz"

    def refused(what, **flags):
        with pytest.raises(OSError, match=rf"checkpoint\.npz: .*{what}.*--overwrite"):
            run(**{"seed": 1, "folder": tmp_path, **flags})

    path.write_bytes(saved)
    with np.load(path) as file:
        arrays = dict(file)
    refused("other data", seed=2)
    refused("other data", make_batch=lambda seed: [2 * part for part in correlated(seed)])
    for cut in (0, 10, len(saved) - 30):
        path.write_bytes(saved[:cut])
        refused("not a whole checkpoint")
    path.write_bytes(saved[:3000] + bytes([saved[3000] ^ 1]) + saved[3001:])
    refused("not a whole checkpoint")
    np.savez(path, **{**arrays, "variable_0": np.array([{}])})  # a pickle
    refused("not a whole checkpoint")
    np.savez(path, **{**arrays, "variable_0": np.zeros((3, 3), np.float32)})
    refused("another network")
    state = json.loads(str(arrays["state"]))
    np.savez(path, **{**arrays, "state": json.dumps({"format": training.FORMAT + 1})})
    refused("another version")
    for bad in ({**state, "rows": 3}, {**state, "first_batch": ["x"]}, {}, []):
        np.savez(path, **{**arrays, "state": json.dumps(bad)})
        refused("not a whole checkpoint")
    state["first_batch"] = [value * (1 + 1e-6) for value in state["first_batch"]]  # another machine's rounding
    np.savez(path, **{**arrays, "state": json.dumps(state)})
    assert run(1, folder=tmp_path)[0][-1]["iteration"] == 130

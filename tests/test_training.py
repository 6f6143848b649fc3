"""Schedules, step and loop, on problems with known answers; runs repeat and resume exactly."""

import contextlib
import json
import os
import resource
import signal
import types

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

import mnist_dvae
import random_numbers
import sound_dvae
import training
from harness import UserError, checkpoint, guard
from harness.quiet_tensorflow import tf
from harness.workers import Workers
from models import DVAE, keras


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
    np.testing.assert_allclose(
        rates[50:], 0.005 * (1 + np.cos(np.pi * np.arange(401) / 400)), atol=1e-7
    )


def test_only_kernels_decay_by_a_tenth_of_the_learning_rate():
    keras.utils.set_random_seed(1)
    model = DVAE(6, "gaussian", hidden=(5,), latent=2, components=3)
    for weight in model.trainable_variables:
        weight.assign(np.random.default_rng(0).uniform(0.5, 1, weight.shape))
    optimizer = training.adam(20, 2.0)
    before = [weight.numpy() for weight in model.trainable_variables]
    kept = 1.0
    for _ in range(20):
        kept *= 1 - 0.1 * float(optimizer.learning_rate)
        optimizer.apply(
            [tf.zeros_like(weight) for weight in model.trainable_variables],
            model.trainable_variables,
        )
    assert kept < 0.2
    for weight, old in zip(model.trainable_variables, before):
        np.testing.assert_allclose(
            weight, old * (kept if "kernel" in weight.name else 1), rtol=1e-3
        )


def settings(**changed):
    defaults = {
        "batch_size": 32,
        "iters": 130,
        "kl_warm_up": 0.25,
        "learning_rate": 0.01,
        "seed": 1,
    }
    return types.SimpleNamespace(**defaults | changed)


# A problem with a known optimum: values that share one normal factor, plus noise. The network sees
# the first SEEN of them.
FACTOR, NOISE, SEEN = np.array([1.0, -0.5, 0.8, 0.3, 1.2, -0.9]), 0.5, 3
COVARIANCE = np.outer(FACTOR, FACTOR) + NOISE**2 * np.eye(FACTOR.size)


def half_hidden(seed, count):
    factor_seed, noise_seed = tf.unstack(tf.random.split(seed))
    clean = random_numbers.normal((count, 1), factor_seed) * FACTOR.astype(np.float32)
    clean += NOISE * random_numbers.normal((count, FACTOR.size), noise_seed)
    return clean * (np.arange(FACTOR.size) < SEEN), clean


def least_loss(seen):
    """Return the lowest loss in nats of a linear DVAE with one latent dimension, and regression.

    The posterior mean is along the best linear estimate of the factor. Its variance is v, of a
    total of 1 (the prior is learned, so the scale is free). The decoder regresses the example on z.
    """
    observed = COVARIANCE[seen, seen]
    direction = np.linalg.solve(
        observed, FACTOR[seen]
    )  # E[factor | observed] = direction . observed
    direction = direction / np.sqrt(direction @ observed @ direction)
    shared = COVARIANCE[:, seen] @ direction  # covariance of the example with the unit estimate

    def loss(v):
        residual = np.trace(COVARIANCE) - (1 - v) * shared @ shared
        return 0.5 * FACTOR.size * np.log(2 * np.pi * np.e * residual / FACTOR.size) - 0.5 * np.log(
            v
        )

    return scipy.optimize.minimize_scalar(loss, bounds=(1e-6, 1), method="bounded").fun, np.outer(
        shared, direction
    )


def test_the_compiled_loop_arrives_at_the_optimum_of_a_linear_gaussian_problem():
    keras.utils.set_random_seed(0)
    model = DVAE(FACTOR.size, "gaussian", hidden=(), latent=1, components=1)
    how = settings(batch_size=256, iters=1000, learning_rate=0.03, seed=0)
    losses = dict(training.train(model, half_hidden, how))
    denoising, best = least_loss(slice(SEEN))
    copying, _ = least_loss(slice(None))
    assert copying < denoising - 0.4  # what a network would reach that is shown what it shall find
    corrupted, clean = half_hidden((5, 6), 100_000)
    reached = np.mean(
        [training.held_out_losses(model, *half_hidden((5, k), 20_000))["loss"] for k in range(5)]
    )
    assert reached == pytest.approx(denoising, abs=0.02)
    assert losses[1000] == pytest.approx(denoising, abs=0.05)
    # Its reconstruction is the best linear estimate, up to the shrinkage of a noisy z.
    estimate = model.reconstruct(corrupted).numpy()
    expected = corrupted.numpy()[:, :SEEN] @ best.T
    assert np.corrcoef(estimate.ravel(), expected.ravel())[0, 1] > 0.999
    error, least = np.mean((clean - estimate) ** 2), np.mean((clean - expected) ** 2)
    assert error < 1.05 * least


def test_the_loss_of_a_checkpoint_is_the_mean_since_the_one_before():
    keras.utils.set_random_seed(1)
    model = DVAE(16, "gaussian", hidden=(8,), latent=2)
    how = settings(
        iters=130, learning_rate=1e-30
    )  # so that every iteration's loss is that of the first weights
    told = dict(training.train(model, correlated, how))
    assert np.isnan(told[0])
    each = []
    for i in range(130):
        corrupted, clean, noise = training.draw_batch(correlated, 2, how, i)
        each.append(
            sum(float(part) for part in model.nll_and_kl(clean, model(corrupted, noise=noise)))
        )
    assert told[100] == pytest.approx(np.mean(each[:100]), rel=1e-5)
    assert told[130] == pytest.approx(np.mean(each[100:]), rel=1e-5)


def test_the_posteriors_noise_is_normal_and_of_each_iteration_and_replica_alone():
    seeds = []

    def make_batch(seed, count):
        seeds.append(seed)
        return correlated(seed, count)

    how = settings(batch_size=500)
    whole = [training.draw_batch(make_batch, 40, how, i) for i in (0, 1, 2)]
    parts = [training.draw_batch(make_batch, 40, how, 1, number, 3) for number in range(3)]
    assert [len(part[0]) for part in parts] == [166, 167, 167]
    draws = [noise.numpy() for *_, noise in whole + parts]
    for noise in draws:
        assert scipy.stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    draws += [
        random_numbers.normal((500, 40), seed).numpy() for seed in seeds[:3]
    ]  # what a batch may be made of
    for i, noise in enumerate(draws):
        for other in draws[:i]:
            size = min(noise.size, other.size)
            assert abs(np.corrcoef(noise.ravel()[:size], other.ravel()[:size])[0, 1]) < 5 / np.sqrt(
                size
            )
    examples = [clean.numpy()[:, 0].tolist() for _, clean, _ in whole + parts]
    assert len({value for values in examples for value in values}) == 3 * 500 + 500


def test_an_update_waits_for_the_one_before_and_its_batch_does_not():
    """Told by the step's graph: what happens when processors are busy is a matter of chance."""
    model = DVAE(16, "gaussian", hidden=(8,), latent=2)
    optimizer = training.adam(10, 0.01)
    optimizer.build(model.trainable_variables)
    step = tf.function(training.build_step(model, optimizer, correlated, settings()))
    graph = step.get_concrete_function(tf.TensorSpec((), tf.int32), tf.TensorSpec((3,))).graph
    before = graph.inputs[1].op

    def needs(operation, seen):
        """Return True if an operation waits for `before`, by data or by a control dependency."""
        if operation not in seen:
            seen.add(operation)
            earlier = [*(tensor.op for tensor in operation.inputs), *operation.control_inputs]
            return operation is before or any([needs(each, seen) for each in earlier])

    least = len(model.trainable_variables)  # it takes them all
    (update,) = [
        op
        for op in graph.get_operations()
        if "PartitionedCall" in op.type and len(op.inputs) > least
    ]
    assert needs(update, set())
    examples = [tensor.op for tensor in update.inputs if tensor.shape.rank == 2]
    assert len(examples) == 3 and not any(needs(op, set()) for op in examples)


def test_the_kl_divergence_counts_from_nothing_to_all():
    weights = [float(training.kl_weight(tf.constant(i), 100)) for i in range(401)]
    np.testing.assert_allclose(weights, np.minimum(1, np.arange(401) / 100), atol=1e-6)
    keras.utils.set_random_seed(1)
    first = DVAE(16, "gaussian", hidden=(8,), latent=2)
    for iterations, moves in (
        (1, False),
        (2, True),
    ):  # the first update is without it, and only it meets the prior
        _, weights = run(1, iterations)
        moved = [not np.array_equal(new, old) for new, old in zip(weights, first.weights)]
        assert [move for move, old in zip(moved, first.weights) if "prior" in old.name] == [
            moves
        ] * 3
        assert all(move for move, old in zip(moved, first.weights) if "kernel" in old.name)


@pytest.mark.parametrize("script, counts", [(sound_dvae, 0.8), (mnist_dvae, 0.4)])
def test_a_fifth_through_a_run_the_kl_divergence_counts_as_its_script_has_it(script, counts):
    def both(seed, count):
        clean = tf.random.stateless_uniform((count, 16), seed)
        return clean, clean

    keras.utils.set_random_seed(1)
    model, how = (
        DVAE(16, "gaussian", hidden=(8,), latent=2),
        script.Settings(iters=100, batch_size=32),
    )
    optimizer = keras.optimizers.SGD(1.0)  # so that a step is the gradient
    optimizer.build(model.trainable_variables)
    corrupted, clean, noise = training.draw_batch(both, 2, how, 20)
    with tf.GradientTape() as tape:  # nothing else meets the prior
        kl = model.nll_and_kl(clean, model(corrupted, noise=noise))[1]
    slope, before = tape.gradient(kl, model.prior_means.value).numpy(), model.prior_means.numpy()
    training.build_step(model, optimizer, both, how)(tf.constant(20), tf.zeros(3))
    np.testing.assert_allclose(
        before - model.prior_means.numpy(), counts * slope, atol=1e-3 * np.abs(slope).max()
    )


@pytest.fixture(scope="module")
def whole():
    return run(1)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the checkpoint file of a run that stopped before its scores at iteration 100."""
    folder = tmp_path_factory.mktemp("stopped")
    run(1, folder=folder, stop_at=100)
    return (folder / "checkpoint.npz").read_bytes()


def correlated(seed, count=32):
    """Values that share a factor, half of them hidden from the network."""
    clean = tf.random.stateless_normal((count, 1), seed) * tf.ones((1, 16))
    return clean * tf.cast(tf.range(16) < 8, tf.float32), clean


@contextlib.contextmanager
def without_xla():
    """Skip compilation, which dominates short runs; the tests above cover compiled code."""
    traced = tf.function
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            tf,
            "function",
            lambda *function, **_: traced(*function) if function else traced,
            raising=False,
        )
        yield


def run(seed, iterations=130, make_batch=correlated, folder=None, stop_at=None):
    """Train until `stop_at` is yielded, logging a row per checkpoint. Returns rows, weights."""
    keras.utils.set_random_seed(seed)
    model = DVAE(16, "gaussian", hidden=(8,), latent=2)
    path = folder and folder / "checkpoint.npz"
    stand_in = types.SimpleNamespace(workers=Workers(), checkpoint=path, rows=[])
    with without_xla():
        for iteration, loss in training.train(
            model, make_batch, settings(iters=iterations, seed=seed), stand_in
        ):
            if iteration == stop_at:
                break
            scores = training.held_out_losses(model, *correlated((1, 1)))
            stand_in.rows.append({"iteration": iteration, "loss": loss, "held_out": scores})
    return stand_in.rows, [weight.numpy() for weight in model.weights]


def same(ours, theirs):
    """Return True if rows and weights are equal bit for bit. NaN equals NaN."""
    rows = [json.dumps(rows, default=float) for rows, _ in (ours, theirs)]
    return rows[0] == rows[1] and all(np.array_equal(a, b) for a, b in zip(ours[1], theirs[1]))


@pytest.mark.parametrize("gpus", [[], ["GPU:0"]])
def test_on_a_gpu_training_asks_for_the_same_bits_each_time(monkeypatch, gpus):
    """TensorFlow is only told of one; where there is one, the tests below look at the bits."""
    from tensorflow.python.util import _pywrap_determinism  # there is no public way back

    monkeypatch.setattr(
        tf.config, "list_physical_devices", lambda kind=None: gpus if kind == "GPU" else []
    )
    model = DVAE(16, "gaussian", hidden=(8,), latent=2)
    before = _pywrap_determinism.is_enabled()
    _pywrap_determinism.enable(False)
    try:
        next(training.train(model, correlated, settings(iters=1)))
        assert _pywrap_determinism.is_enabled() == bool(gpus)
    finally:
        _pywrap_determinism.enable(before)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    first, again, other = run(1), run(1), run(2)
    assert [row["iteration"] for row in first[0]] == [0, 100, 130]
    assert first[0][2]["loss"] < first[0][1]["loss"]
    assert same(first, again) and not same(first, other)


def test_each_iteration_has_examples_of_its_own():
    seen = []
    model = DVAE(4, "gaussian", hidden=(3,), latent=2)

    def make_batch(batch_seed, count):
        clean = tf.random.stateless_normal((count, 4), batch_seed)
        tf.py_function(lambda batch: seen.append(batch.numpy().tobytes()), [clean], [])
        return clean, clean

    for _ in training.train(model, make_batch, settings(batch_size=2, iters=45)):
        pass
    assert len(seen) == len(set(seen)) == 45


def test_a_run_stopped_before_its_scores_resumes_to_the_same_end(tmp_path, whole):
    for stop_at in (0, 100, 130):
        run(1, folder=tmp_path, stop_at=stop_at)
    assert same(run(1, folder=tmp_path), whole)


def test_an_interrupted_run_saves_and_resumes_to_the_same_end(tmp_path, whole, interruptible):
    for number, at in ((signal.SIGINT, 50), (signal.SIGTERM, 30)):
        calls = []

        def interrupting(seed, count, number=number, at=at, calls=calls):
            def call(_):
                calls.append(1)
                if len(calls) == at:
                    os.kill(os.getpid(), number)

            tf.py_function(call, [seed], [])
            return correlated(seed, count)

        before = signal.getsignal(number)
        with pytest.raises(KeyboardInterrupt) as interrupted:
            run(1, make_batch=interrupting, folder=tmp_path)
        assert interrupted.value.args == (number,)
        assert signal.getsignal(number) == before
        with np.load(tmp_path / "checkpoint.npz") as file:
            state = json.loads(str(file["state"]))
        assert state["iteration"] in (60, 80, 100)  # after the call in progress
    assert same(run(1, folder=tmp_path), whole)


def test_a_finished_run_resumes_at_the_learning_rate_of_more_iterations(tmp_path):
    run(1, iterations=30, folder=tmp_path)
    _, before = run(1, iterations=30, folder=tmp_path)  # finished, so nothing is trained
    rows, after = run(1, iterations=60, folder=tmp_path)
    assert [row["iteration"] for row in rows] == [0, 30, 60]
    assert rows[2]["loss"] < rows[1]["loss"]
    # AdamW moves a weight by at most about the learning rate, which was 0 after 30 iterations.
    moved = max(np.abs(new - old).max() for new, old in zip(after, before))
    assert 0.03 < moved < 30 * 0.01


def test_saving_in_between_changes_nothing(tmp_path, monkeypatch, whole):
    monkeypatch.setattr(guard, "SAVE_SECONDS", 0)
    saved = []
    monkeypatch.setattr(
        checkpoint, "save", lambda path, variables, state: saved.append(state["iteration"])
    )
    assert same(run(1, folder=tmp_path), whole)
    assert saved == [20, 40, 60, 80, 100, 120, 130]


@pytest.mark.parametrize(
    "bad, at, reported", [("loss", 116, 117), ("gradient", 116, 118), ("gradient", 129, 130)]
)
def test_numbers_that_are_not_finite_stop_the_run(tmp_path, monkeypatch, bad, at, reported):
    the_seed = tf.random.split(tf.random.fold_in((1, training.TRAINING), at))[0]

    def poisoned(seed, count):
        corrupted, clean = correlated(seed, count)
        poison = tf.reduce_all(seed == the_seed)
        return corrupted, tf.where(poison, np.float32("nan" if bad == "loss" else 0), clean)

    def nll_with_a_root(model, clean, decoded):
        """The root's derivative is infinite at 0, which only the poisoned batch reaches."""
        root = tf.sqrt(model.log_std**2 * tf.reduce_sum(clean**2))
        return usual_nll(model, clean, decoded) + root

    usual_nll = DVAE.nll
    if bad == "gradient":
        monkeypatch.setattr(DVAE, "nll", nll_with_a_root)
    with pytest.raises(
        FloatingPointError,
        match=rf"iteration {reported}: .* learning rate \S+; .* iteration 100 is kept",
    ):
        run(1, make_batch=poisoned, folder=tmp_path)
    with np.load(tmp_path / "checkpoint.npz") as file:
        assert json.loads(str(file["state"]))["iteration"] == 100
        assert all(np.isfinite(file[name]).all() for name in file.files if name != "state")


def test_a_failed_save_leaves_the_previous_checkpoint(tmp_path):
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(b"previous")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
        with pytest.raises(OSError, match="File too large") as refused:
            checkpoint.save(path, [tf.Variable(np.ones(2000))], {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refused.value.filename == str(path)
    assert path.read_bytes() == b"previous"
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, saved):
    path = tmp_path / "checkpoint.npz"

    def refused(reason, **flags):
        with pytest.raises(UserError, match=rf"checkpoint\.npz: .*{reason}.*--overwrite"):
            run(**{"seed": 1, "folder": tmp_path, **flags})

    path.write_bytes(saved)
    with np.load(path) as file:
        arrays = dict(file)
    refused("another seed", seed=2)
    refused("other data", make_batch=lambda *batch: [2 * part for part in correlated(*batch)])
    for cut in (0, 10, len(saved) - 30):
        path.write_bytes(saved[:cut])
        refused("not a complete checkpoint")
    path.write_bytes(saved[:3000] + bytes([saved[3000] ^ 1]) + saved[3001:])
    refused("not a complete checkpoint")
    np.savez(path, **{**arrays, "variable_0": np.array([{}])})  # a pickle
    refused("not a complete checkpoint")
    np.savez(path, **{**arrays, "variable_0": np.zeros((3, 3), np.float32)})
    refused("another network")
    state = json.loads(str(arrays["state"]))
    np.savez(path, **{**arrays, "state": json.dumps({"format": checkpoint.FORMAT + 1})})
    refused("another version")
    for bad in ({**state, "rows": 3}, {**state, "first_batch": ["x"]}, {}, []):
        np.savez(path, **{**arrays, "state": json.dumps(bad)})
        refused("not a complete checkpoint")
    # Another machine may round differently.
    state["first_batch"] = [value * (1 + 1e-6) for value in state["first_batch"]]
    np.savez(path, **{**arrays, "state": json.dumps(state)})
    assert run(1, folder=tmp_path)[0][-1]["iteration"] == 130

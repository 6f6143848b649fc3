"""Schedules, step and loop on problems with known answers, and exact resuming."""

import contextlib
import itertools
import json
import signal
import types

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
from commands import eagerly, posix, without_xla

import mnist_dvae
import random_numbers
import sound_dvae
import training
from harness import UserError, checkpoint, cli, guard
from harness.quiet_tensorflow import tf
from harness.result_files import replacing
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


def each_of(function, count):
    """Return function(i), a scalar, for each i below `count`: (count,). Traced once, it is fast."""
    numbers = tf.range(count)
    return tf.function(lambda: tf.map_fn(function, numbers, tf.float32))().numpy()


@pytest.mark.parametrize("iterations, warm_up", [(450, 50), (60, 30), (2, 1)])
def test_the_learning_rate_warms_up_then_falls_as_a_cosine(iterations, warm_up):
    """A short run spends half of its iterations on the warm-up."""
    optimizer = training.adam(iterations, 0.01, 0.999)
    assert float(optimizer.learning_rate) == 0  # at iteration 0
    schedule, rest = optimizer._learning_rate, iterations - warm_up
    rates = each_of(schedule, iterations + 1)
    np.testing.assert_allclose(rates[:warm_up], 0.01 * np.arange(warm_up) / warm_up, atol=1e-8)
    cosine = 0.005 * (1 + np.cos(np.pi * np.arange(rest + 1) / rest))
    np.testing.assert_allclose(rates[warm_up:], cosine, atol=1e-7)


@pytest.mark.parametrize("beta", [0.9, 0.99])
def test_adam_divides_by_the_root_of_the_mean_square(beta):
    """Kingma and Ba 2014 (arXiv 1412.6980), for the gradients 1 and then 3."""
    optimizer, weight = training.adam(10, 1.0, beta), keras.Variable([0.0], name="bias")
    optimizer.build([weight])
    first, second = 0.0, 0.0
    for step, gradient in enumerate((1.0, 3.0), 1):
        first = 0.9 * first + 0.1 * gradient
        second = beta * second + (1 - beta) * gradient**2
        root = np.sqrt(second / (1 - beta**step))
        expected = (
            float(weight[0]) - float(optimizer.learning_rate) * first / (1 - 0.9**step) / root
        )
        optimizer.apply([tf.constant([gradient])])
        np.testing.assert_allclose(weight, [expected], atol=1e-6)


def test_kernels_of_many_inputs_move_less():
    """Adam moves every weight by the learning rate, so outputs move with the number of inputs."""
    optimizer = training.adam(1000, 1.0, 0.999)
    optimizer.iterations.assign(500)  # after the warm-up
    layers = [keras.layers.Dense(3, use_bias=False) for _ in range(3)]
    for layer, inputs in zip(layers, (8, 1024, 4096)):
        layer.build((None, inputs))
    weights = [layer.kernel for layer in layers]
    before = [weight.numpy() for weight in weights]
    optimizer.exclude_from_weight_decay(var_list=weights)
    optimizer.build(weights)
    optimizer.apply([tf.ones_like(weight) for weight in weights])
    moved = [np.abs(weight.numpy() - old).mean() for weight, old in zip(weights, before)]
    assert moved[0] == pytest.approx(moved[1]) and moved[2] == pytest.approx(moved[0] / 4)


def test_only_kernels_decay_by_a_tenth_of_the_learning_rate():
    keras.utils.set_random_seed(1)
    model = DVAE(6, "gaussian", hidden=(5,), latent=2, components=3)
    for weight in model.trainable_variables:
        weight.assign(np.random.default_rng(0).uniform(0.5, 1, weight.shape))
    optimizer = training.adam(10, 4.0, 0.999)
    before = [weight.numpy() for weight in model.trainable_variables]
    no_gradients = [tf.zeros_like(weight) for weight in model.trainable_variables]
    kept = 1.0
    for _ in range(10):
        kept *= 1 - 0.1 * float(optimizer.learning_rate)
        optimizer.apply(no_gradients, model.trainable_variables)
    assert kept < 0.2
    for weight, old in zip(model.trainable_variables, before):
        expected = old * kept if "kernel" in weight.name else old
        np.testing.assert_allclose(weight, expected, rtol=1e-3)


def settings(**changed):
    defaults = {"batch_size": 32, "iters": 130, "kl_warm_up": 0.25, "learning_rate": 0.01}
    return types.SimpleNamespace(**{**defaults, "beta_2": 0.999, "seed": 1, **changed})


# A problem with a known optimum: values that share one normal factor, plus noise. The network sees
# only the first SEEN of them.
FACTOR, NOISE, SEEN = np.array([1.0, -0.5, 0.8, 0.3, 1.2, -0.9]), 0.5, 3
COVARIANCE = np.outer(FACTOR, FACTOR) + NOISE**2 * np.eye(FACTOR.size)


def half_hidden(seed, count):
    factor_seed, noise_seed = tf.unstack(tf.random.split(seed))
    clean = random_numbers.normal((count, 1), factor_seed) * FACTOR.astype(np.float32)
    clean += NOISE * random_numbers.normal((count, FACTOR.size), noise_seed)
    return clean * (np.arange(FACTOR.size) < SEEN), clean


def least_loss(seen):
    """Return the lowest loss (nats) of a linear DVAE with one latent dimension, and its regression.

    The posterior mean is proportional to the best linear estimate of the factor. The variance of z
    is 1 (the prior is learned, so the scale is free); v of it is the posterior's. The decoder
    regresses the example on z.
    """
    observed = COVARIANCE[seen, seen]
    direction = np.linalg.solve(observed, FACTOR[seen])  # E[factor | values] = direction @ values
    direction = direction / np.sqrt(direction @ observed @ direction)
    shared = COVARIANCE[:, seen] @ direction  # covariance of the example with the unit estimate

    def loss(v):
        residual = np.trace(COVARIANCE) - (1 - v) * shared @ shared
        nll = 0.5 * FACTOR.size * np.log(2 * np.pi * np.e * residual / FACTOR.size)
        return nll - 0.5 * np.log(v)

    least = scipy.optimize.minimize_scalar(loss, bounds=(1e-6, 1), method="bounded").fun
    return least, np.outer(shared, direction)


def test_training_reaches_the_optimum_of_a_linear_problem():
    keras.utils.set_random_seed(0)
    model = DVAE(FACTOR.size, "gaussian", hidden=(), latent=1, components=1)
    options = settings(batch_size=256, iters=1000, learning_rate=0.03, seed=0)
    with without_xla():
        losses = dict(training.train(model, half_hidden, options))
    denoising, best = least_loss(slice(SEEN))
    copying, _ = least_loss(slice(None))
    assert copying < denoising - 0.4  # a network that saw its target would reach this
    held_out = [half_hidden((5, k), 20_000) for k in range(3)]
    reached = [training.held_out_losses(model, *examples)["loss"] for examples in held_out]
    assert np.mean(reached) == pytest.approx(denoising, abs=0.02)
    assert losses[1000] == pytest.approx(denoising, abs=0.05)
    # The reconstruction is the best linear estimate, up to the shrinkage of a noisy z.
    corrupted, clean = half_hidden((5, 6), 30_000)
    estimate = model.reconstruct(corrupted).numpy()
    expected = corrupted.numpy()[:, :SEEN] @ best.T
    assert np.corrcoef(estimate.ravel(), expected.ravel())[0, 1] > 0.999
    error, least = np.mean((clean - estimate) ** 2), np.mean((clean - expected) ** 2)
    assert error < 1.05 * least


def test_a_checkpoints_loss_is_the_mean_since_the_last_one():
    keras.utils.set_random_seed(1)
    model = DVAE(16, "gaussian", hidden=(), latent=2)
    options = settings(iters=130, learning_rate=1e-30)  # the weights stay the same
    with without_xla():
        losses = dict(training.train(model, correlated, options))
    assert np.isnan(losses[0])

    def loss(i):
        corrupted, clean, noise = training.draw_batch(correlated, 2, options, i)
        return sum(model.nll_and_kl(clean, model(corrupted, noise=noise)))

    each = each_of(loss, 130)
    assert losses[100] == pytest.approx(np.mean(each[:100]), rel=1e-5)
    assert losses[130] == pytest.approx(np.mean(each[100:]), rel=1e-5)


def test_noise_and_examples_differ_per_iteration_and_replica():
    seeds = []

    def make_batch(seed, count):
        seeds.append(seed)
        return correlated(seed, count)

    options = settings(batch_size=500)
    whole = [training.draw_batch(make_batch, 40, options, i) for i in (0, 1, 2)]
    parts = [training.draw_batch(make_batch, 40, options, 1, number, 3) for number in range(3)]
    assert [len(part[0]) for part in parts] == [166, 167, 167]
    draws = [noise.numpy() for *_, noise in whole + parts]
    for noise in draws:
        assert scipy.stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    # A batch may use its own seed for normal noise.
    draws += [random_numbers.normal((500, 40), seed).numpy() for seed in seeds[:3]]
    for one, other in itertools.combinations(draws, 2):
        size = min(one.size, other.size)
        correlation = np.corrcoef(one.ravel()[:size], other.ravel()[:size])[0, 1]
        assert abs(correlation) < 5 / np.sqrt(size)
    examples = [clean.numpy()[:, 0].tolist() for _, clean, _ in whole + parts]
    assert len({value for values in examples for value in values}) == 3 * 500 + 500


def test_updates_wait_for_each_other_but_batches_do_not():
    """Looks at the step's graph, because the actual order depends on chance."""
    model = DVAE(16, "gaussian", hidden=(8,), latent=2)
    optimizer = training.adam(10, 0.01, 0.999)
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

    least = len(model.trainable_variables)  # the update takes all of them
    calls = [op for op in graph.get_operations() if "PartitionedCall" in op.type]
    (update,) = [op for op in calls if len(op.inputs) > least]
    assert needs(update, set())
    examples = [tensor.op for tensor in update.inputs if tensor.shape.rank == 2]
    assert len(examples) == 3 and not any(needs(op, set()) for op in examples)


def test_the_kl_weight_rises_linearly_from_0_to_1():
    weights = [float(training.kl_weight(tf.constant(i), 100)) for i in range(401)]
    np.testing.assert_allclose(weights, np.minimum(1, np.arange(401) / 100), atol=1e-6)
    keras.utils.set_random_seed(1)
    first = DVAE(16, "gaussian", hidden=(), latent=2)
    for iterations in (1, 2):  # only the KL divergence moves the prior; its first weight is 0
        with eagerly():
            _, weights = Trainer(1, iterations)()
        moved = {old.name: not np.array_equal(new, old) for new, old in zip(weights, first.weights)}
        prior = [move for name, move in moved.items() if "prior" in name]
        assert prior == [iterations > 1] * 3
        assert all(move for name, move in moved.items() if "kernel" in name)


@pytest.mark.parametrize("script, weight", [(sound_dvae, 0.8), (mnist_dvae, 0.4)])
def test_the_kl_weight_follows_the_scripts_warm_up(script, weight):
    def both(seed, count):
        clean = tf.random.stateless_uniform((count, 16), seed)
        return clean, clean

    keras.utils.set_random_seed(1)
    model = DVAE(16, "gaussian", hidden=(), latent=2)
    options = script.Settings(iters=100, batch_size=32)
    optimizer = keras.optimizers.SGD(1.0)  # so that a step is the gradient
    optimizer.build(model.trainable_variables)
    corrupted, clean, noise = training.draw_batch(both, 2, options, 20)
    with tf.GradientTape() as tape:
        kl = model.nll_and_kl(clean, model(corrupted, noise=noise))[1]
    # Only the KL divergence moves the prior.
    gradient, before = tape.gradient(kl, model.prior_means.value).numpy(), model.prior_means.numpy()
    with eagerly():
        training.build_step(model, optimizer, both, options)(tf.constant(20), tf.zeros(3))
    step, tolerance = before - model.prior_means.numpy(), 1e-3 * np.abs(gradient).max()
    np.testing.assert_allclose(step, weight * gradient, atol=tolerance)


def correlated(seed, count=32):
    """Return examples whose values share a factor; half of them are hidden from the network."""
    clean = tf.random.stateless_normal((count, 1), seed) * tf.ones((1, 16))
    return clean * tf.cast(tf.range(16) < 8, tf.float32), clean


class Trainer:
    """Runs of one seed and length. They share a traced loop, because tracing takes longest.

    Each call starts a run: all variables have their initial values again.
    """

    def __init__(self, seed=1, iterations=130, make_batch=correlated):
        keras.utils.set_random_seed(seed)
        self.options, self.make_batch = settings(iters=iterations, seed=seed), make_batch
        self.model = DVAE(16, "gaussian", hidden=(), latent=2)  # few layers
        self.optimizer = training.adam(iterations, self.options.learning_rate, 0.999)
        self.optimizer.build(self.model.trainable_variables)
        with without_xla():
            step = training.build_step(self.model, self.optimizer, make_batch, self.options)
            self.advance = training.build_advance(self.model.distribute_strategy, step)
        variables = *self.model.variables, *self.optimizer.variables
        self.initial = [(variable, variable.numpy()) for variable in variables]

    def __call__(self, folder=None, stop_at=None):
        """Train until a checkpoint is yielded, logging a row per checkpoint: -> rows, weights."""
        for variable, value in self.initial:
            variable.assign(value)
        path = folder and folder / "checkpoint.npz"
        stand_in = types.SimpleNamespace(workers=Workers(), checkpoint=path, rows=[])
        stand_in.save_checkpoint = lambda save: save(path)
        with without_xla(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "adam", lambda *rates: self.optimizer)
            patch.setattr(training, "build_advance", lambda *step: self.advance)
            losses = training.train(self.model, self.make_batch, self.options, stand_in)
            for iteration, loss in losses:
                if iteration == stop_at:
                    break
                scores = training.held_out_losses(self.model, *correlated((1, 1)))
                stand_in.rows.append({"iteration": iteration, "loss": loss, "held_out": scores})
        return stand_in.rows, [weight.numpy() for weight in self.model.weights]


def same(ours, theirs):
    """Return True for bit-identical rows and weights (nan equals nan)."""
    rows = [json.dumps(rows, default=float) for rows, _ in (ours, theirs)]
    return rows[0] == rows[1] and all(np.array_equal(a, b) for a, b in zip(ours[1], theirs[1]))


@pytest.fixture(scope="module")
def run():
    """Return the trainer of most tests."""
    return Trainer()


@pytest.fixture(scope="module")
def other_seed():
    return Trainer(seed=2)


@pytest.fixture(scope="module")
def whole(run):
    return run()


@pytest.fixture(scope="module")
def saved(tmp_path_factory, run):
    """Return the checkpoint of a run stopped at iteration 100."""
    folder = tmp_path_factory.mktemp("stopped")
    run(folder, stop_at=100)
    return (folder / "checkpoint.npz").read_bytes()


@pytest.mark.parametrize("gpus", [[], ["GPU:0"]])
def test_training_is_deterministic_on_a_gpu(monkeypatch, gpus):
    """The GPU is simulated. On a machine with a real one, the tests below compare the results."""
    from tensorflow.python.util import _pywrap_determinism  # the public API cannot turn it off

    def devices(kind=None):
        return gpus if kind == "GPU" else []

    monkeypatch.setattr(tf.config, "list_physical_devices", devices)
    model = DVAE(16, "gaussian", hidden=(8,), latent=2)
    before = _pywrap_determinism.is_enabled()
    _pywrap_determinism.enable(False)
    try:
        with eagerly():
            next(training.train(model, correlated, settings(iters=1, batch_size=1)))
        assert _pywrap_determinism.is_enabled() == bool(gpus)
    finally:
        _pywrap_determinism.enable(before)


def test_the_seed_determines_the_weights(whole, other_seed):
    first, again, other = whole, Trainer()(), other_seed()
    assert [row["iteration"] for row in first[0]] == [0, 100, 130]
    assert first[0][2]["loss"] < first[0][1]["loss"]
    assert same(first, again) and not same(first, other)


def test_each_iteration_has_new_examples():
    seen = []
    model = DVAE(4, "gaussian", hidden=(3,), latent=2)

    def make_batch(batch_seed, count):
        clean = tf.random.stateless_normal((count, 4), batch_seed)
        tf.py_function(lambda batch: seen.append(batch.numpy().tobytes()), [clean], [])
        return clean, clean

    with without_xla():
        for _ in training.train(model, make_batch, settings(batch_size=2, iters=45)):
            pass
    assert len(seen) == len(set(seen)) == 45


def test_a_run_stopped_at_checkpoints_resumes_exactly(tmp_path, run, whole):
    for stop_at in (0, 100, 130):
        run(tmp_path, stop_at=stop_at)
    assert same(run(tmp_path), whole)


@posix
def test_an_interrupted_run_saves_and_resumes_exactly(tmp_path, run, whole, interruptible):
    left = []  # the numbers of the batches to make before the signal

    def interrupting(seed, count):
        def call(_):
            if left and left.pop() == 0:
                signal.raise_signal(number)

        tf.py_function(call, [seed], [])
        return correlated(seed, count)

    interrupted_run = Trainer(make_batch=interrupting)
    for number, at in ((signal.SIGINT, 50), (signal.SIGTERM, 30), (signal.SIGHUP, 20)):
        left[:] = range(at)
        before = signal.getsignal(number)
        with pytest.raises(KeyboardInterrupt) as interrupted:
            interrupted_run(tmp_path)
        assert interrupted.value.args == (number,)
        assert signal.getsignal(number) == before
        with np.load(tmp_path / "checkpoint.npz") as file:
            state = json.loads(str(file["state"]))
        assert state["iteration"] in (60, 80, 100, 120)  # once the current calls have ended
    assert same(run(tmp_path), whole)


def test_a_finished_run_can_be_extended(tmp_path):
    """It continues at the learning rate of the longer run, which is above 0."""
    short = Trainer(iterations=30)
    short(tmp_path)
    _, before = short(tmp_path)  # nothing is left to train
    rows, after = Trainer(iterations=60)(tmp_path)
    assert [row["iteration"] for row in rows] == [0, 30, 60]
    assert rows[2]["loss"] < rows[1]["loss"]
    # AdamW moves a weight by about the learning rate at most; at a rate of 0, not at all.
    moved = max(np.abs(new - old).max() for new, old in zip(after, before))
    assert 0.03 < moved < 30 * 0.01


def test_saving_between_checkpoints_changes_nothing(tmp_path, monkeypatch, run, whole):
    saved = []

    def save(path, variables, state):
        saved.append(state["iteration"])

    monkeypatch.setattr(guard, "SAVE_SECONDS", 0)
    monkeypatch.setattr(checkpoint, "save", save)
    assert same(run(tmp_path), whole)
    assert saved == [20, 40, 60, 80, 100, 120, 130]


@pytest.mark.parametrize(
    "bad, cases", [("loss", [(116, 117)]), ("gradient", [(116, 118), (129, 130)])]
)
def test_nan_and_infinity_stop_the_run(tmp_path, monkeypatch, bad, cases):
    """Cases: the iteration that gets a bad batch, and the one that is reported."""
    the_seed = tf.Variable([0, 0])

    def poisoned(seed, count):
        corrupted, clean = correlated(seed, count)
        poison = tf.reduce_all(seed == the_seed)
        return corrupted, tf.where(poison, np.float32("nan" if bad == "loss" else 0), clean)

    def nll_with_a_root(model, clean, decoded):
        # The root's derivative at 0 is infinite, and only the poisoned batch is 0.
        root = tf.sqrt(model.log_std**2 * tf.reduce_sum(clean**2))
        return original_nll(model, clean, decoded) + root

    original_nll = DVAE.nll
    if bad == "gradient":
        monkeypatch.setattr(DVAE, "nll", nll_with_a_root)
    run = Trainer(make_batch=poisoned)
    for at, reported in cases:
        the_seed.assign(tf.random.split(tf.random.fold_in((1, training.TRAINING), at))[0])
        (tmp_path / f"{at}").mkdir()
        message = rf"iteration {reported}: .* learning rate \S+; .* iteration 100 is kept"
        with pytest.raises(FloatingPointError, match=message):
            run(tmp_path / f"{at}")
        with np.load(tmp_path / f"{at}/checkpoint.npz") as file:
            assert json.loads(str(file["state"]))["iteration"] == 100
            assert all(np.isfinite(file[name]).all() for name in file.files if name != "state")


def test_the_progress_bar_shows_means_of_loss_nll_and_kl(monkeypatch):
    shown = []

    class Bar(contextlib.nullcontext):
        def set_postfix(self, refresh, **texts):
            shown.append(texts)

        def update(self, count):
            shown.append(count)

    def bar(total, initial, **options):
        shown.append((total, initial))
        return Bar()

    monkeypatch.setattr(guard, "tqdm", bar)
    monkeypatch.setattr(Bar, "__enter__", lambda self: self)
    iterations = types.SimpleNamespace(numpy=lambda: 30)
    optimizer = types.SimpleNamespace(variables=[], iterations=iterations)
    model = types.SimpleNamespace(variables=[])
    with guard.Guard(model, optimizer, [100, 150, 200], 40, list, ()) as training_run:
        for target in training_run.checkpoints():
            while training_run.done < target:
                first, count, _ = (part.numpy() for part in training_run.next_call(target))
                sums = tf.constant([30.0, 20.0, 10.0]) * float(count)
                training_run.take((sums, int(first + count), tf.constant(0.0)))
    texts = {"loss": "30.0", "nll": "20.0", "kl": "10.0"}
    assert shown == [
        (200, 30),
        *(part for count in (40, 30, 40, 10, 40, 10) for part in (texts, count)),
    ]


def test_a_failed_save_keeps_the_previous_checkpoint(tmp_path, full_disk):
    path = tmp_path / "checkpoint.npz"
    path.write_bytes(b"the previous one")
    with full_disk(5000), pytest.raises(OSError, match="File too large") as refused:
        with replacing(path) as unfinished:
            checkpoint.save(unfinished, [tf.Variable(np.ones(2000))], {})
    assert refused.value.filename == str(path)
    assert path.read_bytes() == b"the previous one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, run, other_seed, saved):
    path = tmp_path / "checkpoint.npz"

    def refused(reason, run=run):
        with pytest.raises(UserError, match=rf"checkpoint\.npz: .*{reason}.*--overwrite"):
            run(tmp_path)

    def doubled(seed, count):
        return [2 * part for part in correlated(seed, count)]

    path.write_bytes(saved)
    with np.load(path) as file:
        arrays = dict(file)
    refused("another seed", other_seed)
    refused("other data", Trainer(make_batch=doubled))
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
    assert run(tmp_path)[0][-1]["iteration"] == 130


def guarded(run=None, first_batch=list, ahead=(100, 200)):
    """Return a `Guard` to iteration 200, with a checkpoint at 100, of a model without weights."""
    optimizer = training.adam(450, 0.01, 0.999)
    model = types.SimpleNamespace(variables=[], distribute_strategy=None)
    return guard.Guard(model, optimizer, ahead, 20, first_batch, (7, 0.5), run)


def call(training_run, target, finite_until=None):
    """Train for the iterations of one call, as `training.train` does."""
    first, count, interrupted = training_run.next_call(target)
    done = int(first) + int(count)
    training_run.take((tf.zeros(3), done if finite_until is None else finite_until, interrupted))


@pytest.mark.parametrize("iterations, seconds", [(50, 1e9), (10**9, 100)])
def test_a_long_way_to_a_checkpoint_is_saved_in_parts(monkeypatch, tmp_path, iterations, seconds):
    """A call of 20 iterations takes 40 s here. The time and the iterations start at each save."""
    saved, clock = [], [1000.0]
    monkeypatch.setattr(guard, "SAVE_ITERATIONS", iterations)
    monkeypatch.setattr(guard, "SAVE_SECONDS", seconds)
    monkeypatch.setattr(guard, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    run = types.SimpleNamespace(workers=Workers(), checkpoint=tmp_path / "none", rows=[])
    run.save_checkpoint = lambda save: saved.append(training_run.done)
    with guarded(run) as training_run:
        for target in training_run.checkpoints():
            while training_run.done < target:
                clock[0] += 40
                call(training_run, target)
    assert saved == [60, 100, 160, 200]


@pytest.mark.parametrize("seconds, expected", [(1, [1000, 2000, 2400]), (30, range(40, 2401, 40))])
def test_a_killed_run_loses_a_minute_or_1000_iterations(monkeypatch, tmp_path, seconds, expected):
    """seconds: of each call, which has 20 iterations."""
    saved, clock = [], [1000.0]
    monkeypatch.setattr(guard, "time", types.SimpleNamespace(monotonic=lambda: clock[0]))
    run = types.SimpleNamespace(workers=Workers(), checkpoint=tmp_path / "none", rows=[])
    run.save_checkpoint = lambda save: saved.append(training_run.done)
    with guarded(run, ahead=[2400]) as training_run:
        while training_run.done < 2400:
            clock[0] += seconds
            call(training_run, 2400)
    assert saved == list(expected)


def test_without_a_run_signals_are_not_handled(interruptible):
    """An interruption of a notebook ends training at once. No batch is made to identify data."""
    before = {number: signal.getsignal(number) for number in cli.STOPPING}
    with guarded(first_batch=pytest.fail):
        assert {number: signal.getsignal(number) for number in cli.STOPPING} == before


def test_a_bad_loss_is_reported_with_its_own_learning_rate():
    """The rate rises linearly over the first 50 iterations. Nothing has been saved yet."""
    with guarded() as training_run, pytest.raises(FloatingPointError) as stopped:
        for target in training_run.checkpoints():
            while training_run.done < target:
                call(training_run, target, 37 if training_run.done == 20 else None)
    message = str(stopped.value)
    assert message.startswith("iteration 38: ") and "learning rate 0.0074;" in message
    assert "kept" not in message


@posix
@pytest.mark.parametrize("at, done", [(0, 20), (100, 120), (200, 200)])
@pytest.mark.parametrize("number", [0, 1])
def test_several_workers_stop_in_their_next_call(monkeypatch, interruptible, number, at, done):
    """After the last call there is none. Without an interruption, only the chief goes on."""
    workers = Workers(number, (("a", 1), ("b", 1)))
    run = types.SimpleNamespace(workers=workers, checkpoint=None, rows=[])
    monkeypatch.setattr(guard, "broadcast_state", lambda *given: None)

    def train(interrupt_at):
        with guarded(run, lambda: [np.ones(3)]) as training_run:
            try:
                for target in training_run.checkpoints():
                    while training_run.done < target:
                        call(training_run, target)
                    if target == interrupt_at:
                        signal.raise_signal(signal.SIGTERM)
            finally:
                assert training_run.done == (200 if interrupt_at is None else done)

    with pytest.raises(KeyboardInterrupt) as interrupted:
        train(at)
    assert interrupted.value.args == (signal.SIGTERM,)
    with contextlib.nullcontext() if workers.is_chief else pytest.raises(SystemExit):
        train(None)


def test_a_worker_continues_from_the_chiefs_state(monkeypatch):
    """Only the chief reads the checkpoint. Data and settings must be the chief's too."""
    given = []

    def broadcast_state(strategy, variables, settings, example):
        given.append((settings, example))
        (iteration,) = (each for each in variables if each.name == "iteration")
        iteration.assign(120)

    monkeypatch.setattr(guard, "broadcast_state", broadcast_state)
    workers = Workers(1, (("a", 1), ("b", 1)))
    run = types.SimpleNamespace(workers=workers, checkpoint=None, rows=[])
    assert guarded(run, lambda: [np.array([1.0, 2.0])]).done == 120
    assert given == [((7, 0.5), 1.5)]


@pytest.mark.parametrize("number", [0, 1])
def test_only_the_chief_shows_a_progress_bar(monkeypatch, number):
    shown = []

    def bar(disable, **options):
        shown.append(disable)
        return contextlib.nullcontext()

    monkeypatch.setattr(guard, "tqdm", bar)
    run = types.SimpleNamespace(workers=Workers(number), checkpoint=None, rows=[])
    with guarded(run):
        pass
    assert shown == [True if number else None]  # None shows it on terminals only


@pytest.mark.parametrize("difference, refused", [(1e-4, False), (1e-2, True)])
@pytest.mark.parametrize("place", [0, 1])
def test_only_rounding_of_the_first_batch_may_differ(tmp_path, place, difference, refused):
    """Other machines round float32 sums differently."""
    path, weight = tmp_path / "checkpoint.npz", tf.Variable([1.0, 2.0])
    state = {"iteration": 7, "first_batch": [0.5, -0.25]}
    checkpoint.save(path, [weight], state)
    weight.assign([0.0, 0.0])
    state["first_batch"][place] *= 1 + difference
    with pytest.raises(UserError, match="other data") if refused else contextlib.nullcontext():
        assert checkpoint.restore(path, [weight], state)["iteration"] == 7
    assert weight.numpy().tolist() == ([0, 0] if refused else [1, 2])

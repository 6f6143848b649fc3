"""The loop: checkpoints, schedule, and that a run can be repeated."""

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


def run(seed, iterations=130):
    keras.utils.set_random_seed(seed)
    model = DVAE(16, "gaussian", hidden=(8,), latent=2)

    def make_batch(batch_seed):
        clean = tf.random.stateless_normal((32, 1), batch_seed) * tf.ones((1, 16))
        return clean, clean

    means = dict(training.train(model, make_batch, iterations=iterations, learning_rate=0.01, seed=seed))
    return means, [weight.numpy() for weight in model.weights]


def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    (means, first), (_, again), (_, other) = run(1), run(1), run(2)
    assert list(means) == [0, 100, 130]
    assert means[130] < means[100]
    for ours, theirs in zip(first, again):
        np.testing.assert_array_equal(ours, theirs)
    assert any(np.any(ours != theirs) for ours, theirs in zip(first, other))


def test_each_iteration_has_examples_of_its_own():
    seen = []
    model = DVAE(4, "gaussian", hidden=(3,), latent=2)

    def make_batch(batch_seed):
        clean = tf.random.stateless_normal((2, 4), batch_seed)
        tf.py_function(lambda batch: seen.append(batch.numpy().tobytes()), [clean], [])
        return clean, clean

    for _ in training.train(model, make_batch, iterations=45, learning_rate=0.01, seed=0):
        pass
    assert len(seen) == len(set(seen)) == 45

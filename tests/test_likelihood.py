"""The likelihood benchmark's importance sampling, bound and gated layers, against closed forms."""

import argparse
import json

import numpy as np
import pytest
import scipy.special
import scipy.stats
from commands import eagerly

from benchmarks import likelihood
from harness.quiet_tensorflow import tf
from models import DVAE

DRAWS = 3000


def set_linear(model, weights, std):
    """Set a linear decoder and a standard normal prior. Return the distribution p(x)."""
    latent, size = weights.shape
    model.decoder.layers[-1].set_weights([weights, np.zeros(size)])
    model.prior_means.assign(np.zeros((1, latent)))
    model.prior_log_vars.assign(np.zeros((1, latent)))
    model.log_std.assign(np.log(std))
    covariance = weights.T @ weights + std**2 * np.eye(size)
    return scipy.stats.multivariate_normal(np.zeros(size), covariance)


def test_importance_sampling_reaches_the_closed_form():
    """The encoder is deliberately wrong: its mean is shifted, its variance doubled."""
    rng, std = np.random.default_rng(0), 0.7
    model = DVAE(5, "gaussian", hidden=(), latent=2, components=1)
    weights, x = rng.standard_normal((2, 5)), rng.standard_normal((3, 5)).astype(np.float32)
    expected = set_linear(model, weights, std).logpdf(x)
    covariance = np.linalg.inv(np.eye(2) + weights @ weights.T / std**2)
    kernel = np.concatenate([weights.T / std**2 @ covariance, np.zeros((5, 2))], axis=1)
    bias = np.concatenate([[0.05, 0.05], np.log(2 * np.diag(covariance))])
    model.encoder.layers[-1].set_weights([kernel, bias])
    many = tf.function(lambda: likelihood.log_likelihood(model, x, x, 4000, (1, 2)))()
    np.testing.assert_allclose(many, expected, atol=0.05)
    again = np.repeat(x, 100, axis=0)
    single = likelihood.log_likelihood(model, again, again, 1, (3, 4)).numpy().reshape(3, 100)
    assert np.all(single.mean(1) < expected)  # the mean of one draw is the ELBO


def test_the_likelihood_does_not_depend_on_the_inputs():
    """The inputs only determine q(z). For inputs -2 x this encoder returns the posterior of x.

    The decoder's rows are orthogonal. So the exact posterior's covariance is diagonal, like q's.
    """
    rng, std = np.random.default_rng(7), 0.7
    model = DVAE(5, "gaussian", hidden=(), latent=2, components=1)
    weights = np.linalg.qr(rng.standard_normal((5, 2)))[0].T * [[1.5], [0.6]]
    marginal = set_linear(model, weights, std)
    variance = 1 / (1 + (weights**2).sum(1) / std**2)
    kernel = weights.T / std**2 * variance / -2
    kernel, bias = np.concatenate([kernel, np.zeros((5, 2))], axis=1), np.log(variance)
    model.encoder.layers[-1].set_weights([kernel, np.concatenate([np.zeros(2), bias])])
    clean = np.random.default_rng(9).standard_normal((6, 5)).astype(np.float32)
    exact = marginal.logpdf(clean)
    # If q is the exact posterior, p(x | z) p(z) / q(z) is p(x) at every z, so one draw is enough.
    one = likelihood.log_likelihood(model, -2 * clean, clean, 1, (1, 2))
    np.testing.assert_allclose(one, exact, atol=1e-3)
    wrong = likelihood.log_likelihood(model, clean, clean, 1, (1, 2)).numpy()
    assert np.mean(wrong) < np.mean(exact) - 1
    inputs = -1.5 * clean
    many = tf.function(lambda: likelihood.log_likelihood(model, inputs, clean, 4000, (1, 2)))()
    np.testing.assert_allclose(many, exact, atol=0.1)


def linear(draws):
    """Return a linear model with a wrong encoder, examples, and their exact log p(x)."""
    model = likelihood.Trained(3, "gaussian", hidden=(), latent=2, components=1)
    rng = np.random.default_rng(0)
    weights, model.draws = rng.standard_normal((2, 3)).astype(np.float32), draws
    marginal = set_linear(model, weights, 0.8)
    model.encoder.layers[-1].set_weights([np.zeros((3, 4)), np.array([0.3, -0.2, 0, 0])])
    x = rng.standard_normal((4, 3)).astype(np.float32)
    return model, x, marginal.logpdf(x)


def loss(model, x):
    rows = np.repeat(x, model.draws, 0)
    noise = tf.random.stateless_normal((len(rows), 2), (0, 1))
    return sum(model.nll_and_kl(rows, model(rows, noise=noise)))


def test_the_bound_is_between_elbo_and_likelihood():
    model, x, exact = linear(DRAWS)
    assert float(loss(model, x)) == pytest.approx(-exact.mean(), abs=0.05)
    elbo, few = (float(loss(linear(draws)[0], np.repeat(x, 1000, 0))) for draws in (1, 5))
    assert -exact.mean() + 0.05 < few < elbo - 0.05


@pytest.mark.parametrize("draws", [1, 5])
def test_the_encoders_mean_gradient_is_that_of_the_loss(draws):
    """Compare with finite differences in the encoder's bias, for the same noise."""
    model, x, _ = linear(draws)
    bias, many = model.encoder.layers[-1].bias, np.repeat(x, 4000, 0)
    with tf.GradientTape() as tape:
        value = loss(model, many)
    gradient, start = tape.gradient(value, bias.value).numpy(), bias.numpy()
    for index in range(4):
        losses = []
        for step in (0.05, -0.05):
            bias.assign(start + step * np.eye(4, dtype=np.float32)[index])
            losses.append(float(loss(model, many)))
        assert gradient[index] == pytest.approx((losses[0] - losses[1]) / 0.1, abs=0.05)


def test_gated_layers_multiply_with_a_sigmoid():
    model = likelihood.gated_layers("name", (3, 4, 2), None, None)
    inner, outer = (layer for layer in model.layers if layer.weights)
    shapes = (3, 8), (4, 2), (5, 3)
    kernel, last, x = (np.random.default_rng(k).standard_normal(s) for k, s in enumerate(shapes))
    inner.set_weights([kernel, np.arange(8)])
    outer.set_weights([last, np.ones(2)])
    values, gate = np.split(x @ kernel + np.arange(8), 2, axis=1)
    expected = values * scipy.special.expit(gate) @ last + 1
    np.testing.assert_allclose(model(x.astype(np.float32)), expected, rtol=1e-4)


def test_a_model_is_trained_once_and_then_loaded(tmp_path, monkeypatch):
    sizes = {"hidden": (4,), "gated": False, "latent": 2, "components": 2}
    options = {"iters": 2, "finish": 1, "batch_size": 3, "learning_rate": 0.01}
    settings = argparse.Namespace(results=tmp_path, **sizes, **options)
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28), np.uint8)
    with eagerly():
        model, minutes = likelihood.load_or_fit(settings, "DVAE, block 20%", 1, images)
    assert model.draws == 1
    monkeypatch.setattr(likelihood, "fit", None)  # must not be called again
    again, same_minutes = likelihood.load_or_fit(settings, "DVAE, block 20%", 1, images)
    assert minutes == same_minutes
    for ours, theirs in zip(model.get_weights(), again.get_weights()):
        np.testing.assert_array_equal(ours, theirs)


def test_the_table_averages_over_seeds(tmp_path):
    one = {"model": "VAE", "network": "784-2-2, 1", "iters": 3, "finish": 0, "batch_size": 4}
    one |= {"learning_rate": 0.01, "samples": 5, "digits": 6, "seed": 0, "minutes": 1}
    for seed, nll in enumerate((90.0, 92.0)):
        scores = {"seed": seed, "nll": nll, "train_nll": 80.0, "negative_elbo": 95.0}
        (tmp_path / f"{seed}.json").write_text(json.dumps(one | scores))
    assert likelihood.table(tmp_path).splitlines()[2] == (
        "| VAE (5 samples, 6 digits) | 784-2-2, 1 | 3 + 0 of 4 at 0.01 | 91.00 ± 1.00 | 80.00 "
        "| 95.00 | 1.00 | 90.00, 92.00 |"
    )

"""What benchmarks/likelihood.py trains: the importance-weighted bound and gated layers, against closed forms."""

import numpy as np
import pytest
import scipy.special
import scipy.stats

from benchmarks import likelihood
from harness.quiet_tensorflow import tf

DRAWS = 3000


def linear(draws):
    """A linear decoder, a standard normal prior and a posterior that is off on purpose; its log p(x) is known."""
    model = likelihood.Trained(3, "gaussian", hidden=(), latent=2, components=1)
    rng = np.random.default_rng(0)
    weights, model.draws = rng.standard_normal((2, 3)).astype(np.float32), draws
    model.decoder.layers[-1].set_weights([weights, np.zeros(3, np.float32)])
    model.encoder.layers[-1].set_weights(
        [np.zeros((3, 4), np.float32), np.array([0.3, -0.2, 0, 0], np.float32)]
    )
    model.prior_means.assign(np.zeros((1, 2)))
    model.prior_log_vars.assign(np.zeros((1, 2)))
    model.log_std.assign(np.log(0.8))
    x = rng.standard_normal((4, 3)).astype(np.float32)
    return (
        model,
        x,
        scipy.stats.multivariate_normal(np.zeros(3), weights.T @ weights + 0.64 * np.eye(3)).logpdf(
            x
        ),
    )


def loss(model, x):
    rows = np.repeat(x, model.draws, 0)
    noise = tf.random.stateless_normal((len(rows), 2), (0, 1))
    return sum(model.nll_and_kl(rows, model(rows, noise=noise)))


def test_the_bound_of_many_draws_is_the_likelihood_and_that_of_few_lies_between_it_and_the_elbo():
    model, x, exact = linear(DRAWS)
    assert float(loss(model, x)) == pytest.approx(-exact.mean(), abs=0.05)
    elbo, few = (float(loss(linear(draws)[0], np.repeat(x, 1000, 0))) for draws in (1, 5))
    assert -exact.mean() + 0.05 < few < elbo - 0.05


@pytest.mark.parametrize("draws", [1, 5])
def test_the_encoders_gradient_is_that_of_the_loss_on_average(draws):
    """By finite differences of the loss with the same noise: of the posterior's mean and log variance."""
    model, x, _ = linear(draws)
    bias, many = model.encoder.layers[-1].bias, np.repeat(x, 4000, 0)
    with tf.GradientTape() as tape:
        value = loss(model, many)
    slope, middle = tape.gradient(value, bias.value).numpy(), bias.numpy()
    for place in range(4):
        sides = []
        for step in (0.05, -0.05):
            bias.assign(middle + step * np.eye(4, dtype=np.float32)[place])
            sides.append(float(loss(model, many)))
        assert slope[place] == pytest.approx((sides[0] - sides[1]) / 0.1, abs=0.05)


def test_gated_layers_are_products_with_a_sigmoid():
    model = likelihood.gated_layers("side", (3, 4, 2), None)
    inner, outer = (layer for layer in model.layers if layer.weights)
    kernel, last = (
        np.random.default_rng(k).standard_normal(s) for k, s in enumerate([(3, 8), (4, 2)])
    )
    inner.set_weights([kernel, np.arange(8)])
    outer.set_weights([last, np.ones(2)])
    x = np.random.default_rng(2).standard_normal((5, 3))
    values, gate = np.split(x @ kernel + np.arange(8), 2, axis=1)
    expected = values * scipy.special.expit(gate) @ last + 1
    np.testing.assert_allclose(model(x.astype(np.float32)), expected, rtol=1e-4)

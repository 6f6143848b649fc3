"""Refined posteriors and completions, on models whose posterior is known."""

import numpy as np
import pytest
import scipy.stats

import inference
from harness.quiet_tensorflow import tf
from models import DVAE, keras

OBSERVED = np.array([1, 1, 0, 1, 0], np.float32)


def linear(latent=2, std=0.6, seed=0):
    """A DVAE with a linear decoder and a standard normal prior, and its weights (L, D)."""
    model = DVAE(OBSERVED.size, "gaussian", hidden=(), latent=latent, components=1)
    weights = (
        np.random.default_rng(seed).standard_normal((latent, OBSERVED.size)).astype(np.float32)
    )
    model.decoder.layers[-1].set_weights([weights, np.zeros(OBSERVED.size, np.float32)])
    model.prior_means.assign(np.zeros((1, latent)))
    model.prior_log_vars.assign(np.zeros((1, latent)))
    model.log_std.assign(np.log(std))
    return model, weights, std


def examples(count, seed=1):
    clean = np.random.default_rng(seed).standard_normal((count, OBSERVED.size)).astype(np.float32)
    return clean, clean * OBSERVED, np.tile(OBSERVED, (count, 1))


def test_a_linear_model_is_refined_to_its_exact_posterior_by_what_is_observed_alone():
    model, weights, std = linear()
    clean, corrupted, observed = examples(7)
    guess = tf.fill((7, 2), 0.7), tf.zeros((7, 2))
    mean, log_var, _ = inference.refiner(model, 300, 0.03)(corrupted, observed, *guess)
    seen = weights[:, OBSERVED == 1]
    precision = np.eye(2) + seen @ seen.T / std**2
    exact = clean[:, OBSERVED == 1] @ seen.T / std**2 @ np.linalg.inv(precision)
    np.testing.assert_allclose(mean, exact, atol=2e-3)
    np.testing.assert_allclose(np.exp(log_var), np.tile(1 / np.diag(precision), (7, 1)), rtol=5e-3)
    hidden = np.where(
        observed == 1, corrupted, 99
    )  # what is hidden has no influence, whatever stands there
    again, _, _ = inference.refiner(model, 300, 0.03)(hidden, observed, *guess)
    np.testing.assert_allclose(again, mean, atol=1e-5)


def test_the_objective_is_the_elbo_of_the_observed_values():
    model, weights, std = linear()
    _, corrupted, observed = examples(5)
    mean, log_var = tf.random.stateless_normal((2, 5, 2), (2, 2))
    elbo = inference.observed_elbo(model, corrupted, observed, mean, log_var).numpy()
    mean, log_var = mean.numpy(), log_var.numpy()
    noise = np.random.default_rng(3).standard_normal((200_000, 1, 2))
    z = mean + np.exp(log_var / 2) * noise  # Monte Carlo, by SciPy's densities
    each = scipy.stats.norm.logpdf(corrupted, z @ weights, std)[..., OBSERVED == 1].sum(-1)
    each += scipy.stats.norm.logpdf(z).sum(-1) - scipy.stats.norm.logpdf(
        z, mean, np.exp(log_var / 2)
    ).sum(-1)
    np.testing.assert_allclose(elbo, each.mean(0), atol=5 * each.std(0).max() / np.sqrt(len(each)))


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_refining_never_lowers_its_objective_and_no_example_depends_on_its_batch(likelihood):
    keras.utils.set_random_seed(0)
    model = DVAE(OBSERVED.size, likelihood, hidden=(9,), latent=6, components=4)
    _, corrupted, observed = examples(6)
    corrupted = np.abs(corrupted) % 1
    guess = model.encode(corrupted)
    before = inference.observed_elbo(model, corrupted, observed, *guess).numpy()
    for steps, rate in ((0, 0.1), (5, 0.05), (5, 30.0)):  # the last leaps far too wide
        refine = inference.refiner(model, steps, rate)
        mean, log_var, elbo = refine(corrupted, observed, *guess)
        np.testing.assert_allclose(
            elbo, inference.observed_elbo(model, corrupted, observed, mean, log_var), rtol=1e-4
        )
        assert np.all(elbo.numpy() >= before - 1e-4) and (
            steps == 0 or np.any(elbo.numpy() > before + 1e-3) or rate > 1
        )
        alone = refine(corrupted[2:3], observed[2:3], guess[0][2:3], guess[1][2:3])
        np.testing.assert_allclose(alone[0], mean[2:3], atol=1e-5)
    assert rate > 1 or np.mean(elbo - before) > 0


def test_completions_show_both_ways_where_there_are_two_in_their_proportion():
    """One latent number near -2 or 2, whose square is seen and which itself is not: the sign cannot be told."""
    model = DVAE(2, "gaussian", hidden=(2,), latent=1, components=2)
    for prior, weight in (
        (model.prior_logits, np.log([0.25, 0.75])),
        (model.prior_means, [[-2], [2]]),
    ):
        prior.assign(weight)
    model.prior_log_vars.assign(np.full((2, 1), 2 * np.log(0.2)))
    model.log_std.assign(np.log(0.1))
    one, both = model.decoder.layers
    one.set_weights(
        [np.array([[1, -1]], np.float32), np.zeros(2, np.float32)]
    )  # ReLU: max(z, 0), max(-z, 0)
    both.set_weights([np.array([[1, 1], [1, -1]], np.float32), np.zeros(2, np.float32)])  # |z|, z
    model.encoder.layers[-1].set_weights(
        [np.zeros((2, 2), np.float32), np.array([0.3, -2], np.float32)]
    )
    corrupted, observed = np.array([[2.0, 0.0]], np.float32), np.array([[1.0, 0.0]], np.float32)
    refine = inference.refiner(model, 100, 0.05)
    drawn = inference.completions(model, refine, corrupted, observed, 400, (1, 2)).numpy()[:, 0]
    np.testing.assert_allclose(drawn[:, 0], 2, atol=0.6)
    np.testing.assert_allclose(np.abs(drawn[:, 1]), 2, atol=0.6)
    # Each start weighs by its ELBO: a quarter of them begins at -2, and there a third of the density at 2 remains.
    starts = 0.25 * 0.25, 0.75 * 0.75
    assert np.mean(drawn[:, 1] < 0) == pytest.approx(starts[0] / sum(starts), abs=0.06)

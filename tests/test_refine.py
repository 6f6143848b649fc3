"""Refined posteriors, completions and uncertainty, on models with a known posterior."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
from commands import eagerly

import inference
from harness.quiet_tensorflow import tf
from models import DVAE, keras

OBSERVED = np.array([1, 1, 0, 1, 0], np.float32)


def linear(latent=2, std=0.6, seed=0):
    """Return a DVAE with a linear decoder and a standard normal prior, its weights and its std."""
    model = DVAE(OBSERVED.size, "gaussian", hidden=(), latent=latent, components=1)
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((latent, OBSERVED.size)).astype(np.float32)
    model.decoder.layers[-1].set_weights([weights, np.zeros(OBSERVED.size, np.float32)])
    model.prior_means.assign(np.zeros((1, latent)))
    model.prior_log_vars.assign(np.zeros((1, latent)))
    model.log_std.assign(np.log(std))
    return model, weights, std


def examples(count, seed=1):
    """Return clean and corrupted examples, and where they are observed."""
    clean = np.random.default_rng(seed).standard_normal((count, OBSERVED.size)).astype(np.float32)
    return clean, clean * OBSERVED, np.tile(OBSERVED, (count, 1))


@pytest.mark.parametrize("weight", [1, 4])
def test_a_linear_model_is_refined_to_its_exact_posterior(weight):
    """Observed values of weight w count as if the noise had a variance of std^2 / w."""
    model, weights, std = linear()
    std /= weight**0.5
    clean, corrupted, observed = examples(7)
    guess = tf.fill((7, 2), 0.7), tf.zeros((7, 2))
    refine = inference.refiner(model, 300, 0.03, weight)
    mean, log_var, _ = refine(corrupted, observed, *guess)
    seen = weights[:, OBSERVED == 1]
    precision = np.eye(2) + seen @ seen.T / std**2
    exact = clean[:, OBSERVED == 1] @ seen.T / std**2 @ np.linalg.inv(precision)
    np.testing.assert_allclose(mean, exact, atol=2e-3)
    np.testing.assert_allclose(np.exp(log_var), np.tile(1 / np.diag(precision), (7, 1)), rtol=5e-3)


def test_missing_values_have_no_influence_on_refinement():
    model, *_ = linear()
    _, corrupted, observed = examples(7)
    guess, refine = (tf.fill((7, 2), 0.7), tf.zeros((7, 2))), inference.refiner(model, 5, 0.03)
    with eagerly():
        first, again = (
            refine(part, observed, *guess)[0]
            for part in (corrupted, np.where(observed == 1, corrupted, 99))
        )
    np.testing.assert_allclose(again, first, atol=1e-5)


def test_a_refined_reconstruction_is_that_of_the_exact_posterior():
    model, weights, std = linear()
    clean, corrupted, observed = examples(7)
    reconstruct = inference.refined_reconstruct(model, inference.refiner(model, 300, 0.03, 1))
    seen = weights[:, OBSERVED == 1]
    exact = clean[:, OBSERVED == 1] @ seen.T @ np.linalg.inv(std**2 * np.eye(2) + seen @ seen.T)
    np.testing.assert_allclose(reconstruct(corrupted, observed), exact @ weights, atol=1e-2)


def test_the_objective_is_the_elbo_of_the_observed_values():
    model, weights, std = linear()
    _, corrupted, observed = examples(5)
    mean, log_var = tf.random.stateless_normal((2, 5, 2), (2, 2))
    elbo = inference.observed_elbo(model, corrupted, observed, mean, log_var).numpy()
    mean, posterior_std = mean.numpy(), np.exp(log_var.numpy() / 2)
    # Monte Carlo with SciPy's densities
    z = mean + posterior_std * np.random.default_rng(3).standard_normal((200_000, 1, 2))
    each = scipy.stats.norm.logpdf(corrupted, z @ weights, std)[..., OBSERVED == 1].sum(-1)
    each += scipy.stats.norm.logpdf(z).sum(-1)
    each -= scipy.stats.norm.logpdf(z, mean, posterior_std).sum(-1)
    np.testing.assert_allclose(elbo, each.mean(0), atol=5 * each.std(0).max() / np.sqrt(len(each)))


@pytest.mark.parametrize("likelihood, weight", [("bernoulli", 1.5), ("gaussian", 1)])
def test_grey_levels_count_more_by_default(likelihood, weight):
    model = DVAE(OBSERVED.size, likelihood, hidden=(9,), latent=6, components=4)
    _, corrupted, observed = examples(6)
    guess = model.encode(corrupted := np.abs(corrupted) % 1)
    with eagerly():
        mean, log_var, elbo = inference.refiner(model)(corrupted, observed, *guess)
    expected = inference.observed_elbo(model, corrupted, weight * observed, mean, log_var)
    np.testing.assert_allclose(elbo, expected, rtol=1e-5)


@pytest.mark.parametrize("likelihood, size", [("bernoulli", 0.4), ("gaussian", 0.04)])
def test_by_default_usual_errors_of_an_encoder_are_corrected(likelihood, size):
    """The few default steps come close to what 300 steps reach."""
    model = DVAE(OBSERVED.size, likelihood, hidden=(), latent=2, components=1)
    weights = np.random.default_rng(0).standard_normal((2, OBSERVED.size))
    model.decoder.layers[-1].set_weights([weights, np.zeros(OBSERVED.size)])
    _, corrupted, observed = examples(7)
    corrupted = np.abs(corrupted) % 1
    weight, guess = inference.REFINING[likelihood][2], (tf.zeros((7, 2)), tf.zeros((7, 2)))
    best, log_var, _ = inference.refiner(model, 300, 0.03, weight)(corrupted, observed, *guess)
    error = size * np.random.default_rng(2).choice([-1, 1], (7, 2))
    with eagerly():
        mean, _, _ = inference.refiner(model)(corrupted, observed, best + error, log_var)
    assert np.mean((mean - best) ** 2) < 0.3 * np.mean(error**2)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("steps, rate", [(0, 0.1), (5, 0.05), (5, 30.0)])
def test_refining_never_lowers_its_objective(likelihood, steps, rate):
    """With a rate of 30 every step is far too long, so the initial posterior is kept."""
    keras.utils.set_random_seed(0)
    model = DVAE(OBSERVED.size, likelihood, hidden=(9,), latent=6, components=4)
    _, corrupted, observed = examples(6)
    corrupted = np.abs(corrupted) % 1
    guess = model.encode(corrupted)
    before = inference.observed_elbo(model, corrupted, observed, *guess).numpy()
    refine = inference.refiner(model, steps, rate)
    with eagerly():
        mean, log_var, elbo = refine(corrupted, observed, *guess)
    expected = inference.observed_elbo(model, corrupted, observed, mean, log_var)
    np.testing.assert_allclose(elbo, expected, rtol=1e-4)
    assert np.all(elbo.numpy() >= before - 1e-4)
    if steps and rate < 1:
        assert np.all(elbo.numpy() > before + 1e-3)
    else:
        np.testing.assert_array_equal(mean, guess[0])
    with eagerly():
        alone = refine(corrupted[2:3], observed[2:3], guess[0][2:3], guess[1][2:3])
    np.testing.assert_allclose(alone[0], mean[2:3], atol=1e-5)  # independent of its batch


def test_completions_show_both_modes_in_their_proportion():
    """The absolute value of z, near -2 or 2, is observed, and z itself is missing."""
    model = DVAE(2, "gaussian", hidden=(2,), latent=1, components=2)
    model.prior_logits.assign(np.log([0.25, 0.75]))
    model.prior_means.assign([[-2], [2]])
    model.prior_log_vars.assign(np.full((2, 1), 2 * np.log(0.2)))
    model.log_std.assign(np.log(0.1))
    inner, outer = model.decoder.layers
    inner.set_weights([np.array([[1, -1]]), np.zeros(2)])  # ReLU: max(z, 0), max(-z, 0)
    outer.set_weights([np.array([[1, 1], [1, -1]]), np.zeros(2)])  # |z|, z
    model.encoder.layers[-1].set_weights([np.zeros((2, 2)), np.array([0.3, -2])])
    corrupted, observed = np.array([[2.0, 0.0]], np.float32), np.array([[1.0, 0.0]], np.float32)
    refine = inference.refiner(model, 100, 0.05)
    drawn = inference.completions(model, refine, corrupted, observed, 400, (1, 2)).numpy()[:, 0]
    np.testing.assert_allclose(drawn[:, 0], 2, atol=0.6)
    np.testing.assert_allclose(np.abs(drawn[:, 1]), 2, atol=0.6)
    # A quarter of the starts is near -2. Each has a third of the weight of one near 2.
    weights = 0.25 * 0.25, 0.75 * 0.75
    assert np.mean(drawn[:, 1] < 0) == pytest.approx(weights[0] / sum(weights), abs=0.06)


def test_completions_spread_as_the_exact_posterior_does():
    """The missing values of a linear model are normal, given the observed ones."""
    model, weights, std = linear(latent=1)
    clean, corrupted, observed = examples(1)
    refine = inference.refiner(model, 100, 0.03)
    drawn = inference.completions(model, refine, corrupted, observed, 1000, (1, 2)).numpy()[:, 0]
    seen = weights[0, OBSERVED == 1]
    variance = 1 / (1 + seen @ seen / std**2)
    mean = variance * clean[0, OBSERVED == 1] @ seen / std**2
    z = drawn @ weights[0] / (weights[0] @ weights[0])  # each is decoded from one z
    np.testing.assert_allclose(drawn, np.outer(z, weights[0]), atol=1e-5)
    assert scipy.stats.kstest(z, "norm", (mean, np.sqrt(variance))).pvalue > 1e-3


def sigmoid_model():
    """Return a model of 4 pixels, all with p = sigmoid of the first of 2 latent dimensions."""
    model = DVAE(4, "bernoulli", hidden=(), latent=2, components=1)
    model.decoder.layers[-1].set_weights([np.outer([1, 0], np.ones(4)), np.zeros(4)])
    return model


def test_the_predictive_std_of_binary_pixels():
    """The variance of a binary pixel with mean E p is E p (1 - E p)."""
    mean, log_var = tf.fill((3000, 2), 2.0), tf.fill((3000, 2), np.float32(np.log(9)))
    mask = np.ones((3000, 4))
    std = inference.predictive_std(sigmoid_model(), mean, log_var, mask, np.zeros(4), 0)
    p = scipy.special.expit(2 + 3 * np.random.default_rng(0).standard_normal(100_000))
    bias = p.var() / inference.PREDICTIVE_DRAWS  # of np.var
    assert np.mean(std**2) == pytest.approx(p.mean() * (1 - p.mean()) - bias, rel=0.03)


def test_the_predictive_std_allows_for_grey_pixels():
    """Without posterior variance Var x = p (1 - p) - E[x (1 - x)], at least 0."""
    mean, log_var = tf.fill((50, 2), -np.float32(np.log(3))), tf.fill((50, 2), -60.0)
    mask = np.zeros((50, 4))
    mask[:, :2] = 1
    for grey, expected in (1 / 8, 3 / 16 - 1 / 8), (1 / 4, 0):
        grey = np.array([grey, grey, 9, 9])  # outside the holes it must have no influence
        std = inference.predictive_std(sigmoid_model(), mean, log_var, mask, grey, 0)
        np.testing.assert_allclose(std**2, expected, rtol=1e-4, atol=1e-7)

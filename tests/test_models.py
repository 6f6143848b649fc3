"""The model's densities and losses against SciPy, Monte Carlo and closed forms."""

import numpy as np
import pytest
import scipy.stats

import models
from harness.quiet_tensorflow import tf
from models import DVAE, keras


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_log_densities_match_scipy():
    z, mean, log_var = normal(7, 3), normal(7, 3, seed=1), normal(7, 3, seed=2)
    expected = scipy.stats.norm.logpdf(z.astype(float), mean, np.exp(log_var / 2)).sum(1)
    np.testing.assert_allclose(models.gaussian_log_density(z, mean, log_var), expected, rtol=1e-5)
    logits, means, log_vars = normal(5, seed=3), normal(5, 3, seed=4), normal(5, 3, seed=5)
    stds = np.exp(log_vars / 2)
    each = scipy.stats.norm.logpdf(z[:, None].astype(float), means, stds).sum(2)  # (7, 5)
    expected = scipy.special.logsumexp(each + scipy.special.log_softmax(logits), axis=1)
    ours = models.mixture_log_density(z, logits, means, log_vars)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)


PRIOR = np.array([0.3, -0.5]), np.array([0.4, -0.2])  # mean and log variance
POSTERIOR = np.array([[0.7, -1.2]], np.float32), np.array([[-1.0, 0.5]], np.float32)


def single_gaussian():
    """Return a DVAE whose prior is the Gaussian PRIOR."""
    model = DVAE(4, "gaussian", hidden=(), latent=2, components=1)
    model.prior_means.assign(PRIOR[0][None])
    model.prior_log_vars.assign(PRIOR[1][None])
    return model


def test_mean_kl_is_the_closed_form_for_gaussians():
    (mean, log_var), (prior_mean, prior_log_var) = POSTERIOR, PRIOR
    z = models.reparameterize(mean, log_var, normal(400_000, 2))
    kl = single_gaussian().kl(z, mean, log_var).numpy()
    ratio = np.exp(log_var - prior_log_var)
    squares = (mean - prior_mean) ** 2 / np.exp(prior_log_var)
    expected = 0.5 * (ratio + squares - 1 - np.log(ratio)).sum()
    assert kl.mean() == pytest.approx(expected, abs=5 * kl.std() / np.sqrt(len(kl)))


def test_mean_kl_gradient_is_the_closed_form_for_gaussians():
    model, noise, (prior_mean, prior_log_var) = single_gaussian(), normal(100_000, 2), PRIOR
    posterior = [tf.constant(np.repeat(part, len(noise), 0)) for part in POSTERIOR]
    with tf.GradientTape() as tape:
        tape.watch(posterior)
        kl = model.kl(models.reparameterize(*posterior, noise), *posterior)
    mean, log_var = POSTERIOR
    closed_form = (
        (mean - prior_mean) / np.exp(prior_log_var),
        0.5 * (np.exp(log_var - prior_log_var) - 1),
    )
    for gradient, expected in zip(tape.gradient(kl, posterior), closed_form):
        gradient = gradient.numpy()
        standard_error = gradient.std(0) / np.sqrt(len(noise))
        np.testing.assert_array_less(np.abs(gradient.mean(0) - expected[0]), 5 * standard_error)


def test_bernoulli_nll_matches_scipy_and_is_linear_in_grey():
    logits = 3 * normal(4, 6)
    binary = (normal(4, 6, seed=1) > 0).astype(np.float32)
    probabilities = scipy.special.expit(logits.astype(float))
    expected = -scipy.stats.bernoulli.logpmf(binary, probabilities).sum(1)
    np.testing.assert_allclose(models.bernoulli_nll(binary, logits), expected, rtol=1e-5)
    grey = np.full((4, 6), 0.3, np.float32)
    white, black = (models.bernoulli_nll(np.full_like(grey, level), logits) for level in (1, 0))
    expected = 0.3 * white + 0.7 * black
    np.testing.assert_allclose(models.bernoulli_nll(grey, logits), expected, rtol=1e-5)


def test_gaussian_nll_matches_scipy():
    clean, decoded = normal(3, 50), normal(3, 50, seed=1)
    expected = -scipy.stats.norm.logpdf(clean.astype(float), decoded, 0.2).sum(1)
    nll = models.gaussian_nll(clean, decoded, np.float32(np.log(0.2)))
    np.testing.assert_allclose(nll, expected, rtol=1e-5)


def test_reparameterized_noise_has_the_given_mean_and_variance():
    z = models.reparameterize(2.0, np.float32(np.log(9.0)), normal(100_000))
    assert scipy.stats.kstest(z, scipy.stats.norm(2, 3).cdf).pvalue > 1e-3


def test_posterior_samples_are_decoded_draws():
    for likelihood in ("gaussian", "bernoulli"):
        model = DVAE(2, likelihood, hidden=(), latent=2, components=1)
        model.decoder.layers[-1].set_weights([np.eye(2, dtype=np.float32), np.zeros(2)])
        mean, log_var, noise = normal(5, 2), normal(5, 2, seed=1), normal(5, 2, seed=2)
        z = mean + np.exp(log_var / 2) * noise
        expected = z if likelihood == "gaussian" else scipy.special.expit(z)
        drawn = model.posterior_samples(mean, log_var, noise)
        np.testing.assert_allclose(drawn, expected, rtol=1e-4, atol=1e-6)


def test_a_new_prior_covers_the_initial_codes():
    keras.utils.set_random_seed(0)
    for likelihood in ("gaussian", "bernoulli"):
        model = DVAE(200, likelihood, hidden=(100,), latent=4)
        # 200 components of standard deviation 0.5 with standard normal means are nearly N(0, 1.25).
        z = normal(4000, 4, seed=1) * np.float32(np.sqrt(1.25))
        expected = scipy.stats.norm.logpdf(z, 0, np.sqrt(1.25)).sum(1)
        assert abs(np.mean(expected - model.log_prior(z).numpy())) < 1  # nats


def test_a_new_model_of_sound_starts_small_and_outputs_noise():
    keras.utils.set_random_seed(0)
    model = DVAE(200, "gaussian", hidden=(100,), latent=4)
    passed = np.std(normal(500, 200) @ model.encoder.layers[0].kernel.numpy())
    assert 0.2 < passed / np.sqrt(200 * 2 / (200 + 100)) < 0.4  # of the power with Glorot's scale
    # The output is as rough as white noise with a standard deviation of half of full scale.
    decoded = model.reconstruct(np.zeros((1, 200), np.float32)).numpy()[0]
    assert np.std(decoded) == pytest.approx(0.5, rel=0.2)
    assert np.std(np.diff(decoded)) == pytest.approx(0.5 * np.sqrt(2), rel=0.25)


def test_a_new_model_of_images_keeps_power_between_layers():
    keras.utils.set_random_seed(0)
    model = DVAE(300, "bernoulli", hidden=(300, 300, 300), latent=300)
    for part in (model.encoder, model.decoder):
        values, powers = normal(200, 300), []
        for layer in part.layers[1:-1]:
            values = layer(values).numpy()
            powers.append(np.mean(values**2))
        assert powers[1] / powers[0] == pytest.approx(1, abs=0.15)  # 1/2 without He's factor
        first = part.layers[0](normal(200, 300)).numpy()
        assert np.mean(first**2) == pytest.approx(1, abs=0.15)


def test_the_loss_is_the_negative_elbo():
    model = DVAE(6, "gaussian", hidden=(5,), latent=2)
    clean, noise = normal(8, 6), normal(8, 2, seed=1)
    decoded, z, mean, log_var = (part.numpy().astype(float) for part in model(clean, noise=noise))
    np.testing.assert_allclose(z, mean + np.exp(log_var / 2) * noise, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(decoded, model.decoder(z.astype(np.float32)), rtol=1e-4, atol=1e-6)
    std = float(tf.exp(model.log_std))
    nll = -scipy.stats.norm.logpdf(clean, decoded, std).sum(1)
    means, stds = model.prior_means.numpy(), np.exp(model.prior_log_vars.numpy() / 2)
    each = scipy.stats.norm.logpdf(z[:, None], means, stds).sum(2) - np.log(len(means))
    log_prior = scipy.special.logsumexp(each, axis=1)
    kl = scipy.stats.norm.logpdf(z, mean, np.exp(log_var / 2)).sum(1) - log_prior
    loss = model.compute_loss(x=clean, y=clean, y_pred=model(clean, noise=noise))
    assert float(loss) == pytest.approx((nll + kl).mean(), rel=1e-5)


def test_generated_pixels_have_the_distribution_of_the_prior():
    model = DVAE(2, "bernoulli", hidden=(), latent=2, components=2)
    model.prior_logits.assign(np.log([0.3, 0.7]))
    model.prior_means.assign([[-2, 1], [2, 0]])
    model.prior_log_vars.assign(np.log([[1, 4], [0.25, 1]]))
    model.decoder.layers[-1].set_weights([np.eye(2, dtype=np.float32), np.zeros(2, np.float32)])
    pixels = model.generate(20_000, (0, 1)).numpy()
    assert pixels.min() > 0 and pixels.max() < 1
    z = scipy.special.logit(pixels.astype(float))
    grid = np.linspace(-12, 12, 100_001)
    for axis, (first, second) in enumerate([((-2, 1), (2, 0.5)), ((1, 2), (0, 1))]):
        cdf = 0.3 * scipy.stats.norm.cdf(grid, *first) + 0.7 * scipy.stats.norm.cdf(grid, *second)
        assert scipy.stats.kstest(np.interp(z[:, axis], grid, cdf), "uniform").pvalue > 1e-3
    left = z[:, 0] < 0  # almost all of the first component, whose mean along axis 1 is 1
    assert left.mean() == pytest.approx(0.3, abs=0.02)
    assert z[left, 1].mean() == pytest.approx(1, abs=0.1)


def test_keras_fit_trains_the_model():
    keras.utils.set_random_seed(0)
    model = DVAE(8, "gaussian", hidden=(16,), latent=2)
    clean = normal(512, 1) @ np.ones((1, 8), np.float32)
    model.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    corrupted = clean * (normal(512, 8, seed=1) > 0)
    losses = model.fit(corrupted, clean, epochs=12, batch_size=64, verbose=0).history["loss"]
    assert losses[-1] < losses[0] - 3
    assert model.evaluate(corrupted, clean, verbose=0) == pytest.approx(losses[-1], abs=1)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_hidden_layers_have_the_activation(activation, part):
    network = getattr(DVAE(6, "bernoulli", (5,), 3, activation=activation), part)
    inputs = normal(40, network.input_shape[1])
    (kernel, bias), (last, offset) = (layer.get_weights() for layer in network.layers)
    sums = (inputs @ kernel + bias).astype(float)
    hidden = np.maximum(sums, 0) if activation == "relu" else sums * scipy.special.expit(sums)
    np.testing.assert_allclose(network(inputs), hidden @ last + offset, rtol=1e-4, atol=1e-5)


def test_an_unknown_likelihood_or_activation_is_refused():
    with pytest.raises(ValueError, match="poisson"):
        DVAE(4, "poisson")
    with pytest.raises(ValueError, match="tanh"):
        DVAE(4, "gaussian", activation="tanh")

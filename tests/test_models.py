"""The model's mathematics against SciPy, Monte Carlo and a case with a closed form."""

import base64
import io
import json
import marshal
import zipfile

import h5py
import numpy as np
import pytest
import scipy.stats

import models
from files import model_file
from harness import UserError
from harness.quiet_tensorflow import tf
from models import DVAE, keras


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_log_densities_are_scipys():
    z, mean, log_var = normal(7, 3), normal(7, 3, seed=1), normal(7, 3, seed=2)
    expected = scipy.stats.norm.logpdf(z.astype(float), mean, np.exp(log_var / 2)).sum(1)
    np.testing.assert_allclose(models.gaussian_log_density(z, mean, log_var), expected, rtol=1e-5)
    logits, means, log_vars = normal(5, seed=3), normal(5, 3, seed=4), normal(5, 3, seed=5)
    each = scipy.stats.norm.logpdf(z[:, None].astype(float), means, np.exp(log_vars / 2)).sum(
        2
    )  # (7, 5)
    expected = scipy.special.logsumexp(each + scipy.special.log_softmax(logits), axis=1)
    np.testing.assert_allclose(
        models.mixture_log_density(z, logits, means, log_vars), expected, rtol=1e-5
    )


def test_the_mean_of_kl_is_the_closed_form_for_a_single_gaussian():
    model = DVAE(4, "gaussian", hidden=(), latent=2, components=1)
    prior_mean, prior_log_var = np.array([0.3, -0.5]), np.array([0.4, -0.2])
    model.prior_means.assign(prior_mean[None])
    model.prior_log_vars.assign(prior_log_var[None])
    mean, log_var = np.array([[0.7, -1.2]], np.float32), np.array([[-1.0, 0.5]], np.float32)
    kl = model.kl(models.reparameterize(mean, log_var, normal(400_000, 2)), mean, log_var).numpy()
    ratio = np.exp(log_var - prior_log_var)
    expected = (
        0.5 * (ratio + (mean - prior_mean) ** 2 / np.exp(prior_log_var) - 1 - np.log(ratio)).sum()
    )
    assert kl.mean() == pytest.approx(expected, abs=5 * kl.std() / np.sqrt(len(kl)))


def test_the_mean_of_kls_gradient_is_the_closed_forms_for_a_single_gaussian():
    model = DVAE(4, "gaussian", hidden=(), latent=2, components=1)
    prior_mean, prior_log_var = (
        np.array([[0.3, -0.5]], np.float32),
        np.array([[0.4, -0.2]], np.float32),
    )
    model.prior_means.assign(prior_mean)
    model.prior_log_vars.assign(prior_log_var)
    mean, log_var, noise = np.array([[0.7, -1.2]]), np.array([[-1.0, 0.5]]), normal(100_000, 2)
    posterior = [
        tf.constant(np.repeat(part, len(noise), 0), tf.float32) for part in (mean, log_var)
    ]
    with tf.GradientTape() as tape:
        tape.watch(posterior)
        kl = model.kl(models.reparameterize(*posterior, noise), *posterior)
    closed = (
        (mean - prior_mean) / np.exp(prior_log_var),
        0.5 * (np.exp(log_var - prior_log_var) - 1),
    )
    for slope, expected in zip(tape.gradient(kl, posterior), closed):
        slope = slope.numpy()
        np.testing.assert_array_less(
            np.abs(slope.mean(0) - expected[0]), 5 * slope.std(0) / np.sqrt(len(noise))
        )


def test_bernoulli_nll_is_scipys_for_binary_pixels_and_the_mean_of_it_for_grey_ones():
    logits = 3 * normal(4, 6)
    binary = (normal(4, 6, seed=1) > 0).astype(np.float32)
    expected = -scipy.stats.bernoulli.logpmf(binary, scipy.special.expit(logits.astype(float))).sum(
        1
    )
    np.testing.assert_allclose(models.bernoulli_nll(binary, logits), expected, rtol=1e-5)
    grey = np.full((4, 6), 0.3, np.float32)
    white, black = (models.bernoulli_nll(np.full_like(grey, level), logits) for level in (1, 0))
    np.testing.assert_allclose(
        models.bernoulli_nll(grey, logits), 0.3 * white + 0.7 * black, rtol=1e-5
    )


def test_gaussian_nll_is_scipys():
    clean, decoded = normal(3, 50), normal(3, 50, seed=1)
    expected = -scipy.stats.norm.logpdf(clean.astype(float), decoded, 0.2).sum(1)
    np.testing.assert_allclose(
        models.gaussian_nll(clean, decoded, np.float32(np.log(0.2))), expected, rtol=1e-5
    )


def test_reparameterized_noise_has_the_mean_and_variance_asked_for():
    z = models.reparameterize(2.0, np.float32(np.log(9.0)), normal(100_000))
    assert scipy.stats.kstest(z, scipy.stats.norm(2, 3).cdf).pvalue > 1e-3


def test_importance_log_likelihood_reaches_the_closed_form_of_a_linear_gaussian_decoder():
    # x = W z + noise, z ~ N(0, 1): x ~ N(0, W W' + s^2 I). The proposal is off on purpose.
    rng = np.random.default_rng(0)
    weights, std, x = rng.standard_normal((2, 5)), 0.7, rng.standard_normal((3, 5))
    expected = scipy.stats.multivariate_normal(
        np.zeros(5), weights.T @ weights + std**2 * np.eye(5)
    ).logpdf(x)
    precision = np.eye(2) + weights @ weights.T / std**2
    mean = x @ weights.T / std**2 @ np.linalg.inv(precision) + 0.05
    log_var = np.log(2 * np.diag(np.linalg.inv(precision))) * np.ones((3, 1))

    def log_joint(z):
        decoded = z @ tf.constant(weights, tf.float32)
        nll = models.gaussian_nll(tf.constant(x, tf.float32), decoded, np.float32(np.log(std)))
        return models.gaussian_log_density(z, 0.0, tf.zeros_like(z)) - nll

    arguments = log_joint, tf.constant(mean, tf.float32), tf.constant(log_var, tf.float32)
    many = tf.function(lambda: models.importance_log_likelihood(*arguments, 20_000, (1, 2)))()
    np.testing.assert_allclose(many, expected, atol=0.05)
    single = np.array([models.importance_log_likelihood(*arguments, 1, (3, k)) for k in range(300)])
    assert np.all(single.mean(0) < expected)  # one draw at a time, the mean is the ELBO: below


def linear_gaussian(size=5, latent=2, std=0.7):
    """A DVAE with a linear decoder and a standard normal prior, its marginal N(0, W W' + s^2 I), and W (L, D)."""
    model = DVAE(size, "gaussian", hidden=(), latent=latent, components=1)
    weights = normal(latent, size, seed=7)
    model.decoder.layers[-1].set_weights([weights, np.zeros(size, np.float32)])
    model.prior_means.assign(np.zeros((1, latent)))
    model.prior_log_vars.assign(np.zeros((1, latent)))
    model.log_std.assign(np.log(std))
    return (
        model,
        scipy.stats.multivariate_normal(
            np.zeros(size), weights.T @ weights + std**2 * np.eye(size)
        ),
        weights,
    )


def test_the_likelihood_of_a_linear_model_is_the_closed_form_whatever_the_encoder_is_shown():
    std = 0.7
    model, marginal, weights = linear_gaussian(std=std)
    # Orthogonal rows make the posterior's covariance diagonal, so that the encoder can be right, shown -2 x for x.
    weights = np.linalg.qr(weights.T)[0].T.astype(np.float32) * [[1.5], [0.6]]
    model.decoder.layers[-1].set_weights([weights.astype(np.float32), np.zeros(5, np.float32)])
    marginal = scipy.stats.multivariate_normal(
        np.zeros(5), weights.T @ weights + std**2 * np.eye(5)
    )
    variance = 1 / (1 + (weights**2).sum(1) / std**2)
    kernel = np.concatenate(
        [(weights / std**2 * variance[:, None]).T / -2, np.zeros((5, 2))], axis=1
    )
    model.encoder.layers[-1].set_weights([kernel, np.concatenate([np.zeros(2), np.log(variance)])])
    clean = normal(6, 5, seed=9)
    exact = marginal.logpdf(clean)
    # One draw from the exact posterior already gives it: p(x | z) p(z) / q(z) is p(x) for every z.
    np.testing.assert_allclose(model.log_likelihood(-2 * clean, clean, 1, (1, 2)), exact, atol=1e-3)
    off = model.log_likelihood(
        clean, clean, 1, (1, 2)
    ).numpy()  # from the wrong place it is far below
    assert np.mean(off) < np.mean(exact) - 1
    many = tf.function(lambda: model.log_likelihood(-1.5 * clean, clean, 20_000, (1, 2)))()
    np.testing.assert_allclose(many, exact, atol=0.1)


def test_a_new_model_of_sound_passes_little_noise_and_its_prior_is_about_where_codes_begin():
    keras.utils.set_random_seed(0)
    for likelihood in ("gaussian", "bernoulli"):
        model = DVAE(200, likelihood, hidden=(100,), latent=4)
        z = normal(4000, 4, seed=1) * np.float32(np.sqrt(1.25))
        # A mixture of 200 of standard deviation 0.5, their centres standard normal: nearly N(0, 1.25).
        difference = (
            scipy.stats.norm.logpdf(z, 0, np.sqrt(1.25)).sum(1) - model.log_prior(z).numpy()
        )
        assert abs(np.mean(difference)) < 1  # nats; a spread of 5 would be 4 nats off
    model = DVAE(200, "gaussian", hidden=(100,), latent=4)
    passed = np.std(normal(500, 200) @ model.encoder.layers[0].kernel.numpy())
    assert 0.2 < passed / np.sqrt(200 * 2 / (200 + 100)) < 0.4  # of what Glorot's would
    # And it says noise, not nothing: what it makes of anything is as rough as white noise of half of full scale.
    decoded = model.reconstruct(np.zeros((1, 200), np.float32)).numpy()[0]
    assert np.std(decoded) == pytest.approx(0.5, rel=0.2)
    assert np.std(np.diff(decoded)) == pytest.approx(0.5 * np.sqrt(2), rel=0.25)


def test_a_new_model_of_images_passes_them_from_layer_to_layer_undiminished():
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
    means, log_vars = model.prior_means.numpy(), model.prior_log_vars.numpy()
    each = scipy.stats.norm.logpdf(z[:, None], means, np.exp(log_vars / 2)).sum(2) - np.log(
        len(means)
    )
    kl = scipy.stats.norm.logpdf(z, mean, np.exp(log_var / 2)).sum(1) - scipy.special.logsumexp(
        each, axis=1
    )
    loss = model.compute_loss(x=clean, y=clean, y_pred=model(clean, noise=noise))
    assert float(loss) == pytest.approx((nll + kl).mean(), rel=1e-5)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_a_model_comes_back_from_its_file(tmp_path, likelihood):
    keras.utils.set_random_seed(3)
    model = DVAE(
        12,
        likelihood,
        hidden=(7, 5),
        latent=3,
        components=9,
        metadata={"experiment": "test", "shape": [3, 4]},
    )
    model.prior_logits.assign(normal(9))
    if likelihood == "gaussian":
        model.log_std.assign(-1.5)
    model.save(tmp_path / "model.keras")
    again = model_file.load_model(tmp_path)
    x = normal(4, 12)
    np.testing.assert_array_equal(model.reconstruct(x), again.reconstruct(x))
    np.testing.assert_array_equal(model.generate(5, (1, 2)), again.generate(5, (1, 2)))
    assert again.get_config() == model.get_config()
    assert len(again.weights) == len(model.weights)
    for ours, theirs in zip(model.weights, again.weights):
        np.testing.assert_array_equal(ours, theirs)


def test_what_is_no_model_of_ours_is_refused_in_one_line(tmp_path):
    for name, content in {"empty.keras": b"", "text.keras": b"hello"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            model_file.load_model(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"missing\.keras"):
        model_file.load_model(tmp_path / "missing.keras")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    with pytest.raises(UserError, match=r"other\.keras: a Keras model, but not"):
        model_file.load_model(tmp_path / "other.keras")


def test_a_strangers_model_runs_no_code(tmp_path, monkeypatch):
    (tmp_path / "strangers.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'w')\nclass DVAE: pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "model.keras"
    code = marshal.dumps(
        compile(f"(lambda x: open({str(tmp_path / 'ran')!r}, 'w'))", "", "eval").co_consts[0]
    )
    code = {"class_name": "__lambda__", "config": {"code": base64.b64encode(code).decode()}}
    model = {
        "class_name": "Lambda",
        "module": "keras.layers",
        "registered_name": None,
        "config": {"function": code},
    }
    imported = {
        "class_name": "DVAE",
        "module": "strangers",
        "registered_name": "denoising_vae>DVAE",
        "config": {},
    }
    metadata = {"experiment": "sound", "layer": model}
    for config in (
        model,
        {
            "class_name": "Sequential",
            "module": "keras",
            "registered_name": None,
            "config": {"layers": [model]},
        },
        imported,
        {**imported, "registered_name": "strangers>DVAE", "config": {"metadata": metadata}},
        {
            **imported,
            "config": {
                "metadata": metadata,
                "input_size": imported,
                "hidden": [model],
                "latent": 2,
            },
        },
    ):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.json", '{"keras_version": "3.15.0"}')
            archive.writestr("config.json", json.dumps(config))
            archive.writestr("model.weights.h5", b"")
        with pytest.raises(UserError, match=r"model\.keras: "):
            model_file.load_model(path)
        assert not (tmp_path / "ran").exists()


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A small model's file: its members."""
    path = tmp_path_factory.mktemp("kept") / "model.keras"
    DVAE(
        12, "gaussian", hidden=(7, 5), latent=3, components=2, metadata={"experiment": "sound"}
    ).save(path)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def changed(members, **own):
    """The members of a model's file with other values in its configuration."""
    config = json.loads(members["config.json"])
    config["config"] |= own
    return {**members, "config.json": json.dumps(config)}


def weights(**values):
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        for name, value in values.items():
            file[name] = value
        file.create_dataset(
            "vast", shape=(10**12,), chunks=(1024,), dtype="f4"
        ) if not values else None
    return content.getvalue()


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda kept: kept, None),
        (lambda kept: changed(kept, hidden=[7, 6]), "expected shape"),
        (lambda kept: changed(kept, input_size=10**12), "expected shape"),
        (lambda kept: changed(kept, latent=10**400), "expected shape"),
        (lambda kept: changed(kept, hidden=[1] * 10**5), "expected shape"),
        (lambda kept: changed(kept, hidden=[-7, 5]), "expected shape"),
        (lambda kept: changed(kept, hidden="75"), "expected shape"),
        (lambda kept: changed(kept, likelihood="poisson"), "likelihood"),
        (lambda kept: changed(kept, components=10**9), "expected shape"),
        (
            lambda kept: changed(kept, metadata={"experiment": "sound", "format": 3}),
            "newer version",
        ),
        (
            lambda kept: changed(kept, metadata={"experiment": "sound", "format": 1}),
            "older version",
        ),
        (
            lambda kept: changed(kept, metadata={"experiment": "sound", "format": "two"}),
            "not a model",
        ),
        (lambda kept: changed(kept, metadata={"shape": [3, 4]}), "not one that these scripts"),
        (lambda kept: {**kept, "model.weights.h5": weights()}, "vast: expected shape None"),
        (
            lambda kept: {
                **kept,
                "model.weights.h5": weights(vars=h5py.ExternalLink("/etc/hosts", "x")),
            },
            "vars: expected shape None",
        ),
        (
            lambda kept: {**kept, "model.weights.h5": weights(vars=h5py.SoftLink("/encoder"))},
            "vars: expected shape None",
        ),
        (lambda kept: {**kept, "model.weights.h5": weights(vars=np.zeros(3))}, "not a model"),
        (lambda kept: {**kept, "config.json": "[" * 10**5}, "not a model"),
        (
            lambda kept: {name: kept[name] for name in ("metadata.json", "config.json")},
            "not a model",
        ),
    ],
)
def test_a_model_that_does_not_fit_is_refused_in_one_line(tmp_path, kept, change, words):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in change(kept).items():
            archive.writestr(name, content)
    if words is None:
        assert model_file.load_model(path).hidden == (7, 5)
    else:
        with pytest.raises(UserError, match=rf"model\.keras: .*({words})") as refused:
            model_file.load_model(path)
        assert len(str(refused.value).splitlines()) == 1


def test_a_bomb_is_not_unpacked_and_nan_is_not_used(tmp_path, kept, monkeypatch):
    path = tmp_path / "model.keras"
    monkeypatch.setattr(model_file, "LARGEST_FILE", 10**6)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {**kept, "model.weights.h5": bytes(2 * 10**6)}.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match="unpacked"):
        model_file.load_model(path)
    model = DVAE(2, "gaussian", hidden=(), latent=1, metadata={"experiment": "sound"})
    model.log_std.assign(np.nan)
    model.save(path)
    with pytest.raises(UserError, match="not finite"):
        model_file.load_model(path)


def test_generated_pixels_are_probabilities_from_z_of_the_prior():
    model = DVAE(2, "bernoulli", hidden=(), latent=2, components=2)
    model.prior_logits.assign(np.log([0.3, 0.7]))
    model.prior_means.assign([[-2, 1], [2, 0]])
    model.prior_log_vars.assign(np.log([[1, 4], [0.25, 1]]))
    model.decoder.layers[-1].set_weights([np.eye(2, dtype=np.float32), np.zeros(2, np.float32)])
    pixels = model.generate(20_000, (0, 1)).numpy()
    assert pixels.min() > 0 and pixels.max() < 1
    z = scipy.special.logit(pixels.astype(float))
    for axis, (first, second) in enumerate([((-2, 1), (2, 0.5)), ((1, 2), (0, 1))]):
        cdf = lambda x: (
            0.3 * scipy.stats.norm.cdf(x, *first) + 0.7 * scipy.stats.norm.cdf(x, *second)
        )
        assert scipy.stats.kstest(z[:, axis], cdf).pvalue > 1e-3
    left = z[:, 0] < 0  # nearly all of the first Gaussian, which is the higher one
    assert left.mean() == pytest.approx(0.3, abs=0.02) and z[left, 1].mean() == pytest.approx(
        1, abs=0.1
    )


def test_it_learns_with_keras_own_fit():
    keras.utils.set_random_seed(0)
    model = DVAE(8, "gaussian", hidden=(16,), latent=2)
    clean = normal(512, 1) @ np.ones((1, 8), np.float32)
    model.compile(keras.optimizers.Adam(1e-2))
    corrupted = clean * (normal(512, 8, seed=1) > 0)
    losses = model.fit(corrupted, clean, epochs=12, batch_size=64, verbose=0).history["loss"]
    assert losses[-1] < losses[0] - 3
    assert model.evaluate(corrupted, clean, verbose=0) == pytest.approx(losses[-1], abs=1)


def test_an_unknown_likelihood_is_refused():
    with pytest.raises(ValueError, match="poisson"):
        DVAE(4, "poisson")

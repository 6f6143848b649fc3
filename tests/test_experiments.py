"""What makes the two experiments what they are: what the network is given, what is asked of it, what is scored."""

import dataclasses
import json

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

import audio_utils
import baselines
import corrupt
import inference
import mnist_dvae
import sound_dvae
from files.image_files import Images
from harness import UserError
from harness.quiet_tensorflow import tf
from harness.run_folder import Run
from models import DVAE
from pages import figures

RNG = np.random.default_rng(0)
SIDE = 20


def images_of(kinds, seed):
    """One image a label, its kind the bright half; no pixel is 0, so that 0 says missing. (count, SIDE, SIDE) uint8."""
    images = np.random.default_rng(seed).integers(40, 120, (len(kinds), SIDE, SIDE), np.uint8)
    for image, kind in zip(images, kinds):
        image[:, SIDE // 2 * kind : SIDE // 2 * (kind + 1)] += 130
    return images


KINDS = np.arange(120) % 2
# What is held out has its labels the wrong way round: only a judge that has seen them would agree.
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
    """A stand-in for a trained model: it makes `reconstruct` of what it is given, which it remembers."""

    latent = 2

    def __init__(self, reconstruct, generated=None):
        self.made_of, self.generated, self.given = reconstruct, generated, []

    def reconstruct(self, corrupted):
        self.given.append(np.array(corrupted))
        return tf.constant(self.made_of(np.array(corrupted)), tf.float32)

    def __call__(self, corrupted, noise):
        return self.reconstruct(corrupted)

    def nll_and_kl(self, clean, outputs):
        return tf.reduce_mean(
            tf.reduce_sum((tf.cast(clean, tf.float32) - outputs) ** 2, -1)
        ), tf.constant(0.5)

    def generate(self, count, seed):
        return tf.constant(np.resize(self.generated, (count, self.generated.shape[1])), tf.float32)


def looked_up(given, answers):
    """A model that has learned the answer to each of the given examples by heart."""
    table = {example.tobytes(): answer for example, answer in zip(given, answers)}
    return lambda examples: np.array([table[example.tobytes()] for example in examples])


def batch(script, settings, data, seed=(3, 4), count=64):
    return [part.numpy() for part in script.make_batch(settings, data, seed, count)]


@pytest.mark.parametrize("name", corrupt.CORRUPTIONS)
@pytest.mark.parametrize("script", [mnist_dvae, sound_dvae])
def test_the_network_is_blind_where_something_is_missing_and_never_shown_the_clean_batch(
    script, name
):
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
        extremes = np.isclose(corrupted, clean.min(1, keepdims=True)) | np.isclose(
            corrupted, clean.max(1, keepdims=True)
        )
        assert np.all((extremes if name == "salt-pepper" else corrupted == 0)[changed])


def test_noise_is_on_the_input_alone_and_steady_on_the_long_sound():
    settings = dataclasses.replace(SOUNDS, noise=0.4)
    _, silent = batch(sound_dvae, SOUNDS, NOTES)
    corrupted, clean = batch(sound_dvae, settings, NOTES)
    np.testing.assert_array_equal(clean, silent)  # the target
    there = corrupted != 0
    assert np.std((corrupted - clean)[there]) == pytest.approx(0.4 / np.sqrt(3), rel=0.2)
    held = sound_dvae.held_out(settings, NOTES)
    left = (held.long_corrupted - held.long_clean)[held.long_mask == 0]
    pieces = left[: left.size // 20 * 20].reshape(20, -1)
    np.testing.assert_allclose(pieces.std(1), 0.2, rtol=0.1)
    _, digits = batch(mnist_dvae, DIGITS, tf.constant(IMAGES.train))
    noisy, still = batch(
        mnist_dvae, dataclasses.replace(DIGITS, noise=0.4), tf.constant(IMAGES.train)
    )
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


def test_digits_learned_from_are_whole_training_images_slanted_anew_each_time():
    flat = IMAGES.train.reshape(len(KINDS), -1) / np.float32(255)
    _, clean = batch(mnist_dvae, DIGITS, tf.constant(IMAGES.train))
    assert all(np.abs(flat - row).max(1).min() < 1e-6 for row in clean)  # each is one of them
    one = tf.constant(IMAGES.train[:1])
    _, slanted = batch(mnist_dvae, dataclasses.replace(DIGITS, deform=0.1), one)
    smooth = scipy.ndimage.gaussian_filter(flat[0].reshape(SIDE, SIDE), 2).ravel()
    assert len(np.unique(slanted, axis=0)) == 64 and not np.any(
        np.abs(slanted - flat[0]).max(1) < 1e-3
    )
    assert np.mean((slanted.mean(0) - smooth) ** 2) < 0.3 * np.var(
        flat[0]
    )  # about the image it was


def test_the_sounds_target_is_the_noisy_window_and_not_the_tone():
    _, clean = batch(sound_dvae, SOUNDS, NOTES, count=200)
    time = np.arange(512) / 8000
    left = []
    for window in clean:
        fits = []
        for note in audio_utils.C_MAJOR:
            angle = 2 * np.pi * audio_utils.note_frequency(note) * time
            fits.append(
                np.linalg.lstsq(np.stack([np.sin(angle), np.cos(angle)], 1), window, rcond=None)[1][
                    0
                ]
            )
        left.append(min(fits) / (512 - 2))
    assert np.mean(left) == pytest.approx(0.2**2, rel=0.02)


def test_each_seed_gives_a_batch_of_its_own_and_the_same_again():
    for script, settings, data in (
        (mnist_dvae, DIGITS, tf.constant(IMAGES.train)),
        (sound_dvae, SOUNDS, NOTES),
    ):
        first, again, other = (
            batch(script, settings, data, seed) for seed in ((1, 2), (1, 2), (1, 3))
        )
        for ours, same, theirs in zip(first, again, other):
            np.testing.assert_array_equal(ours, same)
            assert not np.array_equal(ours, theirs)


def test_what_is_held_out_is_corrupted_and_scored_against_what_was_there(digits, sounds):
    np.testing.assert_allclose(digits.clean, IMAGES.test / 255, atol=1e-6)
    for corrupted, clean, mask in (
        (digits.corrupted, digits.clean, digits.mask),
        (sounds.corrupted, sounds.clean, sounds.mask),
        (sounds.long_corrupted, sounds.long_clean, sounds.long_mask),
    ):
        assert 0.18 < mask.mean() < 0.22
        assert not corrupted[mask == 1].any()
        np.testing.assert_allclose(corrupted[mask == 0], clean[mask == 0], atol=1e-6)
    for clean, reference in (
        (sounds.clean, sounds.reference),
        (sounds.long_clean, sounds.long_reference),
    ):
        assert np.std(clean - reference) == pytest.approx(0.2, rel=0.02)
        assert np.std(reference) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)
    again = sound_dvae.held_out(dataclasses.replace(SOUNDS, seed=1), NOTES)
    np.testing.assert_array_equal(again.corrupted, sounds.corrupted)
    assert not np.array_equal(again.long_clean, sounds.long_clean)
    mean = IMAGES.train.mean(0) / 255
    np.testing.assert_allclose(
        digits.mean_filled, np.where(digits.mask == 1, mean, digits.corrupted), atol=1e-5
    )


def test_each_score_of_a_known_model_of_digits_is_what_it_must_be(digits):
    hole = digits.mask == 1
    flat = digits.corrupted.reshape(len(KINDS), -1)
    in_hole = np.mean(digits.clean[hole] ** 2)
    by_mean = np.mean((digits.clean - IMAGES.train.mean(0) / 255)[hole] ** 2)
    for model, hole_mse, mse in (
        (Known(lambda x: x, flat), in_hole, in_hole * hole.mean()),  # returns its input
        (Known(np.zeros_like, flat), in_hole, np.mean(digits.clean**2)),
        (Known(looked_up(flat, digits.clean.reshape(flat.shape)), flat), 0, 0),
        (
            Known(looked_up(flat, digits.mean_filled.reshape(flat.shape)), flat),
            by_mean,
            by_mean * hole.mean(),
        ),
    ):
        scores, (reconstructed, generated) = mnist_dvae.evaluate(DIGITS, model, digits)
        assert scores["hole_mse"] == pytest.approx(hole_mse, rel=1e-4)
        assert scores["mse"] == pytest.approx(mse, rel=1e-4)
        assert scores["hole_mse_over_mean_fill"] == pytest.approx(hole_mse / by_mean, rel=1e-4)
        assert scores["loss"] == scores["nll"] + scores["kl"]
        assert scores["nll"] == pytest.approx(mse * flat.shape[1], rel=1e-4) and scores["kl"] == 0.5
        assert reconstructed.shape == digits.clean.shape and len(generated) == mnist_dvae.GENERATED
        for given in model.given:  # damaged, whoever asks
            np.testing.assert_array_equal(given, flat)


def test_the_judge_of_digits_has_seen_training_images_alone(digits):
    flat = digits.clean.reshape(len(KINDS), -1)
    model = Known(looked_up(digits.corrupted.reshape(flat.shape), flat), flat[KINDS == 0])
    scores, _ = mnist_dvae.evaluate(DIGITS, model, digits)
    assert scores["classifier_error"] > 0.95  # the held-out labels are wrong
    assert np.mean(digits.classify(IMAGES.train.reshape(flat.shape) / 255)[0] == KINDS) > 0.95
    assert scores["generated_classes"] < 1.2 and scores["generated_confidence"] > 0.9
    both, _ = mnist_dvae.evaluate(DIGITS, Known(lambda x: x, flat), digits)
    assert both["generated_classes"] > 1.8
    unlabelled = mnist_dvae.held_out(DIGITS, IMAGES._replace(train_labels=None, test_labels=None))
    assert "classifier_error" not in mnist_dvae.score(unlabelled, unlabelled.clean)


def snr(reference, estimate):
    return 10 * np.log10(
        np.sum(np.square(reference, dtype=float)) / np.sum((reference - estimate) ** 2.0)
    )


def test_each_score_of_a_known_model_of_sounds_is_what_it_must_be(sounds):
    gaps, long_gaps = sounds.mask == 1, sounds.long_mask == 1
    generated = sounds.reference[:64]
    for reconstruct in (lambda x: x, lambda x: 0.5 * x + 0.1):
        model = Known(reconstruct, generated)
        scores, (windows, long, _) = sound_dvae.evaluate(SOUNDS, model, NOTES, sounds)
        np.testing.assert_allclose(windows, reconstruct(sounds.corrupted), atol=1e-6)
        np.testing.assert_allclose(long, reconstruct(sounds.long_corrupted), atol=1e-5)
        assert scores["snr_db"] == pytest.approx(snr(sounds.reference, windows), abs=1e-3)
        assert scores["gap_snr_db"] == pytest.approx(
            snr(sounds.reference[gaps], windows[gaps]), abs=1e-3
        )
        assert scores["long_snr_db"] == pytest.approx(snr(sounds.long_reference, long), abs=1e-3)
        long_gap_snr = snr(sounds.long_reference[long_gaps], long[long_gaps])
        assert scores["long_gap_snr_db"] == pytest.approx(long_gap_snr, abs=1e-3)
        assert scores["nll"] == pytest.approx(
            np.mean(np.sum((sounds.clean - windows) ** 2, 1)), rel=1e-4
        )
        assert scores["generated_one_note"] == 1 and 6 < scores["generated_notes"] <= 7
        for given in model.given[:1] + model.given[-1:]:
            np.testing.assert_array_equal(given, sounds.corrupted)
        assert all(np.mean(given == 0) > 0.15 for given in model.given)
    right = Known(looked_up(sounds.corrupted, 0.999 * sounds.reference), generated)
    assert sound_dvae.score(SOUNDS, sounds, right.reconstruct(sounds.corrupted).numpy(), long)[
        "snr_db"
    ] == (pytest.approx(60, abs=0.01))
    noise = Known(lambda x: x, RNG.standard_normal((64, 512)))
    assert sound_dvae.evaluate(SOUNDS, noise, NOTES, sounds)[0]["generated_one_note"] == 0


def test_each_baseline_of_digits_fills_the_holes_and_nothing_else(digits):
    reconstructed = RNG.random(digits.clean.shape)
    methods = mnist_dvae.compared_estimates("digit", digits, IMAGES.train, {"DVAE": reconstructed})
    assert (next(iter(methods)), [*methods][-1]) == (
        "holes black (the input)",
        "originals",
    )  # as the page takes them
    hole = digits.mask == 1
    np.testing.assert_array_equal(methods["DVAE"], reconstructed)
    np.testing.assert_array_equal(methods["originals"], digits.clean)
    for name, estimate in methods.items():
        if name not in ("DVAE", "originals"):
            np.testing.assert_array_equal(estimate[~hole], digits.corrupted[~hole])
    assert not methods["holes black (the input)"][hole].any()
    np.testing.assert_array_equal(methods["holes filled by the DVAE"][hole], reconstructed[hole])
    nearest = methods["holes filled from the nearest digit"]
    for row in range(20):
        seen = ~hole[row]
        distance = ((IMAGES.train / 255.0 - digits.corrupted[row])[:, seen] ** 2).sum(1)
        np.testing.assert_allclose(
            nearest[row][hole[row]], IMAGES.train[distance.argmin()][hole[row]] / 255, atol=1e-6
        )


def test_each_baseline_of_sounds_is_what_its_name_says(sounds):
    windows, long = (
        RNG.standard_normal(sounds.clean.shape),
        RNG.standard_normal(sounds.long_clean.size),
    )
    methods = sound_dvae.compared_estimates(SOUNDS, NOTES, sounds, {"DVAE": (windows, long)})
    assert (next(iter(methods)), [*methods][-1]) == (
        "chopped input",
        "oracle: the right note",
    )  # as the page takes them
    scores = {name: sound_dvae.score(SOUNDS, sounds, *both) for name, both in methods.items()}
    np.testing.assert_array_equal(methods["DVAE"][1], long)
    assert scores["chopped input"]["gap_snr_db"] == scores["chopped input"]["long_gap_snr_db"] == 0
    oracle = 10 * np.log10(0.125 / (2 * 0.04 / (512 - 102)))  # least squares on the right note
    assert scores["oracle: the right note"]["snr_db"] == pytest.approx(oracle, abs=0.3)
    assert (
        scores["oracle: the right note"]["long_gap_snr_db"] > oracle + 5
    )  # told when notes change
    assert scores["best of the notes"]["snr_db"] == pytest.approx(oracle, abs=1)
    classic = "autoregression (windows: first 128)"
    assert scores[classic]["gap_snr_db"] > 3 > scores["linear interpolation"]["gap_snr_db"]
    filtered = scores["autoregression + Wiener filter, noise known"]
    assert filtered["long_snr_db"] > scores[classic]["long_snr_db"] + 6 and "snr_db" not in filtered
    for name in ("linear interpolation", classic):
        some, whole = methods[name]
        gaps = sounds.mask[: len(some)] == 1
        np.testing.assert_array_equal(some[~gaps], sounds.corrupted[: len(some)][~gaps])
        assert some[gaps].all()
        np.testing.assert_array_equal(
            whole[sounds.long_mask == 0], sounds.long_corrupted[sounds.long_mask == 0]
        )
    recordings = dataclasses.make_dataclass("Recordings", ["notes"])(None)
    own = sound_dvae.compared_estimates(SOUNDS, recordings, sounds, {"DVAE": (windows, long)})
    assert (
        next(iter(own)) == "chopped input"
        and [*own][-1] == "DVAE"
        and not any("note" in name for name in own)
    )


def test_the_figures_show_what_was_scored(digits, sounds, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(
        figures, "digit_rows", lambda title, rows, holes=None: drawn.append((title, rows, holes))
    )
    reconstructed, generated = RNG.random(digits.clean.shape), RNG.random((200, SIDE**2))
    imagined = {"refined": RNG.random((16, SIDE, SIDE))}
    files = mnist_dvae.render(DIGITS, "digit", digits, (reconstructed, generated), imagined, 100)
    assert list(files) == ["reconstruction_000100.png", "generated_000100.png"]
    (title, rows, holes), (_, new, _) = drawn
    assert "after 100 iterations" in title and "block 0.2" in title
    for label, images in {
        "original": digits.clean,
        "damaged": digits.corrupted,
        "reconstructed": reconstructed,
    }.items():
        np.testing.assert_array_equal(rows[label], images[:16])
    np.testing.assert_array_equal(holes["damaged"], digits.mask[:16])
    np.testing.assert_array_equal(rows["refined"], imagined["refined"])
    np.testing.assert_array_equal(
        np.concatenate([*new.values()]).reshape(-1, SIDE**2), generated[:96]
    )

    on = sound_dvae.canvas(SOUNDS, sounds)
    long = 0.1 * RNG.standard_normal(sounds.long_clean.size)
    files = sound_dvae.render(SOUNDS, "title", on, (None, long, sounds.reference), 100)
    files |= sound_dvae.render_inputs(SOUNDS, NOTES, sounds, on)
    for name, signal in {
        "reconstruction_000100.wav": long,
        "chopped.wav": sounds.long_corrupted,
        "clean.wav": sounds.long_clean,
        "tone.wav": sounds.long_reference,
    }.items():
        files[name](tmp_path / name)
        _, written = audio_utils.scipy.io.wavfile.read(tmp_path / name)
        assert np.abs(written).max() < 32767
        np.testing.assert_allclose(written / 32767, on.gain * signal, atol=1e-4)


def changed(field, value):
    """Another value that this setting may have."""
    others = {
        "corruption": "scatter",
        "timbre": "plucked",
        "notes": ("C4",),
        "hidden": (16, 8),
        "size": 30,
    }
    others |= {"sample_rate": 17000, "window": 900, "noise": 0.5}
    return others[field] if field in others else value + 1 if isinstance(value, int) else value / 2


@pytest.mark.parametrize("script", [mnist_dvae, sound_dvae])
def test_every_setting_that_matters_is_compared_when_a_run_is_resumed(script, tmp_path):
    def begin(**settings):
        with Run(script.Settings(out=tmp_path / "out", **settings)) as run:
            run.record({})

    begin()
    before = (tmp_path / "out/config.json").read_bytes()
    harmless = {"iters", "out", "tensorboard", "resume", "overwrite", "data"}
    for field in dataclasses.fields(script.Settings):
        if field.name not in harmless:
            other = {field.name: changed(field.name, field.default)}
            with pytest.raises(UserError, match=f"--{field.name.replace('_', '-')} is "):
                begin(resume=True, **other)
    assert (tmp_path / "out/config.json").read_bytes() == before
    begin(resume=True)
    config = json.loads(before)
    del config["noise"]  # a run of before there was noise
    (tmp_path / "out/config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="--noise is 0"):
        begin(resume=True, noise=0.5)
    begin(resume=True)


def test_refined_digits_see_what_is_observed_and_doubt_is_what_it_says(digits):
    """A model whose decoder ignores z: pixels of 0.25, so a variance of 3 / 16 if they are black or white."""
    model = DVAE(SIDE**2, "bernoulli", hidden=(4,), latent=2)
    model.decoder.layers[-1].set_weights([np.zeros((4, SIDE**2)), np.full(SIDE**2, np.log(1 / 3))])
    given = []

    def refine(corrupted, observed, mean, log_var):
        given.extend((np.array(corrupted), np.array(observed)))
        return mean, log_var, tf.zeros(len(mean))

    reconstructed, deviation = mnist_dvae.refined(
        model, refine, digits.corrupted, digits.mask, greyness=np.zeros((SIDE, SIDE))
    )
    np.testing.assert_allclose(reconstructed, 0.25, atol=1e-6)
    np.testing.assert_allclose(deviation, np.sqrt(3) / 4, atol=1e-6)
    np.testing.assert_array_equal(given[0].reshape(digits.mask.shape), digits.corrupted)
    np.testing.assert_array_equal(given[1].reshape(digits.mask.shape), 1 - digits.mask)
    # Pixels that are 0 or 1 as the model says: doubt is honest, and their surprise is the entropy.
    drawn = digits._replace(clean=(RNG.random(digits.clean.shape) < 0.25).astype(np.float32))
    told = mnist_dvae.honesty(drawn, reconstructed, deviation)
    assert told["hole_error_over_claimed"] == pytest.approx(1, abs=0.03)
    assert told["hole_nats_a_pixel"] == pytest.approx(
        scipy.stats.bernoulli(0.25).entropy(), abs=0.02
    )
    assert mnist_dvae.honesty(drawn, 1 - reconstructed, deviation)["hole_error_over_claimed"] > 1.4
    grey = drawn._replace(
        clean=0.5 * (RNG.random(drawn.clean.shape) < 0.5)
    )  # of the same mean, x (1 - x) 1 / 8
    _, deviation = mnist_dvae.refined(
        model, refine, digits.corrupted, digits.mask, np.full((SIDE, SIDE), 1 / 8)
    )
    assert mnist_dvae.honesty(grey, reconstructed, deviation)[
        "hole_error_over_claimed"
    ] == pytest.approx(1, abs=0.03)
    expected = np.mean(IMAGES.train / 255 * (1 - IMAGES.train / 255), axis=0)
    np.testing.assert_allclose(digits.greyness, expected, rtol=1e-4)
    given.clear()
    rows = mnist_dvae.imagine(DIGITS, model, refine, digits)
    for seen, expected in zip(
        given, 2 * [digits.corrupted[:16], 1 - digits.mask[:16]]
    ):  # refined, then completions
        assert len(seen) in (16, 32)
        for part in seen.reshape(-1, *expected.shape):
            np.testing.assert_array_equal(part, expected)
    rows = mnist_dvae.imagine(DIGITS, model, inference.refiner(model, 2, 0.1), digits)
    assert list(rows) == ["refined", "completion 1", "completion 2", "doubt"]
    assert {row.shape for row in rows.values()} == {(16, SIDE, SIDE)}
    assert (
        mnist_dvae.imagine(dataclasses.replace(DIGITS, corruption="gaussian"), model, None, digits)
        == {}
    )


def test_doubt_is_that_of_draws_from_the_posterior():
    model = DVAE(4, "bernoulli", hidden=(), latent=2, components=1)
    model.decoder.layers[-1].set_weights([np.outer([1, 0], np.ones(4)), np.zeros(4)])
    images = np.zeros((3000, 2, 2), np.float32)

    def refine(corrupted, observed, mean, log_var):
        return tf.fill(mean.shape, 2.0), tf.fill(mean.shape, np.float32(np.log(9))), None

    reconstructed, deviation = mnist_dvae.refined(
        model, refine, images, 0 * images, np.zeros((2, 2))
    )
    np.testing.assert_allclose(reconstructed, scipy.special.expit(2), rtol=1e-5)
    drawn = scipy.special.expit(2 + 3 * np.random.default_rng(0).standard_normal(100_000))
    expected = drawn.mean() * (1 - drawn.mean()) - drawn.var() / inference.PREDICTIVE_DRAWS
    assert np.mean(deviation**2) == pytest.approx(expected, rel=0.03)


def test_greyness_and_honesty_are_of_the_hole_alone():
    hole = np.zeros((50, 4, 4))
    hole[:, :2] = 1
    model = DVAE(16, "bernoulli", hidden=(), latent=2)
    model.decoder.layers[-1].set_weights([np.zeros((2, 16)), np.repeat([-np.log(3), -12], 8)])

    def refine(corrupted, observed, mean, log_var):
        return mean, log_var, None

    images = np.zeros_like(hole, np.float32)
    reconstructed, deviation = mnist_dvae.refined(
        model, refine, images, hole, np.full((4, 4), 1 / 8)
    )
    np.testing.assert_allclose(deviation[hole == 1] ** 2, 3 / 16 - 1 / 8, rtol=1e-4)
    held = mnist_dvae.HeldOut(images, images + np.float32(0.5), hole, images, None, None, None)
    told = mnist_dvae.honesty(held, reconstructed, deviation)
    assert told["hole_error_over_claimed"] == pytest.approx(1, rel=1e-3)
    assert told == pytest.approx(
        mnist_dvae.honesty(held, reconstructed, np.where(hole == 1, deviation, 9))
    )


def test_a_checkpoints_doubt_allows_for_grey_pixels(digits):
    model = DVAE(SIDE**2, "bernoulli", hidden=(4,), latent=2)
    model.decoder.layers[-1].set_weights([np.zeros((4, SIDE**2)), np.full(SIDE**2, np.log(1 / 3))])
    refine = inference.refiner(model, 0, 0.1)
    rows = mnist_dvae.imagine(
        DIGITS, model, refine, digits._replace(greyness=np.full((SIDE, SIDE), 1 / 8))
    )
    np.testing.assert_allclose(rows["doubt"] ** 2, 3 / 16 - 1 / 8, rtol=1e-3)


def test_where_the_long_sound_is_damaged_and_how_noisy_it_is_are_drawn_apart():
    held = sound_dvae.held_out(dataclasses.replace(SOUNDS, corruption="scatter", noise=0.4), NOTES)
    left = (held.long_corrupted - held.long_clean)[held.long_mask == 0]
    assert abs(left.mean()) < 5 * 0.2 / np.sqrt(left.size)


def test_the_noise_that_the_classic_is_told_is_that_of_the_long_sound(monkeypatch):
    settings, powers = dataclasses.replace(SOUNDS, noise=0.4), []
    held = sound_dvae.held_out(settings, NOTES)

    def told(frames, sound, power):
        powers.append(power / np.sum(frames.win**2))
        return sound

    monkeypatch.setattr(sound_dvae.noise, "classic_wiener", told)
    recordings = dataclasses.make_dataclass("Recordings", ["notes"])(None)
    for source, reference in ((NOTES, held.long_reference), (recordings, held.long_clean)):
        sound_dvae.compared_estimates(settings, source, held, {})
        true = np.var((held.long_corrupted - reference)[held.long_mask == 0])
        np.testing.assert_allclose(powers.pop(), true, rtol=0.05)


def test_gaps_too_many_for_one_at_a_time_are_filled_by_autoregression_in_windows():
    settings = dataclasses.replace(SOUNDS, corruption="scatter")
    held = sound_dvae.held_out(settings, NOTES)
    methods = sound_dvae.compared_estimates(settings, NOTES, held, {})
    assert methods["autoregression (windows: first 128)"][1][held.long_mask == 1].all()


def test_the_long_sounds_other_scores_are_against_the_tone_too(sounds):
    with np.errstate(divide="ignore"):
        scores = sound_dvae.score(SOUNDS, sounds, None, sounds.long_reference)
    assert scores["long_lsd_db"] == 0 and scores["long_si_sdr_db"] > 100 and "snr_db" not in scores


@pytest.mark.parametrize("script", [mnist_dvae, sound_dvae])
@pytest.mark.parametrize("name", ["hidden", "notes", "noise", "deform"])
def test_a_run_of_before_a_setting_goes_on_whatever_its_type(tmp_path, script, name):
    with Run(script.Settings(out=tmp_path / "out")) as run:
        run.record({})
    config = json.loads((tmp_path / "out/config.json").read_text())
    config.pop(name, None)
    (tmp_path / "out/config.json").write_text(json.dumps(config))
    with Run(script.Settings(out=tmp_path / "out", resume=True)) as run:
        run.record({})


def test_the_filtered_long_sound_follows_the_network_in_the_gaps_and_what_is_observed_elsewhere(
    sounds,
):
    def reconstruct(windows):
        return baselines.best_note(windows, np.equal(windows, 0), NOTES)

    reference, gaps = sounds.long_reference, sounds.long_mask == 1
    long = sound_dvae.restored(SOUNDS, sounds, reconstruct)
    for data in ("recordings", None):  # of which continuations are tried too, or not
        filtered = sound_dvae.without_noise(
            dataclasses.replace(SOUNDS, data=data), sounds, reconstruct, long
        )
        assert audio_utils.snr_db(reference, filtered) > 18  # 3 of the input
        assert audio_utils.snr_db(reference[gaps], filtered[gaps]) > 15
    unheard = sound_dvae.without_noise(SOUNDS, sounds, reconstruct, 0 * long)
    assert (
        audio_utils.snr_db(reference[gaps], unheard[gaps])
        < audio_utils.snr_db(reference[gaps], filtered[gaps]) - 1
    )
    noisy = sounds._replace(
        long_corrupted=0 * sounds.long_corrupted
    )  # without what is observed, nothing
    assert np.abs(sound_dvae.without_noise(SOUNDS, noisy, reconstruct, long)[~gaps]).max() < 0.1

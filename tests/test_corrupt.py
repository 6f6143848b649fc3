"""The share, the place and the kind of every damage."""

import dataclasses

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

import audio_utils
import corrupt
import random_numbers
from corrupt import CORRUPTIONS
from harness import UserError
from harness.quiet_tensorflow import tf

RNG = np.random.default_rng(0)
SOUNDS = tf.constant(RNG.uniform(0.1, 1, (400, 250)), tf.float32)
IMAGES = tf.constant(RNG.uniform(0.1, 1, (400, 28, 20)), tf.float32)


def damage(name, batch, amount, seed=(1, 2)):
    corrupted, mask = (part.numpy() for part in CORRUPTIONS[name](batch, amount, seed))
    assert corrupted.shape == mask.shape == batch.shape
    assert set(np.unique(mask)) <= {0, 1}
    return corrupted, mask


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("batch", [SOUNDS, IMAGES], ids=["sounds", "images"])
def test_what_the_mask_spares_is_untouched_and_a_seed_repeats(name, batch):
    corrupted, mask = damage(name, batch, 0.2)
    if name != "gaussian":
        np.testing.assert_array_equal(corrupted[mask == 0], batch.numpy()[mask == 0])
    for again, first in zip(damage(name, batch, 0.2), (corrupted, mask)):
        np.testing.assert_array_equal(again, first)
    if name != "none":
        assert np.any(damage(name, batch, 0.2, seed=(1, 3))[0] != corrupted)


@pytest.mark.parametrize("name", ["block", "scatter"])
def test_what_is_missing_is_zero(name):
    for batch in (SOUNDS, IMAGES):
        corrupted, mask = damage(name, batch, 0.3)
        assert not corrupted[mask == 1].any()


@pytest.mark.parametrize("amount", [0.1, 0.2, 0.5, 0.9])
def test_a_block_of_sound_is_one_stretch_of_exactly_its_share_anywhere(amount):
    _, mask = damage("block", SOUNDS, amount)
    assert {scipy.ndimage.label(row)[1] for row in mask} == {1}
    np.testing.assert_array_equal(mask.sum(1), round(amount * 250))
    starts, places = mask.argmax(1), 250 - round(amount * 250) + 1
    assert scipy.stats.kstest((starts + 0.5) / places, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("amount", [0.1, 0.2, 0.5, 0.9])
def test_a_block_of_image_is_one_rectangle_of_about_its_share(amount):
    _, mask = damage("block", IMAGES, amount)
    for image in mask:
        labels, count = scipy.ndimage.label(image)
        assert count == 1
        assert image[scipy.ndimage.find_objects(labels)[0]].all()  # it fills its bounding box
    shares = mask.mean((1, 2))
    assert shares.mean() == pytest.approx(amount, rel=0.03)
    assert np.abs(shares - amount).max() <= 14 / (28 * 20)  # half a column of the highest rectangle
    assert (
        mask.mean((0, 2)).min() > 0 and mask.mean((0, 1)).min() > 0
    )  # it reaches all four borders


@pytest.mark.parametrize("name", ["scatter", "salt-pepper"])
def test_scattered_damage_has_its_share_and_is_independent(name):
    _, mask = damage(name, SOUNDS, 0.3)
    assert mask.mean() == pytest.approx(0.3, abs=5 * np.sqrt(0.21 / mask.size))
    neighbours = np.corrcoef(mask[:, 1:].ravel(), mask[:, :-1].ravel())[0, 1]
    assert abs(neighbours) < 5 / np.sqrt(mask.size)


def test_salt_and_pepper_are_each_examples_extremes_in_equal_parts():
    corrupted, mask = damage("salt-pepper", IMAGES, 0.2)
    least, greatest = (
        np.broadcast_to(extreme(IMAGES.numpy(), axis=(1, 2), keepdims=True), mask.shape)
        for extreme in (np.min, np.max)
    )
    hit = mask == 1
    salt = corrupted[hit] == greatest[hit]
    assert np.all(salt | (corrupted[hit] == least[hit]))
    assert salt.mean() == pytest.approx(0.5, abs=5 * np.sqrt(0.25 / hit.sum()))


def test_gaussian_noise_is_normal_with_its_standard_deviation():
    corrupted, mask = damage("gaussian", SOUNDS, 0.25)
    assert not mask.any()
    assert scipy.stats.kstest(((corrupted - SOUNDS) / 0.25).numpy().ravel(), "norm").pvalue > 1e-3


def test_none_leaves_everything():
    corrupted, mask = damage("none", SOUNDS, 0.2)
    assert not mask.any() and np.array_equal(corrupted, SOUNDS)


def test_it_works_inside_a_compiled_function():
    compiled = tf.function(lambda seed: CORRUPTIONS["block"](IMAGES, 0.2, seed))
    np.testing.assert_array_equal(compiled(tf.constant((1, 2)))[1], damage("block", IMAGES, 0.2)[1])


def rectangles(batch, amount):
    """Where each image's rectangle begins and how many rows and columns it has: (B,) each."""
    _, mask = damage("block", batch, amount)
    rows, columns = mask.any(2), mask.any(1)
    return rows.argmax(1), columns.argmax(1), rows.sum(1), columns.sum(1)


def test_rectangles_are_anywhere_and_of_any_shape_from_1_by_2_to_2_by_1():
    images = tf.ones((4000, 150, 150))
    top, left, height, width = rectangles(images, 0.2)
    ratio = np.log2(height / width)
    assert scipy.stats.kstest(ratio, "uniform", (-1, 2)).statistic < 0.05  # sides are whole pixels
    assert np.abs(ratio).max() == pytest.approx(1, abs=0.1)
    places = np.array([top / (150 - height + 1), left / (150 - width + 1), ratio])
    for share in places[:2]:
        assert scipy.stats.kstest(share, "uniform").statistic < 0.05
    correlation = np.corrcoef(places) - np.eye(3)
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)


def test_salt_and_pepper_do_not_depend_on_what_they_hit():
    """Of the values replaced at a small amount as many are salt as at a large one."""
    for amount in (0.05, 0.9):
        corrupted, mask = damage("salt-pepper", SOUNDS, amount)
        salt = (
            corrupted[mask == 1]
            >= np.broadcast_to(SOUNDS.numpy().max(1, keepdims=True), mask.shape)[mask == 1]
        )
        assert salt.mean() == pytest.approx(0.5, abs=5 * np.sqrt(0.25 / salt.size))


def test_normal_draws_are_normal_and_independent():
    noise = random_numbers.normal((256, 1024), (5, 7)).numpy()
    assert scipy.stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    assert np.isfinite(noise).all() and 4 < np.abs(noise).max() < 5.4
    lags = (
        np.fft.ifft2(np.abs(np.fft.fft2(noise)) ** 2).real / noise.size
    )  # the correlation at every shift
    assert lags[0, 0] == pytest.approx(1, abs=0.01) and np.abs(
        lags.ravel()[1:]
    ).max() < 6 / np.sqrt(noise.size)
    edges = random_numbers._quantiles()(tf.constant([0, 1 - 2.0**-23], tf.float32)).numpy()
    np.testing.assert_allclose(edges, scipy.stats.norm.ppf([2.0**-24, 1 - 2.0**-24]), rtol=1e-5)


@pytest.mark.parametrize("timbre", audio_utils.TIMBRES)
def test_a_notes_pitch_phase_age_and_noise_are_drawn_apart(timbre):
    count, samples = 2000, 1024
    tone, clean, index = (
        part.numpy() for part in audio_utils.Notes(("A3", "A4"), timbre).windows("", count, (1, 2))
    )
    noise = (clean - tone) / 0.2
    level = np.sqrt(np.mean(tone**2, 1))
    phase = np.angle(
        np.sum(
            tone
            * np.exp(-2j * np.pi * np.where(index, 440, 220)[:, None] * np.arange(samples) / 16000),
            1,
        )
    )
    drawn = [index - index.mean(), np.sin(phase), np.cos(phase)] + [level] * (timbre == "plucked")
    # A stream shared by two of them would show in the order in which their numbers are drawn: row by row.
    drawn += [noise.ravel()[:count], noise[:, 0], scipy.stats.norm.cdf(noise.ravel()[:count]) % 0.5]
    together = np.abs(np.corrcoef(drawn) - np.eye(len(drawn)))
    together[0, 3:4] = together[3:4, 0] = (
        0 if timbre == "plucked" else together[0, 3:4]
    )  # partials fall beyond Nyquist
    together[-1, -3] = together[-3, -1] = 0  # of one thing
    assert together.max() < 5 / np.sqrt(count)
    angles = (phase / (2 * np.pi)) % 1
    for one in (angles, (angles + 0.25) % 1):
        assert abs(scipy.stats.spearmanr(one, noise.ravel()[:count]).statistic) < 5 / np.sqrt(count)


@dataclasses.dataclass(frozen=True)
class Settings(corrupt.Settings):
    experiment = "none"


def test_a_share_of_all_or_more_is_refused_where_it_is_a_share_and_noise_that_cannot_be():
    for name in CORRUPTIONS:
        if name in ("gaussian", "none"):
            Settings(corruption=name, amount=1.5)
        else:
            with pytest.raises(UserError, match="--amount: 1 is not a share below 1"):
                Settings(corruption=name, amount=1.0)
    for noise in (-0.1, np.nan, np.inf):
        with pytest.raises(UserError, match=r"--noise: .* is not between 0 and 10"):
            Settings(noise=noise)


@pytest.mark.parametrize("batch", [SOUNDS, IMAGES], ids=["sounds", "images"])
def test_noise_comes_before_the_gap_at_a_level_of_its_own_for_each_example(batch):
    seed, batch = (3, 4), batch.numpy()
    quiet, mask = (part.numpy() for part in corrupt.apply(Settings(), batch, seed))
    noisy, same = (part.numpy() for part in corrupt.apply(Settings(noise=0.5), batch, seed))
    np.testing.assert_array_equal(mask, same)  # where it is damaged does not hang on the noise
    assert not noisy[mask == 1].any()
    added = np.where(mask == 1, np.nan, noisy - quiet).reshape(len(batch), -1)
    levels = np.nanstd(added, axis=1)
    assert scipy.stats.kstest(levels / 0.5, "uniform").pvalue > 1e-3
    assert (
        scipy.stats.kstest((added / levels[:, None])[~np.isnan(added)][::7], "norm").pvalue > 1e-3
    )
    assert np.all(np.abs(np.nanmean(added, axis=1)) < 5 * levels / np.sqrt(100))
    again = corrupt.apply(Settings(noise=0.5), batch, seed)[0].numpy()
    np.testing.assert_array_equal(again, noisy)


def test_only_what_is_missing_without_noise_is_told():
    assert Settings(corruption="scatter").tells_missing
    assert not any(
        Settings(corruption=name).tells_missing for name in ("salt-pepper", "gaussian", "none")
    )
    assert not Settings(noise=0.1).tells_missing


def test_noise_and_damage_are_drawn_apart():
    settings = Settings(corruption="salt-pepper", amount=0.5)
    quiet, mask = (part.numpy() for part in corrupt.apply(settings, SOUNDS, (3, 4)))
    noisy = corrupt.apply(dataclasses.replace(settings, noise=0.5), SOUNDS, (3, 4))[0].numpy()
    levels = np.nanstd(np.where(mask == 1, np.nan, noisy - quiet), axis=1)
    assert abs(scipy.stats.spearmanr(levels, mask.ravel()[: levels.size]).statistic) < 0.25


def test_a_level_and_its_noise_are_drawn_apart():
    noisy = corrupt.with_noise(tf.zeros((400, 250)), 0.5, tf.constant((3, 4))).numpy()
    assert abs(scipy.stats.spearmanr(noisy.std(1), noisy.ravel()[:400]).statistic) < 0.25


def test_noise_comes_before_gaussian_damage_too():
    settings = Settings(corruption="gaussian", amount=0.2, noise=0.6)
    noisy = corrupt.apply(settings, np.zeros((200, 500), np.float32), (3, 4))[0].numpy()
    assert noisy.std() == pytest.approx(np.hypot(0.2, 0.6 / np.sqrt(3)), rel=0.1)


def test_the_damage_in_words_says_how_noisy():
    assert "noise up to 0.4" in Settings(noise=0.4).damage and "noise" not in Settings().damage

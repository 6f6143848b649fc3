"""Fraction, position and values of every corruption."""

import dataclasses

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

import corrupt
from corrupt import CORRUPTIONS
from harness import UserError, cli
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
def test_observed_values_stay_and_a_seed_repeats(name, batch):
    corrupted, mask = damage(name, batch, 0.2)
    if name != "gaussian":
        np.testing.assert_array_equal(corrupted[mask == 0], batch.numpy()[mask == 0])
    for again, first in zip(damage(name, batch, 0.2), (corrupted, mask)):
        np.testing.assert_array_equal(again, first)
    if name != "none":
        assert np.any(damage(name, batch, 0.2, seed=(1, 3))[0] != corrupted)


@pytest.mark.parametrize("name", ["block", "scatter"])
def test_missing_values_are_zero(name):
    for batch in (SOUNDS, IMAGES):
        corrupted, mask = damage(name, batch, 0.3)
        assert not corrupted[mask == 1].any()


@pytest.mark.parametrize("amount", [0.1, 0.2, 0.303, 0.5, 0.9])  # 0.303 of 250 is rounded up
def test_a_block_of_sound_is_one_stretch_of_exact_length(amount):
    _, mask = damage("block", SOUNDS, amount)
    assert {scipy.ndimage.label(row)[1] for row in mask} == {1}
    np.testing.assert_array_equal(mask.sum(1), round(amount * 250))
    starts, positions = mask.argmax(1), 250 - round(amount * 250) + 1
    assert scipy.stats.kstest((starts + 0.5) / positions, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("amount", [0.1, 0.2, 0.5, 0.9])
def test_a_block_of_an_image_is_one_rectangle(amount):
    _, mask = damage("block", IMAGES, amount)
    for image in mask:
        labels, count = scipy.ndimage.label(image)
        assert count == 1
        assert image[scipy.ndimage.find_objects(labels)[0]].all()  # it fills its bounding box
    fractions = mask.mean((1, 2))
    assert fractions.mean() == pytest.approx(amount, rel=0.03)
    half_a_column = 14 / (28 * 20)  # of the highest rectangle
    assert np.abs(fractions - amount).max() <= half_a_column
    assert mask.any((0, 2)).all() and mask.any((0, 1)).all()  # all four borders are reached


@pytest.mark.parametrize("name", ["scatter", "salt-pepper"])
def test_scattered_damage_is_independent(name):
    _, mask = damage(name, SOUNDS, 0.3)
    assert mask.mean() == pytest.approx(0.3, abs=5 * np.sqrt(0.21 / mask.size))
    correlation = np.corrcoef(mask[:, 1:].ravel(), mask[:, :-1].ravel())[0, 1]
    assert abs(correlation) < 5 / np.sqrt(mask.size)


def test_salt_and_pepper_are_the_extremes_in_equal_parts():
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


def test_none_changes_nothing():
    corrupted, mask = damage("none", SOUNDS, 0.2)
    assert not mask.any() and np.array_equal(corrupted, SOUNDS)


def test_corruptions_work_in_a_compiled_function():
    compiled = tf.function(lambda seed: CORRUPTIONS["block"](IMAGES, 0.2, seed))
    np.testing.assert_array_equal(compiled(tf.constant((1, 2)))[1], damage("block", IMAGES, 0.2)[1])


def rectangles(batch, amount):
    """Return the top, left, height and width of each image's rectangle: (B,) each."""
    _, mask = damage("block", batch, amount)
    rows, columns = mask.any(2), mask.any(1)
    return rows.argmax(1), columns.argmax(1), rows.sum(1), columns.sum(1)


def test_rectangles_vary_in_position_and_shape():
    images = tf.ones((1500, 150, 150))
    top, left, height, width = rectangles(images, 0.2)
    ratio = np.log2(height / width)
    assert scipy.stats.kstest(ratio, "uniform", (-1, 2)).statistic < 0.05  # sides are whole pixels
    assert np.abs(ratio).max() == pytest.approx(1, abs=0.1)
    positions = np.array([top / (150 - height + 1), left / (150 - width + 1), ratio])
    for position in positions[:2]:
        assert scipy.stats.kstest(position, "uniform").statistic < 0.05
    correlation = np.corrcoef(positions) - np.eye(3)
    assert np.abs(correlation).max() < 5 / np.sqrt(1500)


def test_salt_or_pepper_is_independent_of_the_mask():
    """So the fraction of salt is 1/2 at any amount."""
    for amount in (0.05, 0.9):
        corrupted, mask = damage("salt-pepper", SOUNDS, amount)
        salt = (corrupted >= SOUNDS.numpy().max(1, keepdims=True))[mask == 1]
        assert salt.mean() == pytest.approx(0.5, abs=5 * np.sqrt(0.25 / salt.size))


@dataclasses.dataclass(frozen=True)
class Settings(cli.Settings):
    experiment = "none"
    corruption: str = cli.flag("block", "kind", choices=CORRUPTIONS)
    amount: float = cli.flag(0.2, "amount", above=0, below=corrupt.amount_limit)
    noise: float = cli.flag(0.0, "noise", low=0, high=10)
    data: str = cli.flag(None, "data")


def test_a_fraction_must_be_below_1_and_noise_in_range():
    message = "--amount: must be a finite number above 0 and below 1"
    for name in CORRUPTIONS:
        if name in ("gaussian", "none"):
            Settings(corruption=name, amount=1.5)
        else:
            with pytest.raises(UserError, match=message):
                Settings(corruption=name, amount=1.0)
    for noise in (-0.1, np.nan, np.inf):
        with pytest.raises(UserError, match="--noise: must be a finite number"):
            Settings(noise=noise)


@pytest.mark.parametrize("batch", [SOUNDS, IMAGES], ids=["sounds", "images"])
def test_noise_has_a_level_per_example_and_comes_before_the_gap(batch):
    seed, batch = (3, 4), batch.numpy()
    quiet, mask = (part.numpy() for part in corrupt.apply(Settings(), batch, seed))
    noisy, same = (part.numpy() for part in corrupt.apply(Settings(noise=0.5), batch, seed))
    np.testing.assert_array_equal(mask, same)  # noise does not move the gap
    assert not noisy[mask == 1].any()
    added = np.where(mask == 1, np.nan, noisy - quiet).reshape(len(batch), -1)
    levels = np.nanstd(added, axis=1)
    assert scipy.stats.kstest(levels / 0.5, "uniform").pvalue > 1e-3
    normalized = (added / levels[:, None])[~np.isnan(added)]
    assert scipy.stats.kstest(normalized[::7], "norm").pvalue > 1e-3
    assert np.all(np.abs(np.nanmean(added, axis=1)) < 5 * levels / np.sqrt(100))
    again = corrupt.apply(Settings(noise=0.5), batch, seed)[0].numpy()
    np.testing.assert_array_equal(again, noisy)


def test_noise_makes_observed_values_inexact():
    assert corrupt.exact_where_observed(Settings(corruption="scatter"))
    for name in ("salt-pepper", "gaussian", "none"):
        assert not corrupt.exact_where_observed(Settings(corruption=name))
    assert not corrupt.exact_where_observed(Settings(noise=0.1))


def test_noise_and_damage_are_independent():
    settings = Settings(corruption="salt-pepper", amount=0.5)
    quiet, mask = (part.numpy() for part in corrupt.apply(settings, SOUNDS, (3, 4)))
    noisy = corrupt.apply(dataclasses.replace(settings, noise=0.5), SOUNDS, (3, 4))[0].numpy()
    levels = np.nanstd(np.where(mask == 1, np.nan, noisy - quiet), axis=1)
    assert abs(scipy.stats.spearmanr(levels, mask.ravel()[: levels.size]).statistic) < 0.25


def test_a_level_and_its_noise_are_independent():
    noisy = corrupt.with_noise(tf.zeros((400, 250)), 0.5, tf.constant((3, 4))).numpy()
    assert abs(scipy.stats.spearmanr(noisy.std(1), noisy.ravel()[:400]).statistic) < 0.25


def test_noise_comes_before_gaussian_damage_too():
    settings = Settings(corruption="gaussian", amount=0.2, noise=0.6)
    noisy = corrupt.apply(settings, np.zeros((200, 500), np.float32), (3, 4))[0].numpy()
    assert noisy.std() == pytest.approx(np.hypot(0.2, 0.6 / np.sqrt(3)), rel=0.1)


def test_damage_is_described_in_words():
    assert corrupt.describe("block", 0.2, 0.0) == "block 0.2"
    assert corrupt.describe("scatter", 0.25, 0.4) == "scatter 0.25, noise up to 0.4"
    assert corrupt.describe("none", 0.2, 0.0) == "none"

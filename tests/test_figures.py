"""Figures, checked by the positions of their pixels."""

import numpy as np
import pytest
import scipy.ndimage

from pages import figures, sound_figures

RATE, SECONDS = 16000, 2
TIME = np.arange(RATE * SECONDS) / RATE


def differ(one, other):
    return (one != other).any(axis=2)


def boxes(where):
    """Return bounding boxes of connected pixels, from top to bottom and from left to right."""
    return scipy.ndimage.find_objects(scipy.ndimage.label(where, np.ones((3, 3)))[0])


def test_images_are_side_by_side_with_only_their_holes_red():
    images = np.random.default_rng(0).random((3, 8, 6))
    hole = np.zeros((3, 8, 6))
    hole[0, 1:4, 2:5] = hole[2, 6:, 0] = 1
    rows = {"original": images, "corrupted": images}
    plain, tinted = (
        figures.digit_rows("A title", rows),
        figures.digit_rows("A title", rows, {"corrupted": hole}),
    )
    black, white = (
        figures.digit_rows("A title", dict.fromkeys(rows, np.full((3, 8, 6), level)))
        for level in (0, 1)
    )
    above, below = boxes(differ(white, black))
    for box in (above, below):
        at = [
            np.round(
                edge.start + (np.arange(size) + 0.5) * (edge.stop - edge.start) / size - 0.5
            ).astype(int)
            for edge, size in zip(box, (8, 18))
        ]
        shown = plain[np.ix_(*at)]
        np.testing.assert_allclose(shown[..., 0], 255 * np.concatenate(list(images), 1), atol=2)
        assert np.ptp(shown[..., :3].astype(int), axis=2).max() == 0  # grey
    white_there = figures.digit_rows("A title", {"original": 0 * hole, "corrupted": hole})
    np.testing.assert_array_equal(differ(tinted, plain), differ(white_there, black))
    red, grey = (picture[differ(white_there, black)].astype(int) for picture in (tinted, plain))
    assert (
        (red[:, 0] >= grey[:, 0]).all() and (red[:, 0] > red[:, 1] + 100).all() and len(red) > 100
    )
    assert not differ(tinted, plain)[above].any()


def test_low_frequencies_are_at_the_bottom():
    draw = sound_figures.long_sound(np.sin(TIME), np.zeros(TIME.size), RATE, 2000)
    silent = draw("", "sound", np.zeros(TIME.size))

    def height(frequency):
        """Return the row in which a tone is brightest, and the columns where it is so."""
        picture = draw("", "sound", np.sin(2 * np.pi * frequency * TIME))
        red, green, blue = np.moveaxis(
            picture[..., :3].astype(int) * differ(picture, silent)[..., None], 2, 0
        )
        rows, columns = np.nonzero(
            (red > 240) & (green > 150) & (blue > 100) & (blue < green - 5)
        )  # the upper end of magma
        return np.median(rows), columns

    heights = [height(frequency)[0] for frequency in (500, 1000, 1500)]
    assert heights[0] > heights[1] > heights[2]  # rows are counted from the top
    assert (
        heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=1)
        and heights[0] < 240
    )
    assert np.ptp(height(500)[1]) > 600  # the tone lasts from beginning to end


def test_a_gap_is_shaded_where_it_is():
    def shaded(*gaps):
        """Return boxes of red pixels in the lower half of the figure of a nearly silent sound."""
        mask = np.zeros(TIME.size)
        for start, end in gaps:
            mask[round(start * RATE) : round(end * RATE)] = 1
        picture = sound_figures.long_sound(np.sin(440 * TIME), mask, RATE, 2000)(
            "", "sound", 0.01 * np.sin(440 * TIME)
        )
        red, green, blue = np.moveaxis(picture[240:, :, :3].astype(int), 2, 0)
        return boxes(
            scipy.ndimage.binary_closing((red > green + 15) & (red > blue + 15), np.ones((9, 1)))
        )

    whole = min(shaded((0, SECONDS)), key=lambda box: box[1].start)  # not the close-up
    gaps = [(0.3, 0.5), (1.2, 1.9)]
    found = sorted(box[1:] for box in shaded(*gaps) if box[1].stop <= whole[1].stop + 1)
    a_second = (whole[1].stop - whole[1].start) / SECONDS
    assert a_second > 300
    for (columns,), gap in zip(found, gaps, strict=True):
        np.testing.assert_allclose(
            [columns.start, columns.stop], whole[1].start + a_second * np.array(gap), atol=1.5
        )


def test_map_places_points_and_colours_them_by_label():
    points = np.array([[-3, 0.5], [-1, 2], [0, -2], [1.5, 1], [2, -1], [4, 0]])
    labels = np.array([7, 3, 7, 3, 5, 5])
    picture = figures.latent_map("", points, (0.6, 0.3), labels)[..., :3].astype(int)
    found = [
        box for box in boxes(np.ptp(picture, axis=2) > 30) if box[0].stop - box[0].start < 20
    ]  # no colour bar
    found.sort(key=lambda box: box[1].start)  # the points are in this order
    centres = np.array(
        [[(edge.start + edge.stop - 1) / 2 for edge in box[::-1]] for box in found]
    )  # x, y
    assert len(centres) == len(points)
    scale = np.ptp(centres[:, 0]) / np.ptp(points[:, 0])
    expected = scale * points * [1, -1]  # y is counted from the top
    np.testing.assert_allclose(centres - centres[0], expected - expected[0], atol=1)
    colours = np.array(
        [max(picture[box].reshape(-1, 3), key=np.ptp) for box in found]
    )  # where no grid line is over it
    alike = np.abs(colours[:, None] - colours).max(2) < 25
    np.testing.assert_array_equal(alike, labels[:, None] == labels)

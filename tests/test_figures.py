"""Figures, checked by the positions and colors of their pixels."""

import importlib
import itertools
import os
import sys
import types

import matplotlib
import numpy as np
import PIL.Image
import pytest
import scipy.ndimage

import pages
from pages import digit_figures, figures, sound_figures

RATE, SECONDS = 16000, 2
TIME = np.arange(RATE * SECONDS) / RATE


def differ(one, other):
    return (one != other).any(axis=2)


def boxes(where):
    """Return bounding boxes of connected pixels, from top to bottom and from left to right."""
    return scipy.ndimage.find_objects(scipy.ndimage.label(where, np.ones((3, 3)))[0])


@pytest.fixture
def written(monkeypatch):
    """Return a function that draws a figure. It returns the picture and [(text, x, y)] in pixels.

    x and y are a text's center, counted from the left and from the top.
    """
    found, draw_text = [], matplotlib.text.Text.draw

    def record(text, renderer):
        if not text.get_visible():
            return
        box = text.get_window_extent(renderer)
        y = renderer.height - (box.y0 + box.y1) / 2
        found.append((text.get_text(), (box.x0 + box.x1) / 2, y))
        draw_text(text, renderer)

    monkeypatch.setattr(matplotlib.text.Text, "draw", record)

    def written(function, *given):
        for made_once in (figures._digit_rows, figures._windows):
            made_once.cache_clear()
        found.clear()
        return function(*given), list(found)

    return written


def places(texts):
    return {text: (x, y) for text, x, y in texts}


def test_images_are_side_by_side_with_only_their_holes_red():
    images = np.random.default_rng(0).random((3, 8, 6))
    hole = np.zeros((3, 8, 6))
    hole[0, 1:4, 2:5] = hole[2, 6:, 0] = 1
    rows = {"original": images, "corrupted": images}
    plain = figures.digit_rows("A title", rows)
    tinted = figures.digit_rows("A title", rows, {"corrupted": hole})
    black, white = (
        figures.digit_rows("A title", dict.fromkeys(rows, np.full((3, 8, 6), level)))
        for level in (0, 1)
    )
    above, below = boxes(differ(white, black))
    for box in (above, below):
        edges = [np.linspace(side.start, side.stop, n + 1) for side, n in zip(box, (8, 18))]
        centers = [np.round((each[:-1] + each[1:] - 1) / 2).astype(int) for each in edges]
        shown = plain[np.ix_(*centers)]
        np.testing.assert_allclose(shown[..., 0], 255 * np.concatenate(list(images), 1), atol=2)
        assert np.ptp(shown[..., :3].astype(int), axis=2).max() == 0  # grey
    white_there = figures.digit_rows("A title", {"original": 0 * hole, "corrupted": hole})
    np.testing.assert_array_equal(differ(tinted, plain), differ(white_there, black))
    red, grey = (picture[differ(white_there, black)].astype(int) for picture in (tinted, plain))
    assert (red[:, 0] >= grey[:, 0]).all() and (red[:, 0] > red[:, 1] + 100).all()
    assert len(red) > 100
    assert not differ(tinted, plain)[above].any()


def test_holes_are_outlined_in_every_row():
    hole = np.zeros((3, 8, 6))
    hole[0, 1:4, 2:5] = hole[2, 6:, 0] = 1
    labels = "original", "corrupted"
    black, white, holes = (dict.fromkeys(labels, each) for each in (0 * hole, 0 * hole + 1, hole))
    plain, white, filled = (figures.digit_rows("A title", each) for each in (black, white, holes))
    outlined = figures.digit_rows("A title", black, outlined=hole)
    for box in boxes(differ(white, plain)):
        lines, inside = differ(outlined, plain)[box], differ(filled, plain)[box]
        edge = inside ^ scipy.ndimage.binary_erosion(inside)
        assert lines[edge].mean() > 0.9
        far = scipy.ndimage.distance_transform_edt(~edge) > 3
        assert not lines[far].any()


def test_labels_are_to_the_left_of_their_rows(written):
    labels = "original", "corrupted", "restored"
    black, white = (dict.fromkeys(labels, np.full((3, 8, 6), level)) for level in (0, 1))
    picture, texts = written(figures.digit_rows, "A title", black)
    rows = boxes(differ(figures.digit_rows("A title", white), picture))
    for label, (down, across) in zip(labels, rows, strict=True):
        x, y = places(texts)[label]
        assert x < across.start and down.start < y < down.stop


def test_numbers_and_axes_of_new_sounds_are_at_their_values(written):
    silent, texts = written(figures.windows, "A title", np.zeros((16, 64)), RATE)
    found = {}
    for number in (0, 6, 15):
        sounds = np.zeros((16, 64))
        sounds[number] = np.tile([1, -1], 32)  # fills its place
        rows, columns = np.nonzero(differ(figures.windows("A title", sounds, RATE), silent))
        x, y = places(texts)[str(number + 1)]
        assert rows.min() < y < rows.max() and columns.min() < x < columns.max()
        found[number] = rows, columns
    rows, columns = found[0]
    scale = [
        (x, float(text)) for text, x, y in texts if y > silent.shape[0] - 70 and text.isdigit()
    ]
    scale = [(x, value) for x, value in scale if columns.min() - 5 < x < columns.max() + 5]
    per_pixel, start = np.polyfit(*np.transpose(scale), 1)
    ends = per_pixel * columns[[columns.argmin(), columns.argmax()]] + start
    assert ends == pytest.approx([0, 63 * 1000 / RATE], abs=0.1)  # milliseconds
    middle, half = (rows.min() + rows.max()) / 2, np.ptp(rows) / 2
    for value in (0.5, 0, -0.5):
        heights = [y for text, x, y in texts if text == f"{value:g}" and x < columns.min()]
        assert min(abs(y - middle + value * half) for y in heights) < 3


def test_new_sounds_are_numbered_column_by_column():
    silent = figures.windows("A title", np.zeros((16, 64)), RATE)

    def moved(number, value):
        """Return the rows and the middle column of the pixels that a sound's level changes."""
        sounds = np.zeros((16, 64))
        sounds[number] = value
        changed = differ(figures.windows("A title", sounds, RATE), silent)
        rows, columns = np.nonzero(changed)
        return rows.min(), rows.max(), columns.mean()

    places = np.array([moved(number, 0.5) for number in (0, 1, 4, 5, 15)])
    top, zero, column = places.T
    below = zero[1] - zero[0]
    np.testing.assert_allclose(zero - zero[0], below * np.array([0, 1, 0, 1, 3]), atol=2)
    right = column[2] - column[0]
    np.testing.assert_allclose(column - column[0], right * np.array([0, 0, 1, 1, 3]), atol=2)
    assert below > 50 and right > 100 and (zero - top > 10).all()
    same, bottom, _ = moved(5, -0.5)
    assert same == pytest.approx(zero[3], abs=3) and bottom - same > 10


def test_a_strip_has_its_images_in_order_with_the_ends_apart(written):
    levels, labels = np.linspace(0.2, 0.8, 5), list("abcde")
    images = [np.full((6, 6), level) for level in levels]
    picture, texts = written(figures.strip, "", images, labels)
    grey = picture[picture.shape[0] // 2, :, 0].astype(int)
    ends = [np.flatnonzero(abs(grey - 255 * level) <= 1)[[0, -1]] for level in levels]
    spaces = [after[0] - before[1] for before, after in itertools.pairwise(ends)]
    assert min(spaces) > 0 and min(spaces[0], spaces[-1]) > 2 * max(spaces[1:-1])
    for label, (first, last) in zip(labels, ends):
        assert first < places(texts)[label][0] < last


def test_the_close_up_is_around_a_gap_near_the_middle():
    mask = np.zeros(TIME.size)
    for start in (0.2, 0.9, 1.7):
        mask[round(start * RATE) : round((start + 0.01) * RATE)] = 1
    draw = sound_figures.long_sound(np.sin(440 * TIME), mask, RATE, 2000)
    silent = draw("", "sound", 0 * TIME)
    right = np.s_[:, int(0.72 * silent.shape[1]) :]

    def changed(seconds):
        """Return the columns in which an impulse is seen."""
        signal = np.zeros(TIME.size)
        signal[round(seconds * RATE)] = 0.7
        seen = differ(draw("", "sound", signal), silent)[right]
        return np.nonzero(seen[seen.sum(1) < 20].any(0))[0]  # without the line at zero

    early, middle, late = (np.mean(changed(seconds)) for seconds in (0.885, 0.905, 0.925))
    assert middle - early == pytest.approx(late - middle, abs=2) and late - middle > 50
    red, green, blue = np.moveaxis(silent[right][240:, :, :3].astype(int), 2, 0)  # no legend
    gap = np.quantile(np.nonzero((red > green + 15) & (red > blue + 15))[1], [0, 1])
    ends = [np.mean(changed(seconds)) for seconds in (0.9, 0.91)]
    np.testing.assert_allclose(gap, ends, atol=2)
    assert not changed(0.205).size and not changed(1.705).size and not changed(0.86).size


def test_the_close_up_prefers_a_gap_with_sound_around_it():
    gaps = np.round(np.array([[0.2, 0.21], [0.9, 0.91], [1.2, 1.3]]) * RATE).astype(int)
    chopped = np.sin(440 * TIME) * (TIME < 0.6)
    for first, end in gaps:
        chopped[first:end] = 0
    assert sound_figures._middle_gap(chopped, gaps) == gaps[0].mean()
    assert sound_figures._middle_gap(chopped, gaps[1:]) == gaps[1].mean()  # all are in silence


def test_a_spectrogram_shows_tones_in_frequency_and_time(written):
    given = np.sin(TIME), np.zeros(TIME.size), RATE, 2000
    draw, texts = written(sound_figures.long_sound, *given)
    silent = draw("", "sound", np.zeros(TIME.size))

    def height(frequency, sounding=1):
        """Return the middle row and all columns of a tone's brightest pixels."""
        picture = draw("", "sound", sounding * np.sin(2 * np.pi * frequency * TIME))
        changed = picture[..., :3].astype(int) * differ(picture, silent)[..., None]
        red, green, blue = np.moveaxis(changed, 2, 0)
        # Only the brightest colors of magma are like this.
        rows, columns = np.nonzero((red > 240) & (green > 150) & (blue > 100) & (blue < green - 5))
        return np.median(rows), columns

    heights = [height(frequency)[0] for frequency in (500, 1000, 1500)]
    assert heights[0] > heights[1] > heights[2]  # rows are counted from the top
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[2], abs=1)
    assert heights[0] < 240
    ticks = [places(texts)[str(frequency)][1] for frequency in (500, 1000, 1500)]
    assert heights == pytest.approx(ticks, abs=3) and "frequency [Hz]" in places(texts)
    assert "\N{MINUS SIGN}80" in places(texts)  # the lowest level of the colors
    whole = height(500)[1]
    assert np.ptp(whole) > 600  # the tone lasts from beginning to end
    part = height(500, (TIME >= 0.5) & (TIME < 1.2))[1]
    expected = whole.min() + np.ptp(whole) * np.array([0.5, 1.2]) / SECONDS
    np.testing.assert_allclose([part.min(), part.max()], expected, atol=0.03 * np.ptp(whole))


def test_gaps_are_shaded_from_beginning_to_end():
    def shaded(*gaps):
        """Draw an almost silent sound. Return boxes of red pixels in the figure's lower half."""
        mask = np.zeros(TIME.size)
        for start, end in gaps:
            mask[round(start * RATE) : round(end * RATE)] = 1
        draw = sound_figures.long_sound(np.sin(440 * TIME), mask, RATE, 2000)
        picture = draw("", "sound", 0.01 * np.sin(440 * TIME))
        red, green, blue = np.moveaxis(picture[240:, :, :3].astype(int), 2, 0)
        reddish = (red > green + 15) & (red > blue + 15)
        return boxes(scipy.ndimage.binary_closing(reddish, np.ones((9, 1))))

    whole = min(shaded((0, SECONDS)), key=lambda box: box[1].start)  # not the close-up
    gaps = [(0.3, 0.5), (1.2, 1.9)]
    found = sorted(box[1:] for box in shaded(*gaps) if box[1].stop <= whole[1].stop + 1)
    pixels_per_second = (whole[1].stop - whole[1].start) / SECONDS
    assert pixels_per_second > 300
    for (columns,), gap in zip(found, gaps, strict=True):
        expected = whole[1].start + pixels_per_second * np.array(gap)
        np.testing.assert_allclose([columns.start, columns.stop], expected, atol=1.5)


def test_the_waveform_is_at_its_times_and_levels():
    """A gap is shaded from beginning to end and from top to bottom, so it shows the scales."""
    part = 1.0 * ((TIME >= 0.5) & (TIME < 1.2))
    draw = sound_figures.long_sound(np.sin(440 * TIME), part, RATE, 2000)
    area = np.s_[240:, :900]  # the close-up is to the right
    signal = part * (np.arange(TIME.size) % 2)  # fills all from 0 to 1
    silent, above, below = (draw("", "sound", level * signal)[area] for level in (0, 1, -1))
    red, green, blue = np.moveaxis(silent[..., :3].astype(int), 2, 0)
    shaded = np.nonzero((red > green + 15) & (red > blue + 15))
    top, bottom = shaded[0].min(), shaded[0].max()
    assert bottom - top > 130  # the whole height of the axes
    for picture, end in ((above, -1), (below, 1)):
        rows, columns = np.nonzero(differ(picture, silent))
        found, expected = (np.quantile(each, [0, 1]) for each in (columns, shaded[1]))
        np.testing.assert_allclose(found, expected, atol=2)
        middle, half = (top + bottom) / 2, (bottom - top) / 2
        levels = sorted((middle, middle + end * half / 1.05))  # the axes have a margin of 5%
        np.testing.assert_allclose([rows.min(), rows.max()], levels, atol=2)


def test_map_places_points_and_colors_them_by_label(written):
    points = np.array([[-3, 0.5], [-1, 2], [0, -2], [1.5, 1], [2, -1], [4, 0]])
    labels = np.array([7, 3, 7, 3, 5, 5])
    picture, texts = written(figures.latent_map, "", points, (0.6, 0.3), labels)
    picture = picture[..., :3].astype(int)
    colorful = boxes(np.ptp(picture, axis=2) > 30)
    found = [box for box in colorful if box[0].stop - box[0].start < 20]  # without the color bar
    found.sort(key=lambda box: box[1].start)  # `points` are in this order
    centers = np.array([[(side.start + side.stop - 1) / 2 for side in (x, y)] for y, x in found])
    assert len(centers) == len(points)
    scale = np.ptp(centers[:, 0]) / np.ptp(points[:, 0])
    expected = scale * points * [1, -1]  # rows are counted from the top
    np.testing.assert_allclose(centers - centers[0], expected - expected[0], atol=1)
    # The most saturated pixel has no grid line over it.
    colors = np.array([max(picture[box].reshape(-1, 3), key=np.ptp) for box in found])
    alike = np.abs(colors[:, None] - colors).max(2) < 25
    np.testing.assert_array_equal(alike, labels[:, None] == labels)
    (bar,) = [box for box in colorful if box[0].stop - box[0].start > 100]
    beside = {text: y for text, x, y in texts if x > bar[1].stop}
    for label, color in zip(labels, colors):
        shown = picture[round(beside[str(label)]), (bar[1].start + bar[1].stop) // 2]
        assert np.abs(shown - color).max() < 25
    axes = {text.split()[0]: (x, y) for text, x, y in texts if "principal axis" in text}
    assert axes["second"][0] < centers[:, 0].min() and axes["first"][1] > centers[:, 1].max()


def test_the_users_style_changes_nothing():
    def drawn():
        for made_once in (figures._digit_rows, figures._windows):
            made_once.cache_clear()
        levels, points = np.random.default_rng(0).random((5, 8, 6)), np.arange(20).reshape(10, 2)
        draw = sound_figures.long_sound(np.sin(TIME), np.zeros(TIME.size), RATE, 2000)
        return [
            figures.digit_rows("A title", {"original": levels}),
            figures.windows("A title", levels.reshape(5, -1), RATE),
            figures.strip("A title", levels, list("abcde")),
            figures.latent_map("A title", points, (0.6, 0.3), np.arange(10) % 3),
            draw("A title", "sound", np.sin(TIME)),
        ]

    plain = drawn()
    style = {"font.size": 20, "axes.facecolor": "red", "image.origin": "lower", "figure.dpi": 50}
    with matplotlib.rc_context({**style, "text.usetex": True}):
        before = dict(matplotlib.rcParams)
        styled = drawn()
        assert dict(matplotlib.rcParams) == before
    for one, other in zip(plain, styled, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("notebook", [True, False])
def test_only_a_notebook_keeps_its_backend(monkeypatch, notebook):
    """Matplotlib would refuse to load with an unknown backend."""
    monkeypatch.setenv("MPLBACKEND", "some backend")
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    if notebook:
        monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    importlib.reload(pages)
    assert os.environ.get("MPLBACKEND") == ("some backend" if notebook else None)


def test_dollar_signs_in_labels_are_not_formulas():
    figures.digit_rows("costs $_$", {"cost_$5_or_$_6": np.zeros((1, 4, 4))})


def test_figures_of_sounds_show_what_was_scored(monkeypatch, tmp_path):
    """Spectrogram and waveforms of the restored sound, 16 of the new sounds."""
    drawn, rng = [], np.random.default_rng(0)

    def draw(*given):
        drawn.append(given)
        return np.full((2, 2, 4), len(drawn), np.uint8)

    long, generated = rng.random(RATE), rng.random((40, 256))
    plotter = sound_figures.Plotter(draw, draw("chopped"), 0.5, RATE)
    monkeypatch.setattr(figures, "windows", draw)
    files = sound_figures.checkpoint(plotter, "Title", "block 0.2", 100, long, generated)
    for name in files:
        if name.endswith("png"):
            files[name](tmp_path / name)
    shown = [np.array(PIL.Image.open(tmp_path / name))[:, 0, 0] for name in sorted(files)[::2]]
    np.testing.assert_array_equal(shown[0], [2, 2])
    np.testing.assert_array_equal(shown[1], [3, 3, 1, 1])  # above the input
    sound_figures.restored(plotter, "Title", "block 0.2", -long)
    _, (title, new, rate), (other, name, restored), (final, _, last) = drawn
    assert "block 0.2, after 100 iterations" in title and "Title, restored (block 0.2, a" in other
    assert name == "reconstruction" and rate == RATE and "Title: gaps filled" in final
    np.testing.assert_array_equal(new, generated[:16])
    np.testing.assert_array_equal(restored, long)
    np.testing.assert_array_equal(last, -long)
    assert [name.rpartition("_")[2] for name in files] == 2 * ["000100.png"] + 2 * ["000100.wav"]


@pytest.mark.parametrize("loudest, gain", [(0.5, 1), (4, 0.99 / 4)])
@pytest.mark.parametrize("which", ["clean", "corrupted"])
def test_wavs_have_one_gain_that_clips_no_input(monkeypatch, which, loudest, gain):
    parts = {name: 0.1 * np.sin(440 * TIME) for name in ("corrupted", "clean", "reference")}
    parts[which][5] = -loudest
    long, drawn = types.SimpleNamespace(**parts, mask=0 * TIME), []
    monkeypatch.setattr(
        sound_figures, "long_sound", lambda *given: lambda *shown: drawn.append(shown)
    )
    plotter = sound_figures.plotter(long, RATE)
    assert plotter.gain == pytest.approx(gain)
    ((_, name, signal),) = drawn  # the picture of the input
    assert name == "chopped input" and signal is long.corrupted


def test_titles_names_and_labels_are_written(monkeypatch):
    title, written, draw_text = "A title", [], matplotlib.text.Text.draw

    def record(text, renderer):
        written.append(text.get_text())
        draw_text(text, renderer)

    monkeypatch.setattr(matplotlib.text.Text, "draw", record)
    images, points = np.zeros((3, 8, 6)), np.arange(8.0).reshape(4, 2)

    def drawn(function, *given):
        for made_once in (figures._digit_rows, figures._windows):
            made_once.cache_clear()
        written.clear()
        function(*given)
        return set(written)

    rows = dict.fromkeys(("above", "below"), images)
    assert drawn(figures.digit_rows, title, rows) >= {title, "above", "below", "grey level"}
    numbers = {"1", "2", "3"}
    sounds = drawn(figures.windows, title, images[:, 0], RATE)
    assert sounds >= {title, *numbers, "time [ms]", "amplitude"}
    assert drawn(figures.strip, title, images, list("abc")) >= {title, "a", "b", "c"}
    named = drawn(figures.latent_map, title, points, (0.6, 0.3), [0, 0, 1, 1], ["C4", "D4"])
    axes = "first principal axis of z (60% of the variance)", "second principal axis of z (30% "
    assert named >= {title, "C4", "D4", "note", axes[0], f"{axes[1]}of the variance)"}
    draw = sound_figures.long_sound(np.sin(TIME), np.zeros(TIME.size), RATE, 2000)
    views = {f"{view} of the tone" for view in ("Spectrogram", "Waveform", "Close-up")}
    assert drawn(draw, title, "tone", np.sin(TIME)) >= {title, *views}


@pytest.mark.parametrize("count", [12, 26, figures.MOST_KINDS, figures.MOST_KINDS + 1])
def test_each_of_many_labels_has_its_own_color(monkeypatch, count):
    """The colormap of up to ten labels has ten colors. Too many labels are not colored.

    EMNIST has 26 letters, and two octaves have 24 notes.
    """
    drawn = []
    monkeypatch.setattr(figures.Backdrop, "pixels", lambda self: drawn.append(self.figure))
    labels = np.arange(count)
    figures.latent_map("", np.stack([labels, labels], axis=1), (0.6, 0.3), labels)
    (points,) = drawn[0].axes[0].collections
    if count > max(26, figures.MOST_KINDS):
        assert points.get_array() is None
    else:
        assert len(np.unique(points.to_rgba(points.get_array()), axis=0)) == count


def test_the_first_96_new_digits_are_shown_in_their_order(tmp_path):
    still = np.zeros((16, 28, 28))

    def shown(*white):
        generated = np.zeros((100, 28, 28))
        generated[[*white]] = 1
        given = "digit", "", 0, {"original": still}, still, False, generated
        digit_figures.checkpoint(*given)["generated_000000.png"](tmp_path / "a.png")
        return np.array(PIL.Image.open(tmp_path / "a.png"))

    black = shown(96)  # one beyond those shown
    (first,), (last,) = (boxes(differ(shown(number), black)) for number in (0, 95))
    for number in (1, 15, 16, 79, 80):
        (place,) = boxes(differ(shown(number), black))
        for axis, index, most in ((0, number // 16, 5), (1, number % 16, 15)):
            start, end = first[axis].start, last[axis].start
            assert abs(place[axis].start - start - index * (end - start) / most) < 2


def test_pixels_of_digits_are_enlarged():
    """A figure of a checkpoint has up to eight rows of 16 digits."""
    labels = [f"completion {number}" for number in range(8)]
    black, white = (
        figures.digit_rows("A title", dict.fromkeys(labels, np.full((16, 28, 28), level)))
        for level in (0, 1)
    )
    rows = boxes(differ(white, black))
    assert len(rows) == 8
    for down, across in rows:
        height, width = down.stop - down.start, across.stop - across.start
        assert min(height / 28, width / (16 * 28)) > 1.9


def test_only_the_corrupted_digits_have_red_holes(tmp_path):
    still = np.zeros((16, 28, 28))
    rows = {"original": still, "corrupted": still, "reconstruction": still}
    given = "digit", "", 0, rows, still + 1, False, np.zeros((96, 28, 28))
    digit_figures.checkpoint(*given)["reconstruction_000000.png"](tmp_path / "a.png")
    pixels = np.array(PIL.Image.open(tmp_path / "a.png"))[..., :3].astype(int)
    red = np.nonzero(pixels[..., 0] > pixels[..., 1] + 50)[0]
    dark = np.nonzero((pixels[:, 300:900].max(axis=2) < 10).mean(1) > 0.9)[0]
    # It is the middle row of three.
    assert (dark < red.min()).sum() > 40 and (dark > red.max()).sum() > 40

"""Each flag of denoise.py has its effect on the result, with trained models."""

import numpy as np
import pytest
import soundfile
from commands import inside
from PIL import Image

from files.image_files import load_images

RATE = 16000


@pytest.fixture
def restored(tmp_path, digits, capsys):
    """Return a function that restores a held-out digit with some flags: {file name: levels}."""
    digit = load_images().test[7]
    Image.fromarray(digit).save(tmp_path / "a.png")

    def restore(hole, *flags):
        mask = np.zeros((28, 28), np.uint8)
        mask[hole] = 255
        Image.fromarray(mask).save(tmp_path / "mask.png")
        given = tmp_path / "a.png", "-o", tmp_path / "out/b.png", "--overwrite", *flags
        given = [*given, "--mask", tmp_path / "mask.png"] if mask.any() else given
        done = inside(capsys, "denoise.py", digits[0], *given)
        assert done.returncode == 0, done.stderr
        results = (tmp_path / "out").iterdir()
        return {path.name: np.array(Image.open(path)).astype(int) for path in results}

    return digit.astype(int), restore


def test_a_mask_marks_the_pixels_that_keep_may_change(restored):
    digit, restore = restored
    upper, lower = np.s_[4:12, 8:20], np.s_[14:24, 8:20]
    for hole in (upper, lower):
        difference = restore(hole, "--keep")["b.png"] != digit
        assert difference[hole].mean() > 0.1
        difference[hole] = False
        assert not difference.any()
    difference = restore(np.s_[:0], "--keep")["b.png"] != digit
    assert not difference.any()  # nothing is missing


def test_without_keep_all_of_a_picture_is_restored(restored):
    digit, restore = restored
    hole = np.s_[4:12, 8:20]
    difference = restore(hole)["b.png"] != digit
    difference[hole] = False
    assert difference.mean() > 0.1


def test_completions_are_numbered_and_differ_in_the_hole(restored):
    digit, restore = restored
    hole = np.s_[4:16, 4:24]
    found = restore(hole, "--keep", "--completions", 3)
    assert set(found) == {"b.png", "b-1.png", "b-2.png", "b-3.png"}
    inner = [picture[hole].tobytes() for picture in found.values()]
    assert len(set(inner)) == 4
    for picture in found.values():
        changed = picture != digit
        changed[hole] = False
        assert not changed.any()


def test_listed_gaps_are_filled_and_the_rest_is_kept(tmp_path, sound, capsys):
    """The sound has no zeros, so no gap is found without the list."""
    time = np.arange(RATE) / RATE
    tone = 0.5 * np.sin(2 * np.pi * 261.63 * time + 0.3)
    damaged = tone.copy()
    damaged[8000:8200] = 0.4 * np.sign(np.sin(np.arange(200)))
    soundfile.write(tmp_path / "a.wav", damaged, RATE, "FLOAT")
    (tmp_path / "gaps.txt").write_text("0.5 0.5125\n")
    results = {}
    for name, flags in (("with", ("--gaps", tmp_path / "gaps.txt")), ("without", ())):
        arguments = sound[0], tmp_path / "a.wav", "--keep", "-o", tmp_path / f"{name}.wav"
        done = inside(capsys, "denoise.py", *arguments, *flags)
        assert done.returncode == 0, done.stderr
        results[name], _ = soundfile.read(tmp_path / f"{name}.wav")
    written, _ = soundfile.read(tmp_path / "a.wav")
    np.testing.assert_array_equal(results["without"], written)
    gap = np.s_[8000:8200]
    assert np.std(results["with"][gap] - tone[gap]) < 0.1 * np.std(damaged[gap] - tone[gap])
    results["with"][gap] = written[gap]
    np.testing.assert_array_equal(results["with"], written)

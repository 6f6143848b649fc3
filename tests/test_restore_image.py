"""Restoring image files: where the hole is, what is kept, what is refused."""

import numpy as np
import pytest
from PIL import Image

from harness import UserError
from media.model_file import Restorer
from media.restore_image import restore_image


def digit(size, mode="L"):
    """A grey gradient, and as an image."""
    levels = np.add.outer(np.arange(size), np.arange(size)) * 200 // (2 * size)
    return levels, Image.fromarray(levels.astype(np.uint8)).convert(mode)


def test_a_hole_is_where_an_image_is_transparent_or_its_mask_white(tmp_path):
    seen = []

    def white(images):
        seen.append(np.asarray(images).reshape(28, 28))
        return np.ones_like(images)

    model = Restorer(white, 28 * 28, {"shape": [28, 28]})
    for size in (28, 56):
        levels, image = digit(size, "RGBA")
        hole = np.zeros((size, size), bool)
        hole[size // 4 : size // 2, size // 2 :] = True
        pixels = np.array(image)
        pixels[hole, :3], pixels[hole, 3] = 99, 0  # what hides under it must not be seen
        Image.fromarray(pixels).save(tmp_path / "a.png")
        line = restore_image(model, tmp_path / "a.png", tmp_path / "b.png", keep=True)
        assert f"{hole.sum()} of {size * size} pixels missing" in line
        kept = np.asarray(Image.open(tmp_path / "b.png"))
        np.testing.assert_array_equal(kept[~hole], pixels[~hole])
        assert (kept[hole] == 255).all()
        assert not seen[-1][7:14, 14:].any() and seen[-1][15:].all()

        image.convert("RGB").save(tmp_path / "c.png")
        Image.fromarray(np.uint8(255) * hole).save(tmp_path / "mask.png")
        restore_image(model, tmp_path / "c.png", tmp_path / "d.png", tmp_path / "mask.png")
        np.testing.assert_array_equal(seen[-1], seen[-2])
        whole = Image.open(tmp_path / "d.png")
        assert whole.size == (size, size) and whole.mode == "L" and np.asarray(whole).min() == 255
    np.testing.assert_allclose(seen[0][15:], levels[30::2, ::2] / 255, atol=0.02)


def test_an_image_the_model_would_return_is_returned(tmp_path):
    model = Restorer(lambda images: images, 28 * 20, {"shape": [28, 20]})
    levels = np.random.default_rng(0).integers(0, 256, (28, 20), np.uint8)
    Image.fromarray(levels).save(tmp_path / "a.png")
    Image.fromarray(levels * np.uint16(257)).save(tmp_path / "a16.png")
    for name in ("a.png", "a16.png"):
        assert "nothing missing" in restore_image(model, tmp_path / name, tmp_path / "b.png")
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png")), levels)
    Image.new("L", (30, 28)).save(tmp_path / "wide.png")
    for path, word in ((tmp_path / "wide.png", "20 x 28"), (tmp_path / "a16.png", "8 bits")):
        with pytest.raises(UserError, match=word):
            restore_image(model, path, tmp_path / "c.png", keep=True)
    assert not (tmp_path / "c.png").exists()

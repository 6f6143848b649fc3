"""Restoring image files: where the hole is, what is kept, what is refused."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from files.model_file import Restorer
from files.restore_image import restore_image
from harness import UserError
from kind import Kind

RNG = np.random.default_rng(0)
SIDE = 28
HOLE = np.zeros((SIDE, SIDE), bool)
HOLE[7:14, 14:24] = True
DRAWN = np.zeros((SIDE, SIDE), np.uint8)  # white on black, all levels among it
DRAWN[4:24, 8:20] = RNG.integers(100, 256, (20, 12))
DRAWN[4, 8] = 255
GREY = Restorer(lambda images: np.full_like(images, 0.6), SIDE**2, Kind(shape=(SIDE, SIDE)))


def digit(size, mode="L"):
    """A grey gradient, and as an image."""
    levels = np.add.outer(np.arange(size), np.arange(size)) * 200 // (2 * size)
    return levels, Image.fromarray(levels.astype(np.uint8)).convert(mode)


def test_a_hole_is_where_an_image_is_transparent_or_its_mask_white(tmp_path):
    seen = []

    def white(images):
        seen.append(np.asarray(images).reshape(28, 28))
        return np.ones_like(images)

    model = Restorer(white, 28 * 28, Kind(shape=(28, 28)))
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
    model = Restorer(lambda images: images, 28 * 20, Kind(shape=(28, 20)))
    levels = np.random.default_rng(0).integers(0, 256, (28, 20), np.uint8)
    Image.fromarray(levels).save(tmp_path / "a.png")
    Image.fromarray(levels * np.uint16(257)).save(tmp_path / "a16.png")
    for name in ("a.png", "a16.png"):
        assert "nothing missing" in restore_image(model, tmp_path / name, tmp_path / "b.png")
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png")), levels)
    Image.new("L", (30, 28)).save(tmp_path / "wide.png")
    Image.new("L", (20, 28)).save(
        tmp_path / "two.gif", save_all=True, append_images=[Image.new("L", (20, 28), 255)]
    )
    for name, word in (("wide.png", "20 x 28"), ("two.gif", "2 frames")):
        with pytest.raises(UserError, match=rf"{name}: .*{word}"):
            restore_image(model, tmp_path / name, tmp_path / "c.png", keep=True)
    assert not (tmp_path / "c.png").exists()


def png(values, kind, depth, transparent=None):
    """A PNG file of whole numbers, (H, W) or (H, W, channels), by the book: Pillow does not write all kinds."""
    values = np.reshape(values, (len(values), -1))
    bits = (values[..., None] >> np.arange(depth)[::-1] & 1).reshape(len(values), -1)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, depth, kind, 0, 0, 0))]
    if transparent:
        chunks.append((b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)))
    rows = np.packbits(bits.astype(np.uint8), axis=1)
    chunks += [
        (b"IDAT", zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))),
        (b"IEND", b""),
    ]
    body = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def coloured(inside, outside=(0, 0, 0)):
    return Image.fromarray(np.where(HOLE[..., None], np.uint8(inside), np.uint8(outside)))


def painted(colour, where=HOLE):
    """On a transparent layer of the same colour."""
    image = Image.new("RGBA", (SIDE, SIDE), colour)
    image.putalpha(Image.fromarray(np.uint8(255) * where))
    return image


MASKS = {
    "white.png": Image.fromarray(HOLE),
    "zero and one.png": Image.fromarray(HOLE.astype(np.uint8)),
    "16 bits, 0 and 255.png": Image.fromarray(np.uint16(255) * HOLE),
    "floats.tif": Image.fromarray(HOLE.astype(np.float32)),
    "red.png": coloured((255, 0, 0)),
    "dark blue.bmp": coloured((0, 0, 128)),
    "palette.gif": coloured((128, 0, 0)).quantize(2),
    "red.jpg": coloured((255, 0, 0)),
    "painted white.png": painted("white"),
    "painted red.png": painted("red"),
}
NO_MASKS = {
    "black.png": Image.new("L", (SIDE, SIDE)),
    "full.png": Image.new("L", (SIDE, SIDE), 255),
    "nearly white.png": Image.fromarray(254 + HOLE.astype(np.uint8)),
    "inverted.png": Image.fromarray(~HOLE),
    "cut out of white.png": painted("white", ~HOLE),
    "painted black.png": painted("black"),
    "red on white.png": coloured((255, 0, 0), (255, 255, 255)),
    "red on the picture.png": coloured((255, 0, 0), DRAWN[..., None]),
    "three labels.png": Image.fromarray(HOLE + 2 * (DRAWN > 200).astype(np.uint8)),
    "photo.png": Image.fromarray(RNG.integers(0, 256, (SIDE, SIDE), np.uint8)),
}


def test_a_mask_of_any_one_colour_shows_its_hole_and_what_cannot_be_told_is_refused(tmp_path):
    Image.fromarray(DRAWN).save(tmp_path / "a.png")
    for name, mask in MASKS.items():
        mask.save(tmp_path / name)
        line = restore_image(
            GREY, tmp_path / "a.png", tmp_path / "b.png", tmp_path / name, keep=True
        )
        assert f"{HOLE.sum()} of {HOLE.size} pixels missing" in line, name
        kept = np.asarray(Image.open(tmp_path / "b.png"))
        np.testing.assert_array_equal(kept, np.where(HOLE, 153, DRAWN), name)
    for name, mask in NO_MASKS.items():
        mask.save(tmp_path / name)
        with pytest.raises(UserError, match=f"/{name}: .*; .*mask"):
            restore_image(GREY, tmp_path / "a.png", tmp_path / "c.png", tmp_path / name)
    painted("white", DRAWN > 200).save(tmp_path / "drawn on nothing.png")
    with pytest.raises(UserError, match=r"drawn on nothing.*; make only the hole transparent"):
        restore_image(GREY, tmp_path / "drawn on nothing.png", tmp_path / "c.png")
    assert not (tmp_path / "c.png").exists()


LEVELS_16 = np.where(HOLE, 7, DRAWN.astype(int) * 257)
FOUR_BITS = np.where(HOLE, 5, np.where(DRAWN >> 4 == 5, 6, DRAWN >> 4))
PALETTE = np.where(HOLE, 255, DRAWN // 8)


@pytest.mark.parametrize(
    "name, content, expected",
    [
        ("4 bits.png", png(FOUR_BITS, 0, 4, (5,)), FOUR_BITS * 17),
        ("2 bits.png", png(np.where(HOLE, 1, 3), 0, 2, (1,)), 255),
        ("1 bit.png", png(~HOLE * 1, 0, 1, (0,)), 255),
        ("16 bits.png", png(LEVELS_16, 0, 16, (7,)), LEVELS_16),
        (
            "colour.png",
            png(np.where(HOLE, 1, DRAWN & 0xFE)[..., None].repeat(3, 2), 2, 8, (1, 1, 1)),
            DRAWN & 0xFE,
        ),
        ("palette.gif", PALETTE, PALETTE * 8),
        ("palette.png", PALETTE, PALETTE * 8),
        ("alpha.webp", painted("white", ~HOLE), 255),
        ("alpha.tga", painted("white", ~HOLE), 255),
    ],
)
def test_a_transparent_level_is_a_hole_and_nothing_transparent_is_left_in_it(
    tmp_path, name, content, expected
):
    path, out = tmp_path / name, tmp_path / f"out {name}"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, np.ndarray):
        image = Image.fromarray(content.astype(np.uint8)).convert("P")
        image.putpalette([min(255, 8 * entry) for entry in range(256) for _ in range(3)])
        image.save(path, transparency=255)
    else:
        content.save(path, **({"lossless": True} if path.suffix == ".webp" else {}))
    assert f"{HOLE.sum()} of {HOLE.size}" in restore_image(GREY, path, out, keep=True)
    with Image.open(out) as kept:
        assert (
            "transparency" not in kept.info
            and np.asarray(kept.convert("RGBA"))[..., 3].min() == 255
        )
        values = np.asarray(kept if kept.mode[0] == "I" else kept.convert("RGB").getchannel(0))
    np.testing.assert_array_equal(values[~HOLE], np.broadcast_to(expected, HOLE.shape)[~HOLE])
    white = 65535 if values.max() > 255 else 255
    filled = white if name == "1 bit.png" else 0.6 * white
    if name[0] in "142a":  # white on black, so as the model has it
        np.testing.assert_allclose(values[HOLE], filled, atol=0.03 * white)


def test_what_is_transparent_beside_the_hole_of_a_mask_stays_so(tmp_path):
    MASKS["white.png"].save(tmp_path / "mask.png")
    files = {
        "16.png": png(np.where(HOLE, 7, LEVELS_16), 0, 16, (0,)),
        "l.png": png(DRAWN, 0, 8, (0,)),
    }
    files["rgb.png"] = png(DRAWN[..., None].repeat(3, 2), 2, 8, (0, 0, 0))
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        restore_image(GREY, tmp_path / name, tmp_path / "out.png", tmp_path / "mask.png", keep=True)
        with Image.open(tmp_path / "out.png") as kept:
            values, key = np.asarray(kept), kept.info.get("transparency")
            clear = (
                values == key if name == "16.png" else np.asarray(kept.convert("RGBA"))[..., 3] == 0
            )
        np.testing.assert_array_equal(clear, (DRAWN == 0) & ~HOLE)
    values = np.where(HOLE, 7, LEVELS_16)
    values[0, :5] = key = round(0.6 * 65535)  # what the hole is filled with
    (tmp_path / "same.png").write_bytes(png(values, 0, 16, (key,)))
    restore_image(
        GREY, tmp_path / "same.png", tmp_path / "out.png", tmp_path / "mask.png", keep=True
    )
    with Image.open(tmp_path / "out.png") as kept:
        assert (np.asarray(kept) == kept.info["transparency"]).sum() == 5


def test_keep_keeps_every_other_pixel_in_its_mode_or_says_why_not(tmp_path):
    MASKS["white.png"].save(tmp_path / "mask.png")
    grey = Image.fromarray(DRAWN)
    colours = Image.fromarray(RNG.integers(0, 256, (SIDE, SIDE, 4), np.uint8))
    kinds = {
        "16.png": (Image.fromarray(DRAWN.astype(np.uint16) * 257 - (DRAWN > 0)), {}),
        "16.tif": (Image.fromarray(DRAWN.astype(np.uint16) * 3), {"compression": "tiff_lzw"}),
        "float.tif": (Image.fromarray(DRAWN.astype(np.float32) / 257), {}),
        "32.tif": (Image.fromarray(DRAWN.astype(np.int32)), {}),
        "fax.tif": (grey.point(lambda level: level > 99, "1"), {"compression": "group4"}),
        "jpeg.tif": (colours.convert("RGB"), {"compression": "jpeg"}),
        "cmyk.tif": (colours.convert("CMYK"), {}),
        "rgba.tif": (colours, {"compression": "tiff_adobe_deflate"}),
        "lossy.webp": (colours.convert("RGB"), {"quality": 30}),
        "clear.webp": (colours, {"lossless": True, "exact": True}),
        "grey.gif": (Image.fromarray(DRAWN // 2), {}),
        "p.bmp": (colours.convert("RGB").quantize(20), {}),
        "16.pgm": (Image.fromarray(DRAWN.astype(np.int32) * 257), {}),
    }
    for name, (image, options) in kinds.items():
        image.save(tmp_path / name, **options)
        restore_image(
            GREY, tmp_path / name, tmp_path / f"out {name}", tmp_path / "mask.png", keep=True
        )
        with Image.open(tmp_path / name) as before, Image.open(tmp_path / f"out {name}") as after:
            numbers = before.mode == after.mode != "P"
            ours, theirs = (
                np.asarray(one if numbers else one.convert("RGB")) for one in (after, before)
            )
            assert numbers or name in ("grey.gif", "p.bmp")
            assert (
                before.format != "TIFF"
                or "jpeg" in name
                or before.info["compression"] == after.info["compression"]
            )
        np.testing.assert_array_equal(ours[~HOLE], theirs[~HOLE], name)
        assert (ours[HOLE] != theirs[HOLE]).any(), name

    many = Image.fromarray((np.arange(SIDE**2) % 240).astype(np.uint8).reshape(SIDE, SIDE)).convert(
        "P"
    )
    many.putpalette(RNG.integers(0, 256, 768, np.uint8).tobytes())
    many.save(tmp_path / "many.gif")
    ramp = Restorer(
        lambda images: np.linspace(0, 1, images.size, dtype=np.float32), SIDE**2, GREY.kind
    )
    restore_image(
        ramp, tmp_path / "many.gif", tmp_path / "out.gif", tmp_path / "mask.png", keep=True
    )
    before, after = (
        np.asarray(Image.open(tmp_path / name).convert("RGB"), int)
        for name in ("many.gif", "out.gif")
    )
    np.testing.assert_array_equal(after[~HOLE], before[~HOLE])
    levels = 255 * np.linspace(0, 1, SIDE**2).reshape(SIDE, SIDE)[HOLE]
    np.testing.assert_allclose(after[HOLE], levels[:, None].repeat(3, 1), atol=9)

    deep = DRAWN[..., None].repeat(4, 2).astype(int) * 257
    full = Image.fromarray((np.arange(SIDE**2) % 256).astype(np.uint8).reshape(SIDE, SIDE)).convert(
        "P"
    )
    full.putpalette(
        [entry if channel else 0 for entry in range(256) for channel in range(3)]
    )  # and no grey among them
    refused = {
        "48.png": png(deep[..., :3], 2, 16),
        "64.png": png(deep, 6, 16),
        "deep.png": png(deep[..., :2], 4, 16),
    }
    refused["deep.ppm"] = b"P6 28 28 65535\n" + deep[..., :3].astype(">u2").tobytes()
    refused |= {"full.gif": full, "a.ico": grey, "a.jp2": grey}
    for name, content in refused.items():
        (tmp_path / name).write_bytes(content) if isinstance(content, bytes) else content.save(
            tmp_path / name
        )
        with pytest.raises(UserError, match=f"/{name}: .*; "):
            restore_image(GREY, tmp_path / name, tmp_path / "no", tmp_path / "mask.png", keep=True)
    assert not (tmp_path / "no").exists()


def test_what_jpeg_changes_is_said_and_of_several_pictures_the_first_is_taken(tmp_path):
    MASKS["white.png"].save(tmp_path / "mask.png")
    other = Image.new("RGB", (SIDE, SIDE), "white")
    Image.fromarray(DRAWN).convert("RGB").save(
        tmp_path / "a.mpo", save_all=True, append_images=[other], quality=70
    )
    (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    line = restore_image(
        GREY, tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "mask.png", keep=True
    )
    before, after = (
        np.asarray(Image.open(tmp_path / name), int)[~HOLE] for name in ("a.jpg", "b.jpg")
    )
    assert (
        f"by up to {np.abs(before - after).max()} of 255" in line and "first of 2 pictures" in line
    )
    colours = Image.fromarray(RNG.integers(0, 256, (SIDE, SIDE, 3), np.uint8))
    colours.save(
        tmp_path / "a.jpg", quality=60, subsampling=0
    )  # would lose its colours by the usual subsampling
    restore_image(GREY, tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "mask.png", keep=True)
    before, after = (
        np.asarray(Image.open(tmp_path / name), int)[~HOLE] for name in ("a.jpg", "b.jpg")
    )
    assert np.abs(before - after).max() < 16


@pytest.mark.parametrize("keep", [False, True])
def test_what_pillow_cannot_write_or_turn_grey_is_refused_before_anything_is_done(tmp_path, keep):
    psd = (
        b"8BPS\0\1"
        + bytes(6)
        + struct.pack(">HIIHH", 1, SIDE, SIDE, 8, 1)
        + bytes(14)
        + DRAWN.tobytes()
    )
    lab = Image.merge("LAB", [Image.fromarray(DRAWN)] * 3)
    files = {
        "a.psd": psd,
        "lab.tif": lab,
        "nan.tif": Image.fromarray(np.where(HOLE, np.nan, 0.5).astype(np.float32)),
    }
    files["clear.png"] = png(DRAWN[..., None].repeat(3, 2).astype(int) * 257, 2, 16, (258, 1, 1))
    files["over.tif"] = Image.fromarray(DRAWN.astype(np.float32))
    for name, content in files.items():
        (tmp_path / name).write_bytes(content) if isinstance(content, bytes) else content.save(
            tmp_path / name
        )
        with pytest.raises(UserError, match=f"/{name}: .*; leave it out or save it anew as PNG"):
            restore_image(GREY, tmp_path / name, tmp_path / "out", keep=keep)
    assert not (tmp_path / "out").exists()


def bars(upright):
    """Bars of white on black, as a pattern that a model might know: (SIDE, SIDE)."""
    levels = np.zeros((SIDE, SIDE))
    levels[4:24, [6, 7, 14, 15, 20, 21]] = 1
    return levels if upright else levels.T


def knows_bars(images):
    """Draws the nearer of two patterns, as strongly as a network that has seen nothing but white on black."""
    known = np.stack([bars(True).ravel(), bars(False).ravel()]).astype(np.float32)
    images = np.asarray(images)
    if images.mean() > 0.5:  # what it has never seen comes out as grey
        return np.full_like(images, 0.5)
    return known[np.square(images[:, None] - known).mean(2).argmin(1)]


@pytest.mark.parametrize(
    "drawn, level", [(255, 0), (255, 10), (230, 60), (90, 10), (20, 235), (100, 128), (4, 0)]
)
@pytest.mark.parametrize("noise", [0, 0.02])
def test_background_and_contrast_are_taken_out_for_the_network_and_put_back(
    tmp_path, drawn, level, noise
):
    seen = []
    model = Restorer(
        lambda images: seen.append(images) or knows_bars(images), SIDE**2, Kind(shape=(SIDE, SIDE))
    )
    truth = level + (drawn - level) * bars(True)
    values = np.where(HOLE, 77, truth) + noise * abs(drawn - level) * RNG.normal(size=truth.shape)
    Image.fromarray(values.round().clip(0, 255).astype(np.uint8)).save(tmp_path / "a.png")
    MASKS["white.png"].save(tmp_path / "mask.png")
    line = restore_image(model, tmp_path / "a.png", tmp_path / "b.png", tmp_path / "mask.png")
    whole = np.asarray(Image.open(tmp_path / "b.png"), float)
    assert np.abs(whole - truth)[HOLE].mean() < 0.04 * abs(drawn - level) + 1
    assert np.abs(whole - truth).mean() < 0.04 * abs(drawn - level) + 1
    assert np.mean(seen[-1].reshape(SIDE, SIDE)[bars(True) == 0] == 0) > (
        0.75 if level else 0.4
    )  # without its noise
    assert noise or (f"on {level} taken for 255 on 0" in line) == (drawn < 230 or level > 0)


def test_what_a_model_knows_as_it_is_is_left_as_it_is(tmp_path):
    paper = Restorer(lambda images: images, SIDE**2, Kind(shape=(SIDE, SIDE)))
    seen = 235 - 200 * bars(True)
    Image.fromarray(seen.astype(np.uint8)).save(tmp_path / "a.png")
    assert "taken" not in restore_image(paper, tmp_path / "a.png", tmp_path / "b.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png")), seen)


def test_a_hole_is_filled_by_the_refined_posterior_and_its_completions_go_beside_the_result(
    tmp_path,
):
    given = []

    def refined(corrupted, observed):
        given.append((np.array(corrupted), np.array(observed)))
        return np.full_like(corrupted, 0.5)

    def complete(corrupted, observed, count):
        return np.stack([np.full(SIDE**2, (number + 1) / 10) for number in range(count)])

    model = Restorer(lambda images: images, SIDE**2, Kind(shape=(SIDE, SIDE)), refined, complete)
    picture = np.zeros((SIDE, SIDE), np.uint8)
    picture[4:20, 9:13] = 255
    hole = np.zeros((SIDE, SIDE), bool)
    hole[8:14, 5:18] = True
    Image.fromarray(picture).save(tmp_path / "a.png")
    Image.fromarray(np.uint8(255) * hole).save(tmp_path / "mask.png")
    restore_image(
        model, tmp_path / "a.png", tmp_path / "b.png", tmp_path / "mask.png", keep=True, count=2
    )
    ((corrupted, observed),) = given
    np.testing.assert_array_equal(observed.reshape(SIDE, SIDE), ~hole)
    np.testing.assert_allclose(
        corrupted.reshape(SIDE, SIDE), np.where(hole, 0, picture / 255), atol=1e-6
    )
    for name, level in {"b": 0.5, "b-1": 0.1, "b-2": 0.2}.items():
        written = np.asarray(Image.open(tmp_path / f"{name}.png"))
        np.testing.assert_array_equal(written, np.where(hole, round(255 * level), picture))
    restore_image(
        model, tmp_path / "a.png", tmp_path / "whole.png", count=2
    )  # nothing is missing: as it was
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "whole.png")), picture)
    assert len(given) == 1 and not (tmp_path / "whole-1.png").exists()

"""Restoring image files: finding the hole, filling it, keeping the rest, refusing other files."""

import contextlib
import itertools
import struct
import zlib
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from files.model_file import Restorer
from files.restore_image import mask_for, restore_image
from harness import UserError
from kind import Kind

RNG = np.random.default_rng(0)
SIDE = 28
HOLE = np.zeros((SIDE, SIDE), bool)
HOLE[7:14, 14:24] = True
DRAWN = np.zeros((SIDE, SIDE), np.uint8)  # white on black
DRAWN[4:24, 8:20] = RNG.integers(100, 256, (20, 12))
DRAWN[4, 8] = 255
KIND = Kind(shape=(SIDE, SIDE))
GREY = Restorer(lambda images, observed: np.full_like(images, 0.6), SIDE**2, KIND)


def test_hole_is_transparent_or_white_in_the_mask(tmp_path):
    seen = []

    def white(images, observed):
        seen.append(np.asarray(images)[0].reshape(28, 28))
        return np.ones_like(images)

    model = Restorer(lambda images, observed: images, SIDE**2, KIND, refined=white)
    for size in (28, 56):
        levels = np.add.outer(np.arange(size), np.arange(size)) * 200 // (2 * size)  # a gradient
        image = Image.fromarray(levels.astype(np.uint8)).convert("RGBA")
        hole = np.zeros((size, size), bool)
        hole[size // 4 : size // 2, size // 2 :] = True
        pixels = np.array(image)
        pixels[hole, :3], pixels[hole, 3] = 99, 0  # the model must not see the hidden 99
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


def test_identity_model_returns_the_image(tmp_path):
    model = Restorer(lambda images, observed: images, 28 * 20, Kind(shape=(28, 20)))
    levels = np.random.default_rng(0).integers(0, 256, (28, 20), np.uint8)
    Image.fromarray(levels).save(tmp_path / "a.png")
    Image.fromarray(levels * np.uint16(257)).save(tmp_path / "a16.png")
    for name in ("a.png", "a16.png"):
        assert "nothing missing" in restore_image(model, tmp_path / name, tmp_path / "b.png")
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png")), levels)
    Image.new("L", (30, 28)).save(tmp_path / "wide.png")
    frames = {"save_all": True, "append_images": [Image.new("L", (20, 28), 255)]}
    Image.new("L", (20, 28)).save(tmp_path / "two.gif", **frames)
    for name, word in (("wide.png", "20 x 28"), ("two.gif", "2 frames")):
        with pytest.raises(UserError, match=rf"{name}: .*{word}"):
            restore_image(model, tmp_path / name, tmp_path / "c.png")
    assert not (tmp_path / "c.png").exists()


def png(values, color_type, depth, transparent=None):
    """Return a PNG file of integers, (H, W) or (H, W, channels). Pillow cannot write all types."""
    values = np.reshape(values, (len(values), -1))
    bits = (values[..., None] >> np.arange(depth)[::-1] & 1).reshape(len(values), -1)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, depth, color_type, 0, 0, 0))]
    if transparent:
        chunks.append((b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)))
    rows = np.packbits(bits.astype(np.uint8), axis=1)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks += [(b"IDAT", pixels), (b"IEND", b"")]
    body = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def colored(inside, outside=(0, 0, 0)):
    return Image.fromarray(np.where(HOLE[..., None], np.uint8(inside), np.uint8(outside)))


def painted(color, where=HOLE):
    """Return an image of one color, opaque where `where` is true."""
    image = Image.new("RGBA", (SIDE, SIDE), color)
    image.putalpha(Image.fromarray(np.uint8(255) * where))
    return image


MASKS = {
    "white.png": Image.fromarray(HOLE),
    "zero and one.png": Image.fromarray(HOLE.astype(np.uint8)),
    "16 bits, 0 and 255.png": Image.fromarray(np.uint16(255) * HOLE),
    "white on 3.png": Image.fromarray(np.where(HOLE, np.uint8(255), np.uint8(3))),
    "floats.tif": Image.fromarray(HOLE.astype(np.float32)),
    "red.png": colored((255, 0, 0)),
    "dark blue.bmp": colored((0, 0, 128)),
    "palette.gif": colored((128, 0, 0)).quantize(2),
    "red.jpg": colored((255, 0, 0)),
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
    "all red.png": colored((255, 0, 0), (255, 0, 0)),
    "red on white.png": colored((255, 0, 0), (255, 255, 255)),
    "red on the picture.png": colored((255, 0, 0), DRAWN[..., None]),
    "three labels.png": Image.fromarray(HOLE + 2 * (DRAWN > 200).astype(np.uint8)),
    "photo.png": Image.fromarray(RNG.integers(0, 256, (SIDE, SIDE), np.uint8)),
    "large and grey.png": Image.fromarray(
        np.repeat(np.uint8([255, 110, 0]), [14, 9, 5])[:, None] * np.ones(SIDE, np.uint8)
    ),
}


def test_one_color_masks_are_read_and_ambiguous_masks_refused(tmp_path):
    Image.fromarray(DRAWN).save(tmp_path / "a.png")
    for name, mask in MASKS.items():
        mask.save(tmp_path / name)
        files = tmp_path / "a.png", tmp_path / "b.png", tmp_path / name
        line = restore_image(GREY, *files, keep=True)
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
    dotted = np.zeros((16 * SIDE, 16 * SIDE), bool)
    dotted[::2, ::2] = True  # leaves no whole pixel of the reduced picture
    for name, image in (("dotted.png", dotted), ("large.png", np.uint8(99) * ~dotted)):
        Image.fromarray(image).save(tmp_path / name)
    with pytest.raises(UserError, match=r"dotted.*too much .* missing \(25%\)"):
        restore_image(GREY, tmp_path / "large.png", tmp_path / "c.png", tmp_path / "dotted.png")
    assert not (tmp_path / "c.png").exists()


LEVELS_16 = np.where(HOLE, 7, DRAWN.astype(int) * 257)
PURPLE = np.where(HOLE, 1, DRAWN & 0xFE)[..., None].repeat(3, 2)
TRANSPARENT = {  # files with a transparent hole, and the levels elsewhere
    "16 bits.png": (png(LEVELS_16, 0, 16, (7,)), LEVELS_16),
    "color.png": (png(PURPLE, 2, 8, (1, 1, 1)), DRAWN & 0xFE),
    "alpha.webp": (Image.fromarray(np.dstack([DRAWN] * 3 + [np.uint8(255) * ~HOLE])), DRAWN),
}


def write(path, content, **options):
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content.save(path, **options)


@pytest.mark.parametrize("name", TRANSPARENT)
def test_transparent_level_is_hole_and_becomes_opaque(tmp_path, name):
    path, out = tmp_path / name, tmp_path / f"out {name}"
    content, expected = TRANSPARENT[name]
    write(path, content, **({"lossless": True} if path.suffix == ".webp" else {}))
    assert f"{HOLE.sum()} of {HOLE.size}" in restore_image(GREY, path, out, keep=True)
    with Image.open(out) as kept:
        assert (np.asarray(kept) != kept.info.get("transparency", -1)).all()
        assert kept.mode[0] == "I" or np.asarray(kept.convert("RGBA"))[..., 3].min() == 255
        values = np.asarray(kept if kept.mode[0] == "I" else kept.convert("RGB").getchannel(0))
    np.testing.assert_array_equal(values[~HOLE], np.broadcast_to(expected, HOLE.shape)[~HOLE])
    white = 65535 if values.max() > 255 else 255
    if name != "color.png":  # the others are white on black, so levels are not stretched
        np.testing.assert_allclose(values[HOLE], 0.6 * white, atol=0.03 * white)


@pytest.mark.parametrize("left, holes", [(0, True), (15, True), (16, False)])
def test_soft_edges_of_a_transparent_hole_belong_to_it(tmp_path, left, holes):
    """An eraser may leave a little. A picture that is only pale has no hole."""
    opacity = np.where(HOLE, left, 255).astype(np.uint8)
    opacity[6, 14:24] = 100
    soft = opacity < 255
    picture = Image.fromarray(np.where(soft, 99, DRAWN).astype(np.uint8))
    picture.putalpha(Image.fromarray(opacity))
    picture.save(tmp_path / "a.png")
    line = restore_image(GREY, tmp_path / "a.png", tmp_path / "b.png", keep=True)
    if not holes:
        assert "nothing missing" in line
        return
    assert f"{soft.sum()} of {soft.size} pixels missing" in line
    expected = np.dstack([np.where(soft, 153, DRAWN), np.full_like(DRAWN, 255)])
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png")), expected)


def test_transparency_outside_the_hole_is_kept(tmp_path):
    MASKS["white.png"].save(tmp_path / "mask.png")
    files = {
        "16.png": png(np.where(HOLE, 7, LEVELS_16), 0, 16, (0,)),
        "l.png": png(DRAWN, 0, 8, (0,)),
        "rgb.png": png(DRAWN[..., None].repeat(3, 2), 2, 8, (0, 0, 0)),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        restore_image(GREY, tmp_path / name, tmp_path / "out.png", tmp_path / "mask.png", keep=True)
        with Image.open(tmp_path / "out.png") as kept:
            values, key = np.asarray(kept), kept.info.get("transparency")
            clear = np.asarray(kept.convert("RGBA"))[..., 3] == 0
        clear = values == key if name == "16.png" else clear
        np.testing.assert_array_equal(clear, (DRAWN == 0) & ~HOLE)
    values = np.where(HOLE, 7, LEVELS_16)
    values[0, :5] = key = round(0.6 * 65535)  # the level that fills the hole
    (tmp_path / "same.png").write_bytes(png(values, 0, 16, (key,)))
    out = tmp_path / "out.png"
    restore_image(GREY, tmp_path / "same.png", out, tmp_path / "mask.png", keep=True)
    with Image.open(out) as kept:
        assert (np.asarray(kept) == kept.info["transparency"]).sum() == 5


def test_keep_keeps_the_other_pixels_bit_for_bit(tmp_path):
    MASKS["white.png"].save(tmp_path / "mask.png")
    colors = Image.fromarray(RNG.integers(0, 256, (SIDE, SIDE, 4), np.uint8))
    deep = DRAWN.astype(np.uint16) * 257 - (DRAWN > 0)
    kinds = {
        "16.png": (Image.fromarray(deep), {}),
        "16.tif": (Image.fromarray(DRAWN.astype(np.uint16) * 3), {"compression": "tiff_lzw"}),
        "big-endian.tif": (Image.fromarray(deep.astype(">u2")), {}),
        "grey.png": (Image.fromarray(DRAWN), {}),
        "grey.tif": (Image.fromarray(DRAWN), {"compression": "packbits"}),
        "la.png": (colors.convert("LA"), {}),
        "la.tif": (colors.convert("LA"), {"compression": "tiff_lzw"}),
        "rgb.png": (colors.convert("RGB"), {}),
        "rgba.png": (colors, {}),
        "jpeg.tif": (colors.convert("RGB"), {"compression": "jpeg"}),
        "rgba.tif": (colors, {"compression": "tiff_adobe_deflate"}),
        "lossy.webp": (colors.convert("RGB"), {"quality": 30}),
        "clear.webp": (colors, {"lossless": True, "exact": True}),
    }
    for name, (image, options) in kinds.items():
        path, out = tmp_path / name, tmp_path / f"out {name}"
        image.save(path, **options)
        restore_image(GREY, path, out, tmp_path / "mask.png", keep=True)
        with Image.open(path) as before, Image.open(out) as after:
            assert before.mode == after.mode
            ours, theirs = np.asarray(after), np.asarray(before)
            if before.format == "TIFF" and name != "jpeg.tif":
                assert before.info["compression"] == after.info["compression"]
        np.testing.assert_array_equal(ours[~HOLE], theirs[~HOLE], name)
        assert (ours[HOLE] != theirs[HOLE]).any(), name


def palette(transparency=None):
    """Return multiples of 8 as a palette image; entry `transparency` is transparent."""
    image = Image.fromarray(np.where(HOLE, 255, DRAWN // 8).astype(np.uint8)).convert("P")
    image.putpalette([min(255, 8 * entry) for entry in range(256) for _ in range(3)])
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


def test_keep_refuses_other_formats_and_modes_in_one_line(tmp_path):
    """With --keep nothing is written; without it they are restored."""
    MASKS["white.png"].save(tmp_path / "mask.png")
    grey = Image.fromarray(DRAWN)
    deep = DRAWN[..., None].repeat(4, 2).astype(int) * 257
    kinds = {
        "clear bit.png": png(~HOLE * 1, 0, 1, (0,)),
        "clear palette.gif": palette(255),
        "clear palette.png": palette(255),
        "clear alpha.tga": painted("white", ~HOLE),
        "palette.png": palette(),
        "p.bmp": palette(),
        "grey.gif": grey,
        "grey.bmp": grey,
        "grey.pcx": grey,
        "a.ico": grey,
        "a.jp2": grey,
        "float.tif": Image.fromarray(DRAWN.astype(np.float32) / 257),
        "32.tif": Image.fromarray(DRAWN.astype(np.int32)),
        "fax.tif": grey.point(lambda level: level > 99, "1"),
        "cmyk.tif": grey.convert("CMYK"),
        "cmyk.jpg": grey.convert("CMYK"),
        "lab.tif": Image.merge("LAB", [grey] * 3),
        "16.pgm": Image.fromarray(DRAWN.astype(np.int32) * 257),
        "48.png": png(deep[..., :3], 2, 16),
        "64.png": png(deep, 6, 16),
        "deep.png": png(deep[..., :2], 4, 16),
        "deep.ppm": b"P6 28 28 65535\n" + deep[..., :3].astype(">u2").tobytes(),
    }
    options = {"fax.tif": {"compression": "group4"}, "a.ico": {"sizes": [(SIDE, SIDE)]}}
    for name, content in kinds.items():
        path, mask = tmp_path / name, None if "clear" in name else tmp_path / "mask.png"
        write(path, content, **options.get(name, {}))
        before = path.read_bytes()
        line = rf"/{name}: --keep takes PNG.*\(.*\); leave out --keep, or convert to PNG"
        with pytest.raises(UserError, match=line) as refused:
            restore_image(GREY, path, tmp_path / "no", mask, keep=True)
        assert "\n" not in str(refused.value) and path.read_bytes() == before
        line = restore_image(GREY, path, tmp_path / f"out {name}", mask)
        assert f"{HOLE.sum()} of {HOLE.size} pixels missing" in line, name
    assert not (tmp_path / "no").exists()


def test_summary_names_jpeg_and_the_picture_used(tmp_path):
    MASKS["white.png"].save(tmp_path / "mask.png")
    before, after = tmp_path / "a.jpg", tmp_path / "b.jpg"

    def change():
        line = restore_image(GREY, before, after, tmp_path / "mask.png", keep=True)
        ours, theirs = (np.asarray(Image.open(path), int)[~HOLE] for path in (after, before))
        return np.abs(ours - theirs).max(), line

    pictures = {"save_all": True, "append_images": [Image.new("RGB", (SIDE, SIDE), "white")]}
    Image.fromarray(DRAWN).convert("RGB").save(tmp_path / "a.mpo", quality=70, **pictures)
    (tmp_path / "a.mpo").rename(before)
    line = change()[1]
    assert "encoded again as JPEG" in line and "first of 2 pictures" in line
    colors = np.random.default_rng(1).integers(80, 176, (SIDE, SIDE, 3), np.uint8)  # no clipping
    Image.fromarray(colors).save(before, quality=60, subsampling=0)
    assert change()[0] < 24  # the usual subsampling would lose its colors


@pytest.mark.parametrize("keep", [False, True])
def test_unreadable_or_unwritable_images_are_refused_early(tmp_path, keep):
    header = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 1, SIDE, SIDE, 8, 1)
    files = {
        "a.psd": header + bytes(14) + DRAWN.tobytes(),
        "clear.png": png(DRAWN[..., None].repeat(3, 2).astype(int) * 257, 2, 16, (258, 1, 1)),
        "4 bits.png": png(DRAWN >> 4, 0, 4, (5,)),
        "2 bits.png": png(np.where(HOLE, 1, 3), 0, 2, (1,)),
        "nan.tif": Image.fromarray(np.where(HOLE, np.nan, 0.5).astype(np.float32)),
        "over.tif": Image.fromarray(DRAWN.astype(np.float32)),
    }
    for name, content in files.items():
        write(tmp_path / name, content)
        mode = keep and name.endswith(".tif")
        remedy = "leave out --keep, or convert to" if mode else "leave it out, or save it as"
        with pytest.raises(UserError, match=f"/{name}: .*; {remedy} PNG"):
            restore_image(GREY, tmp_path / name, tmp_path / "out", keep=keep)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("polarity", [0, 1])
def test_depth_and_polarity_of_a_tiff_do_not_matter(tmp_path, bits, polarity):
    MASKS["white.png"].save(tmp_path / "mask.png")
    white = 2**bits - 1
    stored = np.round(DRAWN * (white / 255)).astype(np.uint16)
    tiff = Image.fromarray(stored if polarity else white - stored)
    tiff.save(tmp_path / "a.tif")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    entry = content.index(struct.pack("<HHI", 262, 3, 1))  # Pillow itself writes BlackIsZero
    content[entry + 8] = polarity
    (tmp_path / "a.tif").write_bytes(content)
    files = tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "mask.png"
    restore_image(GREY, *files)
    np.testing.assert_allclose(np.asarray(Image.open(files[1])), 153, atol=1)
    restore_image(GREY, *files, keep=True)
    kept = np.asarray(Image.open(files[1]))
    np.testing.assert_allclose(kept, np.where(HOLE, 0.6 * white, stored), atol=1)


def test_alpha_channel_of_zeros_in_a_bmp_is_unused(tmp_path):
    picture = Image.fromarray(DRAWN).convert("RGBA")
    picture.putalpha(0)
    same = Restorer(lambda images, observed: images, SIDE**2, KIND)
    picture.save(tmp_path / "a.bmp")
    assert "nothing missing" in restore_image(same, tmp_path / "a.bmp", tmp_path / "b.bmp")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.bmp")), DRAWN)
    picture.save(tmp_path / "a.png")
    with pytest.raises(UserError, match="make only the hole transparent"):
        restore_image(same, tmp_path / "a.png", tmp_path / "b.png")


@pytest.mark.parametrize("ink, paper", [((0, 0, 255), (255, 255, 255)), ((250, 60, 0), (0, 0, 40))])
def test_hole_is_filled_in_ink_and_paper_colors(tmp_path, ink, paper):
    weight = bars(True)[..., None]
    truth = np.round(weight * ink + (1 - weight) * paper).astype(np.uint8)
    Image.fromarray(np.where(HOLE[..., None], np.uint8(99), truth)).save(tmp_path / "a.png")
    MASKS["white.png"].save(tmp_path / "mask.png")
    files = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "mask.png"
    model = Restorer(lambda images, observed: knows_bars(images), SIDE**2, KIND)
    assert "color" not in restore_image(model, *files, keep=True)
    np.testing.assert_allclose(np.asarray(Image.open(files[1]), int), truth, atol=2)
    Image.fromarray(truth[..., 0]).save(tmp_path / "grey.png")
    files_of_grey = tmp_path / "grey.png", *files[1:]
    assert "color" not in restore_image(model, *files_of_grey, keep=True)
    truth[15:] = truth[15:, :, ::-1]  # a second ink and paper, of swapped channels
    Image.fromarray(truth).save(files[0])
    assert "one color per level, the rest has several" in restore_image(model, *files, keep=True)


def test_grain_in_a_picture_of_one_ink_is_no_second_color(tmp_path):
    """Cameras and JPEG vary the colors a little."""
    ink, paper, grain = (50, 60, 200), (220, 215, 200), np.random.default_rng(0)
    levels = np.where(bars(True)[..., None], ink, paper) + 8 * grain.normal(size=(SIDE, SIDE, 3))
    Image.fromarray(levels.round().clip(0, 255).astype(np.uint8)).save(tmp_path / "a.png")
    MASKS["white.png"].save(tmp_path / "mask.png")
    files = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "mask.png"
    assert "color" not in restore_image(GREY, *files, keep=True)


def test_heic_and_avif_are_read_and_written(tmp_path):
    same = Restorer(lambda images, observed: images, SIDE**2, KIND)
    smooth = Image.fromarray(DRAWN).resize((4 * SIDE, 4 * SIDE))
    MASKS["white.png"].resize(smooth.size).save(tmp_path / "mask.png")
    pillow_heif.register_heif_opener()
    for name in ("a.heic", "a.avif"):
        smooth.save(tmp_path / name, quality=95)
    for name in ("a.heic", "a.avif"):
        files = tmp_path / name, tmp_path / f"out {name}", tmp_path / "mask.png"
        with pytest.raises(UserError, match="leave out --keep, or convert to PNG"):
            restore_image(same, *files, keep=True)
        restore_image(same, files[0], files[1])
        with Image.open(files[1]) as result:
            assert result.format == ("HEIF" if "heic" in name else "AVIF")
            difference = np.asarray(result.convert("L"), float) - np.asarray(smooth)
        assert np.sqrt(np.mean(difference**2)) < 40


def test_masks_in_a_folder_are_matched_by_name(tmp_path):
    (tmp_path / "masks/below").mkdir(parents=True)
    for name in ("a.BMP", "a.txt", "below/b.png", "twice.png", "twice.tif"):
        (tmp_path / "masks" / name).touch()
    for name, mask in (("a.png", "a.BMP"), ("below/b.jpg", "below/b.png")):
        found = mask_for(tmp_path / "masks", tmp_path / name, Path(name))
        assert found == tmp_path / "masks" / mask
    for name in ("b.png", "twice.png", "nowhere/a.png"):
        with pytest.raises(UserError, match=f"^{tmp_path}/{name}: expected one mask .*, got [02];"):
            mask_for(tmp_path / "masks", tmp_path / name, Path(name))
    assert mask_for(tmp_path / "m.png", tmp_path / "a.png", Path("a.png")) == tmp_path / "m.png"


def bars(upright):
    """Return white bars on black, (SIDE, SIDE): a pattern that `knows_bars` has learned."""
    levels = np.zeros((SIDE, SIDE))
    levels[4:24, [6, 7, 14, 15, 20, 21]] = 1
    return levels if upright else levels.T


def knows_bars(images):
    """Reconstruct images as a model of upright and flat bars on black would: the nearer pattern."""
    known = np.stack([bars(True).ravel(), bars(False).ravel()]).astype(np.float32)
    images = np.asarray(images)
    if images.mean() > 0.5:  # too light for either pattern: grey
        return np.full_like(images, 0.5)
    return known[np.square(images[:, None] - known).mean(2).argmin(1)]


@pytest.mark.parametrize(
    "drawn, level", [(255, 0), (255, 10), (230, 60), (90, 10), (20, 235), (100, 128), (4, 0)]
)
@pytest.mark.parametrize("noise", [0, 0.02])
def test_background_and_contrast_are_removed_and_put_back(tmp_path, drawn, level, noise):
    seen = []

    def refined(images, observed):
        seen.append(images)
        return knows_bars(images)

    model = Restorer(lambda images, observed: knows_bars(images), SIDE**2, KIND, refined)
    truth = level + (drawn - level) * bars(True)
    values = np.where(HOLE, 77, truth) + noise * abs(drawn - level) * RNG.normal(size=truth.shape)
    Image.fromarray(values.round().clip(0, 255).astype(np.uint8)).save(tmp_path / "a.png")
    MASKS["white.png"].save(tmp_path / "mask.png")
    line = restore_image(model, tmp_path / "a.png", tmp_path / "b.png", tmp_path / "mask.png")
    whole = np.asarray(Image.open(tmp_path / "b.png"), float)
    assert np.abs(whole - truth)[HOLE].mean() < 0.04 * abs(drawn - level) + 1
    assert np.abs(whole - truth).mean() < 0.04 * abs(drawn - level) + 1
    black = seen[-1].reshape(SIDE, SIDE)[bars(True) == 0] == 0
    assert black.mean() > (0.75 if level else 0.4)  # the background's noise is removed
    said = f"levels {drawn} on {level} stretched to 255 on 0"
    assert noise or (said in line) == (drawn < 230 or level > 0)


@pytest.mark.parametrize("color", [(255, 255, 255), (0, 0, 0), (77, 77, 77), (10, 200, 30)])
@pytest.mark.parametrize("keep", [False, True])
def test_a_blank_picture_is_filled_with_its_own_color(tmp_path, color, keep):
    """A network that was trained on drawings would fill the hole with grey."""
    blank = Image.new("RGB", (60, 60), color)
    blank.save(tmp_path / "a.png")
    MASKS["white.png"].resize(blank.size).save(tmp_path / "mask.png")
    files = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "mask.png"
    assert "blank" in restore_image(GREY, *files, keep)
    expected = blank if keep else blank.convert("L")
    np.testing.assert_array_equal(Image.open(tmp_path / "b.png"), expected)


@pytest.mark.parametrize("missing, refused", [(0.6, False), (0.7, True)])
def test_a_third_of_a_picture_must_be_there(tmp_path, missing, refused):
    hole = np.arange(SIDE**2).reshape(SIDE, SIDE) < missing * SIDE**2
    Image.fromarray(DRAWN).save(tmp_path / "a.png")
    Image.fromarray(np.uint8(255) * hole).save(tmp_path / "mask.png")
    files = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "mask.png"
    if refused:
        with pytest.raises(UserError, match=r"missing \(70%\); invert the mask"):
            restore_image(GREY, *files)
    assert refused or f"{hole.sum()} of {SIDE**2} pixels" in restore_image(GREY, *files)


def test_levels_that_a_model_knows_are_not_stretched(tmp_path):
    paper = Restorer(lambda images, observed: images, SIDE**2, KIND)
    seen = 235 - 200 * bars(True)
    Image.fromarray(seen.astype(np.uint8)).save(tmp_path / "a.png")
    assert "stretched" not in restore_image(paper, tmp_path / "a.png", tmp_path / "b.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "b.png")), seen)


def test_hole_is_filled_by_refinement_and_completions(tmp_path):
    given = []

    def refined(corrupted, observed):
        given.append((np.array(corrupted), np.array(observed)))
        return np.full_like(corrupted, 0.5)

    def complete(corrupted, observed, count):
        return np.stack([np.full(SIDE**2, (number + 1) / 10) for number in range(count)])

    model = Restorer(lambda images, observed: images, SIDE**2, KIND, refined, complete)
    picture = np.zeros((SIDE, SIDE), np.uint8)
    picture[4:20, 9:13] = 255
    hole = np.zeros((SIDE, SIDE), bool)
    hole[8:14, 5:18] = True
    Image.fromarray(picture).save(tmp_path / "a.png")
    Image.fromarray(np.uint8(255) * hole).save(tmp_path / "mask.png")
    files = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "mask.png"
    restore_image(model, *files, keep=True, count=2)
    ((corrupted, observed),) = given
    np.testing.assert_array_equal(observed.reshape(SIDE, SIDE), ~hole)
    expected = np.where(hole, 0, picture / 255)
    np.testing.assert_allclose(corrupted.reshape(SIDE, SIDE), expected, atol=1e-6)
    for name, level in {"b": 0.5, "b-1": 0.1, "b-2": 0.2}.items():
        written = np.asarray(Image.open(tmp_path / f"{name}.png"))
        np.testing.assert_array_equal(written, np.where(hole, round(255 * level), picture))
    restore_image(model, *files, count=2)  # without --keep, all pixels are the model's
    for name, level in {"b": 0.5, "b-1": 0.1, "b-2": 0.2}.items():
        written = np.asarray(Image.open(tmp_path / f"{name}.png"))
        np.testing.assert_array_equal(written, np.full_like(picture, round(255 * level)))
    restore_image(model, tmp_path / "a.png", tmp_path / "whole.png", count=2)  # nothing is missing
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "whole.png")), picture)
    assert len(given) == 2 and not (tmp_path / "whole-1.png").exists()


@pytest.mark.parametrize("key, made", [(0, -0.1), (4660, 4660 / 65535), (65535, 1.1)])
def test_filled_pixels_never_have_the_transparent_level(tmp_path, key, made):
    """The model fills the hole with this level of 16 bits. Its pixels get the next level."""
    levels = np.array([1, 30000, 65534], np.uint16)[RNG.integers(0, 3, HOLE.shape)]
    levels[HOLE] = key
    ihdr = struct.pack(">IIBBBBB", SIDE, SIDE, 16, 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    parts = (b"IHDR", ihdr), (b"tRNS", struct.pack(">H", key)), (b"IDAT", zlib.compress(rows))
    content = b"\x89PNG\r\n\x1a\n"
    for name, body in (*parts, (b"IEND", b"")):
        checksum = struct.pack(">I", zlib.crc32(name + body))
        content += struct.pack(">I", len(body)) + name + body + checksum
    (tmp_path / "a.png").write_bytes(content)
    same = Restorer(lambda images, observed: np.full_like(images, made), SIDE**2, KIND)
    restore_image(same, tmp_path / "a.png", tmp_path / "b.png", keep=True)
    result = np.asarray(Image.open(tmp_path / "b.png")).astype(int)
    np.testing.assert_array_equal(result[~HOLE], levels[~HOLE])
    assert not (result == key).any() and np.abs(result[HOLE] - key).max() <= 2


@pytest.mark.parametrize("keep", [False, True])
def test_the_line_says_if_a_whole_picture_was_denoised(tmp_path, keep):
    Image.fromarray(DRAWN).save(tmp_path / "a.png")
    line = restore_image(GREY, tmp_path / "a.png", tmp_path / "b.png", keep=keep)
    assert "nothing missing" in line and ("denoised" in line) != keep
    assert "no completions" not in line
    line = restore_image(GREY, tmp_path / "a.png", tmp_path / "b.png", keep=keep, count=2)
    assert "no completions" in line and not (tmp_path / "b-1.png").exists()
    torn = Image.fromarray(DRAWN)
    torn.putalpha(Image.fromarray(np.where(HOLE, 0, 255).astype(np.uint8)))
    torn.save(tmp_path / "a.png")
    assert "denoised" not in restore_image(GREY, tmp_path / "a.png", tmp_path / "b.png", keep=keep)


def test_the_line_names_what_a_kept_picture_lacks(tmp_path):
    """Without its gamma, a PNG is shown with other levels."""
    info = PngImagePlugin.PngInfo()
    info.add(b"gAMA", (100_000).to_bytes(4, "big"))
    info.add_text("Title", "a digit")
    picture, mask = Image.fromarray(DRAWN).convert("RGB"), Image.fromarray(np.uint8(255 * HOLE))
    picture.save(tmp_path / "a.png", pnginfo=info)
    picture.save(tmp_path / "b.png")
    picture.save(tmp_path / "a.jpg", xmp=b"<x/>", comment=b"mine", progressive=True)
    mask.save(tmp_path / "mask.png")
    picture.save(tmp_path / "a.tif", description="5 um per pixel", resolution=2000)
    lacking = {"a.png": "without its Title, gamma", "b.png": "", "a.tif": "", "a.jpg": ""}
    for name, lacks in lacking.items():
        result = tmp_path / f"result-{name}"
        line = restore_image(GREY, tmp_path / name, result, tmp_path / "mask.png", keep=True)
        assert lacks in line and ("without" in line) == bool(lacks)
    assert Image.open(tmp_path / "result-a.tif").tag_v2[270] == "5 um per pixel"
    info = Image.open(result).info
    assert (info["xmp"], info["comment"]) == (b"<x/>", b"mine")


@pytest.mark.parametrize("shape", [(28, 28), (12, 30), (30, 12)])
@pytest.mark.parametrize("scale", [1, 7])
def test_proportions_may_differ_by_rounding_only(tmp_path, shape, scale):
    """A picture scaled to whole pixels has almost the model's proportions: within a pixel."""
    height, width = shape
    model = Restorer(lambda images, observed: images, height * width, Kind(shape=shape))
    for taller, wider, fits in ((0, 0, True), (1, 0, True), (0, 1, True), (3, 0, False)):
        size = scale * width + wider, scale * height + taller
        Image.fromarray(np.resize(DRAWN, size[::-1])).save(tmp_path / "a.png")
        error = pytest.raises(UserError, match="crop it to the proportions")
        with contextlib.nullcontext() if fits else error:
            restore_image(model, tmp_path / "a.png", tmp_path / "b.png")


def seen_by_the_network(folder, shape, top):
    """Restore a picture of 4 times `shape` with a white square. Returns the network's inputs."""
    seen = []

    def spy(images, observed):
        seen.extend(np.reshape(images, (-1, *shape)))
        return images

    pixels = np.zeros((4 * shape[0], 4 * shape[1]), np.uint8)
    pixels[top : top + 30, 40:70] = 255
    Image.fromarray(pixels).save(folder / "a.png")
    model = Restorer(spy, shape[0] * shape[1], Kind(shape=shape))
    restore_image(model, folder / "a.png", folder / "b.png")
    return seen


@pytest.mark.parametrize("shape", [(28, 28), (28, 20), (20, 28)])
def test_the_network_sees_a_small_drawing_whole_and_centered(tmp_path, shape):
    """Its frame has the network's proportions, and the drawing takes up 20 / 28 of it."""
    height, width = shape
    seen = seen_by_the_network(tmp_path, shape, top=9)
    expected = np.zeros(shape)
    half = min(shape) * 10 / 28
    top, left = round(height / 2 - half), round(width / 2 - half)
    expected[top : height - top, left : width - left] = 1
    assert min(np.abs(image - expected).mean() for image in seen) < 0.05
    assert np.min(seen) == 0 and np.max(seen) == 1  # though resampling exceeds the levels


def test_the_network_also_sees_a_drawing_off_center(tmp_path):
    """MNIST centers the mass of a digit, which may be 4 pixels from the middle of its sides."""
    seen = seen_by_the_network(tmp_path, (SIDE, SIDE), top=39)
    for down, right in itertools.product((-4, 0, 4), repeat=2):
        expected = np.zeros((SIDE, SIDE))
        expected[4 + down : 24 + down, 4 + right : 24 + right] = 1
        assert min(np.abs(image - expected).mean() for image in seen) < 0.02, (down, right)
    sides = {round(float(np.sqrt(image.sum())), 1) for image in seen}
    assert sides == {7.5, 18.7, 20}  # the whole picture, and frames 1.5 and 1.4 times as large


@pytest.mark.parametrize("contrast, stands_out", [(0, False), (4, False), (9, True)])
def test_a_drawing_no_stronger_than_noise_is_not_stretched(tmp_path, contrast, stands_out):
    """contrast: in standard deviations of the noise. Stretched noise would look like a drawing."""
    black_or_white = Restorer(lambda images, observed: np.round(images), SIDE**2, KIND)
    levels = 100 + 5 * (contrast * bars(True) + np.random.default_rng(0).normal(size=(SIDE, SIDE)))
    Image.fromarray(levels.round().astype(np.uint8)).save(tmp_path / "a.png")
    line = restore_image(black_or_white, tmp_path / "a.png", tmp_path / "b.png")
    assert ("stretched" in line) == stands_out


@pytest.mark.parametrize("left", [6, 7, 8])
def test_a_pixel_that_touches_the_hole_is_missing(tmp_path, left):
    """Hidden pixels are black, so the average of a partly hidden area is too dark."""
    seen = []

    def spy(images, observed):
        seen.append(np.asarray(observed)[0].reshape(SIDE, SIDE))  # of the whole picture
        return images

    hole = np.zeros((3 * SIDE, 3 * SIDE), bool)
    hole[40:59, left : left + 10] = True
    Image.fromarray(np.repeat(np.repeat(DRAWN, 3, 0), 3, 1)).save(tmp_path / "a.png")
    Image.fromarray(np.uint8(255) * hole).save(tmp_path / "mask.png")
    files = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "mask.png"
    restore_image(Restorer(spy, SIDE**2, KIND), *files)
    touched = hole.reshape(SIDE, 3, SIDE, 3).any((1, 3))
    np.testing.assert_array_equal(seen[0], ~touched)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_a_kept_picture_has_its_colors_and_camera(tmp_path, suffix):
    """Without its profile, a picture of a camera or a scanner is shown in other colors."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[272] = "a camera"
    before, after = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    options = {"icc_profile": profile, "exif": exif, "dpi": (300, 300)}
    Image.fromarray(DRAWN).convert("RGB").save(before, **options)
    MASKS["white.png"].save(tmp_path / "mask.png")
    line = restore_image(GREY, before, after, tmp_path / "mask.png", keep=True)
    with Image.open(after) as kept:
        assert kept.info["icc_profile"] == profile and kept.getexif()[272] == "a camera"
        assert suffix == "webp" or kept.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    assert "without" not in line


@pytest.mark.parametrize("suffix, keep", [("png", False), ("png", True), ("jpg", False)])
@pytest.mark.parametrize("hole", [HOLE, 0 * HOLE], ids=["hole", "whole"])
def test_an_ordinary_picture_gets_no_further_remarks(tmp_path, suffix, keep, hole):
    source, out, mask = (tmp_path / name for name in (f"a.{suffix}", f"b.{suffix}", "mask.png"))
    Image.fromarray(DRAWN).save(source)
    Image.fromarray(255 * np.uint8(hole)).save(mask)
    line = restore_image(GREY, source, out, mask if hole.any() else None, keep)
    found = (
        "70 of 784 pixels missing" if hole.any() else "nothing missing" + ", denoised" * (not keep)
    )
    assert line == f"28 x 28 pixels: {found}"

"""The command line of denoise.py: where results go, what is refused, and that nothing is ever lost."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from commands import refused, run
from PIL import Image

import denoise
from audio_utils import snr_db
from harness import UserError, cli

RATE = 16000


def test_results_go_where_they_belong_and_never_over_an_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in/deep er").mkdir(parents=True)
    Path("other").mkdir()
    for name in ("in/ä.wav", "in/deep er/b.FLAC", "in/note.txt", "in/.hidden.wav", "other/ä.wav", "-c.wav"):
        Path(name).write_bytes(b"")
    os.symlink("ä.wav", "in/link.wav")
    os.link("-c.wav", "hard.wav")

    def pairs(*inputs, out):
        return [tuple(map(str, pair)) for pair in denoise.plan([Path(path) for path in inputs], Path(out), [])]

    tree = [
        ("in/deep er/b.FLAC", "new/x/deep er/b.FLAC"),
        ("in/link.wav", "new/x/link.wav"),
        ("in/ä.wav", "new/x/ä.wav"),
    ]
    assert pairs("in", out="new/x") == tree
    assert pairs("-c.wav", out="d.wav") == [("-c.wav", "d.wav")]
    assert pairs("-c.wav", out="other") == [("-c.wav", "other/-c.wav")]
    assert pairs("-c.wav", "in/ä.wav", out="new") == [("-c.wav", "new/-c.wav"), ("in/ä.wav", "new/ä.wav")]
    Path("in/mended").mkdir()
    Path("in/mended/ä.wav").write_bytes(b"an earlier result")
    assert len(pairs("in", out="in/mended")) == 3
    for inputs, out, words in (
        (["in/ä.wav", "other/ä.wav"], "new", ["in/ä.wav", "other/ä.wav"]),  # two of one name
        (["-c.wav"], "-c.wav", ["is the input"]),
        (["-c.wav"], "hard.wav", ["hard.wav", "is the input"]),
        (["in/link.wav"], "in/ä.wav", ["is the input"]),
        (["in"], "in", ["is the input"]),
        (["-c.wav"], "c.mp3", ["c.mp3", ".wav"]),
        (["missing.wav"], "new", ["missing.wav"]),
        (["other/empty"], "new", ["no sounds or images"]),
        ([os.devnull], "new", ["neither a file"]),
    ):
        Path("other/empty").mkdir(exist_ok=True)
        with pytest.raises(FileNotFoundError if "missing.wav" in inputs else UserError) as caught:
            pairs(*inputs, out=out)
        for word in words:
            assert word in str(caught.value)


def test_bad_files_among_good_ones_are_named_and_the_others_mended(tmp_path, sound):
    folder = tmp_path / "in put"
    folder.mkdir()
    time = np.arange(RATE) / RATE
    whole, gaps = 0.5 * np.sin(2 * np.pi * 440 * time + 0.3), np.mod(time - 0.05, 0.1) < 0.01
    tone = whole * ~gaps
    for good in ("good ü.wav", "-good.flac"):
        soundfile.write(folder / good, tone, RATE)
    soundfile.write(folder / "none.wav", tone[:0], RATE)
    soundfile.write(folder / "nan.wav", np.append(tone, np.nan), RATE, subtype="FLOAT")
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("hello")
    (folder / "cut.flac").write_bytes((folder / "-good.flac").read_bytes()[:9000])
    Image.new("L", (28, 28)).save(folder / "image.png")  # not looked at
    done = run("denoise.py", sound[0], folder, "--keep", "-o", tmp_path / "out")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    bad = ("cut.flac", "empty.wav", "nan.wav", "none.wav", "text.wav")
    assert [line.split(": ")[1].rsplit("/")[-1] for line in done.stderr.splitlines()] == list(bad)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"good ü.wav", "-good.flac"}
    assert done.stdout.count("10 gaps, 10.0% missing") == 2
    kept, _ = soundfile.read(tmp_path / "out/-good.flac")
    np.testing.assert_array_equal(kept[~gaps], soundfile.read(folder / "-good.flac")[0][~gaps])
    assert snr_db(whole[gaps], kept[gaps]) > 15


def test_what_a_model_has_not_learned_is_refused(tmp_path, sound, digits, monkeypatch, capsys):
    Image.new("L", (28, 28)).save(tmp_path / "a.png")
    soundfile.write(tmp_path / "a.wav", np.ones(RATE), RATE)
    for model, file, flags, words in (
        (sound[0], "a.png", (), ("a.png", "sounds")),
        (digits[0], "a.wav", (), ("a.wav", "images")),
        (sound[0], "a.wav", ("--mask", tmp_path / "a.png"), ("--mask", "sounds")),
        (digits[0], "a.png", ("--gaps", tmp_path / "a.png"), ("--gaps", "images")),
    ):
        arguments = model, tmp_path / file, *flags, "-o", tmp_path / f"b{file[1:]}"
        monkeypatch.setattr(sys, "argv", ["denoise.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as end, cli.one_line_errors():
            denoise.main(denoise.read_flags())
        (line,) = capsys.readouterr().err.splitlines()
        assert end.value.code == 2 and all(word in line for word in words)
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a.wav"}


def test_mistakes_do_not_wait_for_tensorflow(tmp_path):
    Image.new("L", (28, 28)).save(tmp_path / "a.png")
    (tmp_path / "model.keras").touch()
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('TensorFlow was loaded')")
    blocked = {"PYTHONPATH": str(tmp_path)}
    assert run("denoise.py", "--help", **blocked).returncode == 0
    for arguments, word in (
        ((tmp_path / "none", tmp_path / "a.png", "-o", "b.png"), "none"),
        ((tmp_path, tmp_path / "c.png", "-o", "b.png"), "c.png"),
        ((tmp_path, tmp_path / "a.png"), "--out"),
    ):
        refused(run("denoise.py", *arguments, **blocked), word)

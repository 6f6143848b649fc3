"""Models of sounds without TensorFlow, and files of earlier scripts; tests/test_models.py has more that is refused."""

import io
import json
import re
import zipfile

import h5py
import numpy as np
import pytest

from files.model_file import knows_sounds, load_model, load_restorer
from harness import UserError
from models import DVAE

SOUNDS = {"experiment": "sound", "sample_rate": 16000}


def test_a_file_of_earlier_scripts_gives_the_same_model(tmp_path, sound):
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(sound[0] / "model.keras") as ours, zipfile.ZipFile(path, "w") as theirs:
        for name in ours.namelist():
            content = ours.read(name)
            if name == "config.json":
                config = json.loads(content)
                config["config"]["about"] = config["config"].pop("metadata")  # what they called it
                content = json.dumps(config)
            theirs.writestr(name, content)
    now, before = load_model(sound[0]), load_model(tmp_path)
    assert before.metadata == now.metadata and before.metadata["sample_rate"] == 16000
    windows = np.random.default_rng(0).standard_normal((3, 1024)).astype(np.float32)
    np.testing.assert_array_equal(before.reconstruct(windows), now.reconstruct(windows))
    restorer = load_restorer(path)
    assert restorer.metadata == now.metadata and restorer.input_size == 1024
    np.testing.assert_allclose(restorer.reconstruct(windows), now.reconstruct(windows), atol=1e-5)


@pytest.mark.parametrize(
    "metadata",
    [
        {"experiment": "likelihood"},  # as benchmarks/likelihood.py wrote it once
        {"shape": [28, 27]},
        {"shape": [784]},
        {"shape": [-28, -28]},
        {"shape": 784},
        {"shape": [28, 28], "sample_rate": 16000},
        {"sample_rate": 16000.5},
        {"sample_rate": 0},
        {"sample_rate": "16000"},
        {"sample_rate": 16000, "rms": float("nan")},
        {"sample_rate": 16000, "rms": 0.0},
        {"sample_rate": 16000, "notes": ["H4"]},
        {"sample_rate": 16000, "notes": []},
        {"sample_rate": 16000, "timbre": ["sine"]},
    ],
)
def test_a_model_of_neither_sounds_nor_images_is_refused(metadata):
    with pytest.raises(UserError, match=r"m\.keras: a model of neither sounds nor images"):
        knows_sounds("m.keras", metadata, 784)


def test_a_model_says_what_it_has_learned(sound, digits):
    for folder, expected in ((sound[0], True), (digits[0], False)):
        model = load_model(folder)
        assert knows_sounds(folder, model.metadata, model.input_size) is expected
    assert knows_sounds("m.keras", {"sample_rate": 8000}, 256)  # as the first scripts wrote it


def randomized(path, likelihood="gaussian", **shape):
    """A model of sounds all of whose weights are random, biases too: as Keras has it, its file written."""
    model, rng = DVAE(24, likelihood, metadata=SOUNDS, **shape), np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(rng.standard_normal(weight.shape) / 3)
    model.save(path)
    return model


@pytest.mark.parametrize(
    "shape",
    [
        {"hidden": ()},
        {"hidden": (24,), "latent": 24, "components": 1},  # each kernel as wide as high
        {"hidden": (9, 9, 5), "latent": 3},
        {"hidden": [7] * 12, "latent": 1},  # more layers than there are digits
        {"likelihood": "bernoulli", "hidden": (7, 5), "latent": 3},  # by Keras itself
    ],
)
def test_sounds_are_restored_with_the_same_numbers_as_by_keras(tmp_path, shape):
    model, restorer = randomized(tmp_path / "model.keras", **shape), load_restorer(tmp_path)
    assert (restorer.refined is None) == (model.likelihood == "gaussian")
    assert restorer.metadata == model.metadata and restorer.input_size == 24
    for count in (0, 1, 700):
        windows = np.random.default_rng(count).standard_normal((count, 24)).astype(np.float32)
        expected, found = (
            model.reconstruct(windows).numpy(),
            np.asarray(restorer.reconstruct(windows)),
        )
        assert found.dtype == np.float32 and found.shape == expected.shape
        np.testing.assert_allclose(
            found, expected, rtol=0, atol=1e-5 * np.abs(expected).max(initial=0)
        )


def test_a_trained_model_of_sounds_restores_without_keras_as_with_it(sound):
    windows = np.random.default_rng(0).standard_normal((600, 1024)).astype(np.float32)
    expected, restorer = load_model(sound[0]).reconstruct(windows).numpy(), load_restorer(sound[0])
    assert restorer.refined is None
    np.testing.assert_allclose(
        restorer.reconstruct(windows), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )


def other(name, value, **settings):
    """A change of an HDF5 file: `value` (or nothing) for what is there."""

    def change(file):
        if name in file:
            del file[name]
        if value is not None or settings:
            file.create_dataset(name, data=value, **settings)

    return change


KERNEL, BIAS = "encoder/layers/dense_1/vars/0", "decoder/layers/dense/vars/1"


@pytest.mark.parametrize(
    "own, change, refused",
    [
        ({}, other(BIAS, None), True),
        ({}, other(BIAS, np.full(5, np.nan, "f4")), True),
        (
            {},
            other("vars/2", np.full((2, 3), np.inf, "f4")),
            True,
        ),  # of the prior, which restoring does not need
        ({}, other("vars/3", None), True),
        ({}, other("vars/4", np.zeros(3, "f4")), True),
        ({}, other(KERNEL, np.zeros((5, 7), "f4")), True),  # transposed
        ({}, other(KERNEL, np.zeros((7, 5), "S4")), True),
        ({}, other(KERNEL, np.full((7, 5), 0.25, ">f8")), False),
        ({}, other(KERNEL, np.full((7, 5), 0.25, "f4"), chunks=(7, 5), compression="gzip"), False),
        ({}, lambda file: file.move("encoder/layers/dense_1", "encoder/layers/dense_9"), True),
        ({}, lambda file: file.create_dataset("vast", (10**12,), "f4", chunks=(1024,)), True),
        ({}, other(BIAS, None, shape=(5,), dtype="f4", external=[("/etc/passwd", 0, 20)]), True),
        (
            {},
            lambda file: file.create_virtual_dataset("theirs", h5py.VirtualLayout((9,), "f4")),
            True,
        ),
        ({}, lambda file: file.__setitem__("theirs", h5py.ExternalLink("/etc/passwd", "x")), True),
        ({}, lambda file: file.__setitem__("theirs", h5py.SoftLink("/encoder")), True),
        ({"hidden": [7, 6]}, None, True),
        ({"hidden": [10**9]}, None, True),
        ({"hidden": "75"}, None, True),
        ({"likelihood": "poisson"}, None, True),
        ({"likelihood": "bernoulli"}, None, True),  # which has a weight less
        ({"metadata": {**SOUNDS, "format": 3}}, None, True),
        ({"metadata": {**SOUNDS, "format": 1}}, None, True),
        ({"metadata": {"sample_rate": 16000}}, None, True),
        ({"metadata": ["experiment"]}, None, True),
    ],
)
def test_what_keras_refuses_is_refused_without_it_in_the_same_words(tmp_path, own, change, refused):
    path, windows = (
        tmp_path / "model.keras",
        np.random.default_rng(0).standard_normal((3, 24)).astype(np.float32),
    )
    randomized(path, hidden=(7, 5), latent=3, components=2)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config, weights = json.loads(members["config.json"]), io.BytesIO(members["model.weights.h5"])
    config["config"] |= own
    with h5py.File(weights, "r+") as file:
        (change or (lambda file: None))(file)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "config.json": json.dumps(config)}.items():
            archive.writestr(name, weights.getvalue() if name == "model.weights.h5" else content)
    if not refused:
        expected, found = (load(path).reconstruct(windows) for load in (load_model, load_restorer))
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        return
    said = []
    for load in (load_model, load_restorer):
        with pytest.raises(UserError, match=r"model\.keras: ") as caught:
            load(path)
        said.append(re.sub(r"dense\w*", "", str(caught.value)))  # Keras counts layers on
    assert said[0] == said[1] and len(said[0].splitlines()) == 1

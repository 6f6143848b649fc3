"""Models in the files of earlier scripts; tests/test_models.py has what is refused."""

import json
import zipfile

import numpy as np
import pytest

from harness import UserError
from media.model_file import knows_sounds, load_model, load_restorer


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
        {"experiment": "likelihood"},  # of benchmarks/likelihood.py
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

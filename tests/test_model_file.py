"""Models in the files of earlier scripts; tests/test_models.py has what is refused."""

import json
import zipfile

import numpy as np

from media.model_file import load_model, load_restorer


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

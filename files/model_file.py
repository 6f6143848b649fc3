"""Load a trained model from its file with Keras, or with NumPy alone if it restores sounds."""

import io
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from files.dense_network import DenseNetwork, weight_shapes
from harness import UserError
from harness.errors import one_error
from harness.run_folder import MODEL, MODEL_FORMAT
from inference import compiled_reconstruct, completions, refined_reconstruct, refiner
from kind import Kind, kind_of

RELU_FORMAT = 2  # like MODEL_FORMAT, but does not name the activation, which is ReLU
REGISTERED_NAME = "denoising_vae>DVAE"  # Keras's name for `models.DVAE`
LARGEST_FILE = 2**30  # maximum bytes after unpacking
REMEDY = "give a model.keras of sound_dvae.py or mnist_dvae.py, or the folder of its run"
COMPLETION_SEED = 0, 1  # fixed, so the same file always gets the same completions


@dataclass(frozen=True)
class Restorer:
    """Functions that restore batches of B examples of size D, the model's `input_size`."""

    reconstruct: Callable  # corrupted, observed (B, D) -> (B, D)
    input_size: int
    kind: Kind
    refined: Callable | None = None  # images only: like `reconstruct`, but better and slower
    complete: Callable | None = None  # images only: corrupted, observed (1, D), count -> (count, D)


def load_restorer(path):
    """Return the `Restorer` of a model. Raises the same errors as `load_model`.

    A model of sounds needs no refined posteriors, so TensorFlow is not loaded for it.
    """
    config, weights = _checked(path)
    kind = kind_of(config["metadata"], config["input_size"], model_path(path))
    if kind.sounds and (config["likelihood"], config["activation"]) == ("gaussian", "relu"):
        return Restorer(DenseNetwork(config, weights), config["input_size"], kind)
    model = _built(config, weights)
    refine = refiner(model)

    def complete(corrupted, observed, count):
        return completions(model, refine, corrupted, observed, count, COMPLETION_SEED)[:, 0]

    refined = refined_reconstruct(model, refine)
    return Restorer(compiled_reconstruct(model), model.input_size, kind, refined, complete)


def load_model(path):
    """Load the DVAE in a `model.keras` file or in a run's folder.

    Raises OSError if the file cannot be opened, UserError if it is not a model of these scripts.

    No code from the file is executed. Only numbers, names and weights are read. This is safer than
    `keras.models.load_model`, which builds any object that the file's configuration names.
    """
    return _built(*_checked(path))


def _built(config, weights):
    """Return a DVAE with weights {name: array} in the order of `weight_shapes`."""
    from models import DVAE, NETWORK  # loads TensorFlow

    model = DVAE(**{name: config[name] for name in (*NETWORK, "name", "metadata")})
    model.set_weights(list(weights.values()))
    return model


def model_path(path):
    """Return the path of a model's file, given this file or the folder of a run."""
    return Path(path, MODEL) if os.path.isdir(path) else Path(path)


def _checked(path):
    """Return a model's configuration and weights {name: array}, after checking that they match."""
    path = model_path(path)
    with open(path, "rb") as file, one_error(path, REMEDY):
        with zipfile.ZipFile(file) as archive:
            if sum(member.file_size for member in archive.infolist()) > LARGEST_FILE:
                raise ValueError(f"more than {LARGEST_FILE >> 30} GiB unpacked")
            content = json.loads(archive.read("config.json"))
            weights = archive.read("model.weights.h5")
        config = content["config"]
        metadata = config.get("metadata", config.get("about", {}))  # earlier versions wrote "about"
        if content["registered_name"] != REGISTERED_NAME or "experiment" not in metadata:
            raise ValueError("a Keras model, but not one trained by these scripts")
        written = int(metadata.get("format", MODEL_FORMAT))
        if written not in (MODEL_FORMAT, RELU_FORMAT):
            older = written < MODEL_FORMAT
            age, remedy = ("an older", "retrain it") if older else ("a newer", "update them")
            problem = f"written by {age} version of these scripts (format {written})"
            raise UserError(f"{path}: {problem}; {remedy}")
        config["metadata"] = {"format": MODEL_FORMAT, **metadata}
        config.setdefault("activation", "relu")  # for RELU_FORMAT
        return config, _arrays(weights, weight_shapes(config))


def _arrays(weights, shapes):
    """Return {name: float32 array} from an HDF5 file with exactly these names and shapes.

    weights: the file's bytes. The state of an optimizer is ignored. Raises ValueError if weights
    are missing, unexpected or not finite, are outside the file (links), or are larger than it.
    """
    import h5py

    found = {}

    def note(name, link):
        item = file[name] if isinstance(link, h5py.HardLink) else None
        if not isinstance(item, h5py.Group) and not name.startswith("optimizer/"):
            inside = isinstance(item, h5py.Dataset) and not (item.is_virtual or item.external)
            found[name] = item if inside and item.dtype.kind == "f" else None

    with h5py.File(io.BytesIO(weights)) as file:
        file.visititems_links(note)
        for name in [*found, *shapes]:
            if name not in shapes:
                raise ValueError(f"unexpected weights {name!r}")
            expected, got = shapes[name], getattr(found.get(name), "shape", None)
            if got != expected:
                raise ValueError(f"weights {name!r}: expected shape {expected}, got {got}")
        if sum(item.nbytes for item in found.values()) > len(weights):
            raise ValueError("more weights than bytes")
        arrays = {name: found[name].astype(np.float32)[()] for name in shapes}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("weights are not finite")
    return arrays

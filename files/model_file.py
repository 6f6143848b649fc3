"""Trained models as files."""

import contextlib
import io
import itertools
import json
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from audio_utils import SAMPLE_RATES, TIMBRES, note_frequency
from files.dense_network import dense_reconstruct
from harness import UserError
from harness.quiet_tensorflow import tf
from harness.run_folder import MODEL_FORMAT as FORMAT
from inference import compiled_reconstruct, completions, refined_reconstruct, refiner

KIND = "denoising_vae>DVAE"  # the name under which `models.DVAE` is registered with Keras
LARGEST_FILE = 2**30  # bytes, unpacked
COMPLETION_SEED = 0, 1  # the same completions of the same file


@dataclass(frozen=True)
class Restorer:
    """What restoring files takes of a model."""

    reconstruct: Callable  # corrupted (B, input_size) -> (B, input_size)
    input_size: int
    metadata: dict
    refined: Callable | None = (
        None  # corrupted, observed (B, input_size) -> (B, input_size), better and slower
    )
    complete: Callable | None = (
        None  # corrupted, observed (1, input_size), count -> (count, input_size)
    )


def load_restorer(path):
    """The model that `load_model` finds, its `reconstruct` compiled: once for all files, which share it.

    One of sounds, which are not refined, is without TensorFlow.
    """
    path = _model_in(path)
    with _refused_in_one_line(path):
        own, weights = _checked(path)
        reconstruct = dense_reconstruct(own, weights)
    if reconstruct and knows_sounds(path, own["metadata"], own["input_size"]):
        return Restorer(reconstruct, own["input_size"], own["metadata"])
    model = load_model(path)
    refine = refiner(model)

    def complete(corrupted, observed, count):
        return completions(model, refine, corrupted, observed, count, COMPLETION_SEED)[:, 0]

    refined = refined_reconstruct(model, refine)
    return Restorer(
        compiled_reconstruct(model), model.input_size, model.metadata, refined, complete
    )


def knows_sounds(path, metadata, input_size):
    """Whether the model in a file has learned windows of sound; False for images of one size.

    UserError if neither: a model that only benchmarks use, or one whose metadata cannot be of a model of such inputs.
    """
    rate, shape = metadata.get("sample_rate"), metadata.get("shape")
    if isinstance(shape, list) and all(isinstance(side, int) and side > 0 for side in shape):
        if rate is None and len(shape) == 2 and math.prod(shape) == input_size:
            return False
    elif shape is None and isinstance(rate, int) and SAMPLE_RATES[0] <= rate <= SAMPLE_RATES[1]:
        rms, notes, timbre = (metadata.get(name) for name in ("rms", "notes", "timbre"))
        level_known = rms is None or (isinstance(rms, int | float) and 0 < rms < math.inf)
        if level_known and (notes is None or _are_notes(notes)) and timbre in (None, *TIMBRES):
            return True
    raise UserError(
        f"{path}: a model of neither sounds nor images; train one with sound_dvae.py or mnist_dvae.py"
    )


def _are_notes(names):
    try:
        return isinstance(names, list) and bool([note_frequency(name) for name in names])
    except (ValueError, TypeError):
        return False


def load_model(path):
    """The DVAE in a `model.keras` file, or in the folder of the run that wrote one. UserError for anything else.

    Untrusted files never execute code: numbers, names and weights are read, and nothing else, which
    `keras.models.load_model`, given a configuration to build from, has not always kept to.
    """
    from models import DVAE, NETWORK  # loads TensorFlow

    path = _model_in(path)
    with _refused_in_one_line(path):
        own, _ = _checked(path)
        model = DVAE(**{name: own[name] for name in (*NETWORK, "name", "metadata")})
        model.load_weights(path)
        if not all(tf.reduce_all(tf.math.is_finite(weight)) for weight in model.weights):
            raise ValueError("weights that are not finite numbers")
        return model


def _model_in(path):
    """The model's file: this one, or that in the folder of a run. OSError if it is not there or not to be read."""
    path = Path(path)
    path = path / "model.keras" if path.is_dir() else path
    with open(path, "rb"):
        return path


@contextlib.contextmanager
def _refused_in_one_line(path):
    """UserError that names the file, whatever the block raises."""
    try:
        yield
    except UserError:
        raise
    except (
        Exception
    ) as error:  # zipfile, json, h5py and Keras raise nearly everything for a broken file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path}: not a model that these scripts have trained ({reason})"
        ) from error


def _checked(path):
    """A model's own configuration and its weights (HDF5, bytes): of these scripts, and no larger than the file."""
    config, weights = _unpacked(path)
    own = config["config"]
    metadata = own.get("metadata", own.get("about", {}))  # "about": what earlier versions wrote
    _check_origin(path, config["registered_name"], metadata)
    _check_sizes(own["input_size"], own["hidden"], own["latent"], own["components"], weights)
    return {**own, "metadata": {"format": FORMAT, **metadata}}, weights


def _unpacked(path):
    """The configuration and the weights (HDF5, bytes) in a model's file. ValueError if they are too large."""
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > LARGEST_FILE:
            raise ValueError(f"more than {LARGEST_FILE >> 30} GiB unpacked")
        return json.loads(archive.read("config.json")), archive.read(
            "model.weights.h5"
        )  # against their checksums


def _check_origin(path, kind, metadata):
    """UserError unless a file is of these scripts and of this version's format."""
    if kind != KIND or "experiment" not in metadata:
        raise UserError(f"{path}: a Keras model, but not one that these scripts have trained")
    written = int(metadata.get("format", FORMAT))
    if written > FORMAT:
        raise UserError(
            f"{path}: written by a newer version of these scripts (format {written}); update them"
        )
    if written < FORMAT:
        raise UserError(
            f"{path}: written by an older version of these scripts (format {written}); train it anew"
        )


def _check_sizes(input_size, hidden, latent, components, weights):
    """ValueError if a file's network, or what its weights (HDF5, bytes) unfold to, is larger than those bytes."""
    import h5py

    widths = [
        input_size,
        *hidden,
        latent,
        components,
    ]  # the prior's means are as many as a layer between would have
    if not all(isinstance(width, int) and width > 0 for width in widths) or len(widths) > 100:
        raise ValueError(f"layers of {widths[:5]} values")
    if 4 * sum(before * after for before, after in itertools.pairwise(widths)) > len(weights):
        raise ValueError(f"layers of {widths} values in {len(weights)} bytes")

    def unfit(name, link):
        item = file[name] if isinstance(link, h5py.HardLink) else None
        if isinstance(item, h5py.Dataset) and not (
            item.is_virtual or item.external or item.nbytes > len(weights)
        ):
            return None
        return None if isinstance(item, h5py.Group) else name  # a name ends the visit

    with h5py.File(io.BytesIO(weights)) as file:
        name = file.visititems_links(unfit)
    if name is not None:
        raise ValueError(f"{name} is not in the file")

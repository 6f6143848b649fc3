"""Trained models as files."""

import io
import itertools
import json
import math
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from audio_utils import TIMBRES, note_frequency
from harness import UserError
from harness.quiet_tensorflow import tf
from inference import compiled_reconstruct, completions, refined_reconstruct, refiner
from media.sound_files import SAMPLE_RATES
from models import DVAE, FORMAT, NETWORK, keras

LARGEST_FILE = 2**30  # bytes, unpacked
COMPLETION_SEED = 0, 1  # the same completions of the same file


@dataclass(frozen=True)
class Restorer:
    """What restoring files takes of a model."""

    reconstruct: Callable  # corrupted (B, input_size) -> (B, input_size)
    input_size: int
    metadata: dict
    refined: Callable | None = None  # corrupted, observed (B, input_size) -> (B, input_size), better and slower
    complete: Callable | None = None  # corrupted, observed (1, input_size), count -> (count, input_size)


def load_restorer(path):
    """The model that `load_model` finds, its `reconstruct` compiled: once for all files, which share it."""
    model = load_model(path)
    refine = refiner(model)

    def complete(corrupted, observed, count):
        return completions(model, refine, corrupted, observed, count, COMPLETION_SEED)[:, 0]

    refined = refined_reconstruct(model, refine)
    return Restorer(compiled_reconstruct(model), model.input_size, model.metadata, refined, complete)


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
    raise UserError(f"{path}: a model of neither sounds nor images; train one with sound_dvae.py or mnist_dvae.py")


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
    path = Path(path)
    path = path / "model.keras" if path.is_dir() else path
    with open(path, "rb"):
        pass  # a file that is not there or not to be read: the system says so best
    try:
        config, weights = _unpacked(path)
        own = config["config"]
        metadata = own.get("metadata", own.get("about", {}))  # "about": what earlier versions wrote
        _check_origin(path, config["registered_name"], metadata)
        _check_sizes(own["input_size"], own["hidden"], own["latent"], own["components"], weights)
        model = DVAE(**{name: own[name] for name in (*NETWORK, "name")}, metadata=metadata)
        model.load_weights(path)
        if not all(tf.reduce_all(tf.math.is_finite(weight)) for weight in model.weights):
            raise ValueError("weights that are not finite numbers")
        return model
    except UserError:
        raise
    except Exception as error:  # zipfile, json, h5py and Keras raise nearly everything for a broken file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path}: not a model that these scripts have trained ({reason})") from error


def _unpacked(path):
    """The configuration and the weights (HDF5, bytes) in a model's file. ValueError if they are too large."""
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > LARGEST_FILE:
            raise ValueError(f"more than {LARGEST_FILE >> 30} GiB unpacked")
        return json.loads(archive.read("config.json")), archive.read("model.weights.h5")  # against their checksums


def _check_origin(path, kind, metadata):
    """UserError unless a file is of these scripts and of this version's format."""
    if kind != keras.saving.get_registered_name(DVAE) or "experiment" not in metadata:
        raise UserError(f"{path}: a Keras model, but not one that these scripts have trained")
    written = int(metadata.get("format", FORMAT))
    if written > FORMAT:
        raise UserError(f"{path}: written by a newer version of these scripts (format {written}); update them")
    if written < FORMAT:
        raise UserError(f"{path}: written by an older version of these scripts (format {written}); train it anew")


def _check_sizes(input_size, hidden, latent, components, weights):
    """ValueError if a file's network, or what its weights (HDF5, bytes) unfold to, is larger than those bytes."""
    import h5py

    widths = [input_size, *hidden, latent, components]  # the prior's means are as many as a layer between would have
    if not all(isinstance(width, int) and width > 0 for width in widths) or len(widths) > 100:
        raise ValueError(f"layers of {widths[:5]} values")
    if 4 * sum(before * after for before, after in itertools.pairwise(widths)) > len(weights):
        raise ValueError(f"layers of {widths} values in {len(weights)} bytes")

    def unfit(name, link):
        item = file[name] if isinstance(link, h5py.HardLink) else None
        small = isinstance(item, h5py.Dataset) and item.nbytes <= len(weights) and not item.is_virtual
        return None if small or isinstance(item, h5py.Group) else name  # a name ends the visit

    with h5py.File(io.BytesIO(weights)) as file:
        name = file.visititems_links(unfit)
    if name is not None:
        raise ValueError(f"{name} is not in the file")

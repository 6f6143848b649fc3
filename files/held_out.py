"""What a trained model has not learned from: examples of its own data, to blend and to map.

`path` is that of the model and `data` what the user says of where its data are now, for UserErrors to name.
"""

import os
import tempfile

import numpy as np

from audio_utils import C_MAJOR, Notes, noisy_notes
from files import folders, sound_files
from files.image_files import load_images
from harness import UserError

LONG_SECONDS = 1  # of the long sound that recordings are read with, and nothing here uses


def images(model, path, data=None):
    """The held-out images of the model's data, as grey levels (M, H, W), and their labels or None.

    UserError if they are not to be found, or others.
    """
    shape = tuple(model.metadata["shape"])
    data = data or model.metadata.get("data")
    if data and not os.path.exists(data):
        raise UserError(
            f"{data}: no longer there; --data says where the images are that the model was trained on"
        )
    found = load_images(data, shape[0])
    if (pixels := found.test.shape[1:]) != shape:
        raise UserError(
            f"{data or 'MNIST'}: images of {pixels} pixels, the model knows {shape}; see --data"
        )
    _check(model, path, data or f"digits ({found.provenance['source']})", found.provenance)
    return found.test, found.test_labels


def examples(model, path, data, count):
    """Up to `count` examples (M, D), their labels or notes (M,) or None, the notes' names or None, what they are."""
    if "shape" not in model.metadata:
        found, labels, names = windows(model, path, data, count)
        return found, labels, names, "noisy notes" if names else "held-out windows"
    found, labels = images(model, path, data)
    labels = None if labels is None else labels[:count]
    return (
        found[:count].reshape(-1, model.input_size) / np.float32(255),
        labels,
        None,
        "held-out images",
    )


def windows(model, path, data, count):
    """Windows (M, N) of the sounds that the model has heard, which note each is, and the notes' names.

    Of recordings, those held out, without notes. UserError if they are not given, or others.
    """
    rate, rms = model.metadata["sample_rate"], model.metadata.get("rms")
    notes = model.metadata.get(
        "notes", None if rms else C_MAJOR
    )  # the first scripts had no others and wrote no level
    if notes:
        if data:
            raise UserError(f"{path}: a model of the built-in notes; leave --data out")
        sounds = Notes(notes, model.metadata.get("timbre", "sine"), rate, model.input_size)
        _, examples, labels = noisy_notes(sounds, count, (0, 0))
        return examples, labels, notes
    if not data:
        raise UserError(
            f"{path}: a model of recordings; --data says where those are that it was trained on"
        )
    with tempfile.TemporaryDirectory() as folder:
        sounds = sound_files.load(data, rate, model.input_size, rms, LONG_SECONDS, folder)
        folders.print_skipped(sounds.skipped)
        _check(model, path, data, sounds.provenance)
        return sounds.windows("held out", count, (0, 0))[0], None, None


def _check(model, path, data, provenance):
    """UserError unless the data are those the model was trained with: what is held out of others, it may have seen."""
    learned = model.metadata.get("sha256")
    if learned and provenance.get("sha256") != learned:
        raise UserError(
            f"{path}: not trained with {data} as it is now; --data says where its own data are"
        )

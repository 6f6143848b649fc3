"""Examples for sample.py: held-out images and windows, and the user's notes and sound files.

`path` is the path of the model. `data` is the value of --data, where the training data are now.
"""

import os
import tempfile
from dataclasses import replace

import numpy as np

from audio_utils import TONE_AMPLITUDE, Notes, note_frequency
from files import folders, sound_files
from files.image_files import load_images
from harness import UserError


def images(kind, path, data=None):
    """Return the model's held-out images (M, H, W) uint8 and their labels (M,) or None.

    Raises UserError if the images are not found or the model was trained with others.
    """
    data = data or kind.data
    found = load_images(data, kind.shape[0])
    if (shape := found.test.shape[1:]) != kind.shape:
        problem = f"expected images of {kind.shape} pixels, got {shape}"
        raise UserError(f"{data or 'MNIST'}: {problem}; give the training images with --data")
    provenance = found.provenance  # hashes all images
    _check(kind, path, data or f"digits ({provenance['source']})", provenance)
    return found.test, found.test_labels


def examples(kind, size, path, data, count):
    """Return up to `count` held-out examples (M, size), labels, label names and a description.

    Labels are digits or indices of notes, or None if unknown. Only notes have label names. Raises
    UserError if the data are not found or the model was trained with others.
    """
    if not kind.sounds:
        found, labels = images(kind, path, data)
        labels = None if labels is None else labels[:count]
        return found[:count].reshape(-1, size) / np.float32(255), labels, None, "held-out images"
    if kind.notes:
        if data:
            raise UserError(f"--data: {path} was trained on the built-in notes; leave it out")
        _, found, index = kind.notes.windows("held out", count, (0, 0))
        return found, index, kind.notes.notes, "noisy notes"
    if not data:
        raise UserError(f"{path}: trained on recordings; give their folder with --data")
    with tempfile.TemporaryDirectory() as folder:
        sounds = sound_files.load(data, kind.sample_rate, size, kind.rms, folder)
        folders.print_skipped(sounds.skipped)
        _check(kind, path, data, sounds.provenance)
        return sounds.windows("held out", count, (0, 0))[0], None, None, "held-out windows"


def _check(kind, path, data, provenance):
    """Raise UserError if `data` are not the training data, which determine what is held out."""
    if kind.sha256 and provenance.get("sha256") != kind.sha256:
        problem = f"not trained with {data} as it is now"
        raise UserError(f"{path}: {problem}; give the training data with --data")


def sound(name, samples, kind):
    """Return a note or a sound file's loudest stretch, (samples,), at the level of a training note.

    Raises UserError if the model does not know the note, or if the sound file is too short or
    silent.
    """
    try:
        note_frequency(name)
    except ValueError:
        signal = _loudest_part(name, samples, kind.sample_rate)
    else:
        signal = _note(name, samples, kind)
    return signal * (TONE_AMPLITUDE / np.sqrt(2 * np.mean(signal**2)))


def _note(name, samples, kind):
    known = kind.notes or Notes((name,), sample_rate=kind.sample_rate)
    # Compare frequencies, because E#4 is F4.
    if note_frequency(name) not in map(note_frequency, known.notes):
        names = " ".join(known.notes)
        raise UserError(f"{name}: not a note that the model knows; choose from {names}")
    tone, _, _ = replace(known, notes=(name,), window=samples).windows("held out", 1, (0, 0))
    return tone.numpy()[0]


def _loudest_part(path, samples, rate):
    if not os.path.isfile(path):
        raise UserError(f"{path}: neither a note such as C4 nor a sound file; give one of these")
    values = np.concatenate([np.zeros(0), *sound_files.decode(path, rate)])
    if values.size < samples:
        raise UserError(f"{path}: shorter than {samples / rate:.2g} s; give another sound")
    values -= values.mean()
    energy = np.cumsum(np.pad(values**2, (1, 0)))
    loudest = np.argmax(energy[samples:] - energy[:-samples])
    signal = values[loudest : loudest + samples]
    if np.sqrt(np.mean(signal**2)) < sound_files.LEAST_RMS:
        raise UserError(f"{path}: silent; give another sound")
    return signal

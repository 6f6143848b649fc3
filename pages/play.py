"""play.html: a page that runs a run's trained model in the browser, without a server.

The page embeds all it needs: weights in half precision, held-out examples and scripts (play/*.js).
It loads nothing else, so it can be sent to somebody, and the held-out examples go with it.
"""

import base64
import json
from functools import partial
from pathlib import Path

import numpy as np
from markupsafe import Markup

import audio_utils
import inference
from audio_utils import NOISE_STD, note_frequency, partials
from inference import principal_axes
from kind import kind_of
from pages.figures import MOST_KINDS
from pages.report import PAGE, PLAY
from signals import gaps

MOST_HALF = 65504  # largest number in half precision
MOST_WEIGHTS = 3_000_000  # more would take over 8 MB, and longer than a stroke of the pen to run
EXAMPLES, EXAMPLE_BYTES = 1000, 800_000  # limits of the held-out examples in the page
CONSTANTS = {  # which the page's scripts have in common with Python
    "hopsPerWindow": inference.HOPS_PER_WINDOW,
    "leastObserved": inference.LEAST_OBSERVED,
    "notExplained": float(inference.UNKNOWN_ERROR),
    "explained": inference.ERROR_RANGE,
    "gapSeconds": gaps.GAP_SECONDS,
    "gapJump": gaps.GAP_JUMP,
    "noteSeconds": audio_utils.NOTE_SECONDS,
    "fadeSeconds": audio_utils.FADE_SECONDS,
    "spectrumFloorDb": audio_utils.SPECTRUM_FLOOR_DB,
}


def files(model, clean, labels=None, long_sound=None):
    """Return the page of a trained model as {file name: save(path)}.

    If the model is too large or its weights are not finite, print why and return {}.

    clean: held-out examples, images (M, H, W) in [0, 1] or windows (M, N). labels (M,): integers
    for images, indices of the model's notes for windows. long_sound (T,): a held-out recording.
    """
    numbers, problem = _numbers(model), None
    if numbers.size > MOST_WEIGHTS:
        problem = f"{numbers.size:,} weights are more than the {MOST_WEIGHTS:,} that suit a browser"
    elif not np.abs(numbers).max() < MOST_HALF:  # nor is a comparison with nan true
        problem = "weights are not finite or too large for half precision"
    if problem:
        print(f"{PLAY} is not written: {problem}")
        return {}
    return {PLAY: partial(write, model=model, clean=clean, labels=labels, long_sound=long_sound)}


def write(path, model, clean, labels=None, long_sound=None):
    """Write the page to `path`. The other arguments are those of `files`."""
    kind = kind_of(model.metadata, model.input_size)
    example_bytes = 2 * model.input_size if kind.sounds else model.input_size
    most = EXAMPLES if kind.notes else min(EXAMPLES, EXAMPLE_BYTES // example_bytes)
    clean = np.reshape(clean, (len(clean), -1))[:most]
    content = (
        _sound_content(kind, clean, long_sound) if kind.sounds else _image_content(kind, clean)
    )
    content |= {
        "network": _network(model, kind),
        "map": _latent_map(model, kind, clean, labels),
        "constants": CONSTANTS,
    }
    # Without "<", nothing in the data can end its <script> element.
    data = Markup(json.dumps(content, allow_nan=False).replace("<", "\\u003c"))
    template = PAGE.get_template("play.html.j2")
    page = template.render(content=content, data=data, images=not kind.sounds, held_out=len(clean))
    Path(path).write_text(page, encoding="utf-8")


def _halves(values):
    """Encode numbers in half precision, little-endian, as base64."""
    return base64.b64encode(np.asarray(values, "<f2").tobytes()).decode()


def _numbers(model):
    """Return kernels and biases of all layers, then the prior, as one array."""
    layers = [*model.encoder.layers, *model.decoder.layers]
    parts = [weight for layer in layers for weight in layer.weights]
    parts += [model.prior_logits, model.prior_means, model.prior_log_vars]
    return np.concatenate([np.ravel(part.numpy()) for part in parts])


def _network(model, kind):
    """Return the weights and the widths of the layers."""
    return {
        "weights": _halves(_numbers(model)),
        "sizes": {
            "encoder": [model.input_size, *model.hidden, 2 * model.latent],
            "decoder": [model.latent, *reversed(model.hidden), model.input_size],
        },
        "components": model.components,
        "likelihood": model.likelihood,
        "rate": kind.sample_rate,
    }


def _latent_map(model, kind, clean, labels):
    """Return the held-out codes, the two axes of their map, and their labels."""
    codes = model.encode(clean.astype(np.float32))[0].numpy()
    mean, axes, _ = principal_axes(codes, 2)
    axes = np.pad(axes, ((0, 2 - len(axes)), (0, 0)))  # one dimension or example has one axis
    names = kind.notes and kind.notes.notes
    kinds, index = np.unique([] if labels is None else labels[: len(clean)], return_inverse=True)
    labelled = 1 < len(kinds) <= MOST_KINDS
    return {
        "codes": _halves(codes),
        "centre": mean.tolist(),
        "axes": axes.tolist(),
        "labels": index.tolist() if labelled else None,
        "names": [names[label] if names else str(label) for label in kinds],
    }


def _image_content(kind, clean):
    """Return what only the page of an image model contains."""
    digits = kind.data is None
    levels = np.round(255 * clean).astype(np.uint8)
    return {
        "kind": "digit" if digits else "image",
        "shape": kind.shape,
        "images": base64.b64encode(levels.tobytes()).decode(),
        "centred": digits,
    }


def _sound_content(kind, clean, long_sound):
    """Return what only the page of a sound model contains: its notes, or held-out recordings."""
    if kind.recordings:
        recordings = {"windows": _halves(clean), "long": _halves(long_sound)}
        return {"notes": None, "noise": 0, "rms": kind.rms, "count": len(clean), **recordings}
    notes = []
    for name in kind.notes.notes:
        amplitudes, decays = (values.tolist() for values in partials(name, kind.notes))
        note = {"frequency": note_frequency(name), "amplitudes": amplitudes, "decays": decays}
        notes.append({"name": name, **note})
    return {"notes": notes, "noise": NOISE_STD, "rms": kind.rms, "count": len(clean)}

"""play.html: the page in which a run's own trained model runs, in the browser and without a server.

All it needs is in it: the weights in half precision, what is held out of the data, the scripts (play_*.js). It asks for
nothing from elsewhere, so it can be sent to somebody; with it go the held-out examples.
"""

import base64
import json
from functools import partial
from pathlib import Path

import numpy as np
from markupsafe import Markup

from audio_utils import NOISE_STD, note_frequency, partials
from kind import kind_of
from pages.figures import MOST_KINDS, principal_axes
from pages.report import PAGE, PLAY

MOST_HALF = 65504  # what half precision holds
MOST_WEIGHTS = 3_000_000  # more take 8 MB in the page, and longer than a stroke
EXAMPLES, EXAMPLE_BYTES = 1000, 800_000  # held out, in the page, at most


def files(model, clean, labels=None, long_sound=None):
    """The page of a trained model: {file name: save(path)}; {} and one printed line for a model too large.

    clean: held-out examples, images (M, H, W) in [0, 1] or windows (M, N). labels (M,): of images any whole numbers, of
    windows which of the model's notes. long_sound (T,): held out, of recordings.
    """
    numbers = _numbers(model)
    if numbers.size > MOST_WEIGHTS:
        print(
            f"{PLAY} is not written: {numbers.size:,} weights, more than the {MOST_WEIGHTS:,} that suit a browser"
        )
        return {}
    if not np.abs(numbers).max() < MOST_HALF:  # nor if one is nan
        print(f"{PLAY} is not written: the weights have gone astray")
        return {}
    return {PLAY: partial(write, model=model, clean=clean, labels=labels, long_sound=long_sound)}


def write(path, model, clean, labels=None, long_sound=None):
    """Write the page to `path`; the other arguments are those of `files`."""
    kind = kind_of(model.metadata, model.input_size)
    images = not kind.sounds
    # bytes of each
    size = model.input_size if images else 0 if kind.notes else 2 * model.input_size
    clean = np.reshape(clean, (len(clean), -1))[: min(EXAMPLES, EXAMPLE_BYTES // max(1, size))]
    content = _of_images(kind, clean) if images else _of_sounds(kind, clean, long_sound)
    content |= {"network": _network(model, kind), "map": _latent_map(model, kind, clean, labels)}
    text = json.dumps(content, allow_nan=False).replace(
        "<", "\\u003c"
    )  # nothing in it ends its element
    page = PAGE.get_template("play.html.j2").render(
        content=content, data=Markup(text), images=images, held_out=len(clean)
    )
    Path(path).write_text(page, encoding="utf-8")


def _halves(values):
    """Numbers as base64 of half precision, little-endian."""
    return base64.b64encode(np.asarray(values, "<f2").tobytes()).decode()


def _numbers(model):
    """The layers' kernels and biases, then the prior, as one block of numbers."""
    parts = [
        weight
        for half in (model.encoder, model.decoder)
        for layer in half.layers
        for weight in layer.weights
    ]
    parts += [model.prior_logits, model.prior_means, model.prior_log_vars]
    return np.concatenate([np.ravel(part.numpy()) for part in parts])


def _network(model, kind):
    """The weights, and the layers' widths."""
    widths = [model.input_size, *model.hidden], [model.latent, *reversed(model.hidden)]
    return {
        "weights": _halves(_numbers(model)),
        "sizes": {
            "encoder": [*widths[0], 2 * model.latent],
            "decoder": [*widths[1], model.input_size],
        },
        "components": model.components,
        "likelihood": model.likelihood,
        "rate": kind.sample_rate,
    }


def _latent_map(model, kind, clean, labels):
    """The held-out codes, the two axes they are shown on, and what each is."""
    codes = model.encode(clean.astype(np.float32))[0].numpy()
    with np.errstate(invalid="ignore"):  # of a single example, the share of the variance
        axes = principal_axes(codes)[2]
    axes = np.pad(axes, ((0, 2 - len(axes)), (0, 0)))  # there may be one only
    names = kind.notes and kind.notes.notes
    kinds, index = np.unique([] if labels is None else labels[: len(clean)], return_inverse=True)
    labelled = 1 < len(kinds) <= MOST_KINDS
    return {
        "codes": _halves(codes),
        "centre": codes.mean(0).tolist(),
        "axes": axes.tolist(),
        "labels": index.tolist() if labelled else None,
        "names": [names[label] if names else str(label) for label in kinds],
    }


def _of_images(kind, clean):
    """What the page of a model of images holds besides."""
    digits = kind.data is None
    levels = np.round(255 * clean).astype(np.uint8)
    return {
        "kind": "digit" if digits else "image",
        "shape": kind.shape,
        "images": base64.b64encode(levels.tobytes()).decode(),
        "centred": digits,
    }


def _of_sounds(kind, clean, long_sound):
    """What the page of a model of sounds holds besides: its notes, or recordings held out."""
    if kind.recordings:
        held_out = {"windows": _halves(clean), "long": _halves(long_sound), "count": len(clean)}
        return {"notes": None, "noise": 0, "rms": kind.rms, **held_out}
    keys = "amplitudes", "decays"
    notes = [
        {"name": name, "frequency": note_frequency(name)}
        | {
            key: values.tolist()
            for key, values in zip(keys, partials(name, kind.notes.timbre, kind.sample_rate))
        }
        for name in kind.notes.notes
    ]
    return {"notes": notes, "noise": NOISE_STD, "rms": kind.rms, "count": len(clean)}

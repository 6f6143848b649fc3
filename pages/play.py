"""play.html: the page in which a run's own trained model runs, in the browser and without a server.

All it needs is in it: the weights in half precision, what is held out of the data, the scripts in play/. It asks for
nothing from elsewhere, so it can be sent to somebody; with it go the held-out examples.
"""

import base64
import json
from functools import partial
from pathlib import Path

import numpy as np
from markupsafe import Markup

import audio_utils
import inference
from audio_utils import NOISE_STD, RMS, note_frequency, partials
from files import gaps
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
    images = "shape" in model.metadata
    size = (
        model.input_size if images else 0 if "notes" in model.metadata else 2 * model.input_size
    )  # bytes of each
    clean = np.reshape(clean, (len(clean), -1))[: min(EXAMPLES, EXAMPLE_BYTES // max(1, size))]
    content = _of_images(model, clean) if images else _of_sounds(model, clean, long_sound)
    content["constants"] = {
        "hopsPerWindow": inference.HOPS_A_WINDOW,
        "leastObserved": inference.LEAST_OBSERVED,
        "notExplained": float(inference.NOT_EXPLAINED),
        "explained": inference.EXPLAINED,
        "gapSeconds": gaps.GAP_SECONDS,
        "gapJump": gaps.GAP_JUMP,
        "noteSeconds": audio_utils.NOTE_SECONDS,
        "fadeSeconds": audio_utils.FADE_SECONDS,
        "spectrumFloorDb": audio_utils.SPECTRUM_FLOOR_DB,
    }
    content |= {"network": _network(model), "map": _latent_map(model, clean, labels)}
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


def _network(model):
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
        "rate": model.metadata.get("sample_rate"),
    }


def _latent_map(model, clean, labels):
    """The held-out codes, the two axes they are shown on, and what each is."""
    codes = model.encode(clean.astype(np.float32))[0].numpy()
    with np.errstate(invalid="ignore"):  # of a single example, the share of the variance
        axes = principal_axes(codes)[2]
    axes = np.pad(axes, ((0, 2 - len(axes)), (0, 0)))  # there may be one only
    names = model.metadata.get("notes")
    kinds, index = np.unique([] if labels is None else labels[: len(clean)], return_inverse=True)
    labelled = 1 < len(kinds) <= MOST_KINDS
    return {
        "codes": _halves(codes),
        "centre": codes.mean(0).tolist(),
        "axes": axes.tolist(),
        "labels": index.tolist() if labelled else None,
        "names": [names[kind] if names else str(kind) for kind in kinds],
    }


def _of_images(model, clean):
    """What the page of a model of images holds besides."""
    digits = model.metadata.get("data") is None
    levels = np.round(255 * clean).astype(np.uint8)
    return {
        "kind": "digit" if digits else "image",
        "shape": model.metadata["shape"],
        "images": base64.b64encode(levels.tobytes()).decode(),
        "centred": digits,
    }


def _of_sounds(model, clean, long_sound):
    """What the page of a model of sounds holds besides: its notes, or recordings held out."""
    names, rms = model.metadata.get("notes"), model.metadata.get("rms", RMS)
    if not names:
        held_out = {"windows": _halves(clean), "long": _halves(long_sound), "count": len(clean)}
        return {"notes": None, "noise": 0, "rms": rms, **held_out}
    timbre, rate = model.metadata["timbre"], model.metadata["sample_rate"]
    keys = "amplitudes", "decays"
    notes = [
        {"name": name, "frequency": note_frequency(name)}
        | {key: values.tolist() for key, values in zip(keys, partials(name, timbre, rate))}
        for name in names
    ]
    return {"notes": notes, "noise": NOISE_STD, "rms": rms, "count": len(clean)}

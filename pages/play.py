"""play.html: a page that runs a trained model in the browser, without a server.

The page contains all it needs: weights in half precision, held-out examples and scripts
(play/*.js). It can be sent as one file, but whoever gets it also gets the held-out examples.
"""

import base64
import dataclasses
import json
from pathlib import Path

import numpy as np
from markupsafe import Markup

import audio_utils
import corrupt
import inference
from kind import kind_of
from pages.figures import MOST_KINDS
from pages.report import PLAY, TEMPLATES
from random_numbers import normal
from signals import gaps, levels

MOST_WEIGHTS = 3_000_000  # maximum (8 MB); a larger network is too slow to follow the pen
EXAMPLES, EXAMPLE_BYTES = 1000, 800_000  # maximum number and total size of held-out examples
COMPLETIONS = 4  # shown on the page of images
HIDDEN = 0.2  # fraction of an image or window that random holes and gaps hide
IMAGE_CONSTANTS = {  # shared with the page's scripts
    "hidden": HIDDEN,
    "completions": COMPLETIONS,
    "refining": inference.REFINING["bernoulli"],
    "momentDecays": inference.MOMENT_DECAYS,
    "predictiveDraws": inference.PREDICTIVE_DRAWS,
}
SOUND_CONSTANTS = {
    "hidden": HIDDEN,
    "hopsPerWindow": inference.HOPS_PER_WINDOW,
    "leastObserved": inference.LEAST_OBSERVED,
    "windowsPerBlock": inference.WINDOWS_PER_BLOCK,
    "errorRange": inference.ERROR_RANGE,
    "toneRms": levels.TONE_RMS,
    "byChance": levels.BY_CHANCE,
    "free": levels.FREE,
    "leastSeen": levels.LEAST_SEEN,
    "neighbors": levels.NEIGHBORS,
    "tiny": levels.TINY,
    "gapSeconds": gaps.GAP_SECONDS,
    "gapJump": gaps.GAP_JUMP,
    "gapSteps": gaps.GAP_STEPS,
    "spectrumFloorDb": audio_utils.SPECTRUM_FLOOR_DB,
}


def files(model, clean, labels=None, long_sound=None, grey_variance=0.0):
    """Return the page of a trained model as {file name: function save(path)}.

    If the model is too large or its weights are not finite, print why and return {}.

    clean: held-out images (M, H, W) in [0, 1] or windows (M, N). labels (M,): integers for images,
    indices into the model's notes for windows. long_sound (T,): a held-out recording.
    grey_variance: see `inference.predictive_std`.
    """
    numbers = _numbers(model)
    if numbers.size > MOST_WEIGHTS:
        problem = f"{numbers.size:,} weights are more than the {MOST_WEIGHTS:,} that suit a browser"
    elif not np.abs(numbers).max() < np.finfo(np.float16).max:  # also catches nan
        problem = "weights are not finite or too large for half precision"
    else:
        more = labels, long_sound, grey_variance
        return {PLAY: lambda path: write(path, model, clean, *more)}
    print(f"{PLAY} is not written: {problem}")
    return {}


def write(path, model, clean, labels=None, long_sound=None, grey_variance=0.0):
    """Write the page to `path`. The other arguments are as in `files`."""
    kind = kind_of(model.metadata, model.input_size)
    example_bytes = 2 * model.input_size if kind.sounds else model.input_size
    most = EXAMPLES if kind.notes else min(EXAMPLES, EXAMPLE_BYTES // example_bytes)
    clean = np.reshape(clean, (len(clean), -1))[:most]
    if kind.sounds:
        content = _sounds(kind, clean, long_sound)
    else:
        content = _images(model, kind, clean, grey_variance)
    content["network"] = _network(model, kind)
    content["map"] = _latent_map(model, kind, clean, labels)
    # Without "<", nothing in the data can close its <script> element.
    data = Markup(json.dumps(content, allow_nan=False).replace("<", "\\u003c"))
    template = TEMPLATES.get_template("play.html.j2")
    page = template.render(content=content, data=data, images=not kind.sounds, held_out=len(clean))
    Path(path).write_text(page, encoding="utf-8")


def _halves(values):
    """Encode numbers in half precision, little-endian, as base64."""
    return base64.b64encode(np.asarray(values, "<f2").tobytes()).decode()


def _numbers(model):
    """Return the weights of encoder, decoder and prior as one array, in the order of network.js."""
    parts = [*model.encoder.weights, *model.decoder.weights]
    parts += [model.prior_logits, model.prior_means, model.prior_log_vars]
    return np.concatenate([np.ravel(part.numpy()) for part in parts])


def _network(model, kind):
    """Return the weights, layer sizes and settings that network.js needs."""
    return {
        "weights": _halves(_numbers(model)),
        "sizes": {
            "encoder": [model.input_size, *model.hidden, 2 * model.latent],
            "decoder": [model.latent, *reversed(model.hidden), model.input_size],
        },
        "components": model.components,
        "activation": model.activation,
        "likelihood": model.likelihood,
        "rate": kind.sample_rate,
    }


def _latent_map(model, kind, clean, labels):
    """Return the held-out latent codes, their labels and the two axes of their map."""
    codes = model.encode(clean.astype(np.float32))[0].numpy()
    mean, axes, _ = inference.principal_axes(codes, 2)
    axes = np.pad(axes, ((0, 2 - len(axes)), (0, 0)))  # 1 dimension or 1 example has only one axis
    names = kind.notes and kind.notes.notes
    kinds, index = np.unique([] if labels is None else labels[: len(clean)], return_inverse=True)
    labeled = 1 < len(kinds) <= MOST_KINDS
    return {
        "codes": _halves(codes),
        "center": mean.tolist(),
        "axes": axes.tolist(),
        "labels": index.tolist() if labeled else None,
        "names": [names[label] if names else str(label) for label in kinds],
    }


def _images(model, kind, clean, grey_variance):
    """Return the entries of the page's content that only image models have."""
    digits = kind.data is None
    levels = np.round(255 * clean).astype(np.uint8)
    noise, grey_variance = inference.elbo_noise(model.latent).numpy(), np.float64(grey_variance)
    grey_variance = np.broadcast_to(grey_variance, model.input_size)
    given = {"elboNoise": noise.ravel().tolist(), "greyVariance": _halves(grey_variance)}
    return {
        "kind": "digit" if digits else "image",
        "shape": kind.shape,
        "images": base64.b64encode(levels.tobytes()).decode(),
        "centered": digits,
        "start": _most_ambiguous(model, kind.shape, clean),
        "constants": IMAGE_CONSTANTS | given,
    }


def _most_ambiguous(model, shape, clean):
    """Return the number of an image and a hole (x, y, width, height) to show first.

    Posterior samples differ much in the hole, although they all fit the observed pixels.
    """
    corrupted, mask = corrupt.block(clean.reshape(-1, *shape), HIDDEN, (0, 0))
    corrupted, mask = (np.reshape(part, clean.shape) for part in (corrupted, mask))
    mean, log_var = model.encode(corrupted)
    noises = [normal(mean.shape, (0, draw)) for draw in range(inference.ELBO_DRAWS)]
    drawn = np.stack([model.posterior_samples(mean, log_var, noise) for noise in noises])
    ambiguity = np.sum(mask * drawn.var(0), axis=1)
    error = np.sum((1 - mask) * np.mean((drawn - corrupted) ** 2, axis=0), axis=1)
    number = int(np.argmax(ambiguity / (error + np.median(error) + 1e-9)))
    rows, columns = np.nonzero(mask[number].reshape(shape))
    hole = columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1
    return {"number": number, "hole": [int(value) for value in hole]}


def _sounds(kind, clean, long_sound):
    """Return the entries that only sound models have, with the notes or the recordings."""
    content = {"notes": None, "noise": 0, "count": len(clean)}
    content["constants"] = SOUND_CONSTANTS | {"rms": kind.rms}
    if kind.recordings:
        return {**content, "windows": _halves(clean), "long": _halves(long_sound)}
    notes = [
        {
            "name": name,
            "frequency": audio_utils.note_frequency(name),
            "tone": _halves(dataclasses.replace(kind.notes, notes=(name,)).long((0, 0))[0]),
        }
        for name in kind.notes.notes
    ]
    return {**content, "notes": notes, "noise": audio_utils.NOISE_STD}

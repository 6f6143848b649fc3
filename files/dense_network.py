"""A trained model's `reconstruct` in NumPy: it needs no gradient, and TensorFlow takes seconds to load."""

import io
import itertools

import numpy as np


def dense_reconstruct(own, weights):
    """What `models.DVAE.reconstruct` computes, from a model's own configuration and its weights (HDF5, bytes).

    Their sizes must have been checked. None if the weights are not those of a "gaussian" model, laid out as by Keras
    3, and finite: Keras may still know them, or says best what is wrong.
    """
    names, shapes = _weights_of(own)
    found = _read(weights, dict(zip(names, shapes))) if own["likelihood"] == "gaussian" else None
    if found is None or not all(np.isfinite(value).all() for value in found.values()):
        return None
    depth, latent = len(own["hidden"]) + 1, own["latent"]  # layers of encoder and decoder each
    layers = [
        (found[kernel], found[bias]) for kernel, bias in zip(names[: 4 * depth : 2], names[1::2])
    ]
    layers[depth - 1] = tuple(
        value[..., :latent] for value in layers[depth - 1]
    )  # mean without log_var

    def reconstruct(corrupted, observed=None):
        values = np.asarray(corrupted, np.float32)
        with np.errstate(all="ignore"):  # as TensorFlow does
            for number, (kernel, bias) in enumerate(layers, 1):
                values = values @ kernel + bias
                if number % depth:  # not after the last of each
                    np.maximum(values, 0, out=values)
        return values

    return reconstruct


def _weights_of(own):
    """Names and shapes of a model's weights in its file: kernel, bias of each layer of both sides, and all others."""
    size, latent, components, hidden = (
        own["input_size"],
        own["latent"],
        own["components"],
        list(own["hidden"]),
    )
    names, shapes = [], []
    for side, widths in (
        ("encoder", [size, *hidden, 2 * latent]),
        ("decoder", [latent, *reversed(hidden), size]),
    ):
        for number, (before, after) in enumerate(itertools.pairwise(widths)):
            layer = f"{side}/layers/dense{f'_{number}' if number else ''}/vars"
            names, shapes = (
                [*names, f"{layer}/0", f"{layer}/1"],
                [*shapes, (before, after), (after,)],
            )
    others = [(), (components,), (components, latent), (components, latent)]
    return names + [f"vars/{number}" for number in range(len(others))], shapes + others


def _read(weights, shapes):
    """{name: array} from HDF5, if it has float32 arrays of these names and shapes and no others; else None."""
    import h5py

    found = {}
    with h5py.File(io.BytesIO(weights)) as file:
        file.visititems(
            lambda name, item: found.update({name: item} if isinstance(item, h5py.Dataset) else {})
        )
        fits = {name: item.shape for name, item in found.items()} == shapes
        fits = fits and all(item.dtype == np.float32 for item in found.values())
        return {name: item[()] for name, item in found.items()} if fits else None

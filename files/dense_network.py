"""Shapes of a model's weights, and its `reconstruct` in NumPy, to avoid loading TensorFlow."""

import itertools

import numpy as np

ACTIVATIONS = {  # in place, which saves time
    "relu": lambda x: np.maximum(x, 0, out=x),
    "silu": lambda x: np.divide(x, 1 + np.exp(-x), out=x),
}


def weight_shapes(config):
    """Return {name in the file: shape} for the weights of noise level, prior, encoder and decoder.

    They have the order of `models.DVAE.weights`. config: from its `get_config`. Keras chose the
    names. Layers have a kernel and a bias.
    """
    if config["likelihood"] not in ("bernoulli", "gaussian"):
        raise ValueError(f"unknown likelihood {config['likelihood']!r}")
    if config["activation"] not in ACTIVATIONS:
        raise ValueError(f"unknown activation {config['activation']!r}")
    hidden, latent, components = config["hidden"], config["latent"], config["components"]
    sides = {
        "encoder": [config["input_size"], *hidden, 2 * latent],
        "decoder": [latent, *reversed(hidden), config["input_size"]],
    }
    own = [()] if config["likelihood"] == "gaussian" else []  # log_std
    own += [(components,), (components, latent), (components, latent)]
    shapes = {f"vars/{number}": shape for number, shape in enumerate(own)}
    for side, widths in sides.items():
        for number, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            layer = f"{side}/layers/dense{f'_{number}' if number else ''}/vars"
            shapes |= {f"{layer}/0": (inputs, outputs), f"{layer}/1": (outputs,)}
    return shapes


def dense_reconstruct(config, weights):
    """Return a function that computes `DVAE.reconstruct` of a "gaussian" model with NumPy.

    weights: {name: array} in the order of `weight_shapes`.
    """
    activate = ACTIVATIONS[config["activation"]]
    depth, latent = len(config["hidden"]) + 1, config["latent"]  # depth: layers per side
    arrays = list(weights.values())[-4 * depth :]
    layers = list(zip(arrays[::2], arrays[1::2]))
    # The encoder's last layer returns mean and log_var. Only the mean is needed.
    layers[depth - 1] = [values[..., :latent] for values in layers[depth - 1]]

    def reconstruct(corrupted, observed=None):
        values = np.asarray(corrupted, np.float32)
        with np.errstate(all="ignore"):  # TensorFlow does not warn either
            for number, (kernel, bias) in enumerate(layers, 1):
                values = values @ kernel + bias
                if number % depth:  # the last layer of each side is linear
                    activate(values)
        return values

    return reconstruct

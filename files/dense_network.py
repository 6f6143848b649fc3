"""Shapes of a model's weights, and its `reconstruct` in NumPy, to avoid loading TensorFlow."""

import itertools

import numpy as np


def weight_shapes(config):
    """Return {name in the file: shape} for the weights of noise level, prior, encoder and decoder.

    They have the order of `models.DVAE.weights`. config: from its `get_config`. Keras chose the
    names. Layers have a kernel and a bias.
    """
    for name, known in ("likelihood", ("bernoulli", "gaussian")), ("activation", ("relu", "silu")):
        if config[name] not in known:
            raise ValueError(f"unknown {name} {config[name]!r}")
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


class DenseNetwork:
    """`DVAE.reconstruct` of a "gaussian" model with ReLU in NumPy: a function of windows (B, N).

    weights: {name: array} in the order of `weight_shapes`.
    """

    def __init__(self, config, weights):
        depth, latent = len(config["hidden"]) + 1, config["latent"]  # depth: layers per side
        arrays = list(weights.values())[-4 * depth :]
        layers = list(zip(arrays[::2], arrays[1::2]))
        # The encoder's last layer returns mean and log_var. Only the mean is needed.
        layers[depth - 1] = [values[..., :latent] for values in layers[depth - 1]]
        self.layers, self.depth = layers, depth

    def __call__(self, corrupted, observed=None):
        return self._after_first(np.asarray(corrupted, np.float32) @ self.layers[0][0])

    def at_gains(self, corrupted, observed):
        """Return outputs(gain, offset) for inputs gain * (corrupted - offset * observed).

        gain and offset are float32 arrays (B,). The products of the first layer are computed only
        once, because they are linear.
        """
        kernel = self.layers[0][0]
        product, constant = corrupted @ kernel, np.tile(kernel.sum(0), (len(corrupted), 1))
        chopped = ~observed.all(1)
        constant[chopped] = observed[chopped] @ kernel

        def outputs(gain, offset):
            return self._after_first(gain[:, None] * (product - offset[:, None] * constant))

        return outputs

    def _after_first(self, values):
        """Return the outputs, given the products of the first layer without its bias."""
        with np.errstate(all="ignore"):  # TensorFlow does not warn either
            for number, (kernel, bias) in enumerate(self.layers, 1):
                values = values @ kernel if number > 1 else values
                values += bias
                if number % self.depth:  # the last layer of each side is linear
                    np.maximum(values, 0, out=values)
        return values

"""The network and the batches of `peers.py` in JAX and Optax."""

import itertools
import os

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leaves GPU memory for the others

import jax
import jax.numpy as jnp
import numpy as np
import optax

import audio_utils


def notes(settings):
    """Return batch(key), which generates noisy notes: with a gap and whole, (batch size, N)."""
    frequencies = jnp.array([audio_utils.note_frequency(note) for note in settings.notes])
    count, window = settings.batch_size, settings.window
    gap = round(settings.amount * window)

    def batch(key):
        keys = jax.random.split(key, 4)
        note = jax.random.choice(keys[0], frequencies, (count, 1))
        phase = 2 * jnp.pi * jax.random.uniform(keys[1], (count, 1))
        angle = 2 * jnp.pi * note * jnp.arange(window) / settings.sample_rate + phase
        noise = audio_utils.NOISE_STD * jax.random.normal(keys[2], (count, window))
        clean = audio_utils.TONE_AMPLITUDE * jnp.sin(angle) + noise
        first = jax.random.randint(keys[3], (count, 1), 0, window - gap + 1)
        since_gap = jnp.arange(window) - first
        return clean * ((since_gap < 0) | (since_gap >= gap)), clean

    return batch


def digits(settings, images):
    """Return batch(key), which samples deformed digits: with a rectangle removed, and whole.

    Half of the inputs stay whole, as in `mnist_dvae.make_batch`.
    """
    images, count, side = jnp.array(images), settings.batch_size, images.shape[1]
    area, centers = settings.amount * side**2, jnp.arange(side) - (side - 1) / 2

    def deformed(image, slopes):
        x, y = (each.ravel() for each in jnp.meshgrid(centers, centers))
        places = jnp.stack([y + slopes[1] * x, x + slopes[0] * y]) + (side - 1) / 2
        return jax.scipy.ndimage.map_coordinates(image, places, 1, "mirror").reshape(side, side)

    def interval(key, lengths):
        uniform = jax.random.uniform(key, lengths.shape)
        since_first = jnp.arange(side) - jnp.floor(uniform * (side - lengths + 1))
        return (since_first >= 0) & (since_first < lengths)

    def batch(key):
        keys = jax.random.split(key, 5)
        clean = images[jax.random.randint(keys[0], (count,), 0, len(images))] / 255
        slopes = settings.deform * jax.random.normal(keys[1], (count, 2))
        clean = jax.vmap(deformed)(clean, slopes)
        others = clean[count // 2 :]
        aspect = 2 ** jax.random.uniform(keys[2], (len(others), 1), minval=-1, maxval=1)
        rows = jnp.round(jnp.sqrt(area * aspect))
        vertical, horizontal = interval(keys[3], rows), interval(keys[4], jnp.round(area / rows))
        corrupted = others * ~(vertical[:, :, None] & horizontal[:, None, :])
        corrupted = jnp.concatenate([clean[: count // 2], corrupted])
        return corrupted.reshape(count, -1), clean.reshape(count, -1)

    return batch


def initial(key, encoder, decoder, prior):
    """Return the initial parameters. `encoder` and `decoder` are widths, `prior` is a shape."""

    def layers(sizes):
        initializer = jax.nn.initializers.glorot_uniform()
        keys = jax.random.split(key, len(sizes))
        pairs = zip(keys, itertools.pairwise(sizes))
        return [(initializer(each, pair), jnp.zeros(pair[1])) for each, pair in pairs]

    return {
        "encoder": layers(encoder),
        "decoder": layers(decoder),
        "log_std": jnp.array(-0.7),  # standard deviation 0.5, as in `models`
        "logits": jnp.zeros(prior[0]),
        "means": jax.random.normal(key, prior),
        "log_vars": jnp.full(prior, -1.4),  # as in `models`
    }


def apply(layers, values, activation):
    for kernel, bias in layers[:-1]:
        values = getattr(jax.nn, activation)(values @ kernel + bias)
    return values @ layers[-1][0] + layers[-1][1]


def log_prior(parameters, z):
    """Return the log density (B,) of the mixture prior at z, up to a constant, as in `models`."""
    means, precisions = parameters["means"], jnp.exp(-parameters["log_vars"])
    constants = (means**2 * precisions + parameters["log_vars"]).sum(-1)
    squares = z**2 @ precisions.T - 2 * z @ (means * precisions).T + constants
    weights = jax.nn.log_softmax(parameters["logits"])
    return jax.nn.logsumexp(weights - 0.5 * squares, axis=-1)


def contender(batch, likelihood, encoder, decoder, prior, activation, rate, every):
    """Train with Adam. Yields a function reconstruct(corrupted, observed) every `every` steps."""
    optimizer = optax.adam(rate)
    parameters = initial(jax.random.key(0), encoder, decoder, prior)

    def loss_of(parameters, key):
        batch_key, noise_key = jax.random.split(key)
        corrupted, clean = batch(batch_key)
        mean, log_var = jnp.split(apply(parameters["encoder"], corrupted, activation), 2, -1)
        noise = jax.random.normal(noise_key, mean.shape)
        z = mean + jnp.exp(0.5 * log_var) * noise
        decoded, log_std = apply(parameters["decoder"], z, activation), parameters["log_std"]
        if likelihood == "bernoulli":
            nll = optax.sigmoid_binary_cross_entropy(decoded, clean)
        else:
            half_log_2_pi = 0.919
            nll = 0.5 * ((clean - decoded) * jnp.exp(-log_std)) ** 2 + log_std + half_log_2_pi
        kl = -0.5 * (noise**2 + log_var).sum(-1) - log_prior(parameters, z)
        return (nll.sum(-1) + kl).mean()

    @jax.jit
    def step(parameters, state, number):
        key = jax.random.fold_in(jax.random.key(0), number)
        loss, gradients = jax.value_and_grad(loss_of)(parameters, key)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(parameters, updates), state, loss

    @jax.jit
    def decoded_mean(parameters, corrupted):
        mean, _ = jnp.split(apply(parameters["encoder"], corrupted, activation), 2, -1)
        decoded = apply(parameters["decoder"], mean, activation)
        return jax.nn.sigmoid(decoded) if likelihood == "bernoulli" else decoded

    def reconstruct(corrupted, observed):
        return np.asarray(decoded_mean(parameters, corrupted))

    state = optimizer.init(parameters)
    for first in itertools.count(0, every):
        yield reconstruct
        for number in range(first, first + every):
            parameters, state, loss = step(parameters, state, number)
        loss.block_until_ready()

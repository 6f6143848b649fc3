"""The denoising variational autoencoder of both experiments, its densities and its losses.

    corrupted -> encoder -> mean, log_var -> z -> decoder -> nll(clean) + kl

The encoder sees the corrupted example, and the decoder has to explain the clean one (Im, Ahn,
Memisevic, Bengio 2017, arXiv 1511.06406). The prior of z is a learned mixture of Gaussians, because
data such as seven notes form clusters.

Examples are flat: images of H x W pixels are (B, H * W), windows of sound are (B, N). Losses are in
nats per example, summed over pixels or samples.
"""

import math

from harness.quiet_tensorflow import load, tf
from harness.run_folder import MODEL_FORMAT as FORMAT

load()  # must precede `import keras`, which would print TensorFlow's start-up messages
import keras

NETWORK = "input_size", "likelihood", "hidden", "latent", "components", "activation"  # of DVAE
ACTIVATIONS = "relu", "silu"  # also in files/dense_network.py and pages/play/network.js
LOG_2_PI = math.log(2 * math.pi)

INITIAL_BIAS_STD = 0.5  # decoder's output bias: untrained networks should output noise, not silence
INITIAL_STD = 0.5  # initial std of the Gaussian likelihood: about the RMS of sound in [-1, 1]
COMPONENT_STD = 0.5  # initial std of the prior's components. Their initial means are N(0, 1).

# Scales of initial kernels, relative to Glorot's. Layers next to noisy data start small, because
# weights along pure-noise directions get almost no gradient and would never shrink.
SMALL_SCALE = 0.3
HE_SCALE = math.sqrt(2)  # preserves signal power across a ReLU layer (arXiv 1502.01852)


def gaussian_log_density(z, mean, log_var):
    """Return the log density of N(mean, exp(log_var)) at z, in nats: all (B, L) -> (B,)."""
    return -0.5 * tf.reduce_sum((z - mean) ** 2 * tf.exp(-log_var) + log_var + LOG_2_PI, axis=-1)


def mixture_log_density(z, logits, means, log_vars):
    """Return the log density at z of K Gaussians weighted by softmax(logits), in nats.

    Shapes are (B, L), (K,), (K, L), (K, L) -> (B,). (z - means)^2 is expanded, because two
    matrix products need less memory than an array of differences (B, K, L).
    """
    precisions = tf.exp(-log_vars)
    constants = tf.reduce_sum(means**2 * precisions + log_vars + LOG_2_PI, axis=-1)
    products = tf.matmul(z, means * precisions, transpose_b=True)
    squares = tf.matmul(z**2, precisions, transpose_b=True) - 2 * products
    return tf.reduce_logsumexp(tf.nn.log_softmax(logits) - 0.5 * (squares + constants), axis=-1)


def bernoulli_nll(clean, logits, observed=1.0):
    """Return the negative log-likelihood of pixels under sigmoid(logits), in nats.

    Shapes are (B, D), (B, D) -> (B,). For grey levels in [0, 1] this is the cross-entropy. Pixels
    are weighted by `observed` (B, D).
    """
    return tf.reduce_sum(observed * tf.nn.sigmoid_cross_entropy_with_logits(clean, logits), axis=-1)


def gaussian_nll(clean, decoded, log_std, observed=1.0):
    """Return the negative log-likelihood under N(decoded, exp(log_std)^2), in nats.

    Shapes are (B, D), (B, D), () -> (B,). All samples share one learned standard deviation, as in
    Rybkin et al. 2021 (arXiv 2006.13202), section 3. Samples are weighted by `observed` (B, D).
    """
    each = 0.5 * ((clean - decoded) * tf.exp(-log_std)) ** 2 + log_std + 0.5 * LOG_2_PI
    return tf.reduce_sum(observed * each, axis=-1)


def reparameterize(mean, log_var, noise):
    """Return z = mean + std * noise, differentiable in mean and log_var: all (B, L)."""
    return mean + tf.exp(0.5 * log_var) * noise


def dense_layers(name, sizes, scales, activation):
    """Return dense layers, the last one linear. `sizes` are the widths, including the input's.

    `scales` has one factor per layer: the scale of its initial kernel, relative to Glorot's.
    """
    layers = [keras.layers.Dense(size, activation) for size in sizes[1:-1]]
    layers.append(keras.layers.Dense(sizes[-1]))
    for layer, scale in zip(layers, scales):
        if scale != 1:
            initializer = keras.initializers.VarianceScaling(scale**2, "fan_avg", "uniform")
            layer.kernel_initializer = initializer
    return keras.Sequential([keras.Input(sizes[:1]), *layers], name=name)


@keras.saving.register_keras_serializable("denoising_vae")
class DVAE(keras.Model):
    """Denoising VAE for Keras's `fit` and `evaluate`: x = corrupted, y = clean, both (B, D).

    input_size: number of values per flat example, D.
    likelihood: "bernoulli" (pixels in [0, 1]; the decoder returns logits) or "gaussian" (samples;
        the decoder returns their mean, and one standard deviation is learned).
    hidden: widths of the encoder's layers. The decoder has the same widths in reverse.
    latent: number of dimensions of z, L.
    components: number of Gaussians in the learned prior, the MoG prior of Tomczak and Welling 2018
        (arXiv 1705.07120). With one component, the prior is a Gaussian.
    activation: of the hidden layers, "relu" or "silu" (x times sigmoid(x), arXiv 1606.08415).
    metadata: JSON values saved in the model's file, such as {"sample_rate": 16000}.
    """

    build_layers = staticmethod(dense_layers)  # subclasses may build other layers

    def __init__(
        self,
        input_size,
        likelihood,
        hidden=(512, 512),
        latent=32,
        components=200,
        activation="relu",
        *,
        metadata=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if likelihood not in ("bernoulli", "gaussian"):
            raise ValueError(f"likelihood must be 'bernoulli' or 'gaussian', got {likelihood!r}")
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be 'relu' or 'silu', got {activation!r}")
        self.input_size, self.likelihood = input_size, likelihood
        self.hidden, self.latent, self.components = tuple(hidden), latent, components
        self.activation = activation
        self.metadata = {"format": FORMAT, **(metadata or {})}
        gaussian = likelihood == "gaussian"
        first, inner, last = (SMALL_SCALE, 1, SMALL_SCALE) if gaussian else (HE_SCALE, HE_SCALE, 1)
        inner = len(self.hidden) * [inner]
        sizes = input_size, *self.hidden, 2 * latent
        self.encoder = self.build_layers("encoder", sizes, (first, *inner), activation)
        sizes = latent, *reversed(self.hidden), input_size
        self.decoder = self.build_layers("decoder", sizes, (*inner, last), activation)
        bias = keras.random.normal((input_size,), stddev=INITIAL_BIAS_STD)
        self.decoder.layers[-1].bias.assign(bias)
        constant, shape = keras.initializers.Constant, (components, latent)
        if gaussian:
            self.log_std = self.add_weight((), constant(math.log(INITIAL_STD)), name="log_std")
        standard_normal = keras.initializers.RandomNormal(stddev=1.0)
        log_var = constant(2 * math.log(COMPONENT_STD))
        self.prior_logits = self.add_weight((components,), constant(0.0), name="prior_logits")
        self.prior_means = self.add_weight(shape, standard_normal, name="prior_means")
        self.prior_log_vars = self.add_weight(shape, log_var, name="prior_log_vars")
        self.noise_seed = keras.random.SeedGenerator(0)
        self.built = True

    def encode(self, inputs):
        """Return mean and log variance of q(z | inputs): (B, D) -> (B, L), (B, L)."""
        return tf.split(self.encoder(inputs), 2, axis=-1)

    def expectation(self, z):
        """Return the expected example given z, in the units of the data: (B, L) -> (B, D)."""
        decoded = self.decoder(z)
        return tf.sigmoid(decoded) if self.likelihood == "bernoulli" else decoded

    def reconstruct(self, corrupted, observed=None):
        """Decode the posterior mean: (B, D) -> (B, D).

        `observed` is ignored. Functions from `inference.refined_reconstruct` do use it.
        """
        mean, _ = self.encode(corrupted)
        return self.expectation(mean)

    def posterior_samples(self, mean, log_var, noise):
        """Decode draws of z from N(mean, exp(log_var)), with standard normal `noise`.

        Returns the expected example given each z. Shapes are (B, L), (B, L), (B, L) -> (B, D).
        """
        return self.expectation(reparameterize(mean, log_var, noise))

    def sample_prior(self, count, seed):
        """Return `count` samples z (count, L) of the prior. `seed` is a pair of integers."""
        component_seed, noise_seed = tf.unstack(tf.random.split(seed))
        logits = self.prior_logits[None]
        component = tf.random.stateless_categorical(logits, count, component_seed)[0]
        mean = tf.gather(self.prior_means, component)
        log_var = tf.gather(self.prior_log_vars, component)
        noise = tf.random.stateless_normal((count, self.latent), noise_seed)
        return reparameterize(mean, log_var, noise)

    def generate(self, count, seed):
        """Return `count` decoded samples (count, D) of the prior. `seed`: pair of integers."""
        return self.expectation(self.sample_prior(count, seed))

    def call(self, corrupted, noise=None):
        """Return the decoder's output (B, D), then z, mean and log_var, each (B, L).

        `noise` (B, L) must be standard normal. It is generated by default.
        """
        mean, log_var = self.encode(corrupted)
        if noise is None:
            noise = keras.random.normal(tf.shape(mean), seed=self.noise_seed)
        z = reparameterize(mean, log_var, noise)
        return self.decoder(z), z, mean, log_var

    def log_prior(self, z):
        """Return the log density of the prior at z, in nats: (B, L) -> (B,)."""
        return mixture_log_density(z, self.prior_logits, self.prior_means, self.prior_log_vars)

    def kl(self, z, mean, log_var):
        """Return log q(z) - log p(z), in nats: (B, L), (B, L), (B, L) -> (B,).

        Its expectation for z sampled from q is the KL divergence of q from the prior p.
        """
        return gaussian_log_density(z, mean, log_var) - self.log_prior(z)

    def nll(self, clean, decoded, observed=1.0):
        """Return the negative log-likelihood given the decoder's output, in nats.

        Shapes are (B, D), (B, D) -> (B,). Values are weighted by `observed` (B, D).
        """
        if self.likelihood == "bernoulli":
            return bernoulli_nll(clean, decoded, observed)
        return gaussian_nll(clean, decoded, self.log_std, observed)

    def nll_and_kl(self, clean, outputs):
        """Return the batch means of NLL and KL, in nats. `outputs` is the result of `call`."""
        decoded, *posterior = outputs
        return tf.reduce_mean(self.nll(clean, decoded)), tf.reduce_mean(self.kl(*posterior))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Return the batch mean of the negative ELBO of `y`, the clean examples, in nats."""
        return sum(self.nll_and_kl(y, y_pred))

    def get_config(self):
        own = {name: getattr(self, name) for name in (*NETWORK, "metadata")}
        return {**super().get_config(), **own}

"""The denoising variational autoencoder of both experiments, and the mathematics it is trained and scored with.

    corrupted -> encoder -> mean, log_var -> z -> decoder -> nll(clean) + kl

The encoder sees the corrupted input, the loss asks for the clean one (Im, Ahn, Memisevic, Bengio 2017,
arXiv 1511.06406). The prior of z is learned too, a mixture of Gaussians: seven notes are not one cloud.

Examples are flat: images of H x W are (B, H * W), windows of sound are (B, N). All losses are in nats per example,
summed over pixels or samples.
"""

import math

from harness.quiet_tensorflow import load, tf
from harness.run_folder import MODEL_FORMAT as FORMAT

load()  # before Keras, which would load TensorFlow with all its start-up lines
import keras

NETWORK = (
    "input_size",
    "likelihood",
    "hidden",
    "latent",
    "components",
)  # what makes a DVAE, besides its weights
LOG_2_PI = math.log(2 * math.pi)
SMALL_KERNEL, FOR_RELU = (
    0.3,
    math.sqrt(2),
)  # of Glorot's scale; the latter: He et al. 2015 (arXiv 1502.01852)
INITIAL_BIAS_STD = 0.5  # of the decoder's output: before it has learned anything, a network says noise, not nothing
INITIAL_STD = (
    0.5  # about the RMS of what the Gaussian likelihood is used for: sound between -1 and 1
)
COMPONENT_STD = 0.5  # of the prior's at first, their means being standard normal


def gaussian_log_density(z, mean, log_var):
    """Log density of N(mean, exp(log_var)) at z, nats: all (B, L) -> (B,)."""
    return -0.5 * tf.reduce_sum((z - mean) ** 2 * tf.exp(-log_var) + log_var + LOG_2_PI, axis=-1)


def mixture_log_density(z, logits, means, log_vars):
    """Log density at z of a mixture of K Gaussians with weights softmax(logits): (B, L), (K,), (K, L), (K, L) -> (B,).

    The square is multiplied out: two matrix products instead of B K L differences.
    """
    precisions = tf.exp(-log_vars)
    constants = tf.reduce_sum(means**2 * precisions + log_vars + LOG_2_PI, axis=-1)
    squares = tf.matmul(z**2, precisions, transpose_b=True) - 2 * tf.matmul(
        z, means * precisions, transpose_b=True
    )
    return tf.reduce_logsumexp(tf.nn.log_softmax(logits) - 0.5 * (squares + constants), axis=-1)


def bernoulli_nll(clean, logits, observed=1.0):
    """Negative log-likelihood of pixels in [0, 1] under sigmoid(logits), nats: (B, D), (B, D) -> (B,).

    For grey levels this is the cross-entropy, the binary pixels' expected value. observed (B, D): those that count.
    """
    return tf.reduce_sum(observed * tf.nn.sigmoid_cross_entropy_with_logits(clean, logits), axis=-1)


def gaussian_nll(clean, decoded, log_std, observed=1.0):
    """Negative log-likelihood under N(decoded, exp(log_std)^2), nats: (B, D), (B, D), () -> (B,).

    One learned standard deviation for all samples: Rybkin, Daniilidis, Levine 2021 (arXiv 2006.13202), section 3.
    observed (B, D): the samples that count.
    """
    each = 0.5 * ((clean - decoded) * tf.exp(-log_std)) ** 2 + log_std + 0.5 * LOG_2_PI
    return tf.reduce_sum(observed * each, axis=-1)


def reparameterize(mean, log_var, noise):
    """z = mean + standard deviation * noise: differentiable in mean and log_var. All (B, L)."""
    return mean + tf.exp(0.5 * log_var) * noise


def importance_log_likelihood(log_joint, mean, log_var, samples, seed):
    """log p(x), nats, estimated from below with `samples` draws of z from q = N(mean, exp(log_var)): -> (B,).

    log 1/K sum_k p(x | z_k) p(z_k) / q(z_k): Burda, Grosse, Salakhutdinov 2016 (arXiv 1509.00519), equation 8.
    `log_joint` gives log p(x | z) p(z): (B, L) -> (B,). `seed`: a pair of integers. Runs inside a `tf.function` too.
    """
    total = tf.fill(tf.shape(mean)[:1], -math.inf)
    for k in tf.range(samples):
        noise = tf.random.stateless_normal(tf.shape(mean), tf.random.fold_in(seed, k))
        z = reparameterize(mean, log_var, noise)
        total = tf.experimental.numpy.logaddexp(
            total, log_joint(z) - gaussian_log_density(z, mean, log_var)
        )
    return total - tf.math.log(tf.cast(samples, tf.float32))


def dense_layers(name, sizes, scales):
    """Fully connected layers from sizes[0] values to sizes[-1], with ReLU between them.

    Their kernels start at these multiples of Glorot's scale.
    """
    layers = [keras.layers.Dense(size, "relu") for size in sizes[1:-1]] + [
        keras.layers.Dense(sizes[-1])
    ]
    for layer, scale in zip(layers, scales):
        if scale != 1:
            layer.kernel_initializer = keras.initializers.VarianceScaling(
                scale**2, "fan_avg", "uniform"
            )
    return keras.Sequential([keras.Input(sizes[:1]), *layers], name=name)


@keras.saving.register_keras_serializable("denoising_vae")
class DVAE(keras.Model):
    """Denoising VAE: x = corrupted, y = clean, both (B, input_size), also for Keras's own `fit` and `evaluate`.

    input_size: values of one flattened example. likelihood: "bernoulli" (pixels in [0, 1]; the decoder gives
    logits) or "gaussian" (samples; the decoder gives their mean, and one standard deviation is learned).
    hidden: widths of the encoder's layers; the decoder has the same in reverse. latent: dimensions of z.
    components: of the prior of z, a mixture of Gaussians learned with the rest (Tomczak and Welling 2018, arXiv
    1705.07120, measure theirs against it). One makes the plain variational autoencoder, up to place and scale of z.
    metadata: what one must know to use the model on other data, kept in its file as JSON: {"experiment": "sound",
    "sample_rate": 16000, ...}.
    """

    side = staticmethod(dense_layers)  # what makes encoder and decoder

    def __init__(
        self,
        input_size,
        likelihood,
        hidden=(512, 512),
        latent=32,
        components=200,
        *,
        metadata=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if likelihood not in ("bernoulli", "gaussian"):
            raise ValueError(f"likelihood must be 'bernoulli' or 'gaussian', not {likelihood!r}")
        self.input_size, self.likelihood, self.latent, self.components = (
            input_size,
            likelihood,
            latent,
            components,
        )
        self.hidden, self.metadata = tuple(hidden), {"format": FORMAT, **(metadata or {})}
        # What layers that meet noisy data start with in directions of noise alone is hardly ever unlearned.
        first, inner, last = (
            (SMALL_KERNEL, 1, SMALL_KERNEL) if likelihood == "gaussian" else (FOR_RELU, FOR_RELU, 1)
        )
        depth = len(self.hidden)
        self.encoder = self.side(
            "encoder", (input_size, *self.hidden, 2 * latent), (first, *depth * [inner])
        )
        self.decoder = self.side(
            "decoder", (latent, *reversed(self.hidden), input_size), (*depth * [inner], last)
        )
        self.decoder.layers[-1].bias.assign(
            keras.random.normal((input_size,), stddev=INITIAL_BIAS_STD)
        )
        if likelihood == "gaussian":
            self.log_std = self.add_weight(
                (), keras.initializers.Constant(math.log(INITIAL_STD)), name="log_std"
            )
        constant, standard_normal = (
            keras.initializers.Constant,
            keras.initializers.RandomNormal(stddev=1.0),
        )
        size = components, latent
        self.prior_logits = self.add_weight((components,), constant(0.0), name="prior_logits")
        self.prior_means = self.add_weight(size, standard_normal, name="prior_means")
        self.prior_log_vars = self.add_weight(
            size, constant(2 * math.log(COMPONENT_STD)), name="prior_log_vars"
        )
        self.noise_seed = keras.random.SeedGenerator(0)
        self.built = True

    def encode(self, inputs):
        """Mean and log variance of q(z | inputs): (B, input_size) -> (B, L), (B, L)."""
        return tf.split(self.encoder(inputs), 2, axis=-1)

    def expectation(self, z):
        """The expected example given z, in the data's own units: (B, L) -> (B, input_size)."""
        decoded = self.decoder(z)
        return tf.sigmoid(decoded) if self.likelihood == "bernoulli" else decoded

    def reconstruct(self, corrupted, observed=None):
        """Decode the posterior mean: (B, input_size) -> (B, input_size).

        The encoder needs no mask: `observed` is ignored. It is there because every function that
        reconstructs takes it.
        """
        mean, _ = self.encode(corrupted)
        return self.expectation(mean)

    def sample_prior(self, count, seed):
        """`count` draws of z from the prior by `seed`, a pair of integers: (count, L)."""
        which_seed, noise_seed = tf.unstack(tf.random.split(seed))
        which = tf.random.stateless_categorical(self.prior_logits[None], count, which_seed)[0]
        mean, log_var = (tf.gather(part, which) for part in (self.prior_means, self.prior_log_vars))
        noise = tf.random.stateless_normal((count, self.latent), noise_seed)
        return reparameterize(mean, log_var, noise)

    def generate(self, count, seed):
        """`count` new examples, their z drawn from the prior by `seed`: -> (count, input_size)."""
        return self.expectation(self.sample_prior(count, seed))

    def call(self, corrupted, noise=None):
        """Decoded (logits for "bernoulli"), z, mean, log_var. `noise` (B, L): standard normal, drawn if not given."""
        mean, log_var = self.encode(corrupted)
        if noise is None:
            noise = keras.random.normal(tf.shape(mean), seed=self.noise_seed)
        z = reparameterize(mean, log_var, noise)
        return self.decoder(z), z, mean, log_var

    def log_prior(self, z):
        """Log density of the prior at z, nats: (B, L) -> (B,)."""
        return mixture_log_density(z, self.prior_logits, self.prior_means, self.prior_log_vars)

    def kl(self, z, mean, log_var):
        """Log q(z) - log p(z), nats: (B, L) -> (B,). Its mean over z from q is the KL divergence of q from p."""
        return gaussian_log_density(z, mean, log_var) - self.log_prior(z)

    def nll(self, clean, decoded, observed=1.0):
        """Negative log-likelihood of clean, where observed, given the decoder's output, nats: (B, D) thrice -> (B,)."""
        if self.likelihood == "bernoulli":
            return bernoulli_nll(clean, decoded, observed)
        return gaussian_nll(clean, decoded, self.log_std, observed)

    def nll_and_kl(self, clean, outputs):
        """The two parts of the negative ELBO, nats, averaged over the batch; `outputs` is what `call` gives."""
        decoded, *posterior = outputs
        return tf.reduce_mean(self.nll(clean, decoded)), tf.reduce_mean(self.kl(*posterior))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The negative ELBO, nats, averaged over the batch. `x` is not looked at: `y` is the clean example."""
        return sum(self.nll_and_kl(y, y_pred))

    def log_likelihood(self, inputs, clean, samples, seed):
        """Importance-sampled log p(clean), nats, with q(z | inputs): (B, D), (B, D) -> (B,)."""

        def log_joint(z):
            return self.log_prior(z) - self.nll(clean, self.decoder(z))

        return importance_log_likelihood(log_joint, *self.encode(inputs), samples, seed)

    def get_config(self):
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in (*NETWORK, "metadata")},
        }

"""The loop both experiments share.

Iteration i is a pure function of the weights and of (seed, i): which examples, where they are damaged, the noise
in z. So a run can be repeated exactly.
"""

from tqdm import tqdm

import models
from models import keras
from quiet_tensorflow import tf

# One home for the seeds: a run's streams of random numbers are (seed, stream), and never meet.
TRAINING, LONG_INPUT, PRIOR = 0, 1, 2
HELD_OUT_SEED = (20261123, 3)  # the same held-out examples whatever the run's seed, so that runs can be compared

WARM_UP = 50  # iterations
WEIGHT_DECAY = 0.1  # times the learning rate, an iteration
ITERATIONS_A_CALL = 20  # in one call of the compiled loop; the bar moves, and the losses are read, once a call


def checkpoint_iterations(iterations):
    """0, 100, 200, 400, 800 and on doubling, as far as the run goes, and its last: 300 -> [0, 100, 200, 300]."""
    doubling = [0]
    while doubling[-1] < iterations:
        doubling.append(max(100, 2 * doubling[-1]))
    return [*doubling[:-1], iterations]


def adam(iterations, learning_rate):
    """AdamW, the learning rate rising for WARM_UP iterations, then falling to 0 as a cosine.

    Loshchilov and Hutter 2019 (arXiv 1711.05101); only the kernels decay.
    """
    warm_up = min(WARM_UP, iterations // 2)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, max(1, iterations - warm_up), warmup_target=learning_rate, warmup_steps=warm_up
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=WEIGHT_DECAY)
    optimizer.exclude_from_weight_decay(var_names=["bias", "log_std"])
    return optimizer


def train(model, make_batch, *, iterations, learning_rate, seed):
    """Train, pausing at every checkpoint: yields (iteration, loss), the loss in nats, its mean since the last one.

    make_batch(seed) -> corrupted, clean (B, D), in TensorFlow graph code; `seed` there is that iteration's own.
    """
    optimizer = adam(iterations, learning_rate)
    optimizer.build(model.trainable_variables)

    # The update is compiled by XLA, which fuses Adam with the gradients. The batch is made and the loop turned
    # outside it: XLA is slow at both on a CPU.
    @tf.function(jit_compile=True)
    def update(corrupted, clean, noise):
        with tf.GradientTape() as tape:
            outputs = model(corrupted, noise=noise)
            loss = model.compute_loss(x=corrupted, y=clean, y_pred=outputs)
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, [v.value for v in variables]), variables))
        kl = tf.reduce_mean(models.kl_divergence(*outputs[1:]))
        return tf.stack([loss, loss - kl, kl])

    @tf.function
    def advance(first, count):
        total = tf.zeros(3)
        for i in tf.range(first, first + count):
            batch_seed, noise_seed = tf.unstack(tf.random.split(tf.random.fold_in((seed, TRAINING), i)))
            corrupted, clean = make_batch(batch_seed)
            noise = tf.random.stateless_normal((tf.shape(clean)[0], model.latent), noise_seed)
            total += update(corrupted, clean, noise)
        return total

    done = 0
    with tqdm(total=iterations, unit="it", disable=None) as bar:
        for checkpoint in checkpoint_iterations(iterations):
            since, total_loss = done, 0.0
            while done < checkpoint:
                count = min(ITERATIONS_A_CALL, checkpoint - done)
                loss, nll, kl = advance(tf.constant(done), tf.constant(count)).numpy() / count
                total_loss += loss * count
                done += count
                bar.set_postfix(loss=f"{loss:.1f}", nll=f"{nll:.1f}", kl=f"{kl:.1f}", refresh=False)
                bar.update(count)
            yield checkpoint, total_loss / (done - since) if done > since else float("nan")


def held_out_losses(model, corrupted, clean):
    """Loss and its parts on examples not trained on: {"loss", "nll", "kl"}, nats, with the same z at every call."""
    noise = tf.random.stateless_normal((len(clean), model.latent), HELD_OUT_SEED)
    decoded, mean, log_var = model(corrupted, noise=noise)
    loss = model.compute_loss(x=corrupted, y=clean, y_pred=(decoded, mean, log_var))
    kl = tf.reduce_mean(models.kl_divergence(mean, log_var))
    return {"loss": float(loss), "nll": float(loss - kl), "kl": float(kl)}

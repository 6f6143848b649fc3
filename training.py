"""Training of both experiments: schedules, one step, and the loop around it.

Iteration i depends only on the variables (weights and optimizer state), the seed and i. The seed
determines the examples, their corruption and the noise in z, so runs repeat and resume exactly.
With several replicas (GPUs or machines), each generates its own fraction of a batch.
"""

import random_numbers
from harness import UserError
from harness.guard import Guard
from harness.quiet_tensorflow import tf

TRAINING, LONG_INPUT, PRIOR = 0, 1, 2  # independent random streams, used as (seed, stream)
HELD_OUT_SEED = (20261123, 3)  # the same for all runs, so that their scores are comparable

WARM_UP = 50  # iterations until the learning rate reaches its peak
WEIGHT_DECAY = 0.1  # multiplied by the learning rate at each iteration
FULL_RATE_INPUTS = 1024  # inputs of a layer up to which its kernel has the full learning rate
ITERATIONS_PER_CALL = 20  # many, because each call takes 1 ms to read the losses


def checkpoint_iterations(iterations):
    """Return 0, 100, 200, 400, ... and the last iteration: 300 -> [0, 100, 200, 300]."""
    doubling = [0]
    while doubling[-1] < iterations:
        doubling.append(max(100, 2 * doubling[-1]))
    return [*doubling[:-1], iterations]


def adam(iterations, learning_rate, beta_2):
    """Return AdamW with a linear warm-up, then a cosine decay of the learning rate to 0.

    AdamW is from Loshchilov and Hutter 2019 (arXiv 1711.05101). Only kernels have weight decay.
    Adam moves every weight by about the learning rate, so a layer's output moves by the rate times
    its number of inputs. Above FULL_RATE_INPUTS, the rate of a kernel is inversely proportional to
    that number (Yang et al. 2022, arXiv 2203.03466). Otherwise training on large images diverges.
    """

    class AdamW(tf.keras.optimizers.AdamW):
        def update_step(self, gradient, variable, learning_rate):
            if "kernel" in variable.name:
                learning_rate *= min(1.0, FULL_RATE_INPUTS / variable.shape[0])
            super().update_step(gradient, variable, learning_rate)

    warm_up = min(WARM_UP, iterations // 2)
    schedule = tf.keras.optimizers.schedules.CosineDecay(
        0.0, max(1, iterations - warm_up), warmup_target=learning_rate, warmup_steps=warm_up
    )
    optimizer = AdamW(schedule, beta_2=beta_2, weight_decay=WEIGHT_DECAY)
    optimizer.exclude_from_weight_decay(var_names=["bias", "log_std", "prior"])
    return optimizer


def kl_weight(i, annealing):
    """Return the KL weight at iteration i. It rises linearly from 0 to 1 at iteration `annealing`.

    With weight 1 from the start, the KL term collapses latent dimensions to the prior before the
    decoder uses them. Most of them stay there (Bowman et al. 2016, arXiv 1511.06349;
    Soenderby et al. 2016, arXiv 1602.02282).
    """
    return tf.minimum(1.0, tf.cast(i, tf.float32) / max(1.0, annealing))


def build_model(settings, input_size, likelihood, metadata, strategy):
    """Return a DVAE whose initial weights are determined by the seed."""
    from models import DVAE  # loads TensorFlow, so flags, folder and data are checked first

    tf.keras.utils.set_random_seed(settings.seed)
    network = settings.hidden, settings.latent, settings.components, settings.activation
    with strategy.scope():
        return DVAE(input_size, likelihood, *network, metadata=metadata)


def draw_batch(make_batch, latent, settings, i, number=0, replicas=1):
    """Return one replica's fraction of batch i: corrupted, clean (B, D) and noise of z (B, L)."""
    first, end = (settings.batch_size * k // replicas for k in (number, number + 1))
    seed = tf.random.fold_in((settings.seed, TRAINING), i * replicas + number)
    batch_seed, noise_seed = tf.unstack(tf.random.split(seed))
    noise = random_numbers.normal((end - first, latent), noise_seed)
    return *make_batch(batch_seed, end - first), noise


def build_step(model, optimizer, make_batch, settings):
    """Return step(i, before), which runs iteration i on one replica after `before` is computed.

    `step` returns the mean loss, NLL and KL (3,) of the whole batch, in nats per example.
    """
    replicas = model.distribute_strategy.num_replicas_in_sync

    def gradients(corrupted, clean, noise, weight):
        fraction = clean.shape[0] / settings.batch_size  # so replicas sum to the batch mean
        weights = [variable.value for variable in model.trainable_variables]
        with tf.GradientTape() as tape:
            losses = model.nll_and_kl(clean, model(corrupted, noise=noise))
            nll, kl = (fraction * part for part in losses)
            loss = nll + weight * kl
        return tf.stack([nll + kl, nll, kl]), tape.gradient(loss, weights)

    def update(*batch):
        losses, own = gradients(*batch)
        optimizer.apply_gradients(zip(own, model.trainable_variables))  # sums over replicas
        return losses

    # XLA fuses Adam with the gradients, unless replicas have to sum the gradients in between.
    # Batches and the loop are not compiled by XLA, which is slow at both on a CPU.
    if replicas == 1:
        update = tf.function(update, jit_compile=True, autograph=False)
    else:
        gradients = tf.function(gradients, jit_compile=True, autograph=False)

    @tf.autograph.experimental.do_not_convert  # conversion is unnecessary and takes almost 1 s
    def step(i, before):
        replica = tf.distribute.get_replica_context()
        number = int(tf.get_static_value(replica.replica_id_in_sync_group))
        batch = draw_batch(make_batch, model.latent, settings, i, number, replicas)
        with tf.control_dependencies([before]):  # otherwise updates could run in any order
            losses = update(*batch, kl_weight(i, settings.kl_warm_up * settings.iters))
        return replica.all_reduce("SUM", losses)

    return step


def build_advance(strategy, step):
    """Return advance(first, count, interrupted), which runs iterations first to first + count - 1.

    `advance` returns the summed losses (3,), the first iteration whose loss is not finite (or
    first + count), and `interrupted` summed over the replicas.
    """

    def run(function, *values):
        return strategy.experimental_local_results(strategy.run(function, values))[0]

    def total_over_replicas(value):
        # Replicas can only sum tensors on their devices. A captured tensor has none, so copy it.
        return tf.distribute.get_replica_context().all_reduce("SUM", tf.identity(value))

    @tf.function
    def advance(first, count, interrupted):
        total, finite_until = tf.zeros(3), first
        for i in tf.range(first, first + count):
            # With several replicas an update is many operations, which a control dependency cannot
            # order. So iterations run serially.
            serial = strategy.num_replicas_in_sync > 1
            tf.autograph.experimental.set_loop_options(parallel_iterations=1 if serial else 10)
            total += run(step, i, total)
            finite_until += tf.cast(tf.math.is_finite(total[0]), tf.int32)
        with tf.control_dependencies([total]):
            return total, finite_until, run(total_over_replicas, interrupted)

    return advance


def train(model, make_batch, settings, run=None):
    """Train, and yield (iteration, mean loss since the last checkpoint) at every checkpoint.

    The loss is the negative ELBO in nats per example. make_batch(seed, count) returns corrupted and
    clean examples (count, D) and must work in a TensorFlow graph. settings: batch_size, beta_2,
    iters, kl_warm_up, learning_rate, seed. With a run, training resumes from the checkpoint in its
    folder and saves new ones there. `harness.guard.Guard` documents when it saves, and the errors.
    Only the chief of several workers yields. The others end the program.

    On a GPU, TensorFlow becomes deterministic, and random numbers without a seed raise an error.
    Raises UserError if a batch has fewer examples than there are replicas.
    """
    if tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()  # otherwise the order of sums varies
    strategy = model.distribute_strategy
    if settings.batch_size < (replicas := strategy.num_replicas_in_sync):
        least = f"must be at least {replicas}, one example per replica"
        raise UserError(f"--batch-size: {least}, got {settings.batch_size}")
    with strategy.scope():
        optimizer = adam(settings.iters, settings.learning_rate, settings.beta_2)
        optimizer.build(model.trainable_variables)
    advance = build_advance(strategy, build_step(model, optimizer, make_batch, settings))
    ahead = checkpoint_iterations(settings.iters)
    shared = settings.iters, settings.batch_size, settings.learning_rate

    def first_batch():
        return draw_batch(make_batch, model.latent, settings, 0)[1].numpy()

    with Guard(model, optimizer, ahead, ITERATIONS_PER_CALL, first_batch, shared, run) as guard:
        for checkpoint in guard.checkpoints():
            while guard.done < checkpoint:
                guard.take(advance(*guard.next_call(checkpoint)))
            if guard.run.workers.is_chief:
                yield checkpoint, guard.mean_loss()


def held_out_losses(model, corrupted, clean):
    """Return {"loss", "nll", "kl"} of held-out examples in nats. Every call uses the same noise."""
    noise = tf.random.stateless_normal((len(clean), model.latent), HELD_OUT_SEED)
    nll, kl = (float(part) for part in model.nll_and_kl(clean, model(corrupted, noise=noise)))
    return {"loss": nll + kl, "nll": nll, "kl": kl}

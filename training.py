"""How both experiments are trained: schedules, one step, and the loop around it.

Iteration i is a pure function of the weights and of (seed, i): which examples, where they are corrupted, the noise in
z. So a run can be repeated exactly, and gone on with exactly from the weights and the optimizer's variables. Several
replicas, GPUs or machines, share each batch: each draws its own part of it.
"""

import contextlib

import numpy as np
from tqdm import tqdm

import random_numbers
from harness import UserError, cli
from harness.checkpoint import Saver, restore
from harness.quiet_tensorflow import tf
from harness.workers import Workers, broadcast_state

# One home for the seeds: a run's streams of random numbers are (seed, stream), and never meet.
TRAINING, LONG_INPUT, PRIOR = 0, 1, 2
HELD_OUT_SEED = (
    20261123,
    3,
)  # the same held-out examples whatever the run's seed, so that runs can be compared

WARM_UP = 50  # iterations until the learning rate is at its peak
WEIGHT_DECAY = 0.1  # times the learning rate, an iteration
ITERATIONS_A_CALL = (
    20  # in one call of the compiled loop; the bar moves, and the losses are read, once a call
)


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
    schedule = tf.keras.optimizers.schedules.CosineDecay(
        0.0, max(1, iterations - warm_up), warmup_target=learning_rate, warmup_steps=warm_up
    )
    optimizer = tf.keras.optimizers.AdamW(schedule, weight_decay=WEIGHT_DECAY)
    optimizer.exclude_from_weight_decay(var_names=["bias", "log_std", "prior"])
    return optimizer


def kl_weight(i, warm_up):
    """The weight of the KL divergence in iteration i's loss: from 0 to 1 over so many iterations.

    From the beginning at its full weight, it drives latent numbers that the decoder does not use yet onto the prior,
    where most of them stay (Bowman et al. 2016, arXiv 1511.06349; Soenderby et al. 2016, arXiv 1602.02282).
    """
    return tf.minimum(1.0, tf.cast(i, tf.float32) / max(1.0, warm_up))


def draw_batch(make_batch, latent, settings, i, number=0, replicas=1):
    """Replica `number`'s part of iteration i's batch: corrupted, clean (B, D), and the posterior's noise (B, L)."""
    count = (
        settings.batch_size * (number + 1) // replicas - settings.batch_size * number // replicas
    )
    seed = tf.random.fold_in((settings.seed, TRAINING), i * replicas + number)
    batch_seed, noise_seed = tf.unstack(tf.random.split(seed))
    return *make_batch(batch_seed, count), random_numbers.normal((count, latent), noise_seed)


def build_step(model, optimizer, make_batch, settings):
    """One iteration for one replica: step(i, interrupted, before) -> sums over all replicas (4,).

    They are the batch's mean loss, NLL and KL divergence, nats an example, and `interrupted`. It waits for `before`.
    """
    replicas = model.distribute_strategy.num_replicas_in_sync

    def gradients(corrupted, clean, noise, weight):
        share = (
            clean.shape[0] / settings.batch_size
        )  # the sum over all replicas is the mean over the batch
        with tf.GradientTape() as tape:
            nll, kl = (
                share * part for part in model.nll_and_kl(clean, model(corrupted, noise=noise))
            )
            loss = nll + weight * kl
        return tf.stack([nll + kl, nll, kl]), tape.gradient(
            loss, [v.value for v in model.trainable_variables]
        )

    def update(*batch):
        losses, own_gradients = gradients(*batch)
        optimizer.apply_gradients(
            zip(own_gradients, model.trainable_variables)
        )  # sums them over the replicas
        return losses

    # The update is compiled by XLA, which fuses Adam with the gradients; not so where replicas meet in between. The
    # batch is made and the loop turned outside it: XLA is slow at both on a CPU.
    if replicas == 1:
        update = tf.function(update, jit_compile=True, autograph=False)
    else:
        gradients = tf.function(gradients, jit_compile=True, autograph=False)

    @tf.autograph.experimental.do_not_convert  # which takes most of a second, and finds nothing to convert
    def step(i, interrupted, before):
        replica = tf.distribute.get_replica_context()
        number = int(tf.get_static_value(replica.replica_id_in_sync_group))
        batch = draw_batch(
            make_batch, model.latent, settings, i, number, replicas
        )  # while `before` is under way
        with tf.control_dependencies([before]):  # for which nothing else would wait
            losses = update(*batch, kl_weight(i, settings.kl_warm_up * settings.iters))
        return replica.all_reduce("SUM", tf.concat([losses, [interrupted]], 0))

    return step


def build_advance(strategy, step):
    """Iterations `first` to before `first + count`: -> sums of what `step` returns, and the first that is not finite.

    The latter is `first + count` if all are finite.
    """

    @tf.function
    def advance(first, count, interrupted):
        total, finite_until = tf.zeros(4), first
        for i in tf.range(first, first + count):
            # Several replicas' updates are not one operation each, that could be waited for alone.
            tf.autograph.experimental.set_loop_options(
                parallel_iterations=10 if strategy.num_replicas_in_sync == 1 else 1
            )
            total += strategy.experimental_local_results(
                strategy.run(step, (i, interrupted, total))
            )[0]
            finite_until += tf.cast(tf.math.is_finite(total[0]), tf.int32)
        return total, finite_until

    return advance


def train(model, make_batch, settings, run=None):
    """Train, pausing at every checkpoint: yields (iteration, loss), the negative ELBO, nats, its mean since the last.

    make_batch(seed, count) -> corrupted, clean (count, D), in TensorFlow graph code; `seed` is that of the iteration
    and the replica. settings: batch_size, iters, kl_warm_up, learning_rate, seed.

    With a run, training goes on from the checkpoint in its folder, if there is one, and saves there. Ctrl-C and SIGTERM
    are then obeyed once that is done, as KeyboardInterrupt. Of several workers only the chief saves and is yielded to;
    for the others the program ends here. On a GPU TensorFlow is deterministic from then on, and refuses random numbers
    without a seed. FloatingPointError: a loss, or a weight to be saved, was not finite.
    """
    if tf.config.list_physical_devices("GPU"):
        tf.config.experimental.enable_op_determinism()  # for good; a GPU else adds in varying order
    strategy = model.distribute_strategy
    workers, path = (run.workers, run.checkpoint) if run else (Workers(), None)
    optimizer, variables, state = _start(
        model, make_batch, settings, workers, path, run.rows if run else []
    )
    advance = build_advance(strategy, build_step(model, optimizer, make_batch, settings))
    done, since, total_loss = (
        int(optimizer.iterations.numpy()),
        state["since"],
        np.float32(state["loss"]),
    )
    ahead = [done] * state["checkpoint"] + [
        i for i in checkpoint_iterations(settings.iters) if i > done
    ]
    saver, alone = Saver(path, variables, done), not workers.several
    noting = contextlib.nullcontext([]) if alone and not path else cli.interruptions_noted()
    silent = None if workers.is_chief else True
    with (
        noting as noted,
        tqdm(total=settings.iters, initial=done, unit="it", disable=silent) as bar,
    ):
        for checkpoint in ahead:
            while done < checkpoint:
                count = min(ITERATIONS_A_CALL, checkpoint - done)
                sums, finite_until = advance(
                    tf.constant(done), tf.constant(count), tf.constant(float(bool(noted)))
                )
                *losses, interrupted = sums.numpy()
                loss, nll, kl = np.stack(losses) / count
                done, total_loss = done + count, total_loss + loss * count
                bar.set_postfix(loss=f"{loss:.1f}", nll=f"{nll:.1f}", kl=f"{kl:.1f}", refresh=False)
                bar.update(count)
                stop = (
                    noted if alone else interrupted
                )  # by whichever worker: all stop after the same iteration
                due = stop or done == checkpoint or saver.due(done)
                # A gradient that is not finite makes the next loss so; what is to be saved is looked at itself.
                if finite_until < done or (
                    due and not all(np.isfinite(variable).all() for variable in variables)
                ):
                    raise _diverged(optimizer, min(int(finite_until), done - 1), saver)
                if due:
                    state.update(
                        iteration=done,
                        since=since,
                        loss=float(total_loss),
                        checkpoint=done == checkpoint,
                    )
                    saver.save(state)
                if stop:
                    raise KeyboardInterrupt(*noted)
            if workers.is_chief:
                yield checkpoint, total_loss / (done - since) if done > since else float("nan")
            if noted and (alone or done == settings.iters):
                raise KeyboardInterrupt(*noted)
            since, total_loss = done, np.float32(0)
    if not workers.is_chief:
        raise SystemExit


def _start(model, make_batch, settings, workers, path, rows):
    """The optimizer, all variables and the state at the beginning, or as they were saved; `rows` is filled again.

    UserError: the checkpoint is not of this run, the batch cannot be shared, or another worker does something else.
    """
    strategy = model.distribute_strategy
    if settings.batch_size < (replicas := strategy.num_replicas_in_sync):
        raise UserError(
            f"argument --batch-size: {settings.batch_size} cannot be shared by {replicas}; give at least so many"
        )
    with strategy.scope():
        optimizer = adam(settings.iters, settings.learning_rate)
        optimizer.build(model.trainable_variables)
    variables = [*model.variables, *optimizer.variables]
    state = {"iteration": 0, "since": 0, "loss": 0.0, "checkpoint": True, "rows": rows}
    if path or workers.several:
        # Tells the data and the seed of one run from those of another, whatever flags or files they come from.
        clean = draw_batch(make_batch, model.latent, settings, 0)[1].numpy()
        state["first_batch"] = [float(example.mean()) for example in clean]
    if path and path.exists():
        state = restore(path, variables, state)
        rows[:] = state["rows"]
        state["rows"] = rows
    if workers.several:
        same = settings.iters, settings.batch_size, settings.learning_rate
        broadcast_state(strategy, variables, same, state["first_batch"][0])
    return optimizer, variables, state


def _diverged(optimizer, iteration, saver):
    """What to raise when the loss of this iteration, or a weight after it, is not finite."""
    optimizer.iterations.assign(iteration)  # where its learning rate was that of this iteration
    kept = (
        f" with --overwrite; iteration {saver.iteration} is kept in {saver.path.parent}"
        if saver.iteration
        else ""
    )
    return FloatingPointError(
        f"iteration {iteration + 1}: NaN or Inf in the loss or a weight at learning rate "
        f"{float(optimizer.learning_rate):.3g}; try a lower --learning-rate{kept}"
    )


def held_out_losses(model, corrupted, clean):
    """Loss and its parts on examples not trained on: {"loss", "nll", "kl"}, nats, with the same z at every call."""
    noise = tf.random.stateless_normal((len(clean), model.latent), HELD_OUT_SEED)
    nll, kl = (float(part) for part in model.nll_and_kl(clean, model(corrupted, noise=noise)))
    return {"loss": nll + kl, "nll": nll, "kl": kl}

"""The loop both experiments share.

Iteration i is a pure function of the weights and of (seed, i): which examples, where they are damaged, the noise
in z. So a run can be repeated exactly, and gone on with exactly from the weights and the optimizer's variables; and
several workers, or GPUs, can share each batch: each makes its own rows of it, and the curve is that of one.
"""

import contextlib
import json
import time

import numpy as np
from tqdm import tqdm

import draws
import run
import workers
from models import keras
from quiet_tensorflow import tf

# One home for the seeds: a run's streams of random numbers are (seed, stream), and never meet.
TRAINING, LONG_INPUT, PRIOR = 0, 1, 2
HELD_OUT_SEED = (20261123, 3)  # the same held-out examples whatever the run's seed, so that runs can be compared

WARM_UP = 50  # iterations until the learning rate is at its peak
KL_WARM_UP = 0.25  # of all iterations, until the KL divergence counts in full
WEIGHT_DECAY = 0.1  # times the learning rate, an iteration
ITERATIONS_A_CALL = 20  # in one call of the compiled loop; the bar moves, and the losses are read, once a call

SAVE_ITERATIONS, SAVE_SECONDS = 1000, 60  # a run that is killed loses no more than that
FORMAT = 2  # of the file it is resumed from


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
    optimizer.exclude_from_weight_decay(var_names=["bias", "log_std", "prior"])
    return optimizer


def kl_weight(i, iterations):
    """The weight of the KL divergence in iteration i's loss: from 0 to 1 over the first KL_WARM_UP of all iterations.

    From the beginning at its full weight, it drives latent numbers that the decoder does not use yet onto the prior,
    where most of them stay (Bowman et al. 2016, arXiv 1511.06349; Soenderby et al. 2016, arXiv 1602.02282).
    """
    return tf.minimum(1.0, tf.cast(i, tf.float32) / max(1.0, KL_WARM_UP * iterations))


def train(model, make_batch, *, batch_size, iterations, learning_rate, seed, rows=None, folder=None):
    """Train, pausing at every checkpoint: yields (iteration, loss), the negative ELBO, nats, its mean since the last.

    make_batch(seed, first, count) -> corrupted, clean (count, D), in TensorFlow graph code: `count` rows of the batch
    from row `first` on; `seed` is that iteration's own. The model's strategy (`workers.strategy`) says who makes which.

    With a folder, all that is needed to go on is saved there: every SAVE_ITERATIONS, every SAVE_SECONDS, and before
    a checkpoint is yielded. If it has been saved already, training goes on from it: `rows`, the list of what the
    caller has collected so far, is filled again, and a checkpoint that may not have been drawn to its end is yielded
    once more. Ctrl-C and SIGTERM are obeyed once that has been saved, as KeyboardInterrupt.

    Of several workers only the chief saves and is yielded to; for the others the program ends here.

    OSError: the folder's file is not of this run, or cannot be written; another worker is lost, or does something else.
    FloatingPointError: a loss, or a weight to be saved, was not finite.
    """
    strategy = model.distribute_strategy
    replicas = strategy.num_replicas_in_sync
    if batch_size < replicas:
        raise OSError(f"--batch-size {batch_size} cannot be shared by {replicas}; give at least so many")
    with strategy.scope():
        optimizer = adam(iterations, learning_rate)
        optimizer.build(model.trainable_variables)

    def gradients(corrupted, clean, noise, weight):
        share = clean.shape[0] / batch_size  # the sum over all replicas is the mean over the batch
        with tf.GradientTape() as tape:
            nll, kl = (share * part for part in model.nll_and_kl(clean, model(corrupted, noise=noise)))
            loss = nll + weight * kl
        return tf.stack([nll + kl, nll, kl]), tape.gradient(loss, [v.value for v in model.trainable_variables])

    def update(*batch):
        losses, own_gradients = gradients(*batch)
        optimizer.apply_gradients(zip(own_gradients, model.trainable_variables))  # sums them over the replicas
        return losses

    # The update is compiled by XLA, which fuses Adam with the gradients; not so where replicas meet in between. The
    # batch is made and the loop turned outside it: XLA is slow at both on a CPU.
    if replicas == 1:
        update = tf.function(update, jit_compile=True, autograph=False)
    else:
        gradients = tf.function(gradients, jit_compile=True, autograph=False)

    def batch(i, first, count):
        batch_seed, noise_seed = tf.unstack(tf.random.split(tf.random.fold_in((seed, TRAINING), i)))
        return *make_batch(batch_seed, first, count), draws.normal((count, model.latent), noise_seed, first)

    @tf.autograph.experimental.do_not_convert  # which takes most of a second, and finds nothing to convert
    def step(i, interrupted, before):
        replica = tf.distribute.get_replica_context()
        number = int(tf.get_static_value(replica.replica_id_in_sync_group))
        first, end = batch_size * number // replicas, batch_size * (number + 1) // replicas
        made = batch(i, first, end - first)  # while the update before is under way
        with tf.control_dependencies([before]):  # for which nothing else would wait
            losses = update(*made, kl_weight(i, iterations))
        return replica.all_reduce("SUM", tf.concat([losses, [interrupted]], 0))

    @tf.function
    def advance(first, count, interrupted):
        total, right = tf.zeros(4), 0
        for i in tf.range(first, first + count):
            # Several replicas' updates are not one operation each, that could be waited for alone.
            tf.autograph.experimental.set_loop_options(parallel_iterations=10 if replicas == 1 else 1)
            total += strategy.experimental_local_results(strategy.run(step, (i, interrupted, total)))[0]
            right += tf.cast(tf.math.is_finite(total[0]), tf.int32)
        return total, first + right

    rows = [] if rows is None else rows
    variables = [*model.variables, *optimizer.variables]
    state = {"format": FORMAT, "iteration": 0, "since": 0, "loss": 0.0, "checkpoint": True, "rows": rows}
    if folder:
        # Tells the data and the seed of one run from those of another, whatever flags or files they come from.
        state["first_batch"] = [float(example.mean()) for example in batch(0, 0, batch_size)[1].numpy()]
    if not workers.is_chief():
        folder = None
    if folder and (folder / run.CHECKPOINT).exists():
        state = restore(folder / run.CHECKPOINT, variables, state)
        rows[:] = state["rows"]
    if workers.several():
        agree(variables, (iterations, batch_size, learning_rate), state.get("first_batch", [0.0])[0])
    done, since, total_loss = int(optimizer.iterations.numpy()), state["since"], np.float32(state["loss"])
    ahead = [i for i in checkpoint_iterations(iterations) if i > done]
    saved, saved_at = done, time.monotonic()
    alone = not workers.several()
    noting = contextlib.nullcontext([]) if alone and not folder else run.interruptions_noted()
    silent = None if workers.is_chief() else True
    with noting as interruptions, tqdm(total=iterations, initial=done, unit="it", disable=silent) as bar:
        for checkpoint in [done, *ahead] if state["checkpoint"] else ahead:
            while done < checkpoint:
                count = min(ITERATIONS_A_CALL, checkpoint - done)
                total, right = advance(tf.constant(done), tf.constant(count), tf.constant(float(bool(interruptions))))
                *losses, interrupted = total.numpy()
                loss, nll, kl = np.stack(losses) / count
                total_loss += loss * count
                done += count
                bar.set_postfix(loss=f"{loss:.1f}", nll=f"{nll:.1f}", kl=f"{kl:.1f}", refresh=False)
                bar.update(count)
                stop = interruptions if alone else interrupted  # by whichever worker: all stop after the same iteration
                waited, last = time.monotonic() - saved_at, done == checkpoint
                due = stop or done - saved >= SAVE_ITERATIONS or waited >= SAVE_SECONDS or last
                # A gradient that is not finite makes the next loss so; what is to be saved is looked at itself.
                if right < done or (due and not all(np.isfinite(variable).all() for variable in variables)):
                    wrong = min(int(right), done - 1)
                    optimizer.iterations.assign(wrong)  # where its learning rate was that of this iteration
                    raise FloatingPointError(
                        f"iteration {wrong + 1}: the loss or a weight is not a finite number at learning rate "
                        f"{float(optimizer.learning_rate):.3g}; try a lower --learning-rate"
                        + (f" with --overwrite; iteration {saved} is kept in {folder}" if saved else "")
                    )
                if folder and due:
                    state.update(iteration=done, since=since, loss=float(total_loss), checkpoint=last, rows=rows)
                    save(folder / run.CHECKPOINT, variables, state)
                    saved, saved_at = done, time.monotonic()
                if stop:
                    raise KeyboardInterrupt(*interruptions)
            if workers.is_chief():
                yield checkpoint, total_loss / (done - since) if done > since else float("nan")
            if interruptions and (alone or done == iterations):
                raise KeyboardInterrupt(*interruptions)
            since, total_loss = done, np.float32(0)
    if not workers.is_chief():
        raise SystemExit


def agree(variables, settings, example):
    """Give the variables the chief's values on every worker. OSError if this one's settings are not the chief's.

    settings: numbers; example: the mean of the first one, which may be rounded otherwise there.
    """
    *values, others, other = workers.from_chief([*variables, tf.constant(settings, tf.float64), example])
    if not np.array_equal(others, np.float64(settings)) or not np.isclose(other, example, rtol=1e-3, atol=1e-6):
        raise OSError("this worker's flags or data are not the chief's; start all with the same")
    for variable, value in zip(variables, values):
        variable.assign(value)


def save(path, variables, state):
    """Write what a run is resumed from: one .npz file of the variables' values and, as JSON, the state beside them."""
    values = {f"variable_{i}": variable.numpy() for i, variable in enumerate(variables)}
    with run.replacing(path) as beside, open(beside, "wb") as file:
        np.savez(file, state=json.dumps(state, default=float), **values)


def restore(path, variables, expected):
    """Give the variables their values in a file that `save` wrote, and return the state beside them.

    OSError if it is no such file, or one of another run: with another `format` or `first_batch` than expected.
    """
    anew = "--overwrite starts anew"
    try:
        with np.load(path) as file:  # without pickle: no code from the file is run
            state = json.loads(str(file["state"]))
            if state["format"] == FORMAT:
                state = {name: type(value)(state[name]) for name, value in expected.items()}
                ours, theirs = (np.array(each["first_batch"], float) for each in (expected, state))
                values = [file[f"variable_{i}"] for i in range(len(variables))]
    except Exception as error:  # a broken file makes NumPy and what it calls raise nearly everything
        raise OSError(f"{path}: not a whole checkpoint ({type(error).__name__}); {anew}") from error
    if state["format"] != FORMAT:
        raise OSError(f"{path}: written by another version of these scripts; {anew}")
    if ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=1e-3, atol=1e-6):  # as another machine rounds
        raise OSError(f"{path}: of other data; {anew}")
    if [(value.shape, value.dtype) for value in values] != [(v.shape, v.dtype) for v in variables]:
        raise OSError(f"{path}: weights of another network; {anew}")
    for variable, value in zip(variables, values):
        variable.assign(value)
    return state


def held_out_losses(model, corrupted, clean):
    """Loss and its parts on examples not trained on: {"loss", "nll", "kl"}, nats, with the same z at every call."""
    noise = tf.random.stateless_normal((len(clean), model.latent), HELD_OUT_SEED)
    outputs = model(corrupted, noise=noise)
    nll, kl = (float(part) for part in model.nll_and_kl(clean, outputs))
    return {"loss": nll + kl, "nll": nll, "kl": kl}

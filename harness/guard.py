"""Save and resume a training run, and stop it on a signal or on NaN."""

import contextlib
import os
import signal
import time
import types
from functools import partial

import numpy as np
from tqdm import tqdm

from harness import checkpoint
from harness.cli import stopping_signals
from harness.quiet_tensorflow import tf
from harness.workers import Workers, broadcast_state

SAVE_ITERATIONS, SAVE_SECONDS = 1000, 60  # a killed run loses at most this much work


class Guard:
    """Progress of a training run that can be stopped at any time and resumed exactly.

        with Guard(...) as guard:
            for target in guard.checkpoints():
                while guard.done < target:
                    guard.take(advance(*guard.next_call(target)))

    Training resumes from the file `run.checkpoint` if it exists. Its state is saved at checkpoints,
    every SAVE_ITERATIONS or SAVE_SECONDS, and on a STOPPING signal, before KeyboardInterrupt is
    raised. Without a run, nothing is saved and signals are not handled.

    ahead: the iterations of the checkpoints. per_call: iterations per call of the compiled loop.
    first_batch: a function that returns an array to identify the data and the seed. shared: numbers
    that must be equal on all workers. Raises UserError if the file belongs to another run, or if
    workers differ in their data or in `shared`.
    """

    def __init__(self, model, optimizer, ahead, per_call, first_batch, shared, run=None):
        self.run = run or types.SimpleNamespace(workers=Workers(), checkpoint=None, rows=[])
        self.optimizer, self.ahead, self.per_call = optimizer, ahead, per_call
        self.variables = [*model.variables, *optimizer.variables]
        self.alone = not self.run.workers.several
        self.state = {"iteration": 0, "since": 0, "loss": 0.0, "checkpoint": True, "rows": []}
        if self.run.checkpoint or not self.alone:
            self.state["first_batch"] = [float(example.mean()) for example in first_batch()]
        if self.run.checkpoint and self.run.checkpoint.exists():
            self.state = checkpoint.restore(self.run.checkpoint, self.variables, self.state)
            self.run.rows = self.state["rows"]
        if not self.alone:
            strategy = model.distribute_strategy
            broadcast_state(strategy, self.variables, shared, self.state["first_batch"][0])
        self.done = self.saved = int(optimizer.iterations.numpy())
        self.since, self.loss = self.state["since"], np.float32(self.state["loss"])
        self.saved_time = time.monotonic()

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        note = self.run.checkpoint or not self.alone
        noting = interruptions_noted() if note else contextlib.nullcontext([])
        self.noted = self.stack.enter_context(noting)
        hidden = not self.run.workers.is_chief or None  # tqdm: None shows it only on a terminal
        bar = tqdm(total=self.ahead[-1], initial=self.done, unit="it", disable=hidden)
        self.bar = self.stack.enter_context(bar)
        return self

    def __exit__(self, *error):
        self.stack.close()

    def checkpoints(self):
        """Yield the iterations to train to, first the current one if its scores are missing.

        After the last one, every worker except the chief exits.
        """
        current = [self.done] if self.state["checkpoint"] else []
        for target in [*current, *(i for i in self.ahead if i > self.done)]:
            yield target
            # A lone worker stops here; several stop together in the next call, if there is one.
            if self.noted and (self.alone or self.done == self.ahead[-1]):
                raise KeyboardInterrupt(*self.noted)
            self.since, self.loss = self.done, np.float32(0)
        if not self.run.workers.is_chief:
            raise SystemExit

    def next_call(self, target):
        """Return arguments for the next call: first iteration, count, interrupted (1.0 or 0.0)."""
        self.target, self.count = target, min(self.per_call, target - self.done)
        return tf.constant(self.done), tf.constant(self.count), tf.constant(float(bool(self.noted)))

    def take(self, call):
        """Record the results of a call. Save and stop if necessary.

        call: the sums of loss, NLL and KL (3,); the first iteration with a non-finite loss, or the
        iteration after the call if there is none; the number of interrupted workers. Raises
        FloatingPointError if a loss, or a weight about to be saved, is not finite.
        """
        sums, finite_until, interrupted = call
        loss, nll, kl = sums.numpy() / self.count
        self.done, self.loss = self.done + self.count, self.loss + loss * self.count
        self.bar.set_postfix(loss=f"{loss:.1f}", nll=f"{nll:.1f}", kl=f"{kl:.1f}", refresh=False)
        self.bar.update(self.count)
        # All workers stop after the same iteration, no matter which one was interrupted.
        stop = self.noted if self.alone else interrupted.numpy()
        late = time.monotonic() - self.saved_time >= SAVE_SECONDS
        late |= self.done - self.saved >= SAVE_ITERATIONS
        due = stop or late or self.done == self.target
        # A bad gradient makes the next loss bad, so weights are checked only before saving.
        finite = not due or all(np.isfinite(variable).all() for variable in self.variables)
        if finite_until < self.done or not finite:
            raise self._diverged(min(int(finite_until), self.done - 1))
        if due and self.run.checkpoint:
            self._save()
        if stop:
            raise KeyboardInterrupt(*self.noted)

    def mean_loss(self):
        """Return the mean loss since the last checkpoint, or NaN at iteration 0."""
        return self.loss / (self.done - self.since) if self.done > self.since else float("nan")

    def _save(self):
        self.state |= {"iteration": self.done, "since": self.since, "loss": float(self.loss)}
        self.state |= {"checkpoint": self.done == self.target, "rows": self.run.rows}
        save = partial(checkpoint.save, variables=self.variables, state=self.state)
        self.run.save_checkpoint(save)
        self.saved, self.saved_time = self.done, time.monotonic()

    def _diverged(self, iteration):
        self.optimizer.iterations.assign(iteration)  # sets the learning rate reported below
        folder = self.run.checkpoint and self.run.checkpoint.parent
        kept = f" with --overwrite; iteration {self.saved} is kept in {folder}"
        return FloatingPointError(
            f"iteration {iteration + 1}: NaN or Inf in the loss or a weight at learning rate "
            f"{float(self.optimizer.learning_rate):.3g}; try a lower --learning-rate"
            + (kept if self.saved else "")
        )


@contextlib.contextmanager
def interruptions_noted():
    """Yield a list that collects STOPPING signals. A second Ctrl-C ends the program at once.

    Ignored signals stay ignored. Outside the main thread, the list stays empty.
    """
    noted = []

    def note(number, _):
        noted.append(number)
        for each in numbers:  # a closed terminal sends SIGHUP twice
            hang_up = each == getattr(signal, "SIGHUP", None)
            signal.signal(each, signal.SIG_IGN if hang_up else signal.SIG_DFL)
        with contextlib.suppress(OSError):  # the terminal is closed
            os.write(2, b"\nstopping after this step; press again to stop at once\n")

    with stopping_signals(note) as numbers:
        yield noted

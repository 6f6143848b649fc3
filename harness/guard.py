"""Protection of a training run: resuming, saving, stopping on a signal, and NaN."""

import contextlib
import os
import signal
import threading
import time
import types

import numpy as np
from tqdm import tqdm

from harness import checkpoint
from harness.quiet_tensorflow import tf
from harness.workers import Workers, broadcast_state

SAVE_ITERATIONS, SAVE_SECONDS = 1000, 60  # a run that is killed loses at most this much


class Guard:
    """Progress of a training run that can be stopped at any time and resumed exactly.

        with Guard(...) as guard:
            for checkpoint in guard.checkpoints():
                while guard.done < checkpoint:
                    guard.take(advance(*guard.next_call(checkpoint)))

    Resumes from `run.checkpoint` if that file exists, and saves there: at checkpoints, every
    SAVE_ITERATIONS and SAVE_SECONDS, and on Ctrl-C or SIGTERM, which end the run as
    KeyboardInterrupt once it is saved. Without a run nothing is saved and signals are left alone.

    ahead: iterations to pause at. per_call: iterations in one call of the compiled loop.
    first_batch(): an array that identifies data and seed, whatever files and flags they come from.
    shared: numbers that must be equal on all workers.
    UserError if the checkpoint belongs to another run, or another worker does something else.
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
        self.saved_time, self.count = time.monotonic(), 0

    def __enter__(self):
        self.stack = contextlib.ExitStack()
        leave_signals = self.alone and not self.run.checkpoint
        noting = contextlib.nullcontext([]) if leave_signals else interruptions_noted()
        self.noted = self.stack.enter_context(noting)
        silent = None if self.run.workers.is_chief else True
        bar = tqdm(total=self.ahead[-1], initial=self.done, unit="it", disable=silent)
        self.bar = self.stack.enter_context(bar)
        return self

    def __exit__(self, *error):
        self.stack.close()

    def checkpoints(self):
        """Yield the iterations to train to, the present one first if its scores are missing.

        Workers other than the chief end the program after the last one.
        """
        ahead = [i for i in self.ahead if i > self.done]
        for checkpoint_ahead in [self.done] * self.state["checkpoint"] + ahead:
            yield checkpoint_ahead
            if self.noted and (self.alone or self.done == self.ahead[-1]):
                raise KeyboardInterrupt(*self.noted)
            self.since, self.loss = self.done, np.float32(0)
        if not self.run.workers.is_chief:
            raise SystemExit

    def next_call(self, checkpoint_ahead):
        """Return the next call's arguments: first iteration, count, interrupted (1.0 or 0.0)."""
        self.count = min(self.per_call, checkpoint_ahead - self.done)
        self.target = checkpoint_ahead
        return tf.constant(self.done), tf.constant(self.count), tf.constant(float(bool(self.noted)))

    def take(self, call):
        """Record a call's summed loss, NLL and KL (3,), first bad iteration and interruptions.

        Save and stop where due. FloatingPointError for a loss, or a weight to be saved, that is
        not finite.
        """
        sums, finite_until, interrupted = call
        loss, nll, kl = sums.numpy() / self.count
        self.done, self.loss = self.done + self.count, self.loss + loss * self.count
        self.bar.set_postfix(loss=f"{loss:.1f}", nll=f"{nll:.1f}", kl=f"{kl:.1f}", refresh=False)
        self.bar.update(self.count)
        # All workers stop after the same iteration, whichever of them was interrupted.
        stop = self.noted if self.alone else interrupted.numpy()
        due = stop or self.done == self.target or self._due()
        # A bad gradient makes the next loss bad, so only weights that are saved are checked.
        if finite_until < self.done or (due and not self._weights_are_finite()):
            raise self._diverged(min(int(finite_until), self.done - 1))
        if due and self.run.checkpoint:
            self._save()
        if stop:
            raise KeyboardInterrupt(*self.noted)

    def mean_loss(self):
        """Return the mean loss since the last checkpoint, nan at iteration 0."""
        return self.loss / (self.done - self.since) if self.done > self.since else float("nan")

    def _due(self):
        late = time.monotonic() - self.saved_time >= SAVE_SECONDS
        return late or self.done - self.saved >= SAVE_ITERATIONS

    def _weights_are_finite(self):
        return all(np.isfinite(variable).all() for variable in self.variables)

    def _save(self):
        at_checkpoint = self.done == self.target
        self.state |= {"iteration": self.done, "since": self.since, "loss": float(self.loss)}
        self.state |= {"checkpoint": at_checkpoint, "rows": self.run.rows}
        checkpoint.save(self.run.checkpoint, self.variables, self.state)
        self.saved, self.saved_time = self.done, time.monotonic()

    def _diverged(self, iteration):
        self.optimizer.iterations.assign(iteration)  # to report that iteration's learning rate
        folder = self.run.checkpoint and self.run.checkpoint.parent
        kept = (
            f" with --overwrite; iteration {self.saved} is kept in {folder}" if self.saved else ""
        )
        return FloatingPointError(
            f"iteration {iteration + 1}: NaN or Inf in the loss or a weight at learning rate "
            f"{float(self.optimizer.learning_rate):.3g}; try a lower --learning-rate{kept}"
        )


@contextlib.contextmanager
def interruptions_noted():
    """Collect Ctrl-C and SIGTERM in a list instead of stopping; a second one stops at once.

    Signals that are ignored stay ignored. Outside the main thread Python allows no handlers, so
    there the list stays empty.
    """
    noted = []

    def note(number, _):
        noted.append(number)
        for each in previous:
            signal.signal(each, signal.SIG_DFL)
        os.write(2, b"\nstopping after this step; press again to stop at once\n")

    main = threading.current_thread() is threading.main_thread()
    numbers = (signal.SIGINT, signal.SIGTERM) if main else ()
    previous = {number: signal.getsignal(number) for number in numbers}
    previous = {number: old for number, old in previous.items() if old != signal.SIG_IGN}
    for number in previous:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

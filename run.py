"""What every run needs around its experiment: the common flags, one-line errors, a folder, whole files, scores."""

import argparse
import contextlib
import csv
import importlib.util
import json
import math
import os
import shlex
import signal
import sys
import tempfile
from pathlib import Path

import workers
from corrupt import CORRUPTIONS

CHECKPOINT = "checkpoint.npz"  # what --resume goes on from
# What runs write, and --overwrite removes in this order: whatever is left when that is cut short, is not taken for
# a run to resume, nor for none.
WRITTEN = (
    "config.json scores.csv index.html events.out.tfevents.* tone.wav clean.wav chopped.wav reconstruction_[0-9]*.png "
    f"reconstruction_[0-9]*.wav generated_[0-9]*.png generated_[0-9]*.wav model.keras {CHECKPOINT}"
).split()
# In config.json, but no matter when a run is resumed. The iterations may be more than they were.
NOT_COMPARED = {"out", "tensorboard", "command", "finished", "iters"}
_locked, _started = [], []  # the open folder of this process's run; what to type to go on with it


def fail(message):
    """End the program with one line on stderr and exit status 2."""
    print(f"{Path(sys.argv[0]).name}: {' '.join(str(message).splitlines())}", file=sys.stderr)
    raise SystemExit(2)


def whole_number(text):
    """A flag's value: an integer of at least 1."""
    if not text.isdecimal() or not 1 <= int(text) < 2**31:  # TensorFlow counts no further
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1 and below {2**31}")
    return int(text)


def positive(text):
    """A flag's value: a finite number above 0."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")


def seed(text):
    """A flag's value: an integer that TensorFlow takes as a seed."""
    if not text.isdecimal() or int(text) >= 2**31:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**31 - 1}")
    return int(text)


def layer_widths(text):
    """A flag's value: "256,128" -> (256, 128)."""
    with contextlib.suppress(argparse.ArgumentTypeError):
        return tuple(whole_number(width) for width in text.split(","))
    raise argparse.ArgumentTypeError(f"{text!r} is not a list of widths such as 256,128")


class Flags(argparse.ArgumentParser):
    """argparse's parser, whose errors are one line."""

    def error(self, message):
        fail(f"{message} (see --help)")


def parser(description, *, experiment, iters, batch_size, learning_rate, hidden, latent, components):
    """The flags both experiments share, with the defaults given and those they have in common."""
    flags = Flags(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False)
    flags.set_defaults(experiment=experiment)
    add = flags.add_argument
    add("--iters", type=whole_number, default=iters, help="iterations: optimizer steps")
    add("--batch-size", type=whole_number, default=batch_size, help="examples an iteration")
    add(
        "--learning-rate",
        type=positive,
        default=learning_rate,
        help="at its peak; warms up, then falls to 0 as a cosine",
    )
    add("--hidden", type=layer_widths, default=hidden, help="widths of the encoder's layers, e.g. 256,128")
    add("--latent", type=whole_number, default=latent, help="dimensions of z")
    add("--components", type=whole_number, default=components, help="Gaussians that make up the prior of z")
    add("--corruption", choices=CORRUPTIONS, default="block", help="how the input is damaged")
    add("--amount", type=positive, default=0.2, help="share missing or replaced; for gaussian, standard deviation")
    add("--seed", type=seed, default=0, help="of everything random in the run")
    add("--out", type=Path, default=Path("plots", experiment), help="folder for what the run writes")
    add("--tensorboard", action="store_true", help="write event files for TensorBoard too")
    former = flags.add_mutually_exclusive_group()
    former.add_argument("--resume", action="store_true", help="go on with the run in --out from where it was saved")
    former.add_argument("--overwrite", action="store_true", help="remove the run in --out and start anew")
    return flags


def parse(flags, **with_data):
    """The settings from the command line, checked for what no single flag can check.

    with_data: what flags default to when --data is given.
    """
    settings = flags.parse_args()
    if settings.data is not None:
        flags.set_defaults(**with_data)
        settings = flags.parse_args()
    if settings.corruption not in ("gaussian", "none") and settings.amount >= 1:
        flags.error(f"argument --amount: {settings.amount:g} is not a share below 1, which {settings.corruption} needs")
    if settings.tensorboard and not importlib.util.find_spec("tensorboard"):
        fail("argument --tensorboard: the package tensorboard is missing; pip install tensorboard")
    return settings


@contextlib.contextmanager
def one_line_errors():
    """What files, numbers or the user bring to an end ends with one line, which says how to go on, not a traceback."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{error.strerror or error}{_how_to_go_on()}")
    except FloatingPointError as error:
        fail(error)
    except KeyboardInterrupt as interrupted:
        print(f"interrupted{_how_to_go_on()}", file=sys.stderr)
        raise SystemExit(128 + (interrupted.args or (signal.SIGINT,))[0]) from None
    except Exception as error:
        if line := workers.lost(error):
            fail(f"{line}{_how_to_go_on()}")
        if not isinstance(error, MemoryError) and type(error).__name__ != "ResourceExhaustedError":  # TensorFlow's
            raise
        fail("not enough memory; try a smaller --hidden or --batch-size")


def _how_to_go_on():
    return f"; to go on: {shlex.join(_started)}" if _started else ""


@contextlib.contextmanager
def interruptions_noted():
    """A list that Ctrl-C and SIGTERM are added to, for the block to see at its leisure; a second one stops at once."""
    noted = []

    def note(number, _):
        noted.append(number)
        for each in former:
            signal.signal(each, signal.SIG_DFL)
        os.write(2, b"\nfinishing what is under way; once more stops at once\n")

    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    former = {number: handler for number, handler in former.items() if handler != signal.SIG_IGN}
    for number in former:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def replacing(path):
    """A path beside `path` to write to; it takes that name only once the block has ended well and the disk has it all.

    What workers other than the chief write comes to nothing. OSError, naming `path`, if the system refuses.
    """
    if not workers.is_chief():
        with tempfile.TemporaryDirectory() as nowhere:
            yield Path(nowhere, "unwanted")
        return
    path = Path(path)
    beside = path.with_name(f".unfinished-{path.name}")
    try:
        yield beside
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        raise (OSError(error.errno, error.strerror, str(path)) if error.errno else error) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def start(settings):
    """Make the run's folder, or take up or remove the run in it, and write its settings there, as config.json.

    OSError if that cannot be done or the settings forbid it; SystemExit if there is nothing left to do.
    """
    if not workers.is_chief():
        return
    out = settings.out
    out.mkdir(parents=True, exist_ok=True)
    _lock(out)
    ours = {name: value for name, value in vars(settings).items() if name not in ("resume", "overwrite")}
    ours = json.loads(json.dumps(ours, default=str))  # as it will come back from the file
    former = _former(out)
    if settings.resume and former is None:
        print(f"{out}: no run to resume; starting one")
    elif settings.resume:
        _check_that_it_goes_on(out, former, ours)
    elif former is not None and not settings.overwrite:
        state = "a finished" if former.get("finished") else "an unfinished"
        raise OSError(
            f"{out}: holds {state} run; --resume goes on with it, --overwrite replaces it, or choose another --out"
        )
    if settings.overwrite:
        for path in (path for pattern in WRITTEN for path in sorted(out.glob(pattern))):
            path.unlink()
    for path in out.glob(".unfinished-*"):  # what a killed run left
        path.unlink()
    flags = [flag for flag in sys.argv[1:] if flag not in ("--resume", "--overwrite")]
    _write_config(out, {**ours, "command": shlex.join(["python", Path(sys.argv[0]).name, *flags])})
    _started[:] = ["python", sys.argv[0], *flags, "--resume"]


def finish(settings):
    """Note in config.json that the run has done all it had to."""
    config = json.loads((settings.out / "config.json").read_text())
    _write_config(settings.out, {**config, "finished": True})


def _write_config(out, config):
    with replacing(out / "config.json") as path:
        path.write_text(json.dumps(config, indent=2) + "\n")


def _lock(out):
    """Keep other runs out of the folder for as long as this process lives: the kernel drops the lock with it."""
    try:
        import fcntl
    except ImportError:  # Windows
        return
    folder = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(folder)
        raise OSError(f"{out}: another run is writing there; wait for its end, or choose another --out") from None
    except OSError:
        pass  # a file system that has no locks
    _locked.append(folder)


def _former(out):
    """The settings of the run in a folder, None if there is no run."""
    path = out / "config.json"
    try:
        config = json.loads(path.read_text())
        config["experiment"], config["iters"] + 1
    except FileNotFoundError:
        lost = [name for name in ("model.keras", CHECKPOINT) if (out / name).exists()]
        return {} if lost else None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise OSError(f"{path}: not the settings of a run; choose another --out") from error
    return config


def _check_that_it_goes_on(out, former, ours):
    """OSError unless a run with the former settings can be gone on with under ours; SystemExit if it is finished."""
    if not former:
        raise OSError(f"{out}: a run whose config.json is missing cannot be resumed; --overwrite replaces it")
    iterations = former["iters"]
    others = [
        name for name in sorted((former.keys() | ours.keys()) - NOT_COMPARED) if former.get(name) != ours.get(name)
    ]
    others += ["iters"] if ours["iters"] < iterations else []
    if others:
        said = [f"--{name.replace('_', '-')} is {former.get(name)} there, {ours.get(name)} here" for name in others]
        raise OSError(f"{out}: holds a run with other settings ({'; '.join(said)}); resume with the same")
    if ours["iters"] > iterations:
        print(
            f"{ours['iters']} iterations instead of {iterations}: from here on the learning rate is that of the longer"
            " run's cosine, so it rises at once, and the result is not that of so long a run from the start"
        )
    elif former.get("finished"):
        print(f"{out}: this run is finished; more --iters continue it, --overwrite repeats it")
        raise SystemExit(0)


def write_scores(path, rows):
    """A table of scores as CSV, units in the columns' names. rows: dicts, with the first one's keys or some of them."""
    with replacing(path) as beside, open(beside, "w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows({name: _rounded(value) for name, value in row.items()} for row in rows)


def print_table(rows):
    """A table of scores for the terminal, the first row's keys as its head."""
    lines = [list(rows[0])] + [[str(_rounded(row.get(name, ""))) for name in rows[0]] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    for name, *values in lines:
        print(name.ljust(widths[0]), *(value.rjust(width) for value, width in zip(values, widths[1:])), sep="  ")


def score_line(row, names):
    """Some of a row of scores as one line for the terminal."""
    return "   ".join(f"{name} {_rounded(row[name])}" for name in names)


def _rounded(value):
    return value if isinstance(value, int | str) else f"{value:.4g}"

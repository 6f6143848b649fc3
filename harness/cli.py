"""Settings of a script as typed fields, one command-line flag per field, and one-line errors."""

import argparse
import contextlib
import dataclasses
import importlib.util
import io
import math
import os
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

from harness import UserError
from harness.errors import say

LARGEST_INTEGER = 2**31 - 1  # TensorFlow stores iterations and seeds in 32 bits
CLOSED_PIPE = 141  # exit status that a shell reports for a program ended by SIGPIPE
# Signals that end a program: Ctrl-C, a request, a closed terminal. Windows has no SIGHUP.
STOPPING = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]


def flag(default, help, **options):
    """Declare a field of `Settings` and its flag.

    Options: `with_data` is the default if --data is given. `choices` are the accepted texts.
    `parse` is a function that converts the flag's text. Bounds of a number: `low` and `high` are
    inclusive, `above` and `below` exclusive. Each is a number or a function of the settings.
    """
    return dataclasses.field(default=None, metadata={"default": default, "help": help, **options})


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a run, from Python or from flags. Raises UserError if a value is invalid.

    A subclass sets `experiment` and adds fields, including `data`. The default of `out` is
    plots/EXPERIMENT. It increases `training_version` whenever it trains in another way, because
    runs that began in the old way cannot resume.
    """

    experiment: ClassVar[str]
    training_version: ClassVar[int] = 1
    seed: int = flag(0, "random seed of the whole run", low=0)
    out: Path = flag(None, "output folder")  # noqa: RUF009  `flag` returns a field
    tensorboard: bool = flag(False, "also write event files for TensorBoard")
    resume: bool = flag(False, "continue the run in --out from its last checkpoint")
    overwrite: bool = flag(False, "delete the run in --out and start over")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if getattr(self, field.name) is None:
                value = _defaults(self, field)[self.data is not None]
                object.__setattr__(self, field.name, value)
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(self, field))
        if self.resume and self.overwrite:
            raise UserError("--overwrite: cannot be combined with --resume; give one of the two")
        if self.tensorboard and not importlib.util.find_spec("tensorboard"):
            raise UserError("--tensorboard: package not found; pip install tensorboard")


def _defaults(settings, field):
    """Return a field's two defaults: without --data and with it."""
    out = field.name == "out"
    default = Path("plots", settings.experiment) if out else field.metadata["default"]
    return default, field.metadata.get("with_data", default)


def _checked(settings, field):
    """Return a field's value converted to its type. Raises UserError if it is invalid."""
    value, options = getattr(settings, field.name), field.metadata
    if value is None:
        return None
    ends = {name: options[name] for name in ("low", "high", "above", "below") if name in options}
    ends = {name: end(settings) if callable(end) else end for name, end in ends.items()}
    try:
        if "choices" in options and value not in options["choices"]:
            choices = ", ".join(options["choices"])
            raise argparse.ArgumentTypeError(f"must be one of {choices}, got {value!r}")
        return options.get("parse", CONVERTERS[field.type])(value, **ends)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"{_flag(field)}: {error} (see --help)") from None


def _flag(field):
    return f"--{field.name.replace('_', '-')}"


def integer(value, low=1, high=LARGEST_INTEGER):
    """Convert a number or text to an integer. Raises ArgumentTypeError if out of range."""
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if not hasattr(number, "__index__") or not low <= number <= high:
        raise argparse.ArgumentTypeError(f"must be an integer from {low} to {high}, got {value!r}")
    return int(number)


def number(value, low=-math.inf, high=math.inf, above=-math.inf, below=math.inf):
    """Convert a number or text to a finite float. Raises ArgumentTypeError if out of range."""
    with contextlib.suppress(TypeError, ValueError):
        if low <= float(value) <= high and above < float(value) < below:
            return float(value)
    ends = {"at least": low, "above": above, "at most": high, "below": below}
    expected = " and ".join(f"{name} {end:g}" for name, end in ends.items() if math.isfinite(end))
    raise argparse.ArgumentTypeError(f"must be a finite number {expected}, got {value!r}")


def integers(value):
    """Return a tuple from "256,128", an integer or a list. Raises ArgumentTypeError if invalid."""
    parts = value.split(",") if isinstance(value, str) else value
    try:
        return tuple(map(integer, parts if isinstance(parts, tuple | list) else [parts]))
    except argparse.ArgumentTypeError:
        expected = "must be positive integers separated by commas, such as 256,128"
        raise argparse.ArgumentTypeError(f"{expected}, got {value!r}") from None


def text(value):
    """Return nonempty text or a path as text. Raises ArgumentTypeError for anything else.

    Expands ~ to the home folder, because shells leave it in "--out=~/run".
    """
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise argparse.ArgumentTypeError(f"must not be empty, got {value!r}")
    return os.path.expanduser(value)


def path(value):
    return Path(text(value))


def switch(value):
    """Return a boolean unchanged. Raises ArgumentTypeError for anything else."""
    if not isinstance(value, bool):
        raise argparse.ArgumentTypeError(f"must be True or False, got {value!r}")
    return value


CONVERTERS = {int: integer, float: number, tuple: integers, Path: path, str: text, bool: switch}


class Parser(argparse.ArgumentParser):
    """ArgumentParser that shows a docstring's first line in --help and raises UserError."""

    def __init__(self, description, **options):
        description = (description or "").partition("\n")[0]  # `python -OO` removes docstrings
        super().__init__(description=description, **options)

    def error(self, message):
        raise UserError(f"{message.removeprefix('argument ')} (see --help)")


def parse(settings, description, arguments=None):
    """Parse a command line to an instance of the class `settings`. Raises UserError if invalid."""
    parser = Parser(description, allow_abbrev=False)
    for field in _in_order(settings):
        options = {"help": field.metadata["help"] + _shown_default(settings, field)}
        if field.type is bool:
            options |= {"action": "store_true"}
        elif "choices" in field.metadata:
            options |= {"metavar": f"{{{','.join(field.metadata['choices'])}}}"}
        parser.add_argument(_flag(field), **options)
    return settings(**vars(parser.parse_args(arguments)))


def _in_order(settings):
    """Return the fields of the class or instance `settings`, with those of every script last."""
    general = {field.name for field in dataclasses.fields(Settings)}
    return sorted(dataclasses.fields(settings), key=lambda field: field.name in general)


def _shown_default(settings, field):
    """Return the end of a flag's help, such as " (9; with --data 5)", or "" without a default."""
    values = dict.fromkeys(_defaults(settings, field))  # equal defaults are shown once
    shown = [_typed(value) for value in values if value is not None and value is not False]
    return f" ({'; with --data '.join(shown)})" if shown else ""


def _typed(value):
    """Return a setting as it is typed on a command line."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def command(settings, *flags):
    """Return the command line for these settings, plus `flags`, or None if no script defines them.

    It does not contain defaults, --resume or --overwrite. Settings made in a notebook or by another
    program have a command line too.
    """
    script = getattr(sys.modules[type(settings).__module__], "__file__", None)
    if script is None:  # the class was defined in a notebook
        return None
    script, here = Path(script), Path.cwd()
    script = script.relative_to(here) if script.is_relative_to(here) else script
    defaults, typed = vars(type(settings)(data=settings.data)) | {"data": None}, []
    for field in _in_order(settings):
        value, flag = getattr(settings, field.name), _flag(field)
        if value == defaults[field.name] or field.name in ("resume", "overwrite"):
            continue
        text = _typed(value)
        pair = [f"{flag}={text}"] if text.startswith("-") else [flag, text]
        typed += [flag] if value is True else pair
    join = subprocess.list2cmdline if os.name == "nt" else shlex.join
    return join(["python", str(script), *typed, *flags])


@contextlib.contextmanager
def one_line_errors():
    """Run the block. Print an error that `known` recognizes in one line and exit with status 2.

    Bugs keep their traceback. If the reader of stdout (such as `head -1`) has exited, the program
    exits silently. STOPPING signals raise KeyboardInterrupt, so that unfinished files are removed.
    """
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # the encoding may lack characters
    try:
        try:
            with stopping_signals(_interrupt), one_blas_thread():
                yield
        finally:
            sys.stdout.flush()  # Python's own flush at exit is too late to report an error
    except BrokenPipeError:
        raise SystemExit(CLOSED_PIPE) from None
    except KeyboardInterrupt as error:
        _print_error(known(error))
        raise SystemExit(128 + (error.args or (signal.SIGINT,))[0]) from None
    except Exception as error:
        if (line := known(error)) is None:
            raise
        _print_error(f"{Path(sys.argv[0]).name}: {line}")
        raise SystemExit(2) from error


@contextlib.contextmanager
def stopping_signals(handle):
    """Call handle(number, frame) on STOPPING signals. Yields the numbers that are not ignored.

    Python allows handlers only in the main thread. In other threads, nothing changes.
    """
    main = threading.current_thread() is threading.main_thread()
    found = {number: signal.getsignal(number) for number in STOPPING if main}
    previous = {number: old for number, old in found.items() if old != signal.SIG_IGN}
    for number in previous:
        signal.signal(number, handle)
    try:
        yield previous.keys()
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


def _interrupt(number, _):
    for each in STOPPING:
        if each != signal.SIGINT:  # a closed terminal sends SIGHUP twice
            signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt(number)


def _open_closed_streams():
    """Open /dev/null in place of each standard stream that is closed.

    Otherwise the next file opened would get the free descriptor, and messages would go into it.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "w" if descriptor else "r", closefd=False))


def cores():
    """Return the number of cores that this process may use. TensorFlow has a thread for each."""
    usable = getattr(os, "sched_getaffinity", None)  # missing on macOS and Windows
    return len(usable(0)) if usable else os.cpu_count()


def one_blas_thread():
    """Limit NumPy's and SciPy's linear algebra to one thread during a `with` block.

    TensorFlow needs the cores, and our matrices are too small to gain from more threads. Sums over
    several threads also differ in the last digits.
    """
    import scipy.linalg  # noqa: F401  threadpoolctl limits only loaded libraries
    import threadpoolctl

    return threadpoolctl.threadpool_limits(1, user_api="blas")


def known(error):
    """Return a one-line message for an error with its notes (PEP 678), or None for a bug."""
    if isinstance(error, UserError | FloatingPointError):
        message = error
    elif isinstance(error, OSError):
        message = error.strerror or " ".join(map(str, error.args))
        message = f"{error.filename}: {message}" if error.filename else message
    elif isinstance(error, KeyboardInterrupt):
        message = "interrupted"
    elif isinstance(error, ImportError):  # also raised if a library does not fit into the memory
        message = f"{error}; allow more memory, or pip install -r requirements.txt"
    elif isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        message = "not enough memory; close other programs, or use smaller settings or files"
    else:
        return None
    notes = getattr(error, "__notes__", [])
    return "; ".join([" ".join(str(message).splitlines()), *notes])


def _print_error(line):
    with contextlib.suppress(OSError):  # stderr is closed, or its disk is full
        say(line, sys.stderr)

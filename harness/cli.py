"""A script's settings: typed fields, the flags made of them, their ranges, and one-line errors."""

import argparse
import contextlib
import dataclasses
import importlib.util
import io
import math
import os
import signal
import sys
from pathlib import Path
from typing import ClassVar

from harness import UserError

LARGEST_INTEGER = 2**31 - 1  # TensorFlow counts iterations and seeds in 32 bits
CLOSED_PIPE = 141  # exit status that a shell reports for a program ended by SIGPIPE


def flag(default, help, **options):
    """Declare a field of `Settings` and its flag.

    Options: `with_data`, the default once --data is given; `choices`; for numbers the range, `low`
    and `high` inclusive or `above` and `below` exclusive, each a number or a function of the
    settings; `parse`, a function from the text of a flag to its value.
    """
    return dataclasses.field(default=None, metadata={"default": default, "help": help, **options})


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of a run, checked however they are made. UserError for a value out of range.

    A subclass sets `experiment` and adds fields, `data` among them. `--out` is plots/EXPERIMENT.
    """

    experiment: ClassVar[str]
    seed: int = flag(0, "random seed of the whole run", low=0)
    out: Path = flag(None, "output folder")  # noqa: RUF009  a field, like the others
    tensorboard: bool = flag(False, "also write event files for TensorBoard")
    resume: bool = flag(False, "continue the run in --out from its last checkpoint")
    overwrite: bool = flag(False, "delete the run in --out and start over")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            value = _default(self, field) if value is None else value
            object.__setattr__(self, field.name, value)
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(self, field))
        if self.resume and self.overwrite:
            raise UserError("--overwrite: cannot be combined with --resume; give one of the two")
        if self.tensorboard and not importlib.util.find_spec("tensorboard"):
            raise UserError("--tensorboard: package not found; pip install tensorboard")


def _default(settings, field):
    """Return the default of a field, which may depend on whether --data is given."""
    if field.name == "out":
        return Path("plots", settings.experiment)
    with_data = settings.data is not None and "with_data" in field.metadata
    return field.metadata["with_data" if with_data else "default"]


def _checked(settings, field):
    """Return a field's value, converted to its type. UserError if it is out of range."""
    value, options = getattr(settings, field.name), field.metadata
    ends = {name: options[name] for name in ("low", "high", "above", "below") if name in options}
    ends = {name: end(settings) if callable(end) else end for name, end in ends.items()}
    try:
        if value is None:
            return None
        if "parse" in options:
            return options["parse"](value)
        if "choices" in options and value not in options["choices"]:
            raise argparse.ArgumentTypeError(
                f"must be one of {', '.join(options['choices'])}, got {value!r}"
            )
        return CONVERTERS[field.type](value, **ends)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"--{field.name.replace('_', '-')}: {error} (see --help)") from None


def integer(value, low=1, high=LARGEST_INTEGER):
    """Convert text, or check an integer: from `low` to `high`. ArgumentTypeError otherwise."""
    number = int(value) if isinstance(value, str) and value.isdecimal() else value
    if not hasattr(number, "__index__") or not low <= number <= high:
        raise argparse.ArgumentTypeError(f"must be an integer from {low} to {high}, got {value!r}")
    return int(number)


def number(value, low=-math.inf, high=math.inf, above=-math.inf, below=math.inf):
    """Convert text, or check a number: finite and in the range. ArgumentTypeError otherwise."""
    with contextlib.suppress(TypeError, ValueError):
        if low <= float(value) <= high and above < float(value) < below:
            return float(value)
    ends = {"at least": low, "above": above, "at most": high, "below": below}
    expected = " and ".join(f"{name} {end:g}" for name, end in ends.items() if math.isfinite(end))
    raise argparse.ArgumentTypeError(f"must be a finite number {expected}, got {value!r}")


def integers(value):
    """Convert "256,128", one integer or several to a tuple. ArgumentTypeError otherwise."""
    if isinstance(value, str):
        parts = value.split(",")
    else:
        parts = value if isinstance(value, tuple | list) else [value]
    try:
        return tuple(integer(part) for part in parts)
    except argparse.ArgumentTypeError:
        expected = "must be positive integers separated by commas, such as 256,128"
        raise argparse.ArgumentTypeError(f"{expected}, got {value!r}") from None


def text(value):
    """Check text or a path: not empty, as from an unset shell variable. Else ArgumentTypeError."""
    if not isinstance(value, str | os.PathLike) or not os.fspath(value):
        raise argparse.ArgumentTypeError(f"must not be empty, got {value!r}; leave the flag out")
    return os.fspath(value)


def folder(value):
    """Convert text to a path. ArgumentTypeError if it is empty."""
    return Path(text(value))


def switch(value):
    """Check a boolean. ArgumentTypeError otherwise."""
    if not isinstance(value, bool):
        raise argparse.ArgumentTypeError(f"must be True or False, got {value!r}")
    return value


CONVERTERS = {
    int: integer,
    float: number,
    tuple: integers,
    Path: folder,
    str: text,
    bool: switch,
}


class Parser(argparse.ArgumentParser):
    """An argparse parser described by a docstring's first line. Its errors are UserErrors."""

    def __init__(self, description, **options):
        # `python -OO` removes docstrings.
        super().__init__(description=(description or "").partition("\n")[0], **options)

    def error(self, message):
        raise UserError(f"{message.removeprefix('argument ')} (see --help)")


def parse(settings, description, arguments=None):
    """Return the settings, of this class, that a command line gives. UserError if it is wrong."""
    parser = Parser(description, allow_abbrev=False)
    general = {field.name for field in dataclasses.fields(Settings)}
    for field in sorted(dataclasses.fields(settings), key=lambda field: field.name in general):
        options = {"help": field.metadata["help"] + _shown_default(settings, field)}
        if field.type is bool:
            options |= {"action": "store_true"}
        elif "choices" in field.metadata:
            options |= {"metavar": f"{{{','.join(field.metadata['choices'])}}}"}
        parser.add_argument(f"--{field.name.replace('_', '-')}", **options)
    return settings(**vars(parser.parse_args(arguments)))


def _shown_default(settings, field):
    """Show a flag's default for --help, and the one with --data; nothing for None and False."""
    default = (
        Path("plots", settings.experiment) if field.name == "out" else field.metadata["default"]
    )
    values = [default, field.metadata.get("with_data")]
    values = [value for value in values if value is not None and value is not False]
    shown = [",".join(map(str, each)) if isinstance(each, tuple) else f"{each}" for each in values]
    return f" ({'; with --data '.join(shown)})" if shown else ""


@contextlib.contextmanager
def one_line_errors():
    """Run a program: errors of files, numbers or the user end it with one line and status 2.

    The notes of an error (PEP 678), such as how to resume, end the line. Bugs keep their traceback.
    A pipe whose reader has closed it, as with `| head -1`, ends the program quietly.
    """
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file name may be any bytes
    try:
        try:
            with _one_blas_thread():
                yield
        finally:
            sys.stdout.flush()  # at the interpreter's end it would be too late to report an error
    except BrokenPipeError:
        _silence()
        raise SystemExit(CLOSED_PIPE) from None
    except KeyboardInterrupt as error:
        _print_error("; ".join(["interrupted", *_notes(error)]))
        raise SystemExit(128 + (error.args or (signal.SIGINT,))[0]) from None
    except Exception as error:
        if (line := known(error)) is None:
            raise
        _print_error(f"{Path(sys.argv[0]).name}: {line}")
        raise SystemExit(2) from error


def _open_closed_streams():
    """Connect stdin, stdout and stderr to nothing if they are closed.

    Otherwise the next file opened would get their number, and what is printed would go into it.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, "w" if descriptor else "r", closefd=False))


def _one_blas_thread():
    """Limit NumPy's and SciPy's linear algebra to one thread.

    TensorFlow needs the cores, our matrices are too small to gain from several threads, and sums
    over several threads differ in the last digits.
    """
    import scipy.linalg  # noqa: F401  a limit holds for the libraries that are loaded already
    import threadpoolctl

    return threadpoolctl.threadpool_limits(1, user_api="blas")


def known(error):
    """Return the line for an error caused by files, numbers or the user; None for a bug."""
    if isinstance(error, UserError | FloatingPointError):
        message = error
    elif isinstance(error, OSError):
        message = (
            f"{error.filename}: {error.strerror}" if error.filename else error.strerror or error
        )
    elif isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        message = "not enough memory; try a smaller --hidden or --batch-size"
    else:
        return None
    return "; ".join([" ".join(str(message).splitlines()), *_notes(error)])


def _print_error(line):
    try:
        print(line, file=sys.stderr)
        sys.stdout.flush()
    except OSError:
        _silence()


def _silence():
    """Discard further output: writing it to a closed pipe would fail again at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)


def _notes(error):
    return getattr(error, "__notes__", [])

"""A script's settings as a typed dataclass, its flags made of them, and errors of one line."""

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


def whole_number(text):
    """A flag's value: an integer of at least 1."""
    if not text.isdecimal() or not 1 <= int(text) < 2**31:  # TensorFlow counts no further
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number of at least 1 and below {2**31}"
        )
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


def text(given):
    """A flag's value that is not empty, as that of a shell's variable that is not set would be."""
    if not given:
        raise argparse.ArgumentTypeError("is empty; give a value or leave it out")
    return given


def folder(text):
    """A flag's value: a path. An empty one, of a shell's variable that is not set, would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("is empty; give a folder")
    return Path(text)


VALUES = {int: whole_number, float: positive, tuple: layer_widths, Path: folder, str: text}
CLOSED_PIPE = 141  # status; a shell says so of a program that SIGPIPE has ended


def flag(default, help, **options):
    """A field of `Settings` and the flag made of it.

    options: those of argparse's `add_argument`; and `with_data`, the default once --data is given.
    """
    return dataclasses.field(default=default, metadata={"help": help, **options})


@dataclasses.dataclass(frozen=True)
class Settings:
    """What both experiments are told. UserError for what does not go together.

    A subclass sets `experiment` and `kl_warm_up`, changes defaults and adds fields; `--out` is plots/EXPERIMENT.
    """

    experiment: ClassVar[str]
    kl_warm_up: ClassVar[
        float
    ]  # the share of all iterations until the KL divergence counts in full
    iters: int = flag(1000, "optimizer steps")
    batch_size: int = flag(128, "examples per iteration")
    learning_rate: float = flag(1e-3, "peak learning rate; linear warm-up, then cosine decay to 0")
    hidden: tuple = flag((512, 512), "widths of the encoder's layers, e.g. 256,128")
    latent: int = flag(32, "latent dimensions")
    components: int = flag(200, "Gaussians in the mixture prior")
    seed: int = flag(0, "random seed of the whole run", type=seed)
    out: Path = flag(None, "output folder")  # noqa: RUF009  a field, as the others are
    tensorboard: bool = flag(False, "also write event files for TensorBoard")
    resume: bool = flag(False, "continue the run in --out from its last checkpoint")
    overwrite: bool = flag(False, "delete the run in --out and start over")

    def __post_init__(self):
        if self.out is None:
            object.__setattr__(self, "out", Path("plots", self.experiment))
        if self.resume and self.overwrite:
            raise UserError("argument --overwrite: not with --resume; give one of the two")
        if self.tensorboard and not importlib.util.find_spec("tensorboard"):
            raise UserError(
                "argument --tensorboard: the package tensorboard is missing; pip install tensorboard"
            )


class Parser(argparse.ArgumentParser):
    """argparse's parser, whose description is a docstring's first line, and whose errors are one line."""

    def __init__(self, description, **options):
        super().__init__(
            description=(description or "").partition("\n")[0], **options
        )  # python -OO leaves none

    def error(self, message):
        raise UserError(f"{message} (see --help)")


def parse(settings, description, arguments=None):
    """The settings, of that class, that a command line asks for. UserError for one that is wrong."""
    parser = Parser(description, allow_abbrev=False)
    with_data = {}
    for field in dataclasses.fields(settings):
        options = dict(_options(settings, field.name))
        if "with_data" in options:
            with_data[field.name] = options.pop("with_data")
        default = Path("plots", settings.experiment) if field.name == "out" else field.default
        kind = {"action": "store_true"} if field.type is bool else {"type": VALUES[field.type]}
        options["help"] += _defaults(default, with_data.get(field.name))
        parser.add_argument(
            f"--{field.name.replace('_', '-')}", **{**kind, "default": default, **options}
        )
    found = parser.parse_args(arguments)
    if found.data is not None:
        parser.set_defaults(**with_data)
        found = parser.parse_args(arguments)
    return settings(**vars(found))


def _defaults(*values):
    """What --help says of a flag's default, and of that with --data; nothing of None and False."""
    values = [value for value in values if value is not None and value is not False]
    shown = [
        ",".join(map(str, value)) if isinstance(value, tuple) else f"{value}" for value in values
    ]
    return f" ({'; with --data '.join(shown)})" if shown else ""


def _options(settings, name):
    """What `flag` was told of a field, in the class itself or in the first one above it that says so."""
    fields = (
        above.__dataclass_fields__.get(name)
        for above in settings.__mro__
        if dataclasses.is_dataclass(above)
    )
    return next(field.metadata for field in fields if field and field.metadata)


@contextlib.contextmanager
def one_line_errors():
    """Errors of files, numbers or the user become one line on stderr and status 2, not a traceback.

    The notes of an error (PEP 678), such as how to go on, end the line. A fault of ours keeps its traceback. A pipe
    whose reader has gone, `| head -1`, is a quiet end.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name may be any bytes
    try:
        try:
            yield
        finally:
            sys.stdout.flush()  # at the interpreter's own end it would be too late to say anything
    except BrokenPipeError:
        _hush()
        raise SystemExit(CLOSED_PIPE) from None
    except KeyboardInterrupt as error:
        _say("; ".join(["interrupted", *_notes(error)]))
        raise SystemExit(128 + (error.args or (signal.SIGINT,))[0]) from None
    except Exception as error:
        if (line := known(error)) is None:
            raise
        _say(f"{Path(sys.argv[0]).name}: {line}")
        raise SystemExit(2) from error


def known(error):
    """The line on an error that files, numbers or the user have brought about; None for a fault of ours."""
    if isinstance(error, UserError | FloatingPointError):
        message = error
    elif isinstance(error, OSError):
        message = (
            f"{error.filename}: {error.strerror}" if error.filename else error.strerror or error
        )
    elif (
        isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError"
    ):  # TensorFlow's
        message = "not enough memory; try a smaller --hidden or --batch-size"
    else:
        return None
    return "; ".join([" ".join(str(message).splitlines()), *_notes(error)])


def _say(line):
    try:
        print(line, file=sys.stderr)
        sys.stdout.flush()
    except OSError:
        _hush()


def _hush():
    """Let nothing more be printed: what waits to be would fail once more at the interpreter's end, and be told of."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)


def _notes(error):
    return getattr(error, "__notes__", [])


@contextlib.contextmanager
def interruptions_noted():
    """A list that Ctrl-C and SIGTERM are added to, for the block to see at its leisure; a second one stops at once."""
    noted = []

    def note(number, _):
        noted.append(number)
        for each in previous:
            signal.signal(each, signal.SIG_DFL)
        os.write(2, b"\nfinishing what is under way; press again to stop at once\n")

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    previous = {
        number: handler for number, handler in previous.items() if handler != signal.SIG_IGN
    }
    for number in previous:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)

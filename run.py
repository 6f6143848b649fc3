"""What every run needs around its experiment: the common flags, one-line errors, a folder, whole files, scores."""

import argparse
import contextlib
import csv
import json
import math
import os
import sys
from pathlib import Path

from corrupt import CORRUPTIONS


def fail(message):
    """End the program with one line on stderr and exit status 2."""
    print(f"{Path(sys.argv[0]).name}: {message}", file=sys.stderr)
    raise SystemExit(2)


def whole_number(text):
    """A flag's value: an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
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


class _OneLine(argparse.ArgumentParser):
    def error(self, message):
        fail(f"{message} (see --help)")


def parser(description, *, iters, batch_size, learning_rate, hidden, latent, out):
    """The flags both experiments share, with the defaults given and those they have in common."""
    flags = _OneLine(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
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
    add("--corruption", choices=CORRUPTIONS, default="block", help="how the input is damaged")
    add("--amount", type=positive, default=0.2, help="share missing or replaced; for gaussian, standard deviation")
    add("--seed", type=seed, default=0, help="of everything random in the run")
    add("--out", type=Path, default=Path(out), help="folder for what the run writes")
    return flags


def parse(flags):
    """The settings from the command line, checked for what no single flag can check."""
    settings = flags.parse_args()
    if settings.corruption not in ("gaussian", "none") and settings.amount >= 1:
        flags.error(f"argument --amount: {settings.amount:g} is not a share below 1, which {settings.corruption} needs")
    return settings


@contextlib.contextmanager
def one_line_errors():
    """Files that cannot be read or written, and interruptions, end the run with one line instead of a traceback."""
    try:
        yield
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{error.strerror or error}")
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


@contextlib.contextmanager
def replacing(path):
    """A path beside `path` to write to; it takes that name only once the block has ended well."""
    path = Path(path)
    beside = path.with_name(f".unfinished-{path.name}")
    try:
        yield beside
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def start(settings):
    """Make the run's folder and write its settings there, as config.json. OSError if that cannot be done."""
    settings.out.mkdir(parents=True, exist_ok=True)
    with replacing(settings.out / "config.json") as path:
        path.write_text(json.dumps(vars(settings), indent=2, default=str) + "\n")


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

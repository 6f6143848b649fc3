"""Flags become typed settings, errors become one line, and interruptions are collected."""

import dataclasses
import errno
import io
import os
import re
import shlex
import signal
import sys
import threading
from pathlib import Path

import pytest
from commands import posix
from hypothesis import given
from hypothesis import strategies as st

from harness import UserError, cli, errors, guard


@dataclasses.dataclass(frozen=True)
class Settings(cli.Settings):
    experiment = "weather"
    iters: int = cli.flag(30, "optimizer steps")
    learning_rate: float = cli.flag(1e-3, "peak", above=0)
    hidden: tuple = cli.flag((8, 4), "widths")
    kind: str = cli.flag("rain", "what falls", choices=("rain", "snow"))
    amount: float = cli.flag(0.5, "how much", above=0, with_data=2.0)
    side: int = cli.flag(9, "side", low=4, high=lambda settings: 10 * settings.iters)
    slope: float = cli.flag(0.0, "slope", low=0, below=1)
    notes: tuple = cli.flag(("C4",), "notes", parse=lambda text: tuple(text))
    data: str = cli.flag(None, "your own")

    def __post_init__(self):
        super().__post_init__()
        if self.kind == "snow" and self.amount < 1:
            raise UserError("--amount: too little snow")


def parse(*arguments):
    return cli.parse(Settings, "Weather.", arguments)


def test_flags_become_settings_of_their_type():
    assert parse() == Settings() == Settings(out=Path("plots/weather"))
    flags = "--iters 7 --learning-rate 1e-2 --hidden 3,2 --seed 0 --out a/b --kind snow --amount 3"
    given = parse(*flags.split(), "--notes", "DE")
    numbers = {"iters": 7, "learning_rate": 0.01, "hidden": (3, 2), "seed": 0, "amount": 3.0}
    assert given == Settings(**numbers, out=Path("a/b"), kind="snow", notes="DE")
    assert given.notes == ("D", "E")
    kinds = [type(value) for value in (given.iters, given.amount, given.hidden)]
    assert kinds == [int, float, tuple]
    assert parse("--resume").resume and not parse("--resume").overwrite
    assert parse("--out=~/x").out == Path.home() / "x" == Path(parse("--data=~/x").data)
    assert parse("--data", "x").amount == 2
    assert parse("--data", "x", "--amount", "0.3").amount == 0.3
    with pytest.raises(dataclasses.FrozenInstanceError):
        given.iters = 8


def test_help_needs_no_docstrings(capsys):
    """`python -OO` removes them."""
    for description in (None, "Weather.\nMore."):
        with pytest.raises(SystemExit) as end:
            cli.parse(Settings, description, ["--help"])
        said = capsys.readouterr().out
        assert end.value.code == 0 and "--iters" in said and "More" not in said


def test_settings_made_in_python_behave_as_flags():
    made = Settings(hidden=32, out="text", data=Path("rec"), learning_rate=1)
    assert made == parse("--hidden", "32", "--out", "text", "--data", "rec", "--learning-rate", "1")
    assert made.out == Path("text") and made.amount == 2.0 and type(made.learning_rate) is float
    assert dataclasses.replace(made, iters=5).iters == 5


@pytest.mark.parametrize(
    "settings, expected",
    [
        ({}, ""),
        ({"iters": 30, "kind": "rain", "resume": True}, ""),  # defaults, and never --resume
        ({"iters": 7, "hidden": (3, 2), "slope": 1e-5}, "--iters 7 --hidden 3,2 --slope 1e-05"),
        ({"data": "my x", "amount": 2}, "--data 'my x'"),  # the default with --data
        ({"data": "x", "amount": 0.5}, "--amount 0.5 --data x"),
        ({"out": "-o", "overwrite": True}, "--out=-o"),
        ({"tensorboard": True, "seed": 3}, "--seed 3 --tensorboard"),
    ],
)
def test_the_command_line_of_settings(settings, expected):
    made = Settings(**settings)
    python, script, *flags = shlex.split(cli.command(made))
    assert python == "python" and Path(script).resolve() == Path(__file__).resolve()
    assert flags == shlex.split(expected)
    assert parse(*flags) == dataclasses.replace(made, resume=False, overwrite=False)
    assert cli.command(made, "--resume") == f"{cli.command(made)} --resume"


def test_settings_that_no_script_defines_have_no_command(monkeypatch):
    monkeypatch.delattr(f"{__name__}.__file__")
    assert cli.command(Settings()) is None


def test_help_shows_defaults_as_they_are_typed(capsys):
    with pytest.raises(SystemExit) as end:
        parse("--help")
    shown = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0 and shown.count("Weather.") == 1
    parts = "optimizer steps (30)", "what falls (rain)", "how much (0.5; with --data 2.0)"
    for part in (*parts, "(plots/weather)", "(8,4)", "the whole run (0)", "{rain,snow}"):
        assert part in shown
    assert "None" not in shown and "False" not in shown


WRONG = [  # flags, wrong settings in Python, part of the error
    ("--iters 0", {"iters": 0}, "--iters: must be an integer from 1 to 2147483647, got"),
    ("--iters 1.5", {"iters": 1.5}, "--iters: must be an integer"),
    ("--iters -5", {"iters": -5}, "--iters: must be an integer"),
    ("--iters 2147483648", {"iters": 2**31}, "--iters: must be an integer"),
    ("--side 301", {"side": 301}, "--side: must be an integer from 4 to 300, got"),
    ("--side 3", {"side": 3}, "--side: must be an integer from 4 to 300, got"),
    ("--amount inf", {"amount": float("inf")}, "--amount: must be a finite number above 0, got"),
    ("--amount nan", {"amount": float("nan")}, "--amount: must be a finite number above 0, got"),
    ("--amount 0", {"amount": 0}, "--amount: must be a finite number above 0, got"),
    ("--slope 1", {"slope": 1}, "--slope: must be a finite number at least 0 and below 1, got"),
    ("--slope -0.1", {"slope": -0.1}, "--slope: must be"),
    ("--hidden 3,,2", {"hidden": (3, 0)}, "--hidden: must be positive integers separated by"),
    ("--seed 2147483648", {"seed": -1}, "--seed: must be an integer from 0 to 2147483647"),
    ("--kind hail", {"kind": "hail"}, "--kind: must be one of rain, snow, got 'hail'"),
    ("--kind snow", {"kind": "snow"}, "--amount: too little snow"),
    ("--resume --overwrite", {"resume": True, "overwrite": True}, "--overwrite: cannot be"),
    ("--data=", {"data": ""}, "--data: must not be empty"),
    ("--out=", {"out": ""}, "--out: must not be empty"),
    ("--it 5", {"tensorboard": "yes"}, ""),  # an abbreviated flag; text instead of a boolean
]


@pytest.mark.parametrize("flags, python, words", WRONG, ids=[flags for flags, *_ in WRONG])
def test_a_wrong_value_names_its_flag(flags, python, words):
    for make in (lambda: parse(*flags.split()), lambda: Settings(**python)):
        with pytest.raises(UserError) as refused:
            make()
        assert words in str(refused.value)


def ended(capsys, error):
    """Raise `error` in a program; return its one line on stderr and its status."""
    with pytest.raises(SystemExit) as end, cli.one_line_errors():
        raise error
    (line,) = capsys.readouterr().err.splitlines()
    return line, end.value.code


def test_errors_end_the_program_in_one_line(capsys):
    absent = FileNotFoundError(errno.ENOENT, "No such file or directory", "/no/such/file")
    line, status = ended(capsys, absent)
    assert line.endswith("/no/such/file: No such file or directory") and status == 2
    line, status = ended(capsys, UserError("a\nb.wav: not a sound"))
    assert line.endswith(": a b.wav: not a sound") and status == 2
    line, status = ended(capsys, FloatingPointError("iteration 3: not a number"))
    assert line.endswith(": iteration 3: not a number") and status == 2
    line, status = ended(capsys, MemoryError())
    assert "not enough memory" in line and status == 2
    assert ended(capsys, KeyboardInterrupt()) == ("interrupted", 130)
    assert ended(capsys, KeyboardInterrupt(signal.SIGTERM)) == ("interrupted", 143)
    unnumbered = OSError("not a gzipped file")
    unnumbered.filename = "a.gz"
    assert ended(capsys, unnumbered)[0].endswith(": a.gz: not a gzipped file")
    noted = OSError("no room")
    noted.add_note("to continue: --resume")
    assert ended(capsys, noted)[0].endswith(": no room; to continue: --resume")
    with pytest.raises(ZeroDivisionError), cli.one_line_errors():  # a bug keeps its traceback
        raise ZeroDivisionError


@given(st.text(st.characters()))
def test_names_are_printed_on_one_line_without_commands(text):
    shown = errors.printable(text)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069]", shown)
    shown.encode()  # it has no lone surrogates
    assert errors.printable(shown) == shown
    assert shown == text or not text.isprintable()


def test_closed_streams_are_opened_for_reading_or_writing(monkeypatch):
    for name in ("stdin", "stdout", "stderr"):  # Python sets streams closed at its start to None
        monkeypatch.setattr(sys, name, None)
    with cli.one_line_errors():
        modes = [(each.readable(), each.writable()) for each in (sys.stdin, sys.stdout, sys.stderr)]
    assert modes == [(True, False), (False, True), (False, True)]


@posix
def test_a_closed_descriptor_is_not_given_to_the_next_file(tmp_path):
    """Otherwise a file opened by the program would become its standard input."""
    (tmp_path / "a").touch()
    kept = os.dup(0)
    os.close(0)
    try:
        with cli.one_line_errors(), open(tmp_path / "a", encoding="utf-8") as file:
            assert file.fileno() > 0 and os.path.samestat(os.fstat(0), os.stat(os.devnull))
    finally:
        os.dup2(kept, 0)
        os.close(kept)


def test_names_in_messages_are_printable(capsys):
    line, _ = ended(capsys, UserError("a\x1b[31m\u202e\udce9.wav: not a sound"))
    assert line.endswith(r": a\x1b[31m\u202e\udce9.wav: not a sound")
    line, _ = ended(capsys, FileNotFoundError(errno.ENOENT, "No such file", "a\rb"))
    assert "\r" not in line


class Full(io.StringIO):
    """Standard output, redirected to a file on a full disk."""

    def flush(self):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_output_that_cannot_be_written_is_an_error(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(SystemExit) as end, cli.one_line_errors():
        print("scores")
    assert end.value.code == 2 and capsys.readouterr().err.endswith(": No space left on device\n")


def test_a_library_that_does_not_load_gives_one_line(capsys):
    line, status = ended(capsys, ImportError("x.so: failed to map segment from shared object"))
    assert status == 2 and "x.so: failed to map segment" in line and "memory" in line


def test_a_second_interruption_stops_at_once(interruptible, capfd):
    for number in (signal.SIGTERM, signal.SIGINT):
        with guard.interruptions_noted() as noted:
            signal.raise_signal(number)
            assert noted == [number]
            for each in (signal.SIGTERM, signal.SIGINT):
                assert signal.getsignal(each) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
        printed = capfd.readouterr().err
        assert printed == "\nstopping after this step; press again to stop at once\n"


def test_signals_ignored_at_the_start_stay_ignored(interruptible):
    """Programs started by `nohup`, or by a shell script in the background, ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with guard.interruptions_noted() as noted:
        signal.raise_signal(signal.SIGINT)
        assert noted == []
        signal.raise_signal(signal.SIGTERM)
        assert noted == [signal.SIGTERM] and signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_signals_are_left_alone_outside_the_main_thread():
    """Python allows handlers in the main thread only. Streamlit and Gradio use other threads."""
    found = []

    def work():
        with guard.interruptions_noted() as noted:
            found.append(list(noted))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [[]]


@pytest.mark.parametrize(
    "error, reason",
    [
        (FileNotFoundError(errno.ENOENT, "No such file", "/a/hidden/name"), "No such file"),
        (ValueError("a bad header\nwith more lines"), "a bad header"),
        (ValueError("  \n"), "ValueError"),
        (EOFError(), "EOFError"),
    ],
)
def test_an_error_of_a_library_becomes_one_line(error, reason):
    with pytest.raises(UserError) as raised, errors.one_error("a.wav", "convert it"):
        raise error
    assert str(raised.value) == f"a.wav: {reason}; convert it"
    with pytest.raises(UserError, match=r"^as it is$"), errors.one_error("a.wav", "convert it"):
        raise UserError("as it is")

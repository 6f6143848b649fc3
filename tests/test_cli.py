"""Flags become typed settings; what ends a script is said in one line; interruptions wait until they suit."""

import dataclasses
import errno
import os
import signal
from pathlib import Path

import pytest

from harness import UserError, cli


@dataclasses.dataclass(frozen=True)
class Settings(cli.Settings):
    experiment = "weather"
    iters: int = 30
    hidden: tuple = (8, 4)
    kind: str = cli.flag("rain", "what falls", choices=("rain", "snow"))
    amount: float = cli.flag(0.5, "how much", with_data=2.0)
    data: str = cli.flag(None, "one's own")

    def __post_init__(self):
        super().__post_init__()
        if self.kind == "snow" and self.amount < 1:
            raise UserError("argument --amount: too little snow")


def parse(*arguments):
    return cli.parse(Settings, "Weather.", arguments)


def test_flags_become_settings_of_their_type():
    assert parse() == Settings() == Settings(out=Path("plots/weather"))
    given = parse(
        *"--iters 7 --learning-rate 1e-2 --hidden 3,2 --seed 0 --out a/b --kind snow --amount 3".split()
    )
    assert given == Settings(
        iters=7, learning_rate=0.01, hidden=(3, 2), seed=0, out=Path("a/b"), kind="snow", amount=3.0
    )
    assert [type(value) for value in (given.iters, given.amount, given.hidden)] == [
        int,
        float,
        tuple,
    ]
    for name in ("--out", "--data"):
        with pytest.raises(UserError, match=f"{name}: is empty"):
            parse(name, "")
    assert parse("--resume").resume and not parse("--resume").overwrite
    assert (
        parse("--data", "x").amount == 2 and parse("--data", "x", "--amount", "0.3").amount == 0.3
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        given.iters = 8


def test_help_says_what_the_defaults_are(capsys):
    with pytest.raises(SystemExit) as end:
        parse("--help")
    said = " ".join(capsys.readouterr().out.split())
    assert end.value.code == 0 and said.count("Weather.") == 1
    for line in (
        "optimizer steps (30)",
        "what falls (rain)",
        "(plots/weather)",
        "how much (0.5; with --data 2.0)",
    ):
        assert line in said


@pytest.mark.parametrize(
    "flags, words",
    [
        ("--iters 0", "--iters: '0' is not a whole number of at least 1"),
        ("--iters 1.5", "--iters: '1.5'"),
        ("--batch-size 2147483648", "--batch-size: '2147483648'"),
        ("--amount inf", "--amount: 'inf' is not a number above 0"),
        ("--amount -1", "--amount: '-1'"),
        ("--hidden 3,,2", "--hidden: '3,,2' is not a list of widths"),
        ("--seed 2147483648", "--seed: '2147483648' is not a whole number from 0"),
        ("--kind hail", "--kind: invalid choice: 'hail'"),
        ("--it 5", "--it 5"),
        ("--kind snow", "--amount: too little snow"),
        ("--resume --overwrite", "--overwrite: not with --resume"),
    ],
)
def test_what_is_wrong_names_its_flag(flags, words):
    with pytest.raises(UserError) as refused:
        parse(*flags.split())
    assert words in str(refused.value)


def ended(capsys, error):
    """What the program says, in one line, and its status when this is raised in it."""
    with pytest.raises(SystemExit) as end, cli.one_line_errors():
        raise error
    (line,) = capsys.readouterr().err.splitlines()
    return line, end.value.code


def test_errors_end_the_program_in_one_line(capsys):
    line, status = ended(
        capsys, FileNotFoundError(errno.ENOENT, "No such file or directory", "/no/such/file")
    )
    assert line.endswith("/no/such/file: No such file or directory") and status == 2
    line, status = ended(capsys, UserError("a\nb.wav: not a sound"))
    assert line.endswith(": a b.wav: not a sound") and status == 2
    line, status = ended(capsys, FloatingPointError("iteration 3: not a number"))
    assert line.endswith(": iteration 3: not a number") and status == 2
    line, status = ended(capsys, MemoryError())
    assert "not enough memory" in line and status == 2
    assert ended(capsys, KeyboardInterrupt()) == ("interrupted", 130)
    assert ended(capsys, KeyboardInterrupt(signal.SIGTERM)) == ("interrupted", 143)
    noted = OSError("no room")
    noted.add_note("to go on: --resume")
    assert ended(capsys, noted)[0].endswith(": no room; to go on: --resume")
    with (
        pytest.raises(ZeroDivisionError),
        cli.one_line_errors(),
    ):  # a fault of ours keeps its traceback
        raise ZeroDivisionError


def test_the_second_interruption_is_left_to_the_system(interruptible, capfd):
    for number in (signal.SIGTERM, signal.SIGINT):
        with cli.interruptions_noted() as noted:
            os.kill(os.getpid(), number)
            assert noted == [number]
            assert (
                signal.getsignal(signal.SIGTERM)
                == signal.getsignal(signal.SIGINT)
                == signal.SIG_DFL
            )
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
        assert (
            capfd.readouterr().err == "\nfinishing what is under way; press again to stop at once\n"
        )


def test_what_is_ignored_when_a_script_starts_stays_ignored(interruptible):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as nohup and a shell's background have it
    with cli.interruptions_noted() as noted:
        os.kill(os.getpid(), signal.SIGINT)
        assert noted == []
        os.kill(os.getpid(), signal.SIGTERM)
        assert noted == [signal.SIGTERM] and signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_help_shows_lists_as_they_are_typed_and_no_default_of_switches(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "(8,4)" in said
        and "the whole run (0)" in said
        and "None" not in said
        and "False" not in said
    )

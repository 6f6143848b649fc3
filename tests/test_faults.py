"""A short form of benchmarks/faults.py: kills, interruptions, damaged files, wrong flags."""

import contextlib
import io
import os
import random
import signal
import sys
import threading

import numpy as np
import pytest
import scipy.io.wavfile
from commands import ROOT, inside, quickly, until, without_xla
from hypothesis import given, settings
from hypothesis import strategies as st

import mnist_dvae
import sound_dvae
from harness import UserError, cli
from models import keras

pytest.importorskip("resource")  # not on Windows
from benchmarks import faults

READERS = faults.readers()


# With salt and pepper, no posterior is refined, which would take longest.
SIZES = "--batch-size", 8, "--hidden", 8, "--latent", 2, "--corruption", "salt-pepper"


# Code that runs a script without XLA, as `inside` does. `faults.start` adds Python's own path.
UNCOMPILED = (
    f"import sys; del sys.argv[1]; sys.path[:0] = {str(ROOT)!r}, {str(ROOT / 'tests')!r}; "
    "import commands; uncompiled = commands.without_xla(); uncompiled.__enter__(); "
    f"{faults.SAVING_OFTEN}"
)


def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path, capsys):
    faults.make_digits(tmp_path / "dïgits.npz", 200)
    for name in ("whole", "a folder", "a földer elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "a folder/-run").symlink_to("../a földer elsewhere")
    flags = "mnist_dvae.py", *SIZES, "--iters", 60, "--data", "../dïgits.npz", "--out=-run"

    def finish_inside(folder, *more):
        keras.utils.clear_session()  # the names of layers, which are saved, start again
        with contextlib.chdir(tmp_path / folder):
            done = inside(capsys, *flags, *more, mode=without_xla)
        assert done.returncode == 0, done.stderr

    finish_inside("whole")
    folder = tmp_path / "a földer elsewhere"
    code = sys.executable, "-c", UNCOMPILED
    process = faults.start(*flags, before=code, cwd=tmp_path / "a folder")
    assert faults.killed(process, folder, writing="checkpoint.npz")
    finish_inside("a folder", "--resume")
    assert faults.differences(folder, tmp_path / "whole/-run") == []
    assert not list(folder.glob(".*"))


def test_an_interrupted_run_names_the_command_to_continue(tmp_path, capsys, interruptible):
    """See test_training.py for what it continues with."""
    faults.make_digits(tmp_path / "dïgits.npz", 200)

    def interrupt():
        until((tmp_path / "-run/scores.csv").exists)
        os.kill(os.getpid(), signal.SIGINT)

    waiting = threading.Thread(target=interrupt)
    waiting.start()
    flags = "mnist_dvae.py", *SIZES, "--iters", 2000, "--data", "dïgits.npz", "--out=-run"
    with contextlib.chdir(tmp_path):
        done = inside(capsys, *flags, mode=quickly)
    waiting.join()
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1].endswith("--data 'dïgits.npz' --out=-run --resume")


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_load_as_valid_data_or_are_refused(tmp_path, name):
    rng = random.Random(1)
    loaded, refused, failed = faults.try_mutated(name, READERS[name], 40, rng, tmp_path)
    assert failed == [] and refused > 0 and loaded + refused == 40


def test_damaged_files_reveal_a_careless_reader(tmp_path):
    def try_careless(name, load):
        reader = (*READERS[name][:2], load)
        return faults.try_mutated(name, reader, 20, random.Random(1), tmp_path)[2]

    assert try_careless("WAV", scipy.io.wavfile.read)
    assert try_careless("npz", lambda path: [np.fromfile(path, np.uint8)])


@given(content=st.binary(max_size=200) | st.binary(max_size=200).map(lambda tail: b"PK\3\4" + tail))
def test_every_reader_refuses_random_bytes(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    for name in sorted(READERS.keys() - {"labels"}):  # no text is a valid list of no gaps
        file_name, _, load = READERS[name]
        (folder / file_name).write_bytes(content)
        with pytest.raises(UserError, match=file_name) as refused:
            load(folder / file_name)
        (folder / file_name).unlink()
        assert len(str(refused.value).splitlines()) == 1


VALUES = st.one_of(
    st.text(st.characters(exclude_characters="\0"), max_size=12),
    st.integers().map(str),
    st.floats().map(str),
    st.lists(st.integers(-1, 2000).map(str), max_size=4).map(",".join),
    st.sampled_from(
        ["block", "none", "9" * 5000, "٣", "1e400", "-1", "--", "-", "", "a\nb", "\udce4"]
    ),
)
FLAGS = st.sampled_from(
    "--iters --batch-size --learning-rate --hidden --latent --components --corruption --amount "
    "--seed --out --resume --overwrite --sample-rate --window --data --notes --size --tensorboard "
    "--re -x".split()
)


@pytest.mark.parametrize("script", [mnist_dvae, sound_dvae])
@given(flags=st.lists(FLAGS | VALUES | st.builds("{}={}".format, FLAGS, VALUES), max_size=6))
@settings(max_examples=200)
def test_flags_are_read_or_refused_in_one_line(script, flags):
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stderr(stderr), cli.one_line_errors():
            read = cli.parse(script.Settings, "", flags)
    except SystemExit as end:
        assert end.code == 2 and len(stderr.getvalue().splitlines()) == 1
    else:
        assert stderr.getvalue() == "" and 1 <= read.iters < 2**31
        assert all(width >= 1 for width in read.hidden)

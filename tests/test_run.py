"""Files are whole or absent; runs are not lost, mixed or overwritten by mistake."""

import argparse
import csv
import errno
import json
import os
import signal
from pathlib import Path

import pytest

import run


def test_a_file_is_replaced_only_by_a_whole_one(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), run.replacing(path) as beside:
        beside.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "old"
    with run.replacing(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["scores.csv"]


def test_a_table_keeps_its_columns_and_leaves_blank_what_a_row_lacks(tmp_path):
    rows = [{"method": "DVAE", "iteration": 100, "snr_db": 29.51234}, {"method": "bound", "snr_db": 31.0}]
    run.write_scores(tmp_path / "scores.csv", rows)
    with open(tmp_path / "scores.csv") as file:
        assert list(csv.reader(file)) == [
            ["method", "iteration", "snr_db"],
            ["DVAE", "100", "29.51"],
            ["bound", "", "31"],
        ]


def ended(capsys, error):
    """What the program says, in one line, and its status when this is raised in it."""
    with pytest.raises(SystemExit) as end, run.one_line_errors():
        raise error
    (line,) = capsys.readouterr().err.splitlines()
    return line, end.value.code


def test_errors_end_the_program_in_one_line(capsys, monkeypatch):
    monkeypatch.setattr(run, "_started", [])  # by no test before this one
    line, status = ended(capsys, FileNotFoundError(errno.ENOENT, "No such file or directory", "/no/such/file"))
    assert line.endswith("/no/such/file: No such file or directory") and status == 2
    line, status = ended(capsys, FloatingPointError("iteration 3: not a number"))
    assert line.endswith(": iteration 3: not a number") and status == 2
    line, status = ended(capsys, MemoryError())
    assert "not enough memory" in line and status == 2
    assert ended(capsys, KeyboardInterrupt()) == ("interrupted", 130)
    assert ended(capsys, KeyboardInterrupt(signal.SIGTERM)) == ("interrupted", 143)


def test_the_second_interruption_is_left_to_the_system():
    with run.interruptions_noted() as noted:
        os.kill(os.getpid(), signal.SIGTERM)
        assert noted == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


@pytest.fixture
def start(tmp_path, monkeypatch):
    """run.start as a process of its own would call it, whose predecessors have ended; the command line is kept too."""

    def start(out=None, **changed):
        settings = {"iters": 100, "hidden": (64,), "data": None, "experiment": "sound", "resume": False, **changed}
        settings = argparse.Namespace(**{"overwrite": False, "out": Path(out or tmp_path / "out"), **settings})
        while run._locked:
            os.close(run._locked.pop())
        run.start(settings)
        return settings

    yield start
    while run._locked:
        os.close(run._locked.pop())
    run._started.clear()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_with_a_run_is_left_alone_without_a_flag(tmp_path, start):
    settings = start()
    with pytest.raises(OSError, match=r"out: holds an unfinished run; --resume .* --overwrite"):
        start()
    run.finish(settings)
    before = contents(tmp_path / "out")
    with pytest.raises(OSError, match=r"out: holds a finished run; --resume .* --overwrite"):
        start()
    assert contents(tmp_path / "out") == before
    (tmp_path / "out/config.json").rename(tmp_path / "out/model.keras")
    with pytest.raises(OSError, match="out: holds an unfinished run"):
        start()
    with pytest.raises(OSError, match=r"config\.json is missing"):
        start(resume=True)


def test_overwrite_removes_what_runs_write_and_nothing_else(tmp_path, start):
    out = tmp_path / "out"
    settings = start()
    run.finish(settings)
    ours = ["reconstruction_000800.png", "generated_000100.wav", "scores.csv", "model.keras", "checkpoint.npz"]
    others = ["notes.txt", "generated_by_hand.png", "reconstruction.png", "model.keras.old"]
    for name in (*ours, ".unfinished-scores.csv", *others):
        (out / name).write_text(name)
    start(overwrite=True, hidden=(8,))
    assert {path.name for path in out.iterdir()} == {*others, "config.json"}
    assert json.loads((out / "config.json").read_text())["hidden"] == [8]


def test_an_overwriting_cut_short_leaves_neither_a_run_to_resume_nor_room_for_another(tmp_path, start, monkeypatch):
    run.finish(start())
    names = ("scores.csv", "model.keras", "checkpoint.npz")
    for name in names:
        (tmp_path / "out" / name).touch()
    remove, removed, most = Path.unlink, [], 1

    def unlink(path, *arguments, **options):
        if len(removed) == most:
            raise KeyboardInterrupt
        if path.name[0] != ".":
            removed.append(path.name)
        remove(path, *arguments, **options)

    monkeypatch.setattr(Path, "unlink", unlink)
    for _ in names:
        removed.clear()
        with pytest.raises(KeyboardInterrupt):
            start(overwrite=True)
        for flags in ({}, {"resume": True}):
            with pytest.raises(OSError, match="--overwrite"):
                start(**flags)
    removed.clear()
    most = None
    start(overwrite=True)
    assert removed == ["checkpoint.npz"]


@pytest.mark.parametrize("flag", ["overwrite", "resume"])
@pytest.mark.parametrize(
    "theirs", ['{"name": "an app"}', "[1, 2]", "null", "no JSON", "\udce4", '{"iters": {}}', "[" * 10**5]
)
def test_a_config_that_is_no_runs_is_never_touched(tmp_path, start, flag, theirs):
    (tmp_path / "config.json").write_text(theirs, errors="surrogateescape")
    before = contents(tmp_path)
    with pytest.raises(OSError, match=r"config\.json: not the settings of a run"):
        start(tmp_path, **{flag: True})
    assert contents(tmp_path) == before


def test_resuming_asks_for_the_same_settings_and_names_the_others(tmp_path, start):
    start()
    (tmp_path / "link to it").symlink_to(tmp_path / "out")
    start(tmp_path / "link to it", resume=True)
    with pytest.raises(OSError, match=r"--hidden is \[64\] there, \[8\] here; --window is None there, 9 here"):
        start(resume=True, hidden=(8,), window=9)
    with pytest.raises(OSError, match="--experiment is sound there, mnist here"):
        start(resume=True, experiment="mnist")
    with pytest.raises(OSError, match="--iters is 100 there, 99 here"):
        start(resume=True, iters=99)


def test_a_finished_run_is_resumed_only_for_more_iterations(tmp_path, start, capsys):
    run.finish(start())
    before = contents(tmp_path / "out")
    with pytest.raises(SystemExit) as end:
        start(resume=True)
    assert end.value.code == 0 and "this run is finished" in capsys.readouterr().out
    assert contents(tmp_path / "out") == before
    start(resume=True, iters=200)
    assert "200 iterations instead of 100" in capsys.readouterr().out
    start(resume=True, iters=200)
    assert capsys.readouterr().out == ""


def test_resuming_where_there_is_no_run_starts_one(tmp_path, start, capsys):
    start(resume=True)
    assert "no run to resume; starting one" in capsys.readouterr().out
    assert (tmp_path / "out/config.json").exists()


def test_two_runs_do_not_share_a_folder_and_the_dead_hold_no_lock(tmp_path, start):
    pid = os.fork()
    if not pid:  # the child holds the lock until it is killed
        run._lock(tmp_path)
        (tmp_path / "locked").touch()
        signal.pause()
    try:
        while not (tmp_path / "locked").exists():
            pass
        for flags in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(OSError, match="another run is writing there"):
                start(tmp_path, **flags)
        assert not (tmp_path / "config.json").exists()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    start(tmp_path)


def test_what_to_type_to_go_on_is_said(tmp_path, start, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sound_dvae.py", "--out", "my runs/ü", "--overwrite"])
    start()
    line, _ = ended(capsys, KeyboardInterrupt())
    assert line == "interrupted; to go on: python sound_dvae.py --out 'my runs/ü' --resume"

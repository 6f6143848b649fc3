"""Files are whole or absent; runs are not lost, mixed or overwritten by mistake."""

import contextlib
import csv
import dataclasses
import errno
import importlib
import importlib.metadata
import json
import os
import platform
import resource
import signal
import time
import types
from pathlib import Path

import numpy as np
import pytest

from harness import UserError, cli, run_folder
from harness.run_folder import Run
from pages.report import WRITTEN

MODEL = types.SimpleNamespace(save=lambda path: path.write_text("a model"))


@dataclasses.dataclass(frozen=True)
class Settings(cli.Settings):
    experiment = "sound"
    data: str = cli.flag(None, "one's own")


@dataclasses.dataclass(frozen=True)
class WithWindow(Settings):
    window: int = cli.flag(9, "samples")


@dataclasses.dataclass(frozen=True)
class Digits(Settings):
    experiment = "mnist"


@contextlib.contextmanager
def running(out, kind=Settings, sha256="of the data", **changed):
    """A run whose data are good, as a process of its own would have it."""
    with Run(
        kind(out=Path(out), **{"iters": 100, "hidden": (64,), **changed}), written=WRITTEN
    ) as run:
        run.record({"source": "some files", "sha256": sha256})
        yield run


def begin(*arguments, **changed):
    """A run that comes to no end."""
    with running(*arguments, **changed):
        pass


def finish(*arguments, **changed):
    with running(*arguments, **changed) as run:
        run.finish(MODEL, [{"method": "input", "snr_db": 3.0}])


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_is_replaced_only_by_a_whole_one_that_the_disk_has(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *given, name=name, call=call: done.append(name) or call(*given)
        )
    path = tmp_path / "scores.csv"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), run_folder.replacing(path) as beside:
        beside.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "old"
    done.clear()
    with run_folder.replacing(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and done == ["fsync", "replace"]
    assert [file.name for file in tmp_path.iterdir()] == ["scores.csv"]


def test_a_table_keeps_its_columns_and_all_digits_and_the_terminal_four(tmp_path, capsys):
    third = np.float32(1) / 3
    rows = [
        {"method": "DVAE", "iteration": 100, "snr_db": 29.5 + third},
        {"method": "oracle", "snr_db": 31.0},
    ]
    run_folder.write_scores(tmp_path / "scores.csv", rows)
    with open(tmp_path / "scores.csv") as file:
        head, *lines = csv.reader(file)
    assert head == ["method", "iteration", "snr_db"] and lines[1] == ["oracle", "", "31.0"]
    assert lines[0][:2] == ["DVAE", "100"] and float(lines[0][2]) == 29.5 + third
    resumed = json.loads(
        json.dumps(rows, default=float)
    )  # as a checkpoint keeps them: a resumed run writes the same
    run_folder.write_scores(tmp_path / "resumed.csv", resumed)
    assert (tmp_path / "resumed.csv").read_bytes() == (tmp_path / "scores.csv").read_bytes()
    run_folder.print_table(rows)
    assert capsys.readouterr().out.splitlines() == [
        "method  iteration  snr_db",
        "DVAE          100   29.83",
        "oracle                 31",
    ]


def test_a_checkpoint_is_on_the_disk_when_its_page_is_written(tmp_path, capsys):
    pages = []
    settings = Settings(out=tmp_path)
    with Run(
        settings, lambda folder: pages.append(contents(folder)), columns=("iteration", "snr_db")
    ) as run:
        run.record({"source": "some files"})
        for i in (0, 100):
            run.log(
                i, {"kl": 2.0, "snr_db": 3.25}, {f"{i}.png": lambda path: path.write_text("pixels")}
            )
        run.finish(MODEL, [{"method": "input", "snr_db": 1.5}, {"method": "DVAE", "snr_db": 3.25}])
    assert [set(page) for page in pages] == [
        {"config.json", "scores.csv", "0.png"},
        {"config.json", "scores.csv", "0.png", "100.png"},
        {"config.json", "scores.csv", "0.png", "100.png", "model.keras"},
    ]
    rows = ["method,iteration,kl,snr_db", "DVAE,0,2.0,3.25", "DVAE,100,2.0,3.25", "input,,,1.5"]
    assert [page["scores.csv"].decode().splitlines() for page in pages] == [
        rows[:2],
        rows[:3],
        rows,
    ]
    assert "iteration 100   snr_db 3.25\n" in capsys.readouterr().out
    assert json.loads((tmp_path / "config.json").read_text())["finished"]


def test_a_folder_with_a_run_is_left_alone_without_a_flag(tmp_path):
    out = tmp_path / "out"
    begin(out)
    with pytest.raises(UserError, match=r"out: holds an unfinished run; --resume .* --overwrite"):
        begin(out)
    finish(out, overwrite=True)
    before = contents(out)
    with pytest.raises(UserError, match=r"out: holds a finished run; --resume .* --overwrite"):
        begin(out)
    assert contents(out) == before
    (out / "config.json").unlink()
    with pytest.raises(UserError, match="out: holds an unfinished run; --overwrite") as refused:
        begin(out)
    assert "--resume" not in str(refused.value)  # it would be refused, too
    with pytest.raises(UserError, match=r"config\.json is missing"):
        begin(out, resume=True)


def test_overwrite_removes_what_runs_write_and_nothing_else(tmp_path):
    finish(tmp_path)
    ours = [
        "reconstruction_000800.png",
        "generated_000100.wav",
        "scores.csv",
        "model.keras",
        "checkpoint.npz",
    ]
    ours += ["index.html", "events.out.tfevents.1", "tone.wav", "clean.wav", "chopped.wav"]
    others = ["notes.txt", "generated_by_hand.png", "reconstruction.png", "model.keras.old"]
    for name in (*ours, ".unfinished-scores.csv", *others):
        (tmp_path / name).write_text(name)
    begin(tmp_path, overwrite=True, hidden=(8,))
    assert {path.name for path in tmp_path.iterdir()} == {*others, "config.json"}
    assert json.loads((tmp_path / "config.json").read_text())["hidden"] == [8]


def test_an_overwriting_cut_short_leaves_neither_a_run_to_resume_nor_room_for_another(
    tmp_path, monkeypatch
):
    finish(tmp_path)
    names = ("scores.csv", "model.keras", "checkpoint.npz")
    for name in names:
        (tmp_path / name).touch()
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
            begin(tmp_path, overwrite=True)
        for flags in ({}, {"resume": True}):
            with pytest.raises(UserError, match="--overwrite"):
                begin(tmp_path, **flags)
    removed.clear()
    most = None
    begin(tmp_path, overwrite=True)
    assert removed == ["checkpoint.npz"]


@pytest.mark.parametrize("flags", [{}, {"overwrite": True}, {"resume": True}])
@pytest.mark.parametrize("refused", [UserError("no images"), KeyboardInterrupt()])
def test_until_the_data_are_good_nothing_is_changed(tmp_path, flags, refused):
    """Nor is anything left: neither folders that were made for nothing nor a word on how to go on."""
    if flags:
        finish(tmp_path / "old")
        (tmp_path / "old/.unfinished-scores.csv").write_text("of a run that was killed")
    for out in ("old", "new/and/deep"):
        before = contents(tmp_path / "old") if flags else None
        with (
            pytest.raises(type(refused)) as ended,
            Run(Settings(out=tmp_path / out, iters=200, hidden=(64,), **flags)),
        ):
            assert (tmp_path / out).is_dir()
            raise refused
        assert not getattr(ended.value, "__notes__", [])
        assert (contents(tmp_path / "old") if flags else None) == before
    assert [path.name for path in tmp_path.iterdir()] == ["old"] * bool(flags)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError), Run(Settings(out=tmp_path / "empty")):
        raise UserError("no images")
    with pytest.raises(UserError), Run(Settings(out=tmp_path / "used")):
        (tmp_path / "used/notes.txt").write_text("put there meanwhile")
        raise UserError("no images")
    assert (tmp_path / "empty").is_dir() and (tmp_path / "used/notes.txt").is_file()


@pytest.mark.parametrize("flag", ["overwrite", "resume"])
@pytest.mark.parametrize(
    "theirs",
    [
        *(
            '{"name": "an app"}',
            "[1, 2]",
            "null",
            "no JSON",
            "\udce4",
            '{"experiment": "", "iters": {}}',
            "[" * 10**5,
        ),
        *(
            f'{{"experiment": "sound", "iters": 9, "provenance": {each}}}'
            for each in ("null", "[]", '{"versions": 1}')
        ),
    ],
)
def test_a_config_that_is_no_runs_is_never_touched(tmp_path, flag, theirs):
    (tmp_path / "config.json").write_text(theirs, errors="surrogateescape")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"config\.json: not the settings of a run"):
        begin(tmp_path, **{flag: True})
    assert contents(tmp_path) == before


def test_resuming_asks_for_the_same_settings_and_names_the_others(tmp_path):
    out = tmp_path / "out"
    begin(out)
    (tmp_path / "link to it").symlink_to(out)
    begin(tmp_path / "link to it", resume=True)
    with pytest.raises(
        UserError, match=r"--hidden is \[64\] there, \[8\] here; --window is 9 there, 10 here"
    ):
        begin(out, WithWindow, resume=True, hidden=(8,), window=10)
    with pytest.raises(UserError, match="--experiment is sound there, mnist here"):
        begin(out, Digits, resume=True)
    with pytest.raises(UserError, match="--iters is 100 there, 99 here"):
        begin(out, resume=True, iters=99)


def test_resuming_asks_for_the_same_data_wherever_they_lie_and_names_other_versions(
    tmp_path, capsys
):
    begin(tmp_path, data="here.npz")
    before = contents(tmp_path)
    with pytest.raises(
        UserError, match=r"holds a run with other data \(some files\); resume with the same"
    ):
        begin(tmp_path, resume=True, data="here.npz", sha256="of others")
    assert contents(tmp_path) == before and capsys.readouterr().err == ""
    begin(tmp_path, resume=True, data="there.npz")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["provenance"]["sha256"] == "of the data" and capsys.readouterr().err == ""
    config["provenance"]["versions"]["keras"] = "2.0"
    (tmp_path / "config.json").write_text(json.dumps(config))
    begin(tmp_path, resume=True)
    assert f"{tmp_path}: begun with keras 2.0; " in capsys.readouterr().err
    del config["provenance"]  # as earlier scripts wrote it: then the path has to do
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"--data is there\.npz there, None here"):
        begin(tmp_path, resume=True)
    begin(tmp_path, resume=True, data="there.npz")
    begin(tmp_path, resume=True, data="./there.npz/")


def test_a_resumed_run_is_changed_only_once_its_checkpoint_is_accepted(tmp_path):
    finish(tmp_path)
    before = contents(tmp_path)
    new = {"chopped.wav": lambda path: path.write_text("new")}
    with (
        pytest.raises(UserError, match="of other data"),
        running(tmp_path, resume=True, iters=200) as run,
    ):
        run.save(new)
        raise UserError(
            "checkpoint.npz: of other data"
        )  # as training finds out when it restores it
    assert contents(tmp_path) == before
    with running(tmp_path, resume=True, iters=200) as run:
        run.save(new)
        run.log(200, {"snr_db": 1.0}, {})
    assert json.loads((tmp_path / "config.json").read_text())["iters"] == 200
    assert (tmp_path / "chopped.wav").read_text() == "new"


def test_versions_are_found_whatever_the_package_is_called(monkeypatch):
    assert run_folder.versions() == {
        "python": platform.python_version(),
        **{
            name: importlib.import_module(name).__version__
            for name in ("numpy", "keras", "tensorflow")
        },
    }
    version = importlib.metadata.version

    def of_another_package(name):
        if name == "tensorflow":
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.9" if name == "tensorflow-cpu" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", of_another_package)
    for packages, expected in (
        ({"tensorflow": ["tensorflow-cpu"]}, "tensorflow-cpu 2.9"),
        ({}, None),
    ):
        monkeypatch.setattr(
            importlib.metadata, "packages_distributions", lambda packages=packages: packages
        )
        assert run_folder.versions()["tensorflow"] == expected


def test_what_two_processes_write_is_refused_to_the_second(tmp_path):
    path, other = tmp_path / "mended.wav", tmp_path / "other.wav"
    with run_folder.claimed(path), run_folder.replacing(path) as beside:
        beside.write_text("whole")
        with (
            pytest.raises(UserError, match=r"mended\.wav: another process is writing it"),
            run_folder.claimed(path),
        ):
            pass
        with run_folder.claimed(other):
            pass
        assert beside.read_text() == "whole"
    with run_folder.claimed(
        path
    ):  # what was written is no claim, nor is what a killed process left
        pass
    beside.write_text("half")
    with run_folder.claimed(path):
        pass
    assert contents(tmp_path) == {"mended.wav": b"whole"}
    with pytest.raises(OSError) as refused, run_folder.claimed(tmp_path / "missing/mended.wav"):
        pass
    assert refused.value.filename == str(tmp_path / "missing/mended.wav")


def test_a_full_disk_is_named_though_the_library_that_writes_does_not(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(OSError) as full, run_folder.replacing(tmp_path / "a.wav") as beside:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        beside.write_bytes(bytes(50_000))
        raise RuntimeError("System error")  # as libsndfile has it
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert full.value.errno == errno.EFBIG and full.value.filename == str(tmp_path / "a.wav")
    with pytest.raises(RuntimeError), run_folder.replacing(tmp_path / "a.wav") as beside:
        beside.write_bytes(bytes(50_000))
        raise RuntimeError("a fault of another kind")
    assert not list(tmp_path.iterdir())


def test_a_finished_run_is_resumed_only_for_more_iterations(tmp_path, capsys):
    finish(tmp_path)
    before = contents(tmp_path)
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        begin(tmp_path, resume=True)
    assert end.value.code == 0 and "this run is finished" in capsys.readouterr().out
    assert contents(tmp_path) == before
    begin(tmp_path, resume=True, iters=200)
    assert "200 iterations instead of 100" in capsys.readouterr().out
    begin(tmp_path, resume=True, iters=200)
    assert capsys.readouterr().out == ""


def test_resuming_where_there_is_no_run_starts_one(tmp_path, capsys):
    begin(tmp_path / "out", resume=True)
    assert "no run to resume; starting one" in capsys.readouterr().out
    assert (tmp_path / "out/config.json").exists()


def test_two_runs_do_not_share_a_folder_and_the_dead_hold_no_lock(tmp_path):
    pid = os.fork()
    if not pid:  # the child holds the lock until it is killed
        with Run(Settings(out=tmp_path)):
            (tmp_path / "locked").touch()
            signal.pause()
    try:
        while not (tmp_path / "locked").exists():
            time.sleep(0.001)
        for flags in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(UserError, match="another run is writing there"):
                begin(tmp_path, **flags)
        assert not (tmp_path / "config.json").exists()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    with running(tmp_path), pytest.raises(UserError, match="another run is writing there"):
        begin(tmp_path, resume=True)
    begin(tmp_path, resume=True)


def test_what_to_type_to_go_on_is_said_where_a_run_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sound_dvae.py", "--out", "my runs/ü", "--overwrite"])

    def said(error):
        with (
            pytest.raises(SystemExit),
            cli.one_line_errors(),
            running(tmp_path / "ü", overwrite=True),
        ):
            raise error
        (line,) = capsys.readouterr().err.splitlines()
        return line

    to_go_on = "; to go on: python sound_dvae.py --out 'my runs/ü' --resume"
    assert said(KeyboardInterrupt()) == "interrupted" + to_go_on
    assert (
        said(OSError(28, "No space left", "a.png"))
        == f"sound_dvae.py: a.png: No space left{to_go_on}"
    )
    assert said(FloatingPointError("nan")) == "sound_dvae.py: nan"
    monkeypatch.setattr("sys.argv", ["sound_dvae.py", "--resume"])
    assert said(KeyboardInterrupt()) == "interrupted; to go on: the same command again"
    monkeypatch.setattr("sys.argv", ["sound_dvae.py", "--out", "my runs/ü", "--overwrite"])
    assert said(KeyboardInterrupt()) == "interrupted" + to_go_on
    config = json.loads((tmp_path / "ü/config.json").read_text())
    assert config["command"] == "python sound_dvae.py --out 'my runs/ü'"

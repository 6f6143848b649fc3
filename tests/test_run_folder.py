"""Files are complete or absent. Runs are not lost, mixed or overwritten by mistake."""

import contextlib
import csv
import dataclasses
import errno
import importlib
import importlib.metadata
import io
import json
import os
import platform
import shutil
import signal
import time
import types
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg  # noqa: F401  its threads are limited too
import threadpoolctl
from commands import posix
from hypothesis import given
from hypothesis import strategies as st

from harness import UserError, cli, result_files, run_folder, tables
from harness.run_folder import Run
from pages.report import WRITTEN

MODEL = types.SimpleNamespace(save=lambda path: path.write_text("a model"))
BASELINE = {"method": "input", "snr_db": 3.0}


@dataclasses.dataclass(frozen=True)
class Settings(cli.Settings):
    experiment = "sound"
    iters: int = cli.flag(1000, "optimizer steps")
    hidden: tuple = cli.flag((512,), "widths")
    data: str = cli.flag(None, "own recordings")


@dataclasses.dataclass(frozen=True)
class WithWindow(Settings):
    window: int = cli.flag(9, "samples")


@dataclasses.dataclass(frozen=True)
class Digits(Settings):
    experiment = "mnist"
    training_version = 2


@dataclasses.dataclass(frozen=True)
class Later(Settings):
    training_version = 2


@contextlib.contextmanager
def running(out, kind=Settings, sha256="of the data", **changed):
    """Start a run whose data are valid."""
    settings = kind(out=Path(out), **{"iters": 100, "hidden": (64,), **changed})
    with Run(settings, written=WRITTEN) as run:
        run.record({"source": "some files", "sha256": sha256})
        yield run


def weights(path):
    path.write_text("weights")


def begin(*arguments, **changed):
    """Start a run and leave it unfinished, with a checkpoint."""
    with running(*arguments, **changed) as run:
        run.save_checkpoint(weights)


def finish(*arguments, **changed):
    with running(*arguments, **changed) as run:
        run.save_checkpoint(weights)
        run.finish(MODEL, [BASELINE])


def contents(folder):
    files = [path for path in folder.iterdir() if path.name[:6] != ".lock-"]
    return {path.name: path.read_bytes() for path in files}


def states(folder):
    """Return {name: state} of the files in a folder. Reading a file does not change its state."""
    found = {path.name: path.lstat() for path in folder.iterdir()}
    return {name: (state[:7], state.st_mtime_ns) for name, state in found.items()}


def test_a_file_is_replaced_only_by_a_complete_one_on_the_disk(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *given, name=name, call=call: done.append(name) or call(*given)
        )
    path = tmp_path / "scores.csv"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), result_files.replacing(path) as beside:
        beside.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "old"
    done.clear()
    with result_files.replacing(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and done == ["fsync", "replace"]
    assert [file.name for file in tmp_path.iterdir()] == ["scores.csv"]


@posix
@pytest.mark.parametrize("mode", [0o600, 0o444, 0o640])
def test_a_replaced_file_keeps_its_mode(tmp_path, mode):
    """Whatever mode the library that writes would give it."""
    new, private = tmp_path / "new", tmp_path / "private"
    private.touch()
    private.chmod(mode)
    before = os.umask(0o027)
    try:
        for path in (new, private):
            with result_files.replacing(path) as beside:
                assert path == new or not beside.stat().st_mode & 0o077 & ~mode
                os.close(os.open(beside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o777))
    finally:
        os.umask(before)
    assert [path.stat().st_mode & 0o777 for path in (new, private)] == [0o640, mode]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid(), reason="only root gives files away")
def test_a_replaced_file_keeps_its_owner(tmp_path):
    path = tmp_path / "r.wav"
    path.touch()
    os.chown(path, 1000, 1001)
    path.chmod(0o4640)
    with result_files.replacing(path) as beside:
        beside.write_text("new")
    after = path.stat()
    assert (after.st_uid, after.st_gid, after.st_mode & 0o7777) == (1000, 1001, 0o4640)


@posix
def test_a_link_as_destination_is_followed(tmp_path):
    (tmp_path / "deep").mkdir()
    for target in ("deep/old.wav", "deep/new.wav"):
        link = tmp_path / Path(target).name
        link.symlink_to(target)
        with result_files.claimed(link), result_files.replacing(link) as beside:
            assert beside.parent == (tmp_path / "deep").resolve()  # the target may be elsewhere
            beside.write_text(target)
        assert link.is_symlink() and (tmp_path / target).read_text() == target
    assert len(list(tmp_path.rglob("*"))) == 5


@posix
@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_or_device_is_never_replaced(tmp_path, linked):
    """An administrator may even rename a file to /dev/null."""
    pipe = path = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    if linked:
        path = tmp_path / "link.wav"
        path.symlink_to(pipe)
    with pytest.raises(UserError, match=f"{path.name}: a pipe or a device"):
        with result_files.claimed(path), result_files.replacing(path) as beside:
            beside.write_text("new")
    assert pipe.is_fifo() and len(list(tmp_path.iterdir())) == 1 + linked


def test_a_folder_is_never_replaced(tmp_path):
    """The error is the system's, which names the folder."""
    (tmp_path / "a.wav").mkdir()
    with pytest.raises(OSError, match=r"a\.wav"):
        with result_files.replacing(tmp_path / "a.wav") as beside:
            beside.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.wav"]


@posix
@pytest.mark.parametrize("number", cli.STOPPING)
def test_an_interruption_leaves_no_files_behind(tmp_path, capsys, interruptible, number):
    """Even if the signal comes twice, as SIGHUP does when a terminal is closed."""
    path, before = tmp_path / "new/restored.wav", signal.getsignal(number)

    def waited(*_):
        if number != signal.SIGINT:
            os.kill(os.getpid(), number)

    with (
        pytest.raises(SystemExit) as end,
        cli.one_line_errors(),
        result_files.claimed(path),
        result_files.replacing(path) as beside,
        contextlib.ExitStack() as stack,
    ):
        stack.push(waited)
        beside.write_text("half")
        os.kill(os.getpid(), number)
        time.sleep(60)
    assert end.value.code == 128 + number and capsys.readouterr().err == "interrupted\n"
    assert not list(tmp_path.iterdir()) and signal.getsignal(number) == before


@pytest.mark.parametrize("length", [243, 244, 251, 255])
def test_long_names_are_written(tmp_path, length):
    path = tmp_path / ("ü" * 120 + "n" * (length - 244) + ".wav")[-length:]
    with result_files.claimed(path), result_files.replacing(path) as beside:
        assert beside.suffix == ".wav"
        beside.write_text("new")
    assert contents(tmp_path) == {path.name: b"new"}


def test_a_table_keeps_all_digits_and_the_terminal_shows_four(tmp_path, capsys):
    third = np.float32(1) / 3
    rows = [
        {"method": "DVAE", "iteration": 100, "snr_db": 29.5 + third},
        {"method": "oracle", "snr_db": 31.0},
    ]
    tables.write_csv(tmp_path / "scores.csv", rows)
    with open(tmp_path / "scores.csv", encoding="utf-8") as file:
        head, *lines = csv.reader(file)
    assert head == ["method", "iteration", "snr_db"] and lines[1] == ["oracle", "", "31.0"]
    assert lines[0][:2] == ["DVAE", "100"] and float(lines[0][2]) == 29.5 + third
    # A checkpoint stores the rows as JSON. A resumed run must write the same table from them.
    resumed = json.loads(json.dumps(rows, default=float))
    tables.write_csv(tmp_path / "resumed.csv", resumed)
    assert (tmp_path / "resumed.csv").read_bytes() == (tmp_path / "scores.csv").read_bytes()
    tables.print_table(rows)
    assert capsys.readouterr().out.splitlines() == [
        "method  iteration  snr_db",
        "DVAE          100   29.83",
        "oracle                 31",
    ]


def test_a_checkpoint_is_on_disk_when_its_page_is_written(tmp_path, capsys):
    pages = []

    def page_files(folder):
        pages.append(contents(folder))
        return {}

    with Run(Settings(out=tmp_path), page_files, columns=("iteration", "snr_db")) as run:
        run.record({"source": "some files"})
        for i in (0, 100):
            files = {f"{i}.png": lambda path: path.write_text("pixels")}
            run.log(i, {"kl": 2.0, "snr_db": 3.25}, files)
        run.finish(MODEL, [{"method": "input", "snr_db": 1.5}, {"method": "DVAE", "snr_db": 3.25}])
    assert [set(page) for page in pages] == [
        {"config.json", "scores.csv", "0.png"},
        {"config.json", "scores.csv", "0.png", "100.png"},
        {"config.json", "scores.csv", "0.png", "100.png", "model.keras"},
    ]
    rows = ["method,iteration,kl,snr_db", "DVAE,0,2.0,3.25", "DVAE,100,2.0,3.25"]
    rows += ["input,,,1.5", "DVAE,,,3.25"]
    written = [page["scores.csv"].decode().splitlines() for page in pages]
    assert written == [rows[:2], rows[:3], rows]
    assert "iteration 100   snr_db 3.25\n" in capsys.readouterr().out
    assert json.loads((tmp_path / "config.json").read_text())["finished"]


def test_a_folder_with_a_run_needs_a_flag(tmp_path):
    out = tmp_path / "out"
    begin(out)
    with pytest.raises(
        UserError, match=r"out: already contains an unfinished run; use --resume .* --overwrite"
    ):
        begin(out)
    finish(out, overwrite=True)
    before = contents(out)
    with pytest.raises(
        UserError, match=r"out: already contains a finished run; use --resume .* --overwrite"
    ):
        begin(out)
    assert contents(out) == before


@posix
@pytest.mark.parametrize("flags", [{}, {"overwrite": True}, {"resume": True}])
@pytest.mark.parametrize("earlier", [False, True])
def test_files_that_no_run_wrote_are_never_replaced(tmp_path, flags, earlier):
    """Even if an earlier run is in the folder. A broken link counts as a file."""
    if earlier:
        finish(tmp_path, iters=50)
    files = "model.keras", "Clean.WAV", "events.out.tfevents.9", "generated_000100.png"
    for name in files:
        (tmp_path / name).write_text("a user's")
    (tmp_path / "tone.wav").symlink_to("missing.wav")
    before = states(tmp_path)
    with pytest.raises(UserError) as refused:
        begin(tmp_path, **flags)
    names = ", ".join(sorted([*files, "tone.wav"]))
    problem = f"contains {names}, which its config.json does not list with this content"
    remedy = "move it elsewhere or choose another --out"
    assert str(refused.value) == f"--out {tmp_path}: {problem}; {remedy}"
    assert states(tmp_path) == before


def test_a_file_made_during_a_run_is_not_replaced(tmp_path):
    """Not even if a run has written a file of this name before."""
    with running(tmp_path) as run:
        run.save({"tone.wav": weights})
        for name in ("tone.wav", "model.keras", "scores.csv"):
            (tmp_path / name).write_text("a user's")
            with pytest.raises(UserError, match=f"contains {name}, which its config.json does not"):
                run.log(0, {"loss": 1.0}, {name: weights})
            assert (tmp_path / name).read_text() == "a user's"
            (tmp_path / name).unlink()
        run.log(0, {"loss": 1.0}, {"tone.wav": weights})


@pytest.mark.parametrize("name", ["config.json", "scores.csv", "checkpoint.npz", "index.html"])
def test_a_run_killed_while_renaming_a_file_resumes(tmp_path, monkeypatch, name):
    """Killed before or after the renaming of each file: its old and new content are the run's."""

    def log(**flags):
        with Run(Settings(out=tmp_path, **flags), lambda folder: {"index.html": weights}) as run:
            run.record({})
            run.save_checkpoint(lambda path: path.write_text(f"{len(flags)} and {number}"))
            run.log(number, {"loss": number / 3}, {})

    def killed(renamed, source, target):
        if Path(target).name != name or renamed:
            rename(source, target)
        if Path(target).name == name:
            raise KeyboardInterrupt

    number, rename = 0, os.replace
    log()
    for renamed in (False, True, False, True):
        number += 1
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", partial(killed, renamed))
            with pytest.raises(KeyboardInterrupt):
                log(resume=True)
        log(resume=True)


def test_config_lists_each_file_before_it_is_written(tmp_path, monkeypatch):
    rename, listed = os.replace, set()

    def renamed(source, target):
        listed.update(json.loads((tmp_path / "config.json").read_text())["files"])
        assert Path(target).name in {*listed, "config.json"}
        rename(source, target)

    (tmp_path / "generated.png").touch()  # by sample.py
    with running(tmp_path) as run:
        monkeypatch.setattr(os, "replace", renamed)
        run.page_files = lambda folder: {"index.html": weights, "events.out.tfevents.0": weights}
        run.log(0, {"loss": 1.0}, {"generated_000000.png": weights})
    assert len(listed) == 5
    begin(tmp_path, overwrite=True)
    left = {"config.json", "checkpoint.npz", "generated.png"}
    assert {path.name for path in tmp_path.iterdir()} == left


@posix
@pytest.mark.parametrize("data", ["photos", "photos/a.npz", "photos/x/z", ".", "link"])
def test_the_data_and_the_results_are_apart(tmp_path, data):
    (tmp_path / "photos/x").mkdir(parents=True)
    (tmp_path / "photos/y").mkdir()
    (tmp_path / "link").symlink_to("photos/x")
    with pytest.raises(UserError, match=r"--out .*: must be apart from --data \(.*; choose a"):
        out = tmp_path / ("photos" if data == "photos/a.npz" else "photos/y/../x")
        begin(out, data=str(tmp_path / data))
    begin(tmp_path / "photos2", data=None if data == "." else str(tmp_path / data))
    assert sorted(path.name for path in tmp_path.rglob("*")) == sorted(
        ["photos", "x", "y", "link", "photos2", "config.json", "checkpoint.npz"]
    )


def test_overwrite_of_an_old_run_removes_what_runs_write(tmp_path):
    finish(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["files"] = sorted(config["files"])  # without hashes, as one version wrote it
    (tmp_path / "config.json").write_text(json.dumps(config))
    begin(tmp_path, resume=True, iters=200)
    config = json.loads((tmp_path / "config.json").read_text())
    assert {"model.keras", "scores.csv"} < set(config.pop("files"))
    (tmp_path / "config.json").write_text(json.dumps(config))
    ours = [
        *("reconstruction_000800.png", "generated_000100.wav", "scores.csv", "model.keras"),
        *("checkpoint.npz", "index.html", "events.out.tfevents.1", "tone.wav", "clean.wav"),
        *("chopped.wav", ".unfinished-scores.csv"),
    ]
    others = ["notes.txt", "generated_by_hand.png", "reconstruction.png", "model.keras.old"]
    for name in (*ours, *others):
        (tmp_path / name).write_text(name)
    begin(tmp_path, overwrite=True, hidden=(8,))
    left = {*others, "config.json", "checkpoint.npz"}
    assert {path.name for path in tmp_path.iterdir()} == left
    assert json.loads((tmp_path / "config.json").read_text())["hidden"] == [8]


@pytest.mark.parametrize("most", range(4))
def test_an_interrupted_overwrite_mixes_no_runs(tmp_path, monkeypatch, most):
    """Wherever the deletion stopped, the old checkpoint is not resumed with other settings."""
    finish(tmp_path, iters=50)
    remove, removed = Path.unlink, []

    def unlink(path, *arguments, **options):
        if path.name[0] != ".":
            if len(removed) == most:
                raise KeyboardInterrupt
            removed.append(path.name)
        remove(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(KeyboardInterrupt) if most < 3 else contextlib.nullcontext():
            begin(tmp_path, overwrite=True)
    assert len(removed) == most
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["iters"] == 50) == (most == 0)
    assert (tmp_path / "model.keras").exists() == (most < 2)
    with pytest.raises(UserError, match="--overwrite"):
        begin(tmp_path)
    if config["iters"] == 100:
        begin(tmp_path, resume=True)
        assert set(contents(tmp_path)) == {"config.json", "checkpoint.npz"}


@pytest.mark.parametrize("flags", [{}, {"overwrite": True}, {"resume": True}])
@pytest.mark.parametrize("refused", [UserError("no images"), KeyboardInterrupt()])
def test_nothing_changes_until_the_data_are_valid(tmp_path, flags, refused):
    """No new folders are left behind, and no note says how to continue."""
    if flags:
        finish(tmp_path / "old")
        (tmp_path / "old/.unfinished-scores.csv").write_text("from a run that was killed")
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
        (tmp_path / "used/notes.txt").write_text("created by somebody else")
        raise UserError("no images")
    assert list((tmp_path / "empty").iterdir()) == []
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("flag", ["overwrite", "resume"])
@pytest.mark.parametrize(
    "content",
    [
        '{"experiment": "sound", "iters": 9, "files": [1]}',
        '{"experiment": "sound", "iters": 9, "files": 1}',
        *('{"name": "an app"}', "[1, 2]", "null", "no JSON", "\udce4", "[" * 10**5),
        '{"experiment": "", "iters": {}}',
        '{"experiment": "sound", "iters": 9, "provenance": null}',
        '{"experiment": "sound", "iters": 9, "provenance": []}',
        '{"experiment": "sound", "iters": 9, "provenance": {"versions": 1}}',
    ],
)
def test_the_config_of_another_program_is_kept(tmp_path, flag, content):
    (tmp_path / "config.json").write_text(content, errors="surrogateescape")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"config\.json: not the settings of a run"):
        begin(tmp_path, **{flag: True})
    assert contents(tmp_path) == before


@posix
def test_resuming_needs_the_same_settings(tmp_path):
    out = tmp_path / "out"
    begin(out)
    (tmp_path / "link to it").symlink_to(out)
    begin(tmp_path / "link to it", resume=True)
    with pytest.raises(
        UserError, match=r"--hidden: expected \[64\], got \[8\]; --window: expected 9, got 10"
    ):
        begin(out, WithWindow, resume=True, hidden=(8,), window=10)
    with pytest.raises(UserError, match=r"\(--experiment: expected sound, got mnist\)"):
        begin(out, Digits, resume=True)
    with pytest.raises(UserError, match="--iters: expected 100, got 99"):
        begin(out, resume=True, iters=99)


def test_a_run_that_was_trained_differently_does_not_resume(tmp_path):
    """Runs that do not name a version have version 1."""
    begin(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config.pop("training_version") == 1
    (tmp_path / "config.json").write_text(json.dumps(config))
    begin(tmp_path, resume=True)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"another version of these scripts.*--overwrite"):
        begin(tmp_path, Later, resume=True)
    assert contents(tmp_path) == before
    begin(tmp_path, Later, overwrite=True)
    with pytest.raises(UserError, match="another version of these scripts"):
        begin(tmp_path, resume=True)


def test_resuming_needs_the_same_data_at_any_path(tmp_path, capsys):
    begin(tmp_path, data="here.npz")
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"with other data \(some files\); resume .* same files"):
        begin(tmp_path, resume=True, data="here.npz", sha256="of others")
    assert contents(tmp_path) == before and capsys.readouterr().err == ""
    begin(tmp_path, resume=True, data="there.npz")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["provenance"]["sha256"] == "of the data" and capsys.readouterr().err == ""
    config["provenance"]["versions"]["keras"] = "2.0"
    (tmp_path / "config.json").write_text(json.dumps(config))
    begin(tmp_path, resume=True)
    assert f"{tmp_path}: started with keras 2.0; " in capsys.readouterr().err
    del config["provenance"]  # earlier scripts wrote none: paths are compared then
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"--data: expected there\.npz, got None"):
        begin(tmp_path, resume=True)
    begin(tmp_path, resume=True, data="there.npz")


def test_resuming_changes_nothing_before_the_first_log(tmp_path):
    """Until then, training may refuse the checkpoint."""
    finish(tmp_path)
    before = contents(tmp_path)
    new = {"chopped.wav": lambda path: path.write_text("new")}
    with (
        pytest.raises(UserError, match="of other data"),
        running(tmp_path, resume=True, iters=200) as run,
    ):
        run.save(new)
        raise UserError("checkpoint.npz: of other data")  # as training does
    assert contents(tmp_path) == before
    with running(tmp_path, resume=True, iters=200) as run:
        run.save(new)
        run.log(200, {"snr_db": 1.0}, {})
    assert json.loads((tmp_path / "config.json").read_text())["iters"] == 200
    assert (tmp_path / "chopped.wav").read_text() == "new"


def test_numpy_and_scipy_have_one_thread_during_a_run(tmp_path):
    """Runs of notebooks too, which use no `one_line_errors`, are limited."""

    def threads():
        pools = threadpoolctl.threadpool_info()
        return [pool["num_threads"] for pool in pools if pool["user_api"] == "blas"]

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        with running(tmp_path):
            assert len(threads()) >= 2 and set(threads()) == {1}
        with pytest.raises(UserError), running(tmp_path):
            pass
        assert set(threads()) == {2}


def test_versions_are_found_under_any_package_name(monkeypatch):
    names = ("numpy", "keras", "tensorflow", "scipy")
    assert run_folder.versions() == {
        "cores": cli.cores(),
        "python": platform.python_version(),
        **{name: importlib.import_module(name).__version__ for name in names},
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


@posix
def test_two_processes_never_write_the_same_result(tmp_path):
    path, other = tmp_path / "restored.wav", tmp_path / "other.wav"
    with result_files.claimed(path), result_files.replacing(path) as beside:
        beside.write_text("whole")
        with (
            pytest.raises(UserError, match=r"restored\.wav: another process is writing it"),
            result_files.claimed(path),
        ):
            pass
        with result_files.claimed(other):
            pass
        assert beside.read_text() == "whole"
    with result_files.claimed(path):  # although the result exists
        pass
    beside.write_text("half")  # a killed process leaves this and its lock file
    (tmp_path / ".lock-restored.wav").touch()
    with result_files.claimed(path):
        pass
    assert contents(tmp_path) == {"restored.wav": b"whole"}
    with result_files.claimed(tmp_path / "missing/and deep/restored.wav"):
        assert (tmp_path / "missing/and deep").is_dir()
    assert not (tmp_path / "missing").exists()
    (tmp_path / "missing").symlink_to("nowhere")
    with pytest.raises(OSError) as refused, result_files.claimed(tmp_path / "restored.wav/a"):
        pass
    assert refused.value.filename == str(tmp_path / "restored.wav")


def claim_in_turns(path, log, turns):
    """Claim a path repeatedly in a child process. Write `log` if two have it at once."""
    pid = os.fork()
    if pid:
        return pid
    inside = path.with_name("inside")
    for _ in range(turns):
        with contextlib.suppress(UserError), result_files.claimed(path):
            try:
                inside.mkdir()
            except FileExistsError:
                log.write_text("two at once")
            else:
                inside.rmdir()
    os._exit(0)


def test_removing_the_lock_file_lets_one_process_in_at_a_time(tmp_path):
    """The lock file is removed while other processes may have it open."""
    log = tmp_path / "log"
    children = [claim_in_turns(tmp_path / "restored.wav", log, 1000) for _ in range(3)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert contents(tmp_path) == {}


def refuse(number, *_, **__):
    raise OSError(number, os.strerror(number))


@posix
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EIO])
def test_a_file_system_without_locks_is_usable(tmp_path, monkeypatch, number):
    monkeypatch.setattr("fcntl.flock", partial(refuse, number))
    with result_files.claimed(tmp_path / "restored.wav"), running(tmp_path / "out"):
        pass
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config.json", "out"]


@posix
def test_a_file_system_without_modes_and_owners_is_usable(tmp_path, monkeypatch):
    for name in ("chmod", "fchmod", "chown"):
        monkeypatch.setattr(os, name, partial(refuse, errno.EPERM))
    finish(tmp_path)
    finish(tmp_path, overwrite=True)
    assert (tmp_path / "model.keras").read_text() == "a model"


def test_a_result_mounted_by_itself_has_a_remedy(tmp_path, monkeypatch, capsys):
    path = tmp_path / "r.wav"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", partial(refuse, errno.EBUSY))
    with pytest.raises(SystemExit), cli.one_line_errors(), result_files.replacing(path) as beside:
        beside.write_text("new")
    assert f"{path}: {os.strerror(errno.EBUSY)}; if it is mounted by" in capsys.readouterr().err
    assert contents(tmp_path) == {"r.wav": b"old"}


def test_a_full_disk_is_named_even_if_the_library_does_not(tmp_path, full_disk):
    with (
        full_disk(50_000),
        pytest.raises(OSError) as full,
        result_files.replacing(tmp_path / "a.wav") as beside,
    ):
        beside.write_bytes(bytes(50_000))
        raise RuntimeError("System error")  # libsndfile's words
    assert full.value.errno == errno.EFBIG and full.value.filename == str(tmp_path / "a.wav")
    with pytest.raises(RuntimeError), result_files.replacing(tmp_path / "a.wav") as beside:
        beside.write_bytes(bytes(50_000))
        raise RuntimeError("another error")
    assert not list(tmp_path.iterdir())


def test_a_finished_run_resumes_only_for_more_iterations(tmp_path, capsys):
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


def test_resuming_without_a_run_starts_one(tmp_path, capsys):
    begin(tmp_path / "out", resume=True)
    assert "no run to resume; starting one" in capsys.readouterr().out
    assert (tmp_path / "out/config.json").exists()


@posix
def test_two_runs_do_not_share_a_folder(tmp_path):
    """The lock of a killed process does not remain."""
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
    assert not (tmp_path / ".lock").exists()


def test_an_ended_run_names_the_command_to_continue(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["python", "-f", "kernel-1234.json"])  # as in a notebook
    monkeypatch.chdir(Path(__file__).parent)
    out = tmp_path / "ü ü"

    def printed(error):
        with pytest.raises(SystemExit), cli.one_line_errors(), running(out, overwrite=True):
            raise error
        (line,) = capsys.readouterr().err.splitlines()
        return line

    command = f"python test_run_folder.py --iters 100 --hidden 64 --out '{out}'"
    note = f"; to continue: {command} --resume"
    assert printed(KeyboardInterrupt()) == "interrupted" + note
    full = OSError(28, "No space left", "a.png")
    assert printed(full) == f"python: a.png: No space left{note}"
    assert printed(FloatingPointError("nan")) == "python: nan"
    config = json.loads((out / "config.json").read_text())
    assert config["command"] == command


def finish_it(run):
    run.finish(MODEL, [BASELINE])


@pytest.mark.parametrize("end", [lambda run: shutil.rmtree(run.folder), finish_it])
def test_no_command_continues_a_run_that_is_gone_or_finished(tmp_path, end):
    with pytest.raises(OSError) as ended, running(tmp_path / "out") as run:
        end(run)
        raise OSError("no room")
    assert not getattr(ended.value, "__notes__", [])


def test_a_finished_run_without_a_checkpoint_is_kept(tmp_path):
    finish(tmp_path)
    (tmp_path / "checkpoint.npz").unlink()
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"finished run has no checkpoint\.npz"):
        begin(tmp_path, resume=True, iters=200)
    assert contents(tmp_path) == before


@given(
    st.lists(st.text("ab", min_size=1, max_size=12), min_size=1, max_size=4),
    st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3),
)
def test_columns_of_a_printed_table_are_aligned(names, scores):
    """The first column begins, and each other one ends, at the same place in all lines."""
    columns = ("a", "much_longer", "s")
    rows = [{"method": name, **dict(zip(columns, scores))} for name in names]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        tables.print_table(rows)
    lines = printed.getvalue().splitlines()
    assert len({len(line) for line in lines}) == 1
    cells = [line.split() for line in lines]
    assert [each[0] for each in cells] == ["method", *names]
    for column in range(1, 4):
        ends = set()
        for line, each in zip(lines, cells):
            end = len(line)
            for later in reversed(each[column + 1 :]):
                end = line.rindex(later, 0, end)
            ends.add(line[:end].rstrip().__len__())
        assert len(ends) == 1
    assert float(cells[1][1]) == pytest.approx(scores[0], rel=1e-3)


@posix
@pytest.mark.parametrize("mode", [0o600, 0o444, 0o640])
def test_an_unfinished_file_can_be_read_and_written(tmp_path, mode):
    """Libraries read back what they wrote. Nobody else gets more rights than before."""
    path = tmp_path / "a.wav"
    path.touch()
    path.chmod(mode)
    with result_files.replacing(path) as beside:
        assert beside.stat().st_mode & 0o777 == mode | 0o200


@posix
def test_without_locks_a_killed_process_blocks_nothing(tmp_path, monkeypatch):
    """Its file remains. A process that is alive cannot be told from it there."""
    monkeypatch.setattr("fcntl.flock", partial(refuse, errno.ENOSYS))
    path = tmp_path / "restored.wav"
    (tmp_path / ".lock-restored.wav").write_text("1234\nhost\n")
    with result_files.claimed(path), result_files.claimed(path):
        path.touch()
    assert path.exists()

"""The command line of denoise.py: destinations, errors, and files that must not be lost."""

import contextlib
import errno
import json
import os
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
from commands import ROOT, inside, posix, refused
from PIL import Image

import denoise
from audio_utils import snr_db
from files.batch import files_below, plan, restore_each
from files.gap_labels import read_gaps
from harness import UserError, cli
from harness.quiet_tensorflow import load
from harness.result_files import claimed, replacing

RATE = 16000


def pairs(*inputs, out):
    planned = plan([Path(path) for path in inputs], out, [])
    return [(str(source), str(destination)) for source, destination in planned]


def test_results_have_the_format_of_the_input_or_wav(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("a.wma", "c.wav", "m/a.wma", "m/b.flac"):
        Path(path).parent.mkdir(exist_ok=True)
        Path(path).write_bytes(b"")
    assert pairs("m", out="new") == [("m/a.wma", "new/a.wav"), ("m/b.flac", "new/b.flac")]
    assert pairs("a.wma", out="b.wav") == [("a.wma", "b.wav")]
    assert pairs("m/b.flac", out="b.wav") == [("m/b.flac", "b.wav")]
    for path, out in (("a.wma", "b.wma"), ("c.wav", "b.flac")):
        with pytest.raises(UserError, match="does not fit this input"):
            pairs(path, out=out)


@posix
def test_destinations_are_never_an_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("in/deep er").mkdir(parents=True)
    Path("other").mkdir()
    inside = "in/ä.wav", "in/deep er/b.FLAC", "in/note.txt", "in/.hidden.wav"
    for name in (*inside, "other/ä.wav", "-c.wav"):
        Path(name).write_bytes(b"")
    os.symlink("ä.wav", "in/link.wav")
    os.link("-c.wav", "hard.wav")

    tree = [
        ("in/deep er/b.FLAC", "new/x/deep er/b.FLAC"),
        ("in/link.wav", "new/x/link.wav"),
        ("in/ä.wav", "new/x/ä.wav"),
    ]
    assert pairs("in", out="new/x") == tree
    assert pairs("-c.wav", out="d.wav") == [("-c.wav", "d.wav")]
    assert pairs("-c.wav", out="other") == [("-c.wav", "other/-c.wav")]
    assert pairs("-c.wav", out="new.d/") == [("-c.wav", "new.d/-c.wav")]
    both = [("-c.wav", "new/-c.wav"), ("in/ä.wav", "new/ä.wav")]
    assert pairs("-c.wav", "in/ä.wav", out="new") == both
    for name in ("other", "in/../other/", str(Path("other").absolute())):
        both = [("-c.wav", "new/-c.wav"), (f"{Path(name)}/ä.wav", "new/other/ä.wav")]
        assert pairs("-c.wav", name, out="new") == both
    with contextlib.chdir("in/deep er"):  # ".." has a name
        assert pairs("../ä.wav", "..", out="new")[1:] == [
            (f"../{name}", f"new/in/{name}") for name in ("deep er/b.FLAC", "link.wav", "ä.wav")
        ]
    Path("in/restored").mkdir()
    Path("in/restored/ä.wav").write_bytes(b"an earlier result")
    assert len(pairs("in", out="in/restored")) == 3
    for inputs, out, words in (
        (["-c.wav"], "-c.wav", ["is the input"]),
        (["-c.wav"], "hard.wav", ["hard.wav", "is the input"]),
        (["in/link.wav"], "in/ä.wav", ["is the input"]),
        (["in"], "in", ["is the input"]),
        (["in"], "other/ä.wav", ["other/ä.wav", "a file", "a folder is needed"]),
        (["-c.wav"], "other/ä.wav/", ["other/ä.wav", "a file", "a folder is needed"]),
        (["-c.wav"], "c.mp3", ["c.mp3", ".wav"]),
        (["missing.wav"], "new", ["missing.wav"]),
        (["other/empty"], "new", ["no sounds or images"]),
        ([os.devnull], "new", ["neither a file"]),
    ):
        Path("other/empty").mkdir(exist_ok=True)
        with pytest.raises(FileNotFoundError if "missing.wav" in inputs else UserError) as caught:
            pairs(*inputs, out=out)
        for word in words:
            assert word in str(caught.value)


@posix
def test_completions_never_replace_an_input(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "a-1.png", "mask.png", "b.wav", "b-1.wav"):
        Path(name).touch()
    Path("out").mkdir()
    os.link("mask.png", "out/a-2.png")
    os.link("a.png", "out/c-1.png")
    for inputs, out, count, words in (
        (["a.png"], "out/a.png", 2, r"out/a-2\.png: is the input mask\.png; give another"),
        (["a.png"], "out/c.png", 1, r"out/c-1\.png: is the input a\.png; give another"),
    ):
        inputs = [Path(path) for path in inputs]
        with pytest.raises(UserError, match=words):
            plan(inputs, out, [Path("mask.png")], count)
        assert plan(inputs, f"new/{out}", [Path("mask.png")], 0)


def test_files_with_the_same_result_are_named_the_rest_done(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    links = []
    if os.name == "posix":
        links = [(Path(f"{name}.wav"), Path(f"out/{name}.wav")) for name in ("link", "target")]
        os.symlink("target.wav", "out/link.wav")
    names = {"v.wav": "v.wav", "v.aac": "v.wav", "a.png": "a.png", "a-1.png": "a-1.png"}
    clashing = [*((Path(a), Path("out", b)) for a, b in names.items()), *links]
    alone = [(Path(name), Path("out", name)) for name in ("b.wav", "b-1.wav", "c.png")]
    restored = []
    with pytest.raises(SystemExit) as end:
        restore_each(clashing + alone, lambda *pair: restored.append(pair) or "", False, 1)
    said = capsys.readouterr()
    assert restored == alone and end.value.code == 2  # sounds have no completions
    assert f"3 of {len(clashing) + 3} files restored, {len(clashing)} failed" in said.out
    lines = said.err.splitlines()
    assert (
        lines[0]
        == lines[1]
        == (
            "denoise.py: out/v.wav: v.wav and v.aac would both be saved here; "
            "restore each with its own --out"
        )
    )
    assert len(lines) == len(clashing) and "out/a-1.png: a.png and a-1.png would" in lines[3]


def test_a_file_given_twice_is_restored_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a").mkdir()
    Path("a/x.wav").touch()
    inputs = [Path("a/x.wav"), Path("./a/x.wav"), Path("a/x.wav")]
    assert plan(inputs, "out", []) == [(Path("a/x.wav"), Path("out/x.wav"))]


def test_existing_completions_need_overwrite(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = types.SimpleNamespace(kind=types.SimpleNamespace(sounds=False))
    monkeypatch.setattr(denoise, "load_restorer", lambda path: model)
    monkeypatch.setattr(denoise, "restore_image", lambda *given: f"restored {given[-1]}")
    for name in ("m.keras", "-a.png", "b-2.png"):
        Path(name).touch()
    # Everything after "--" is a file.
    flags = "--completions", 3, "-o", "b.png", "--", "m.keras", "-a.png"
    refused(inside(capsys, "denoise.py", *flags), "b-2.png: already exists; --over")
    for number in ("33", "-1", "1.5"):
        refused(
            inside(capsys, "denoise.py", "--completions", number, *flags[2:]), f"got '{number}'"
        )
    done = inside(capsys, "denoise.py", "--overwrite", *flags)
    assert done.stdout == "-a.png: restored 3; saved as b.png\n"


def test_each_picture_gets_the_mask_of_its_path(tmp_path, monkeypatch, capsys):
    """A picture in a folder below has the same name here."""
    monkeypatch.chdir(tmp_path)
    masks, model = {}, types.SimpleNamespace(kind=types.SimpleNamespace(sounds=False))
    monkeypatch.setattr(denoise, "load_restorer", lambda path: model)

    def restore_image(model, source, destination, mask, keep, count):
        masks[str(destination)] = str(mask)
        return "restored"

    monkeypatch.setattr(denoise, "restore_image", restore_image)
    for name in ("m.keras", "in/a.png", "in/x/a.png", "masks/a.png", "masks/x/a.png"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    for source, out in (("in", "all"), ("in/a.png", "b.png"), ("in/x/a.png", "new/")):
        done = inside(capsys, "denoise.py", "m.keras", source, "-o", out, "--mask", "masks")
        assert done.returncode == 0, done.stderr
    assert masks.pop("all/x/a.png") == "masks/x/a.png"
    assert masks == dict.fromkeys(("all/a.png", "b.png", "new/a.png"), "masks/a.png")


def test_the_input_and_the_output_are_required(capsys):
    for missing, flags in (("INPUT", ["m.keras", "-o", "b.wav"]), ("-o/--out", ["m", "a.wav"])):
        refused(inside(capsys, "denoise.py", *flags), f"arguments are required: {missing} (see")


@pytest.mark.parametrize("number", range(5))
def test_no_path_may_be_empty(tmp_path, monkeypatch, capsys, number):
    """An empty path would be the current folder."""
    monkeypatch.chdir(tmp_path)
    names = ("MODEL", "INPUT", "-o/--out", "--gaps", "--mask")
    arguments = ["m.keras", "a.wav", "-o=b.wav", "--gaps=c.txt", "--mask=d.png"]
    arguments[number] = arguments[number].partition("=")[0] + "=" if number > 1 else ""
    arguments[2:] = [part for flag in arguments[2:] for part in flag.split("=")]
    done = inside(capsys, "denoise.py", *arguments)
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    assert done.stderr == f"denoise.py: {names[number]}: must not be empty, got '' (see --help)\n"


def test_bad_files_are_named_and_the_others_restored(tmp_path, sound, capsys):
    folder = tmp_path / "in put"
    folder.mkdir()
    time = np.arange(RATE // 2) / RATE
    whole, gaps = 0.5 * np.sin(2 * np.pi * 440 * time + 0.3), np.mod(time - 0.05, 0.1) < 0.01
    tone = whole * ~gaps
    for good in ("good ü.wav", "-good.flac"):
        soundfile.write(folder / good, tone, RATE)
    soundfile.write(folder / "none.wav", tone[:0], RATE)
    soundfile.write(folder / "nan.wav", np.append(tone, np.nan), RATE, subtype="FLOAT")
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("hello")
    (folder / "cut.flac").write_bytes((folder / "-good.flac").read_bytes()[:4500])
    Image.new("L", (28, 28)).save(folder / "image.png")  # skipped by a model of sounds
    done = inside(capsys, "denoise.py", sound[0], folder, "--keep", "-o", tmp_path / "out")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    bad = ("cut.flac", "empty.wav", "nan.wav", "none.wav", "text.wav")
    other, *lines = done.stderr.splitlines()
    assert "other kinds: 1;" in other
    assert [line.split(": ")[1].rsplit("/")[-1] for line in lines] == list(bad)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"good ü.wav", "-good.flac"}
    assert done.stdout.count("5 gaps, 10.0% missing") == 2
    assert done.stdout.splitlines()[-1] == "2 of 7 files restored, 5 failed"
    kept, _ = soundfile.read(tmp_path / "out/-good.flac")
    np.testing.assert_array_equal(kept[~gaps], soundfile.read(folder / "-good.flac")[0][~gaps])
    assert snr_db(whole[gaps], kept[gaps]) > 15


@posix
def test_files_left_out_of_a_folder_are_named(tmp_path, capsys):
    for name in ("a.wav", "b.txt", "c.txt"):
        (tmp_path / name).touch()
    (tmp_path / "lost.wav").symlink_to("nothing")
    assert files_below(tmp_path, tmp_path / "out") == [tmp_path / "a.wav"]
    assert capsys.readouterr().err.splitlines() == [
        f"skipped {tmp_path}/lost.wav: not a file, or a broken link",
        f"skipped {tmp_path}: 2 files of other kinds (.txt)",
    ]


def copy_all(pairs, capsys, overwrite=False, faulty=()):
    """Copy files; `faulty` maps some to errors. Returns status, lines of stdout and of stderr."""
    status = 0

    def restore(source, destination):
        if source in faulty:
            raise faulty[source]
        with replacing(destination) as beside:
            beside.write_bytes(source.read_bytes())
        return "copied"

    try:
        with cli.one_line_errors():
            restore_each(pairs, restore, overwrite)
    except SystemExit as end:
        status = end.code
    said = capsys.readouterr()
    return status, said.out.splitlines(), said.err.splitlines()


def test_an_error_in_one_file_does_not_stop_the_others(tmp_path, capsys):
    sources = [tmp_path / name for name in ("a.wav", "b\udce9.wav", "c\n.wav", "d.wav", "e.wav")]
    for source in sources:
        source.write_text(source.name[0])
    pairs = [(source, tmp_path / "out/deep" / source.name) for source in sources]
    faults = {
        sources[0]: ZeroDivisionError("two\nlines"),
        sources[3]: OSError(errno.ENOSPC, "No space"),
    }
    status, out, err = copy_all(pairs, capsys, faulty=faults)
    assert status == 1 and err[:2] == [
        f"denoise.py: {sources[0]}: ZeroDivisionError, a bug in these scripts; please report it",
        f"denoise.py: {tmp_path}/out/deep: No space",
    ]
    assert err[2].startswith("Traceback") and err[-2:] == ["ZeroDivisionError: two", "lines"]
    assert len(out) == 4 and out[-1] == "3 of 5 files restored, 2 failed"
    assert "b\\udce9.wav: copied" in out[0]
    copied = {path.name for path in (tmp_path / "out/deep").iterdir()}
    assert copied == {sources[i].name for i in (1, 2, 4)}

    (tmp_path / "out/deep/e.wav").write_text("by hand")
    faults = {sources[3]: UserError("d.wav: bad"), sources[1]: MemoryError("not reached")}
    status, out, err = copy_all(pairs, capsys, faulty=faults)
    assert status == 2 and err == ["denoise.py: d.wav: bad"]
    kept = "3 already existed (--overwrite replaces them)"
    assert out[-1] == f"1 of 5 files restored, {kept}, 1 failed"
    assert (tmp_path / "out/deep/e.wav").read_text() == "by hand"
    status, out, _ = copy_all(pairs[2:], capsys, overwrite=True)
    assert status == 0 and out[-1] == "3 of 3 files restored"
    assert (tmp_path / "out/deep/e.wav").read_text() == "e"
    assert not list(tmp_path.rglob(".unfinished*"))


def test_a_result_that_another_process_writes_is_kept(tmp_path, capsys):
    source, result = tmp_path / "a.wav", tmp_path / "out.wav"
    source.write_text("a")
    with claimed(result):
        status, _, (line,) = copy_all([(source, result)], capsys)
    assert status == 2 and f"{result}: another process is writing it" in line
    assert not result.exists()

    def meanwhile(path):
        """Finish the other process before this one looks for the result."""
        result.write_text("the other's")
        return claimed(path)

    with pytest.MonkeyPatch.context() as changed:
        changed.setattr("files.batch.claimed", meanwhile)
        status, (line,), _ = copy_all([(source, result)], capsys)
    assert "1 already existed" in line and result.read_text() == "the other's"


def test_overwrite_is_needed_to_replace_a_result(tmp_path, sound, capsys, monkeypatch):
    soundfile.write(tmp_path / "a.wav", np.ones(RATE), RATE)
    (tmp_path / "b.wav").write_text("by hand")
    arguments = "denoise.py", sound[0], tmp_path / "a.wav", "-o", tmp_path / "b.wav", "--keep"
    with monkeypatch.context() as patch:
        patch.setattr(denoise, "load_restorer", lambda path: 1 / 0)  # it is slow
        refused(inside(capsys, *arguments), "b.wav: already exists", "--overwrite")
    assert (tmp_path / "b.wav").read_text() == "by hand"
    done = inside(capsys, *arguments, "--overwrite")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(
        soundfile.read(tmp_path / "b.wav")[0], soundfile.read(tmp_path / "a.wav")[0]
    )


@posix
@pytest.mark.parametrize(
    "redirected, status", [(">&- 2>&- <&-", 0), ("2>&1 | true", 141), ("| true", 141)]
)
def test_closed_streams_are_no_problem(tmp_path, sound, redirected, status):
    soundfile.write(tmp_path / "a.wav", np.ones(RATE), RATE)
    line = f"{sys.executable} {ROOT}/denoise.py '{sound[0]}' a.wav --keep -o b.wav {redirected}"
    line = f"set -o pipefail; {line}"
    done = subprocess.run(["bash", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == status and not done.stderr, done.stderr
    np.testing.assert_array_equal(
        soundfile.read(tmp_path / "b.wav")[0], soundfile.read(tmp_path / "a.wav")[0]
    )


def test_unloadable_tensorflow_gives_one_line(tmp_path, monkeypatch):
    """Keras's settings may be the reason, or the memory."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(UserError, match=r"keras\.json: .*tensorflow.*; remove that file, free"):
        load.__wrapped__()


def test_files_and_flags_of_the_other_kind(tmp_path, sound, digits, capsys):
    Image.new("L", (28, 28)).save(tmp_path / "a.png")
    soundfile.write(tmp_path / "a.wav", np.ones(RATE), RATE)
    for model, file, flags, words in (
        (sound[0], "a.png", (), ("a.png", "sounds")),
        (digits[0], "a.wav", (), ("a.wav", "images")),
        (sound[0], "a.wav", ("--mask", tmp_path / "a.png"), ("--mask", "sounds")),
        (sound[0], "a.wav", ("--completions", 2), ("--completions", "sounds")),
        (digits[0], "a.png", ("--gaps", tmp_path / "a.png"), ("--gaps", "images")),
    ):
        arguments = model, tmp_path / file, *flags, "-o", tmp_path / f"b{file[1:]}"
        refused(inside(capsys, "denoise.py", *arguments), *words)
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a.wav"}


def test_a_picture_is_not_its_own_mask(tmp_path, digits, capsys):
    """The drawing would be taken for the hole, and replaced."""
    Image.fromarray(np.uint8(255 * np.eye(28))).save(tmp_path / "a.png")
    flags = "--mask", tmp_path / "a.png", "-o", tmp_path / "b.png"
    refused(inside(capsys, "denoise.py", digits[0], tmp_path / "a.png", *flags), "image itself")
    assert not (tmp_path / "b.png").exists()


ONE_AFTER_THE_OTHER = """
import json, runpy, sys
for arguments in json.loads(sys.argv[1]):
    sys.argv[1:] = arguments
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        print("ended with", end.code)
"""


def test_mistakes_and_sounds_need_no_tensorflow(tmp_path, sound):
    Image.new("L", (28, 28)).save(tmp_path / "a.png")
    time = np.arange(RATE // 2)
    chopped = 0.5 * np.sin(time) * (abs(time % 800 - 400) > 40)
    soundfile.write(tmp_path / "a.wav", chopped, RATE)
    (tmp_path / "model.keras").touch()
    for name in ("tensorflow.py", "keras.py"):
        (tmp_path / name).write_text("raise SystemExit('TensorFlow was loaded')")
    code = f"import sys; sys.argv[0] = {str(ROOT / 'denoise.py')!r}\n{ONE_AFTER_THE_OTHER}"
    mistakes = {
        "none": ("none", "a.png", "-o", "b.png"),
        "c.png": (".", "c.png", "-o", "b.png"),
        "--out": (".", "a.png"),
        "model.keras": (".", "a.wav", "-o", "b.wav"),  # an empty file
    }
    sounds = [(str(sound[0]), "a.wav", "-o", *flags) for flags in (("b.wav",), ("c.wav", "--keep"))]
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps([("--help",), *mistakes.values(), *sounds])],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        cwd=tmp_path,
    )
    lines = done.stderr.splitlines()
    assert done.returncode == 0 and len(lines) == len(mistakes), done.stderr
    for line, word in zip(lines, mistakes):
        assert word in line
    ends = [line for line in done.stdout.splitlines() if "ended with" in line]
    assert ends == ["ended with 0", *["ended with 2"] * len(mistakes)]
    assert done.stdout.count("10 gaps") == 2


@posix
def test_labels_from_a_pipe_hold_for_every_sound(tmp_path, monkeypatch):
    for name in "ab":
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(RATE), RATE)
    model, seen = types.SimpleNamespace(kind=types.SimpleNamespace(sounds=True)), []

    def restore(model, source, destination, labels, keep):
        seen.append(read_gaps(labels, RATE, RATE).tolist())
        return "restored"

    monkeypatch.setattr(denoise, "load_restorer", lambda path: model)
    monkeypatch.setattr(denoise, "restore_sound", restore)
    os.mkfifo(tmp_path / "pipe")
    write = (tmp_path / "pipe").write_text
    threading.Thread(target=write, args=["0.25 0.5"], daemon=True).start()
    sounds = [tmp_path / "a.wav", tmp_path / "b.wav"]
    (tmp_path / "model.keras").touch()
    arguments = [tmp_path, *sounds, "-o", tmp_path / "out", "--gaps", tmp_path / "pipe"]
    monkeypatch.setattr(sys, "argv", ["denoise.py", *map(str, arguments)])
    denoise.main(denoise.read_flags())
    assert seen == [[[4000, 8000]]] * 2


def stand_in(monkeypatch, sounds):
    """Let denoise.py "restore" files with no model. Returns a list that gets their names."""
    model, restored = types.SimpleNamespace(kind=types.SimpleNamespace(sounds=sounds)), []
    monkeypatch.setattr(denoise, "load_restorer", lambda path: model)
    for name in ("restore_sound", "restore_image"):
        monkeypatch.setattr(denoise, name, lambda model, source, *_: restored.append(source.name))
    return restored


@pytest.mark.parametrize(
    "model, source, out, flags, needed",
    [
        ("m.png", "a.png", "m.png", (), "m.png"),
        ("m.keras", "a.wav", "gaps.wav", ("--gaps", "gaps.wav"), "gaps.wav"),
        ("m.keras", "a.png", "b-1.png", ("--mask", "b-1.png"), "b-1.png"),
        ("m.keras", "a.png", "b.png", ("--mask", "b-1.png", "--completions", 1), "b-1.png"),
        ("m.keras", "a.png", "masks/a.png", ("--mask", "masks"), "masks/a.png"),
        ("m.keras", "a.png", "masks", ("--mask", "masks"), "masks/a.png"),
    ],
)
def test_the_other_files_given_are_never_replaced(
    tmp_path, monkeypatch, capsys, model, source, out, flags, needed
):
    restored = stand_in(monkeypatch, source.endswith("wav"))
    monkeypatch.chdir(tmp_path)
    Path("masks").mkdir()
    for name in (model, source, "gaps.wav", "b-1.png", "masks/a.png"):
        Path(name).touch()
    done = inside(capsys, "denoise.py", model, source, "-o", out, "--overwrite", *flags)
    refused(done, f"{needed}: is the input {needed}; give another --out")
    assert not restored


def test_a_completion_is_never_saved_over_another_result(tmp_path, monkeypatch, capsys):
    restored = stand_in(monkeypatch, sounds=False)
    monkeypatch.chdir(tmp_path)
    for name in ("m.keras", "a.png", "a-1.png", "b.png"):
        Path(name).touch()
    flags = "m.keras", "a.png", "a-1.png", "b.png", "-o", "out", "--completions", 1
    done = inside(capsys, "denoise.py", *flags)
    assert done.returncode == 2 and done.stderr.count("would both be saved here") == 2
    assert restored == ["b.png"]


@pytest.mark.parametrize("sounds", [True, False])
def test_suffixes_may_be_in_capitals(tmp_path, monkeypatch, capsys, sounds):
    restored = stand_in(monkeypatch, sounds)
    (tmp_path / "in").mkdir()
    for name in ("m.keras", "in/A.WAV", "in/B.PNG"):
        (tmp_path / name).touch()
    fitting, other = ("A.WAV", "B.PNG") if sounds else ("B.PNG", "A.WAV")
    done = inside(capsys, "denoise.py", tmp_path / "m.keras", tmp_path / "in", "-o", tmp_path / "o")
    assert restored == [fitting] and "other kinds: 1;" in done.stderr
    flags = tmp_path / "m.keras", tmp_path / "in" / other, "-o", f"{tmp_path}/o/"
    done = inside(capsys, "denoise.py", *flags)
    refused(done, f"{other}: {tmp_path}/m.keras was trained on")


@pytest.mark.parametrize("inputs", [["in"], ["in", "c.wav"]])
def test_existing_results_in_a_folder_do_not_stop_the_others(tmp_path, monkeypatch, capsys, inputs):
    restored = stand_in(monkeypatch, sounds=True)
    monkeypatch.chdir(tmp_path)
    below = Path("out/in" if len(inputs) > 1 else "out")
    Path("in").mkdir()
    below.mkdir(parents=True)
    for path in ("m.keras", "in/a.wav", "in/b.wav", "c.wav", below / "a.wav"):
        Path(path).touch()
    done = inside(capsys, "denoise.py", "m.keras", *inputs, "-o", "out")
    assert done.returncode == 0 and restored == ["b.wav", *inputs[1:]]

"""No file other than the named results changes, whatever is refused or interrupted."""

import collections
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from commands import posix
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import denoise
import sample
import sound_dvae
from files import drawing
from files.model_file import Restorer
from harness import UserError, cli
from harness.run_folder import Run
from kind import Kind
from pages.report import WRITTEN
from signals import fill_gaps, noise

pytestmark = posix
RATE, SIDE = 8000, 12
FAULTS = [
    KeyboardInterrupt(signal.SIGTERM),
    OSError(28, "No space left on device"),
    MemoryError(),
    UserError("a problem"),
    ZeroDivisionError("a bug"),
]
faults = st.none() | st.tuples(st.integers(0, 6), st.sampled_from(FAULTS))


def snapshot(folder):
    """Return {path: (mode, content)} of everything below a folder."""

    def content(path):
        if path.is_symlink():
            return os.readlink(path)
        return path.read_bytes() if path.is_file() else None

    paths = [folder, *folder.rglob("*")]
    return {str(path): (path.lstat().st_mode, content(path)) for path in paths}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Return a folder of a user's files: sounds, images, links, and files with results' names."""
    folder = tmp_path_factory.mktemp("kept") / "tree"
    for name in ("sub/deep", "out", "model"):
        (folder / name).mkdir(parents=True)
    tone = 0.5 * np.sin(np.arange(400) / 5)
    tone[100:110] = 0
    for name in ("a.wav", "b.wav", "sub/a.wav", "sub/deep/c.wav", "out/b.wav"):
        soundfile.write(folder / name, tone, RATE)
    torn = np.full((SIDE, SIDE, 2), 255, np.uint8)
    torn[3:6, 3:6, 1] = 0
    for name in ("a.png", "a-1.png", "sub/a.png", "out/a-2.png"):
        Image.fromarray(torn).save(folder / name)
    Image.fromarray(255 - torn[:, :, 1]).save(folder / "mask.png")
    (folder / "gaps.txt").write_text("0.01\t0.012\n")
    for name in ("bad.wav", "model/model.keras", "model/generated.png", "out/blend.wav"):
        (folder / name).write_text(f"a user's {name}")
    for name, target in {"link": "b", "out/a": "../b", "dangling": "new target"}.items():
        (folder / f"{name}.wav").symlink_to(f"{target}.wav")
    (folder / "a.wav").chmod(0o600)
    for name in ("b.wav", "out/b.wav", "a-1.png", "out/a-2.png", "model/generated.png"):
        (folder / name).chmod(0o444)
    return folder


@contextlib.contextmanager
def copied(tree):
    """Copy the tree to a new current folder, and add hard links."""
    with tempfile.TemporaryDirectory(dir=tree.parent) as folder:
        shutil.copytree(tree, folder, symlinks=True, dirs_exist_ok=True)
        with contextlib.chdir(folder):
            os.link("a.wav", "hard.wav")
            os.link("mask.png", "out/a-1.png")
            yield Path(folder)


def failing(function, fault):
    """Return the function; its call number fault[0] raises fault[1]."""
    calls = []

    def call(*arguments, **options):
        calls.append(1)
        if fault and len(calls) == fault[0] + 1:
            raise fault[1]
        return function(*arguments, **options)

    return call


def ended(main, *arguments):
    """Run a script in this process, whatever its end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["script.py", *map(str, arguments)])
        with contextlib.suppress(SystemExit, ZeroDivisionError), cli.one_line_errors():
            main()


@contextlib.contextmanager
def only_results_change(folder, results, protected):
    """Assert that only results differ after the block, and that nothing else is left there.

    results: paths that may change. Inputs and other protected files may not, under any name.
    """
    before, inodes = snapshot(folder), {os.stat(path).st_ino for path in protected}
    safe = {path for path in before if os.path.exists(path) and os.stat(path).st_ino in inodes}
    allowed = {os.path.realpath(path) for path in results} - safe
    yield
    after = snapshot(folder)
    for path in before.keys() | after.keys():
        if before.get(path) == after.get(path):
            continue
        assert path in after, f"{path} is gone"
        if path in before:
            assert path in allowed, f"{path} has changed"
            assert before[path][0] == after[path][0], f"{path} has another mode"
        elif Path(path).is_dir():
            assert any(each.startswith(f"{path}/") for each in allowed & after.keys()), path
        else:
            assert path in allowed, f"{path} is left behind"


def restorer(sounds, fault):
    """Return a quick `Restorer` that returns its input."""

    def same(corrupted, observed):
        return np.asarray(corrupted, np.float32)

    def complete(corrupted, observed, count):
        return np.zeros((count, SIDE * SIDE), np.float32)

    if sounds:
        return Restorer(failing(same, fault), 64, Kind(sample_rate=RATE, rms=0.3))
    same = failing(same, fault)
    return Restorer(same, SIDE * SIDE, Kind(shape=(SIDE, SIDE)), same, failing(complete, fault))


SOUNDS = "a.wav", "b.wav", "link.wav", "hard.wav", "bad.wav", "sub", "out"
IMAGES = "a.png", "a-1.png", "sub", "out"
FOLDERS = "new", "new.d/", "out", "sub", ".", "model"
SOUND_OUTS = "new.wav", "new/x.wav", "dangling.wav", "gaps.txt", *SOUNDS, *FOLDERS
IMAGE_OUTS = "new.png", "new/x.png", "mask.png", "out/a.png", "model/generated.png", *FOLDERS
IMAGE_FLAGS = ["--mask", "mask.png"], ["--completions", "2"]


def sources_of(given, out, several):
    """Return (path, name of the result) of an input, without earlier results in `out`."""
    given, out = Path(given), Path(out).resolve()
    if given.is_file():
        return [(given, given.name)]
    below = given.parent if several else given
    found = [(path, path.relative_to(below)) for path in given.rglob("*.*") if path.is_file()]
    inside = given.resolve().is_relative_to(out)
    return [each for each in found if inside or not each[0].resolve().is_relative_to(out)]


def results_of(sources, inputs, out, completions):
    """Return the paths that denoise.py may write, by its documentation."""
    single = len(inputs) == 1 and Path(inputs[0]).is_file()
    single = single and not (out.endswith("/") or Path(out).is_dir())
    results = [Path(out) if single else Path(out, name) for _, name in sources]
    numbers = range(1, completions + 1)
    more = [path.with_stem(f"{path.stem}-{n}") for path in results for n in numbers]
    return results + [path for path in more if path.suffix == ".png"]


@pytest.mark.parametrize("sounds", [True, False])
def test_denoise_changes_only_its_results(tree, sounds, capsys):
    """In 50 random situations, many of which end with a result."""
    rng, ends = random.Random(int(sounds)), collections.Counter()
    optional = [["--keep"], ["--overwrite"], *([["--gaps", "gaps.txt"]] if sounds else IMAGE_FLAGS)]
    for _ in range(50):
        inputs = rng.choices(SOUNDS if sounds else IMAGES, k=rng.choice((1, 1, 2)))
        out = rng.choice(SOUND_OUTS if sounds else IMAGE_OUTS)
        flags = [part for flag in optional if rng.random() < 0.5 for part in flag]
        fault = rng.choice((None, (rng.randrange(4), rng.choice(FAULTS))))
        with copied(tree) as folder, pytest.MonkeyPatch.context() as patch:
            patch.setattr(denoise, "load_restorer", lambda path, each=fault: restorer(sounds, each))
            # Few candidates, because the samples and pixels of the results do not matter here.
            patch.setattr(noise, "ARTIFICIAL_GAPS", 2)
            patch.setattr(fill_gaps, "CONTEXTS", ((0.032, 0.008),))
            patch.setattr(drawing, "SHIFTS", range(1))
            several = len(inputs) > 1
            sources = [each for given in inputs for each in sources_of(given, out, several)]
            results = results_of(sources, inputs, out, 2 * ("--completions" in flags))
            if "--overwrite" not in flags:
                results = [path for path in results if not os.path.lexists(path)]
            protected = [path for path, _ in sources] + ["model/model.keras"]
            protected += [each for each in ("gaps.txt", "mask.png") if each in flags]
            arguments = "model", *inputs, "-o", out, *flags
            print(arguments, fault)  # shown if the test fails
            with only_results_change(folder, results, protected):
                ended(lambda: denoise.main(denoise.read_flags()), *arguments)
            ends["saved as" in capsys.readouterr().out] += 1
    assert min(ends.values()) > 10, ends


@given(
    flags=st.sets(
        st.sampled_from(["--overwrite", "--map", "--blend b.wav out/blend.wav", "--count 3"])
    ),
    out=st.sampled_from([None, "out", "new/deep", "model", "a.wav", "sub/deep"]),
    fault=faults,
)
def test_sample_changes_only_its_results(tree, flags, out, fault):
    flags = [part for flag in sorted(flags) for part in flag.split()]
    flags += ["-o", out] if out else []
    with copied(tree) as folder, pytest.MonkeyPatch.context() as patch:
        write = failing(lambda path, **_: Path(path).write_bytes(b"result"), fault)
        generated = SimpleNamespace(numpy=lambda: np.zeros((3, 64)))
        model = SimpleNamespace(metadata={"sample_rate": RATE}, input_size=64, latent=1)
        model.generate = lambda count, seed: generated
        patch.setattr(sample.model_file, "load_model", lambda path: model)
        patch.setattr(sample.figures, "windows", lambda *_: None)
        patch.setattr(sample.figures, "save", write)
        patch.setattr(sample, "write_wav", write)
        patch.setattr(sample.blending, "glide", lambda *_: np.zeros(99))
        patch.setattr(sample.blending, "summary", lambda *_: "blended")
        patch.setattr(sample.held_out, "sound", lambda *_: np.zeros(99))
        names = ["blend.wav"] if "--blend" in flags else ["generated.wav", "generated.png"]
        results = [Path(out or "model", name) for name in names]
        if "--overwrite" not in flags:
            results = [path for path in results if not os.path.lexists(path)]
        with only_results_change(folder, results, ["b.wav", "out/blend.wav", "model/model.keras"]):
            ended(lambda: sample.main(sample.read_flags()), "model", *flags)


NAMES = "config.json", "scores.csv", "index.html", "model.keras", "checkpoint.npz", "clean.wav"
NAMES += "events.out.tfevents.000000", "generated_000100.png", "Tone.wav", "notes.txt", ".lock"
acts = st.lists(
    st.tuples(st.just("make"), st.sampled_from(NAMES))
    | st.tuples(st.sampled_from(["remove", "replace"]), st.integers(0, 9))
    | st.tuples(st.sampled_from([(), ("resume",), ("overwrite",)]), faults),
    max_size=6,
)


def train(flags, fault, meanwhile):
    """Train a run of two checkpoints in the folder "run". All that it writes begins with "run"."""

    def write(path, text):
        Path(path).write_bytes(b"run %d" % hash(text))

    def page_files(folder):
        return {name: partial(write, text=name) for name in ("index.html", NAMES[6])}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", failing(os.replace, fault))
        options = sound_dvae.Settings(iters=100, out="run", **dict.fromkeys(flags, True))
        with Run(options, page_files, WRITTEN) as run:
            meanwhile()
            run.record({})
            run.save({"clean.wav": partial(write, text="clean")})
            for iteration in (0, 100):
                run.save_checkpoint(partial(write, text=iteration))
                meanwhile()
                picture = f"generated_{iteration:06d}.png"
                run.log(iteration, {"loss": 1.0}, {picture: partial(write, text=iteration)})
            model = SimpleNamespace(save=partial(write, text="model"))
            run.finish(model, [{"method": "input", "loss": 2.0}])


@given(acts=acts, made=st.none() | st.sampled_from(NAMES[1:]))
@settings(max_examples=25)
def test_training_keeps_all_files_of_a_user(acts, made):
    """Files made before, between and during runs, also in place of those that a run wrote."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        own = Path("run").resolve()
        own.mkdir()
        kept = {}

        def of_the_user(path):
            path.write_text(f"a user's {path.name}")
            kept[path] = path.read_bytes()

        def meanwhile():
            if made:
                of_the_user(own / made)

        for act, value in [*acts, (("overwrite",), None)]:
            present = sorted(own.iterdir())
            if act == "make":
                of_the_user(own / value)
            elif act in ("remove", "replace") and present:
                path = present[value % len(present)]
                kept.pop(path, None)
                path.unlink() if act == "remove" else of_the_user(path)
            elif act not in ("remove", "replace"):
                ended(partial(train, act, value, meanwhile))
            for path, content in kept.items():
                assert path.read_bytes() == content, path.name
            assert not [path for path in own.iterdir() if path.name.startswith((".unf", ".lock-"))]

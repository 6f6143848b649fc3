"""Test that runs survive kills, full disks, locks, invalid numbers and damaged files.

    python benchmarks/faults.py                # everything, about 20 minutes
    python benchmarks/faults.py kills --kills 4
    python benchmarks/faults.py cases
    python benchmarks/faults.py files --files 5000

kills: end runs of both scripts by SIGKILL, at a random moment of training or while they write a
file. Resume each, and compare its files with those of an uninterrupted run.
cases: start runs with a fault in the disk, the folder or the flags. Each must end with one line,
and resume where possible.
files: give damaged files to every reader. Each must load as valid data or be refused in one line.
"""

import argparse
import contextlib
import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from files import gap_labels, image_files, pictures, sound_files
from files.model_file import Restorer, load_model
from files.restore_image import restore_image
from harness import UserError, checkpoint
from harness.quiet_tensorflow import stderr_held_back, tf
from kind import Kind

SMALL = ("--iters", 300, "--batch-size", 32, "--hidden", 32, "--latent", 4)
SCRIPTS = {  # script: flags of a small run
    "sound_dvae.py": (*SMALL, "--sample-rate", 4000, "--window", 128, "--out", "run"),
    "mnist_dvae.py": (*SMALL, "--data", "../digits.npz", "--out", "run"),
}
# Code that runs a script and saves every 40 iterations; otherwise a short run would rarely save.
SAVING_OFTEN = (
    f"import runpy, sys; sys.argv = sys.argv[1:]; sys.path.insert(0, {str(ROOT)!r}); "
    "from harness import guard; guard.SAVE_ITERATIONS = 40; "
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
# Runs are killed while they write one of these files, or at a random moment.
PICTURES = "reconstruction_000100.png", "generated_000200.png"
WRITTEN = "checkpoint.npz", *PICTURES, "scores.csv", "model.keras"
# A command prefix for root that drops the capabilities to ignore file permissions.
DROPPED = "-dac_override,-dac_read_search"
AS_USER = ("setpriv", f"--bounding-set={DROPPED}", f"--inh-caps={DROPPED}")
AS_USER = AS_USER if os.geteuid() == 0 else ()


def make_digits(path, count=600, side=12):
    """Write an .npz of small images, each with a bright rectangle whose row is the label."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (count, side, side), np.uint8)
    rows = rng.integers(0, 8, count)
    for image, row in zip(images, rows):
        image[row : row + 4, 3:8] = 230
    (x_train, x_test), (y_train, y_test) = np.split(images, 2), np.split(rows, 2)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def start(script, *flags, often=False, before=(), **options):
    """Start a script as a process with captured output.

    often: save every 40 iterations. before: command prefix. options: arguments of `Popen`. Runs to
    be compared need the same --out, but different working folders: their pages contain --out.
    """
    code = ("-c", SAVING_OFTEN) if often else ()
    command = [*before, sys.executable, *code, str(ROOT / script), *map(str, flags)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **{"cwd": ROOT, **pipes, **options})


def finish(process):
    """Wait for a process and return its status, stdout and stderr."""
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def contents(folder):
    """Return {file name: content} of a run's folder, without timestamps in archives and hashes."""
    found = {}
    for path in folder.iterdir():
        found[path.name] = path.read_bytes()
        if path.suffix in (".npz", ".keras"):
            with zipfile.ZipFile(path) as archive:
                members = [name for name in archive.namelist() if name != "metadata.json"]
                found[path.name] = {name: archive.read(name) for name in members}
    config = json.loads(found["config.json"])
    found["config.json"] = {**config, "files": sorted(config["files"])}  # without hashes
    return found


def differences(folder, expected):
    """Return the names of the files that differ between the folders of two runs."""
    ours, theirs = contents(folder), contents(expected)
    names = sorted(ours.keys() | theirs.keys())
    return [name for name in names if ours.get(name) != theirs.get(name)]


def wait_for(path, process):
    """Wait until a file exists or the process has ended."""
    while not path.exists() and process.poll() is None:
        time.sleep(0.01)


def saved_at(folder):
    """Return the iteration of a run's checkpoint, or None if there is no checkpoint."""
    with contextlib.suppress(FileNotFoundError), np.load(folder / "checkpoint.npz") as file:
        return json.loads(str(file["state"]))["iteration"]


def killed(process, folder, seconds=math.inf, writing=None):
    """Kill a run `seconds` after its first scores, or while it writes the file `writing`.

    Returns True if the run was killed, False if it ended earlier.
    """
    scored = None
    while process.poll() is None:
        if (folder / "scores.csv").exists():
            scored = scored or time.monotonic()
        late = scored and time.monotonic() >= scored + seconds
        if late or (writing and (folder / f".unfinished-{writing}").exists()):
            process.kill()
            break
        time.sleep(0.0005)
    finish(process)
    return process.returncode == -signal.SIGKILL


def run_whole(script, folder):
    """Run a script without interruption. Returns the seconds from its first scores to its end."""
    folder.mkdir()
    process = start(script, *SCRIPTS[script], cwd=folder)
    wait_for(folder / "run/scores.csv", process)
    begun = time.monotonic()
    status, _, err = finish(process)
    assert status == 0, err
    seconds = time.monotonic() - begun
    print(f"{script}: uninterrupted, {seconds:.1f} s after its first scores", flush=True)
    return seconds


def kill_and_resume(script, folder, whole, writing, draw_seconds):
    """Kill a run, resume it, and compare it with the run `whole`. Returns True if a file differs.

    The run is killed while it writes the file `writing`. If `writing` is None, it is killed
    `draw_seconds()` after its first scores.
    """
    run = folder / "run"
    folder.mkdir()
    begin = partial(start, script, *SCRIPTS[script], often=True, cwd=folder)
    seconds = math.inf if writing else draw_seconds()
    while not killed(begin(), run, seconds, writing):
        shutil.rmtree(run)  # the run ended before the kill
        seconds = math.inf if writing else draw_seconds()
    moment = f"writing {writing}" if writing else f"{seconds:.2f} s after its first scores"
    saved = saved_at(run)
    status, _, err = finish(begin("--resume"))
    different = [err] if status else differences(run, whole)
    result = f"DIFFERENT: {', '.join(different)}" if different else "identical"
    print(f"{script} killed {moment}, saved at {saved}; resumed: {result}", flush=True)
    shutil.rmtree(folder)
    return bool(different)


def kills(count, seed):
    """Kill and resume `count` runs. Returns the number of runs whose files differ."""
    rng, wrong = random.Random(seed), 0
    with tempfile.TemporaryDirectory(prefix="faults ü ") as temporary:
        temporary = Path(temporary)
        make_digits(temporary / "digits.npz")
        seconds = {script: run_whole(script, temporary / script) for script in SCRIPTS}
        for number in range(1, count + 1):
            script = list(SCRIPTS)[number % 2]
            folder, whole = temporary / f"killed {number}", temporary / script / "run"
            # Two of every four runs, one of each script, are killed while they write a file.
            writing = WRITTEN[number // 2 % len(WRITTEN)] if number % 4 < 2 else None
            draw_seconds = partial(rng.uniform, 0, seconds[script])
            wrong += kill_and_resume(script, folder, whole, writing, draw_seconds)
    print(f"kills survived: {count - wrong} of {count} with identical results")
    return wrong


class Case(NamedTuple):
    """One tested run: its actual end, and the expected status and words of its last line."""

    name: str
    ended: tuple  # status, stdout, stderr
    words: tuple
    status: int = 2
    resume: str | None = None  # folder of a run that must resume to the uninterrupted result
    wrong: tuple = ()  # other faults found


def full_disks(folder, begin):
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]
    if os.geteuid() == 0 and subprocess.run(mount).returncode == 0:
        try:
            (disk / "full").write_bytes(bytes(550_000))
            ended = finish(begin("disk/run"))
            different = differences(disk / "run", folder / "whole")
            written = {path.name for path in (disk / "run").glob("*.png")}
            broken = tuple(written.intersection(different))
            subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
            yield Case("a disk of 1 MB", ended, ("No space",), resume="disk/run", wrong=broken)
        finally:
            subprocess.run(["umount", disk], check=True)
    else:
        print("a disk of 1 MB: not tried, since only root can mount one")
    most = 10**5, 10**5
    limit = begin("limit", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, most))
    yield Case("files of at most 100 kB", finish(limit), ("File too large",), resume="limit")


def several_runs(folder, begin):
    process = begin("two")
    wait_for(folder / "two/scores.csv", process)
    process.send_signal(signal.SIGSTOP)  # otherwise it might end before the second starts
    yield Case("a second run in the folder", finish(begin("two")), ("another run",))
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    yield Case("Ctrl-C", finish(process), ("--resume",), status=130, resume="two")
    killed(begin("killed"), folder / "killed", 0)
    words = "unfinished run", "--resume", "--overwrite"
    yield Case("a new run where one was killed", finish(begin("killed")), words)
    yield Case("a finished run", finish(begin("whole")), ("a finished run", "--overwrite"))
    ended = finish(begin("killed", "--latent", 5, "--resume"))
    yield Case("resumed with other settings", ended, ("--latent: expected 4, got 5",))


def wrong_places(folder, begin):
    process = begin("vanishing")
    wait_for(folder / "vanishing/checkpoint.npz", process)
    shutil.rmtree(folder / "vanishing")
    yield Case("a folder that vanishes", finish(process), (folder / "vanishing", "No such file"))
    (folder / "file").write_text("in the way")
    yield Case("a file in place of a folder", finish(begin("file/run")), ("file",))
    (folder / "read-only").mkdir(mode=0o555)
    ended = finish(begin("read-only/run", before=AS_USER))
    yield Case("a read-only folder", ended, ("Permission denied",))


def wrong_data(folder, begin):
    secret = folder / "secret.npz"
    shutil.copy(folder / "digits.npz", secret)
    secret.chmod(0)
    ended = finish(begin("none", "--data", secret, before=AS_USER))
    left = ("leaves a folder",) * (folder / "none").exists()
    yield Case("unreadable data", ended, ("secret.npz", "Permission denied"), wrong=left)
    ended = finish(begin("diverged", "--learning-rate", 1e30))
    words = "iteration", "learning rate", "--learning-rate"
    yield Case("a learning rate that leads to NaN", ended, words)


def faults_of(case, folder, begin):
    """Print the last line of a case's run. Returns a list of faults, empty if the case passes."""
    status, _, err = case.ended
    lines = [line for line in err.splitlines() if line and "it/s" not in line]
    last = lines[-1] if lines else ""
    print(f"{case.name}: {last}", flush=True)
    wrong = list(case.wrong)
    if status != case.status:
        wrong.append(f"status {status}, expected {case.status}")
    # An interrupted run prints one line more, which says that it is stopping.
    if len(lines) != 1 + ("interrupted" in last):
        wrong.append(f"{len(lines)} lines: {err[-2000:]}")
    wrong += [f"does not say {word!r}" for word in case.words if str(word) not in last]
    if case.resume:
        out = folder / case.resume
        wrong += [path.name for path in out.glob(".*")]
        status, _, err = finish(begin(case.resume, "--resume"))
        different = {err} if status else set(differences(out, folder / "whole"))
        wrong += different - {"config.json", "index.html"}  # they contain the folder's name
    return wrong


def cases():
    """Try all cases and print the last line of each. Returns the number of cases that fail."""
    with tempfile.TemporaryDirectory(prefix="faults ü ") as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        make_digits(folder / "digits.npz")

        def begin(out, *flags, **options):
            data = "--data", folder / "digits.npz", "--out", folder / out
            return start("mnist_dvae.py", *SMALL, *data, *flags, **options)

        status, _, err = finish(begin("whole"))
        assert status == 0, err
        tried = {
            case.name: faults_of(case, folder, begin)
            for group in (full_disks, several_runs, wrong_places, wrong_data)
            for case in group(folder, begin)
        }
    wrong = {name: faults for name, faults in tried.items() if faults}
    for name, faults in wrong.items():
        print(f"WRONG, {name}: {'; '.join(faults)}")
    print(f"cases passed: {len(tried) - len(wrong)} of {len(tried)}")
    return len(wrong)


def mutated(content, rng):
    """Return a copy of some bytes with 1 to 20 random changes."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        # Most changes are near the start: headers are short and matter most.
        start = rng.randrange(min(len(content), rng.choice((16, 100, 1000, len(content)))) or 1)
        end = start + rng.choice((1, 1, 2, 4, 8, rng.randrange(1, 300)))
        flipped = bytes(byte ^ 1 << rng.randrange(8) for byte in content[start : start + 1])
        filled = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * (end - start)
        random_bytes = rng.randbytes(end - start)
        changes = (  # (end of the replaced bytes, replacement)
            (len(content), b""),  # cut off
            (end, b""),  # removed
            (start, random_bytes),  # inserted
            (end, random_bytes),
            (end, filled),
            (start + 1, flipped),
            (end, content[start - end :]),  # the last bytes of the file
        )
        end, new = rng.choice(changes)
        content[start:end] = new
    return bytes(content)


def sound_readers():
    def make(path):
        soundfile.write(path, 0.5 * np.sin(np.arange(4000) / 10), 8000)

    def load(path):
        with stderr_held_back():  # hides the decoders' own messages, as the scripts do
            return list(sound_files.decode(path, 16000))

    def make_labels(path):
        path.write_text("# start, end\n" + "".join(f"{n}.25\t{n}.5\n" for n in range(9)))

    def load_labels(path):
        return [gap_labels.read_gaps(gap_labels.read_labels(path), 8000, 80000)]

    formats = "WAV", "FLAC", "OGG", "MP3"
    sounds = {name: (f"sound.{name.lower()}", make, load) for name in formats}
    return {**sounds, "labels": ("gaps.txt", make_labels, load_labels)}


def image_readers():
    pixels = np.random.default_rng(0).integers(0, 255, (30, 20, 3), np.uint8)

    def make_idx(path):
        header = bytes([0, 0, 8, 3, 0, 0, 0, 9, 0, 0, 0, 10, 0, 0, 0, 12])
        path.write_bytes(header + bytes(range(100, 190)) * 12)

    def make_picture(path):
        Image.fromarray(pixels).save(path)

    def make_mask(path):
        Image.fromarray(255 * (pixels[:, :, 0] < 50).astype(np.uint8)).save(path)

    def load_images(path):
        return [array for array in image_files.load_images(path)[:4] if array is not None]

    def load_picture(path):
        return [pictures.read_image(path, (28, 28))]

    def load_mask(path):
        torn, whole = path.with_name("torn.bmp"), path.with_name("whole.bmp")
        make_picture(torn)
        inverts = Restorer(lambda corrupted, observed: 1 - corrupted, 600, Kind(shape=(30, 20)))
        restore_image(inverts, torn, whole, path)
        return [np.asarray(Image.open(whole))]

    return {
        "npz": ("digits.npz", lambda path: make_digits(path, 20), load_images),
        "IDX": ("train-images-idx3-ubyte", make_idx, lambda path: load_images(path.parent)),
        "PNG": ("picture.png", make_picture, load_picture),
        "JPEG": ("picture.jpg", make_picture, load_picture),
        "mask": ("mask.bmp", make_mask, load_mask),
    }


def readers():
    """Return {name: (file name, make, load)}.

    `make(path)` writes a valid file. `load(path)` returns arrays of numbers or raises UserError.
    """
    from models import DVAE  # loads TensorFlow

    variables = [tf.Variable(np.ones((9, 9), np.float32)), tf.Variable(3)]
    state = {"first_batch": [0.5], "iteration": 20, "rows": []}

    def make_model(path):
        metadata = {"experiment": "sound", "sample_rate": 8000}
        DVAE(12, "gaussian", (7,), 3, metadata=metadata).save(path)

    def load_weights(path):
        return load_model(path).get_weights()

    def make_checkpoint(path):
        checkpoint.save(path, variables, state)

    def load_checkpoint(path):
        iteration = checkpoint.restore(path, variables, state)["iteration"]
        return [variable.numpy() for variable in variables] + [iteration]

    return {
        **sound_readers(),
        **image_readers(),
        "model": ("model.keras", make_model, load_weights),
        "checkpoint": ("checkpoint.npz", make_checkpoint, load_checkpoint),
    }


def try_mutated(name, reader, count, rng, folder):
    """Give a reader `count` damaged files.

    Returns the number of loaded files, the number of refused files, and a list of failures. It is a
    failure if an error is not a UserError, if a refusal is not one line with the file's name, if a
    number is not finite, or if an archive with checksums loads with changed numbers.
    """
    file_name, make, load = reader
    path = folder / name / file_name
    path.parent.mkdir()
    make(path)
    whole, right = path.read_bytes(), load(path)
    checksummed = zipfile.is_zipfile(path)
    loaded = refused = 0
    failed = []
    for _ in range(count):
        path.write_bytes(mutated(whole, rng))
        try:
            arrays = load(path)
            loaded += 1
            if not all(np.isfinite(np.asarray(array, float)).all() for array in arrays):
                failed.append("numbers that are not finite")
            if checksummed and not all(map(np.array_equal, arrays, right)):
                failed.append("numbers that differ from those written")
        except UserError as error:
            refused += 1
            if len(str(error).splitlines()) != 1 or file_name not in str(error):
                failed.append(f"refused with {error!s:.500}")
        except Exception as error:
            failed.append(f"{type(error).__name__}: {error!s:.500}")
    for problem in failed:
        print(f"{name}: {problem}")
    return loaded, refused, failed


def files(count, seed):
    """Give the readers at least `count` damaged files in total. Returns the number of failures."""
    rng, wrong = random.Random(seed), 0
    table = readers()
    each = math.ceil(count / len(table))
    with tempfile.TemporaryDirectory() as temporary:
        for name, reader in table.items():
            loaded, refused, failed = try_mutated(name, reader, each, rng, Path(temporary))
            wrong += len(failed)
            counts = f"{loaded} loaded, {refused} refused, {len(failed)} failed"
            print(f"{name}: {each} damaged files, {counts}", flush=True)
    print(f"all: {each * len(table)} damaged files, {wrong} failed")
    return wrong


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {
        "kills": lambda: kills(settings.kills, settings.seed),
        "cases": cases,
        "files": lambda: files(settings.files, settings.seed),
    }
    flags.add_argument("part", nargs="?", choices=parts, help="default: all three")
    flags.add_argument("--kills", type=int, default=20, help="runs to kill")
    flags.add_argument("--files", type=int, default=2000, help="at least this many damaged files")
    flags.add_argument("--seed", type=int, default=0)
    settings = flags.parse_args()
    chosen = [settings.part] if settings.part else parts
    wrong = sum(parts[part]() for part in chosen)
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()

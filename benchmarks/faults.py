"""What runs survive: kills at random moments, full disks, locks, numbers that are none, broken files.

    python benchmarks/faults.py                # everything, some 20 minutes
    python benchmarks/faults.py kills --kills 4
    python benchmarks/faults.py cases
    python benchmarks/faults.py files --files 5000

kills: runs of both scripts are ended by SIGKILL, some at a random moment after their training has begun and some
while a file is being written, then resumed, and everything they wrote is compared with what a run writes that was
never stopped. cases: what a run says and leaves behind when something is wrong. files: mutated files are given to
every reader; each must load as something sound or be refused in the one-line way.
"""

import argparse
import contextlib
import json
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
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from harness import UserError

SMALL = ("--iters", 300, "--batch-size", 32, "--hidden", 32, "--latent", 4)
# Runs the script with more saves than a short run would have. `harness` comes first, as in the scripts: it sets NumPy's
# threads, and sums end in other digits with two.
SAVING_OFTEN = (
    f"import runpy, sys; sys.argv = sys.argv[1:]; sys.path.insert(0, {str(ROOT)!r}); import harness.checkpoint;"
    "harness.checkpoint.ITERATIONS = 40; runpy.run_path(sys.argv[0], run_name='__main__')"
)
# Root may read and write everything, but for this.
AS_OTHERS = (
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
)


def make_digits(path, count=600, side=12):
    """An .npz of small images, a bright square somewhere in each, with the square's row as label."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (count, side, side), np.uint8)
    rows = rng.integers(0, 8, count)
    for image, row in zip(images, rows):
        image[row : row + 4, 3:8] = 230
    half = count // 2
    np.savez(
        path, x_train=images[:half], y_train=rows[:half], x_test=images[half:], y_test=rows[half:]
    )


def command(script, *flags, often=False):
    return [
        sys.executable,
        *(("-c", SAVING_OFTEN) if often else ()),
        str(ROOT / script),
        *map(str, flags),
    ]


def start(script, *flags, often=False, before=(), **options):
    """A run as a process of its own, `before` in front of its command; its output is captured.

    Runs that are to be compared are given the same --out, in different folders: it is on the page they write.
    """
    pipes = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "stdin": subprocess.DEVNULL,
        "text": True,
    }
    return subprocess.Popen(
        [*before, *command(script, *flags, often=often)], **{"cwd": ROOT, **pipes, **options}
    )


def finish(process):
    """Wait for it: exit status, stdout, stderr."""
    out, err = process.communicate(timeout=600)
    return process.returncode, out, err


def contents(folder):
    """All that a run has written, by name, without the times at which archives say they were made."""
    found = {}
    for path in folder.iterdir():
        found[path.name] = path.read_bytes()
        if path.suffix in (".npz", ".keras"):
            with zipfile.ZipFile(path) as archive:
                members = [name for name in archive.namelist() if name != "metadata.json"]
                found[path.name] = {name: archive.read(name) for name in members}
    return found


def differences(ours, theirs):
    return sorted(
        name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)
    )


def wait_for(path, process):
    """Until the file is there, or the process that should write it has ended."""
    while not path.exists() and process.poll() is None:
        time.sleep(0.01)


def saved_at(folder):
    """The iteration at which a run was last saved; None for never."""
    with contextlib.suppress(FileNotFoundError), np.load(folder / "checkpoint.npz") as file:
        return json.loads(str(file["state"]))["iteration"]


def killed(process, folder, seconds=None, writing=None):
    """SIGKILL `seconds` after the first scores are there, or once `writing` is being written. Whether that came."""
    begun = None
    while process.poll() is None:
        if begun is None and (folder / "scores.csv").exists():
            begun = time.monotonic()
        late = seconds is not None and begun is not None and time.monotonic() >= begun + seconds
        if late or (writing and (folder / f".unfinished-{writing}").exists()):
            process.kill()
            break
        time.sleep(0.0005)
    finish(process)
    return process.returncode == -signal.SIGKILL


def never_stopped(script, flags, folder):
    """A run to compare with; the seconds from its first scores to its end."""
    folder.parent.mkdir()
    process = start(script, *flags, cwd=folder.parent)
    wait_for(folder / "scores.csv", process)
    begun = time.monotonic()
    status, _, err = finish(process)
    assert status == 0, err
    lasted = time.monotonic() - begun
    print(f"{script}: never stopped, {lasted:.1f} s from its first scores to its end", flush=True)
    return lasted


def kills(count, seed):
    """`count` runs killed and resumed; prints a line for each. The number of those that ended in the same results."""
    rng = random.Random(seed)
    survived = 0
    with tempfile.TemporaryDirectory(prefix="faults ü ") as temporary:
        temporary = Path(temporary)
        make_digits(temporary / "digits.npz")
        runs = {
            "sound_dvae.py": (*SMALL, "--sample-rate", 4000, "--window", 128, "--out", "run"),
            "mnist_dvae.py": (*SMALL, "--data", temporary / "digits.npz", "--out", "run"),
        }
        lasted = {
            script: never_stopped(script, flags, temporary / script / "run")
            for script, flags in runs.items()
        }
        files = [
            "checkpoint.npz",
            "reconstruction_000100.png",
            "generated_000200.png",
            "scores.csv",
            "model.keras",
        ]
        for number in range(1, count + 1):
            script, flags = list(runs.items())[number % 2]
            folder = temporary / f"killed {number}" / "run"
            folder.parent.mkdir()
            writing = files[number // 2 % len(files)] if number % 4 < 2 else None
            seconds = None if writing else rng.uniform(0, lasted[script])
            here = {"often": True, "cwd": folder.parent}
            while not killed(start(script, *flags, **here), folder, seconds, writing):
                shutil.rmtree(folder)  # it had come to its end before
                seconds = seconds and rng.uniform(0, lasted[script])
            moment = f"writing {writing}" if writing else f"{seconds:.2f} s after its first scores"
            saved = saved_at(folder)
            status, _, err = finish(start(script, *flags, "--resume", **here))
            differ = (
                differences(contents(folder), contents(temporary / script / "run"))
                if status == 0
                else [err]
            )
            survived += not differ
            result = f"DIFFERENT: {', '.join(differ)}" if differ else "identical"
            print(
                f"{number:3d} {script} killed {moment}, saved at {saved}; resumed: {result}",
                flush=True,
            )
            shutil.rmtree(folder)
    return survived


class Cases:
    """Runs of the digits in one folder. `wrong`: of each case, what was not as it should be."""

    def __init__(self, folder):
        self.folder, self.wrong = folder, {}
        self.others = AS_OTHERS if os.geteuid() == 0 else ()
        make_digits(folder / "digits.npz")
        status, _, err = self.run("whole")
        assert status == 0, err

    def start(self, out, *flags, **options):
        data = "--data", self.folder / "digits.npz", "--out", self.folder / out
        return start("mnist_dvae.py", *SMALL, *data, *flags, **options)

    def run(self, out, *flags, **options):
        return finish(self.start(out, *flags, **options))

    def case(self, name, ended, *words, expected=2):
        """A run must have ended with this status and one line of these words, which is printed."""
        status, _, err = ended
        lines = [line for line in err.splitlines() if line and "it/s" not in line]
        said = lines[-1] if lines else ""
        wrong = self.wrong[name] = (
            [] if status == expected else [f"status {status}, not {expected}"]
        )
        if len(lines) != 1 + ("interrupted" in said):
            wrong.append(f"{len(lines)} lines: {err[-2000:]}")
        wrong += [f"does not say {word!r}" for word in words if str(word) not in said]
        print(f"{name}: {said}", flush=True)

    def goes_on(self, name, out):
        """The run of that case must end, once resumed, as the one that was never stopped."""
        self.wrong[name] += [path.name for path in (self.folder / out).glob(".unfinished-*")]
        status, _, err = self.run(out, "--resume")
        differ = (
            differences(*(contents(self.folder / each) for each in (out, "whole")))
            if status == 0
            else [err]
        )
        self.wrong[name] += set(differ) - {"config.json", "index.html"}  # these two name the folder


def full_disks(cases):
    name, disk = "a disk of 1 MB that fills up", cases.folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk]
    if os.geteuid() == 0 and subprocess.run(mount).returncode == 0:
        try:
            (disk / "full").write_bytes(bytes(550_000))
            cases.case(name, cases.run("disk/run"), "No space")
            left = contents(disk / "run")
            print(f"    left: {', '.join(sorted(left))}")
            different = differences(left, contents(cases.folder / "whole"))
            cases.wrong[name] += [
                each for each in different if each.endswith(".png") and each in left
            ]
            subprocess.run(["mount", "-o", "remount,size=50m", disk], check=True)
            cases.goes_on(name, "disk/run")
        finally:
            subprocess.run(["umount", disk], check=True)
    else:
        print(f"{name}: not tried, for only root may make one")
    name, most = "files limited to 100 kB", (10**5, 10**5)
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, most)}
    cases.case(name, cases.run("limit", **limit), "File too large")
    cases.goes_on(name, "limit")


def several_runs(cases):
    process = cases.start("two")
    wait_for(cases.folder / "two/scores.csv", process)
    cases.case("a second run in the folder", cases.run("two"), "another run")
    process.send_signal(signal.SIGINT)
    cases.case("Ctrl-C", finish(process), "--resume", expected=130)
    cases.goes_on("Ctrl-C", "two")
    killed(cases.start("killed"), cases.folder / "killed", 0)
    cases.case(
        "a new run where one was killed",
        cases.run("killed"),
        "unfinished run",
        "--resume",
        "--overwrite",
    )
    cases.case("a finished run", cases.run("whole"), "a finished run", "--overwrite")
    ended = cases.run("killed", "--latent", 5, "--resume")
    cases.case("resumed with other settings", ended, "--latent is 4 there, 5 here")


def wrong_places(cases):
    folder = cases.folder
    process = cases.start("vanishing")
    wait_for(folder / "vanishing/checkpoint.npz", process)
    shutil.rmtree(folder / "vanishing")
    cases.case("a folder that vanishes", finish(process), folder / "vanishing", "No such file")
    (folder / "file").write_text("in the way")
    cases.case("a file where a folder should be", cases.run("file/run"), "file")
    (folder / "read-only").mkdir(mode=0o555)
    cases.case(
        "a read-only folder", cases.run("read-only/run", before=cases.others), "Permission denied"
    )


def wrong_data(cases):
    name, secret = "data that may not be read", cases.folder / "secret.npz"
    shutil.copy(cases.folder / "digits.npz", secret)
    secret.chmod(0)
    ended = cases.run("none", "--data", secret, before=cases.others)
    cases.case(name, ended, "secret.npz", "Permission denied")
    cases.wrong[name] += ["leaves a folder"] * (cases.folder / "none").exists()
    ended = cases.run("diverged", "--learning-rate", 1e30)
    cases.case(
        "a learning rate that leads to NaN", ended, "iteration", "learning rate", "--learning-rate"
    )


def try_cases():
    """Of each case, what is wrong about how it ended: nothing, if all is well. Prints the line it said."""
    with tempfile.TemporaryDirectory(prefix="faults ü ") as temporary:
        os.chmod(temporary, 0o755)
        cases = Cases(Path(temporary))
        for some in (full_disks, several_runs, wrong_places, wrong_data):
            some(cases)
        return cases.wrong


def mutated(content, rng):
    """A copy of some bytes with a mistake or a few in it."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 5, 20))):
        # Headers are short and matter most.
        first = (
            rng.randrange(min(len(content), rng.choice((16, 100, 1000, len(content)))) or 1)
            if content
            else 0
        )
        size = rng.choice((1, 1, 2, 4, 8, rng.randrange(1, 300)))
        kind = rng.randrange(7)
        if kind == 0:
            del content[first:]
        elif kind == 1:
            del content[first : first + size]
        elif kind == 2:
            content[first:first] = rng.randbytes(size)
        elif kind == 3:
            content[first : first + size] = rng.randbytes(size)
        elif kind == 4:
            content[first : first + size] = rng.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * size
        elif kind == 5 and content:
            content[first % len(content)] ^= 1 << rng.randrange(8)
        else:
            content[first : first + size] = content[-size:]
    return bytes(content)


def sound_readers():
    import soundfile

    from files import gap_labels, sound_files
    from harness.quiet_tensorflow import stderr_held_back

    def make(path):
        soundfile.write(path, 0.5 * np.sin(np.arange(4000) / 10), 8000)

    def load(path):
        with (
            stderr_held_back()
        ):  # as the scripts do: the MP3 decoder has its own lines on what it meets
            return list(sound_files.decode(path, 16000))

    def make_labels(path):
        path.write_text(
            "# start, end\n" + "".join(f"{second}.25\t{second}.5\n" for second in range(9))
        )

    files = {"WAV": "sound.wav", "FLAC": "sound.flac", "OGG": "sound.ogg", "MP3": "sound.mp3"}
    return {name: (file, make, load) for name, file in files.items()} | {
        "labels": (
            "gaps.txt",
            make_labels,
            lambda path: [gap_labels.read_gaps(path, 8000, 80000)],
        )
    }


def image_readers():
    from PIL import Image

    from files import image_files
    from files.model_file import Restorer
    from files.restore_image import restore_image

    pixels = np.random.default_rng(0).integers(0, 255, (30, 20, 3), np.uint8)

    def make_idx(path):
        path.write_bytes(
            bytes([0, 0, 8, 3, 0, 0, 0, 9, 0, 0, 0, 10, 0, 0, 0, 12]) + bytes(range(90)) * 12
        )

    def make_picture(path):
        Image.fromarray(pixels).save(path)

    def make_mask(path):
        Image.fromarray(255 * (pixels[:, :, 0] < 50).astype(np.uint8)).save(path)

    def load_images(path):
        return [array for array in image_files.load_images(path)[:4] if array is not None]

    def load_picture(path):
        return [image_files.read_image(path, (28, 28))]

    def load_mask(path):
        torn, whole = path.with_name("torn.bmp"), path.with_name("whole.bmp")
        make_picture(torn)
        restore_image(
            Restorer(lambda corrupted: 1 - corrupted, 600, {"shape": [30, 20]}), torn, whole, path
        )
        return [np.asarray(Image.open(whole))]

    return {
        "npz": ("digits.npz", lambda path: make_digits(path, 20), load_images),
        "IDX": ("train-images-idx3-ubyte", make_idx, lambda path: load_images(path.parent)),
        "PNG": ("picture.png", make_picture, load_picture),
        "JPEG": ("picture.jpg", make_picture, load_picture),
        "mask": ("mask.bmp", make_mask, load_mask),
    }


def readers():
    """{name: (the name of its file, make(path), load(path))}; `load` raises UserError, or returns arrays of numbers."""
    from files.model_file import load_model
    from harness import checkpoint
    from harness.quiet_tensorflow import tf
    from models import DVAE

    variables = [tf.Variable(np.ones((9, 9), np.float32)), tf.Variable(3)]
    state = {"first_batch": [0.5], "iteration": 20, "rows": []}

    def make_model(path):
        DVAE(12, "gaussian", (7,), 3, metadata={"experiment": "sound", "sample_rate": 8000}).save(
            path
        )

    def load_checkpoint(path):
        iteration = checkpoint.restore(path, variables, state)["iteration"]
        return [variable.numpy() for variable in variables] + [iteration]

    return {
        **sound_readers(),
        **image_readers(),
        "model": ("model.keras", make_model, lambda path: load_model(path).get_weights()),
        "checkpoint": (
            "checkpoint.npz",
            lambda path: checkpoint.save(path, variables, state),
            load_checkpoint,
        ),
    }


def try_mutated(name, reader, count, rng, folder):
    """`count` mutated files for one reader: how many loaded, how many were refused, and what else happened."""
    file_name, make, load = reader
    folder = folder / name
    folder.mkdir()
    path = folder / file_name
    make(path)
    whole = path.read_bytes()
    right = load(path)
    checksummed = zipfile.is_zipfile(path)
    loaded = refused = 0
    failed = []
    for number in range(count):
        content = mutated(whole, rng)
        path.write_bytes(content)
        try:
            arrays = load(path)
            if not all(np.isfinite(np.asarray(array, float)).all() for array in arrays):
                failed.append((number, "numbers that are not finite"))
            if checksummed and not all(map(np.array_equal, arrays, right)):
                failed.append((number, "other numbers than were written"))
            loaded += 1
        except UserError as error:
            refused += 1
            if len(str(error).splitlines()) != 1 or file_name not in str(error):
                failed.append((number, f"refused, but with {error!s:.500}"))
        except Exception as error:
            failed.append((number, f"{type(error).__name__}: {error!s:.500}"))
    for number, what in failed:
        print(f"{name} {number}: {what}")
    return loaded, refused, failed


def files(count, seed):
    """At least `count` mutated files among all readers; prints a line for each. The number that went wrong."""
    rng = random.Random(seed)
    wrong = tried = 0
    table = readers()
    each = -(-count // len(table))
    with tempfile.TemporaryDirectory() as temporary:
        for name, reader in table.items():
            loaded, refused, failed = try_mutated(name, reader, each, rng, Path(temporary))
            print(
                f"{name}: {each} mutated files tried, {loaded} loaded, {refused} refused, {len(failed)} tracebacks"
            )
            tried, wrong = tried + each, wrong + len(failed)
    print(f"all: {tried} mutated files tried, {wrong} tracebacks")
    return wrong


def main():
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument(
        "part", nargs="?", choices=("kills", "cases", "files"), help="by default, all three"
    )
    flags.add_argument("--kills", type=int, default=20, help="runs to kill")
    flags.add_argument("--files", type=int, default=2000, help="mutated files to try, at least")
    flags.add_argument("--seed", type=int, default=0)
    settings = flags.parse_args()
    wrong = 0
    if settings.part in (None, "kills"):
        survived = kills(settings.kills, settings.seed)
        print(f"kills survived: {survived} of {settings.kills} with identical results")
        wrong += settings.kills - survived
    if settings.part in (None, "cases"):
        result = try_cases()
        for name, what in result.items():
            if what:
                print(f"WRONG, {name}: {'; '.join(what)}")
        print(
            f"cases as they should be: {sum(not what for what in result.values())} of {len(result)}"
        )
        wrong += sum(bool(what) for what in result.values())
    if settings.part in (None, "files"):
        wrong += files(settings.files, settings.seed)
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()

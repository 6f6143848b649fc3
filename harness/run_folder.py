"""A run's folder: one run in it at a time, its settings, whole files, tables of scores."""

import contextlib
import csv
import dataclasses
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from pathlib import Path

from tqdm import tqdm

from harness import UserError, workers

CONFIG, SCORES, MODEL, CHECKPOINT = "config.json", "scores.csv", "model.keras", "checkpoint.npz"
MODEL_FORMAT = 2  # raised when older scripts could no longer use a model, or newer ones an older
METHOD = "DVAE"  # the model's name among the methods of a table
REFINED = f"{METHOD}, refined"  # its posteriors, refined for each example
NOT_COMPARED = {
    "out",
    "tensorboard",
    "command",
    "finished",
    "iters",
    "provenance",
}  # when a run is resumed
VERSIONS = "tensorflow", "keras", "numpy"


@contextlib.contextmanager
def replacing(path):
    """A path beside `path` to write to; it takes that name only once the block has ended well and the disk has it all.

    OSError, naming `path`, if the system refuses.
    """
    path = Path(path)
    unfinished = _unfinished(path)
    try:
        with _naming(path):
            try:
                yield unfinished
            except Exception as error:
                if not getattr(
                    error, "errno", None
                ):  # libraries that write may not tell that the disk was full
                    _write_more(unfinished)
                raise
            with open(unfinished, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(unfinished, path)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


@contextlib.contextmanager
def claimed(path):
    """Keep other processes from writing `path` meanwhile. UserError if one of them is writing it now."""
    path = Path(path)
    unfinished = _unfinished(path)
    taken = f"{path}: another process is writing it; wait for its end, or choose another --out"
    with _naming(path):
        lock = _lock(unfinished, os.O_RDWR | os.O_CREAT, taken)

    def ours():
        return os.path.exists(unfinished) and os.path.samestat(os.fstat(lock), os.stat(unfinished))

    try:
        if lock is not None and not ours():  # the other one has ended since this one looked
            raise UserError(taken)
        yield
    finally:
        if lock is not None:
            if ours():
                unfinished.unlink()
            os.close(lock)


def _unfinished(path):
    return path.with_name(f".unfinished-{path.name}")


@contextlib.contextmanager
def _naming(path):
    """The system's errors name this path, whichever beside it they are about."""
    try:
        yield
    except OSError as error:
        raise (OSError(error.errno, error.strerror, str(path)) if error.errno else error) from error


def _write_more(path):
    """OSError if a file that is there cannot be written to."""
    if path.exists():
        with open(path, "rb+") as file:
            file.seek(0, os.SEEK_END)
            file.write(bytes(2**16))
            file.flush()
            os.fsync(file.fileno())


class Run:
    """One run in its folder, from before its data are read until its last file is written.

        with Run(settings, write_page, written, columns) as run:
            run.record(provenance)     # the data are good: from here on the folder is this run's
            run.log(iteration, scores, files)
            run.finish(model, baseline_rows)

    Entering makes and locks the folder and refuses what must not be done there; an earlier run is untouched until
    `record`, and a folder that was made for nothing is gone again. Of several workers only the chief does any of this.

    write_page(folder) is called when there is something new; written: patterns of the files that scripts write, for
    --overwrite to remove; columns: the scores that are printed.
    """

    def __init__(self, settings, write_page=lambda folder: None, written=(), columns=()):
        self.settings, self.folder = settings, settings.out
        self.write_page, self.columns = write_page, columns
        # In this order: what is left when the removal is cut short is not taken for a run to resume, nor for none.
        self.written = (CONFIG, SCORES, *written, MODEL, CHECKPOINT)
        self.workers, self.rows = workers.Workers(), []
        self.previous = self.lock = self.command = self.config = None
        self.waiting = {}  # files of a run that is resumed, until its checkpoint has been accepted
        self.made = []

    def __enter__(self):
        self.workers = workers.join()
        if self.workers.is_chief:
            try:
                self._open()
            except BaseException:
                self._close()
                raise
        return self

    def __exit__(self, kind, error, traceback):
        if error is None or isinstance(
            error, KeyboardInterrupt
        ):  # that comes when training has saved
            self._begin()
        lost = error and self.workers.lost(error)
        ended = UserError(lost) if lost else error
        if self.command and (lost or isinstance(ended, OSError | KeyboardInterrupt)):
            again = "--resume" in sys.argv[1:]
            ended.add_note(
                f"to go on: {'the same command again' if again else shlex.join(self.command)}"
            )
        self._close()
        if lost:
            raise ended from error

    @property
    def checkpoint(self):
        """Where training saves; None for a worker that is not the chief."""
        return self.folder / CHECKPOINT if self.workers.is_chief else None

    def record(self, provenance):
        """The data have been accepted: take the folder over, and write the settings and the data's provenance there.

        A run that is resumed is not changed before `log`: its checkpoint may yet be refused. provenance: what JSON
        can hold; its `sha256`, if any, is compared when a run is resumed.
        """
        if not self.workers.is_chief:
            return
        provenance = {**provenance, "versions": versions()}
        goes_on = self.settings.resume and self.previous
        if goes_on:
            _compare_provenance(self.folder, self.previous.get("provenance", {}), provenance)
        flags = [flag for flag in sys.argv[1:] if flag not in ("--resume", "--overwrite")]
        command = shlex.join(["python", Path(sys.argv[0]).name, *flags])
        self.config = {**self._config(), "provenance": provenance, "command": command}
        self.command = ["python", sys.argv[0], *flags, "--resume"]
        if not goes_on:
            self._begin()

    def _begin(self):
        """Remove what is left of earlier runs and write this one's settings; only once."""
        config, self.config = self.config, None
        if config is None:
            return
        if self.settings.overwrite:
            for path in (
                path for pattern in self.written for path in sorted(self.folder.glob(pattern))
            ):
                path.unlink()
        for path in self.folder.glob(".unfinished-*"):  # what a killed run left
            path.unlink()
        self._write_config(config)
        self.save(self.waiting)

    def save(self, files):
        """Write files into the folder, each whole or not at all: {name: save(path)}."""
        if not self.workers.is_chief:
            return
        if self.config:  # not begun
            self.waiting |= files
            return
        for name, save in files.items():
            with replacing(self.folder / name) as path:
                save(path)

    def log(self, iteration, scores, files):
        """Add a checkpoint's row of scores, print it, and write the files that show it, and the page."""
        self._begin()
        self.rows.append({"method": METHOD, "iteration": iteration, **scores})
        write_scores(self.folder / SCORES, self.rows)
        tqdm.write(score_line(self.rows[-1], self.columns))
        self.save(files)
        self.write_page(self.folder)

    def finish(self, model, baseline_rows):
        """Save the model, print the baselines' table, and note that the run has done all it had to.

        baseline_rows: dicts of a method and its scores; the model's own may be among them.
        """
        self.save({MODEL: model.save})
        print_table(baseline_rows)
        write_scores(
            self.folder / SCORES,
            self.rows + [row for row in baseline_rows if row["method"] != METHOD],
        )
        self.write_page(self.folder)
        self._write_config({**json.loads((self.folder / CONFIG).read_text()), "finished": True})

    def _open(self):
        out, settings = self.folder, self.settings
        self.made = [folder for folder in (out, *out.parents) if not folder.exists()]
        out.mkdir(parents=True, exist_ok=True)
        taken = f"{out}: another run is writing there; wait for its end, or choose another --out"
        self.lock = _lock(out, os.O_RDONLY, taken)
        self.previous = _previous(out)
        if settings.resume and self.previous is None:
            print(f"{out}: no run to resume; starting one")
        elif settings.resume:
            ours = self._config()
            # What the version that wrote the run did not know yet was as it is by default.
            defaults = {
                field.name: field.default
                for field in dataclasses.fields(settings)
                if field.name in ours
            }
            defaults = json.loads(
                json.dumps(defaults, default=str)
            )  # as they come back from a file
            _check_that_it_goes_on(out, self.previous and defaults | self.previous, ours)
        elif self.previous is not None and not settings.overwrite:
            state = "a finished" if self.previous.get("finished") else "an unfinished"
            goes_on = "--resume goes on with it, " if self.previous else ""
            raise UserError(
                f"{out}: holds {state} run; {goes_on}--overwrite replaces it, or choose another --out"
            )

    def _close(self):
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None
        if not self.command:
            with contextlib.suppress(OSError):  # not empty
                for folder in self.made:
                    folder.rmdir()

    def _config(self):
        """The settings as they will come back from config.json."""
        settings = dataclasses.asdict(self.settings)
        del settings["resume"], settings["overwrite"]
        return json.loads(
            json.dumps({"experiment": self.settings.experiment, **settings}, default=str)
        )

    def _write_config(self, config):
        with replacing(self.folder / CONFIG) as path:
            path.write_text(json.dumps(config, indent=2) + "\n")


def versions():
    """Of Python and of the libraries that a run's last digits hang on: {name: version}."""
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except (
            importlib.metadata.PackageNotFoundError
        ):  # TensorFlow comes as tensorflow-cpu and others, too
            (package, *_) = importlib.metadata.packages_distributions().get(name, [None])
            found[name] = package and f"{package} {importlib.metadata.version(package)}"
    return found


def _lock(path, flags, taken):
    """Keep other processes from a path until what this returns is closed: the kernel does it for one that dies.

    flags: of `os.open`. None where there are no locks. UserError, `taken`, if another has it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    opened = os.open(path, flags)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(opened)
        raise UserError(taken) from None
    except OSError:
        pass  # a file system that has no locks
    return opened


def _previous(out):
    """The settings of the run in a folder, None if there is no run."""
    path = out / CONFIG
    try:
        config = json.loads(path.read_text())
        (
            config["experiment"],
            config["iters"] + 1,
            config.get("provenance", {}).get("versions", {}).items(),
        )
    except FileNotFoundError:
        lost = [name for name in (MODEL, CHECKPOINT) if (out / name).exists()]
        return {} if lost else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: not the settings of a run; choose another --out") from error
    return config


def _check_that_it_goes_on(out, previous, ours):
    """UserError unless a run with the previous settings can go on under ours; SystemExit if it is finished."""
    if not previous:
        raise UserError(
            f"{out}: a run whose config.json is missing cannot be resumed; --overwrite replaces it"
        )
    iterations = previous["iters"]
    not_compared = NOT_COMPARED | (
        {"data"} if "sha256" in previous.get("provenance", {}) else set()
    )
    both = sorted((previous.keys() | ours.keys()) - not_compared)
    others = [
        name
        for name in both
        if _compared(name, previous.get(name)) != _compared(name, ours.get(name))
    ]
    others += ["iters"] if ours["iters"] < iterations else []
    if others:
        said = [
            f"--{name.replace('_', '-')} is {previous.get(name)} there, {ours.get(name)} here"
            for name in others
        ]
        raise UserError(
            f"{out}: holds a run with other settings ({'; '.join(said)}); resume with the same"
        )
    if ours["iters"] > iterations:
        print(
            f"{ours['iters']} iterations instead of {iterations}: from here on the learning rate is that of the longer"
            " run's cosine, so it rises at once, and the result is not that of so long a run from the start"
        )
    elif previous.get("finished"):
        print(f"{out}: this run is finished; more --iters continue it, --overwrite repeats it")
        raise SystemExit(0)


def _compared(name, value):
    """A setting as it is compared: of a path, x/ is x."""
    return os.path.abspath(value) if name == "data" and isinstance(value, str) else value


def _compare_provenance(out, previous, ours):
    """UserError if a run to be resumed was given other data; a line on stderr if by other versions of its libraries."""
    if previous.get("sha256", ours.get("sha256")) != ours.get("sha256"):
        raise UserError(
            f"{out}: holds a run with other data ({previous.get('source')}); resume with the same files"
        )
    before = previous.get("versions", ours["versions"])
    others = [
        f"{name} {before.get(name)}"
        for name, version in ours["versions"].items()
        if before.get(name) != version
    ]
    if others:
        print(
            f"{out}: begun with {', '.join(others)}; the last digits may differ from here on",
            file=sys.stderr,
        )


def write_scores(path, rows):
    """A table of scores as CSV, in full precision, units in the columns' names.

    rows: dicts; a column for each key that one of them has.
    """
    with replacing(path) as unfinished, open(unfinished, "w", newline="") as file:
        table = csv.DictWriter(file, _columns(rows))
        table.writeheader()
        table.writerows({name: _in_full(value) for name, value in row.items()} for row in rows)


def _columns(rows):
    return list(dict.fromkeys(name for row in rows for name in row))


def print_table(rows):
    """A table of scores for the terminal, the rows' keys as its head."""
    columns = _columns(rows)
    lines = [columns] + [[str(_rounded(row.get(name, ""))) for name in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    for name, *values in lines:
        print(
            name.ljust(widths[0]),
            *(value.rjust(width) for value, width in zip(values, widths[1:])),
            sep="  ",
        )


def score_line(row, columns):
    """Those of a row's scores that are among the columns, as one line for the terminal."""
    return "   ".join(f"{name} {_rounded(row[name])}" for name in columns if name in row)


def _in_full(value):
    return value if isinstance(value, int | str) else repr(float(value))


def _rounded(value):
    return value if isinstance(value, int | str) else f"{value:.4g}"

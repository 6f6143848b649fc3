"""Manage the folder of a run: write complete files, lock, resume and overwrite."""

import contextlib
import dataclasses
import errno
import fnmatch
import hashlib
import importlib.metadata
import json
import os
import platform
import stat
import sys
from pathlib import Path

import filelock
from tqdm import tqdm

from harness import UserError, cli, tables, workers

CONFIG, SCORES, MODEL, CHECKPOINT = "config.json", "scores.csv", "model.keras", "checkpoint.npz"
MODEL_FORMAT = 2  # increase it when old models do not fit new scripts, or new models old scripts
METHOD = "DVAE"  # the model's name in the column "method" of tables
REFINED = f"{METHOD}, refined"  # the model with posteriors refined per example
INDEX, EVENTS = "index.html", "events.out.tfevents.*"  # files that write_page writes
NOT_COMPARED = {"out", "tensorboard", "command", "files", "finished", "iters", "provenance"}
VERSIONS = "tensorflow", "keras", "numpy", "scipy"
HALF_DELETED = "half deleted"  # value of "experiment" while a run is being deleted
MOST_NAMED = 5  # maximum files named in a message
LONGEST_NAME = 255  # in bytes; the limit of most file systems
NO_LOCKS = errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP  # errors of file systems without locks


@contextlib.contextmanager
def replacing(path):
    """Yield a temporary path to write to. If the block succeeds, rename it to `path`.

    The data are on the disk before the rename, so `path` is never half written. A replaced file
    keeps its mode. If `path` is a link, its target is replaced. An OSError names `path`.
    """
    target = Path(os.path.realpath(path))
    unfinished = _hidden("unfinished", target)
    try:
        with _errors_name(path):
            # Set the mode before data are written. Some libraries also create executable files.
            unfinished.touch()
            mode = stat.S_IMODE((target if target.exists() else unfinished).stat().st_mode)
            unfinished.chmod(mode | stat.S_IWUSR)
            try:
                yield unfinished
            except Exception as error:
                if not getattr(error, "errno", None) and unfinished.exists():
                    # Some libraries hide the system's error. If the disk is full, this raises it.
                    with open(unfinished, "ab") as file:
                        file.write(bytes(2**16))
                raise
            with open(unfinished, "rb+") as file:
                os.fsync(file.fileno())
            unfinished.chmod(mode)
            os.replace(unfinished, target)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


@contextlib.contextmanager
def claimed(path):
    """Keep other processes from writing to `path` during the block.

    Raises UserError if another process is already writing to it. An OSError names `path`.
    """
    target = Path(os.path.realpath(path))
    busy = f"{path}: another process is writing it; wait for it to end or choose another --out"
    with _locked(_hidden("lock", target), path, busy):
        _hidden("unfinished", target).unlink(missing_ok=True)  # left by a killed process
        yield


def _hidden(kind, path):
    """Return the path of a hidden file next to `path`. A name that is too long becomes a hash."""
    name = f".{kind}-{path.name}"
    if len(encoded := os.fsencode(name)) > LONGEST_NAME:
        name = f".{kind}-{hashlib.sha256(encoded).hexdigest()}{path.suffix}"
    return path.with_name(name)


@contextlib.contextmanager
def _locked(lock_path, path, busy):
    """Lock `path` with the file `lock_path`. Raises UserError(busy) if another process holds it.

    The operating system releases the lock even if this process is killed.
    """
    lock = filelock.FileLock(lock_path, timeout=0, fallback_to_soft=False)
    with _errors_name(path):
        lock_path.parent.stat()  # raises if the folder is missing; filelock would create it
        try:
            lock.acquire()
        except filelock.Timeout:
            raise UserError(busy) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
    try:
        yield
    finally:
        # Remove it before the release. filelock rejects a file that was removed after being opened.
        with contextlib.suppress(OSError):  # fails on Windows, where `release` removes it
            os.remove(lock_path)
        lock.release()


@contextlib.contextmanager
def _errors_name(path):
    """Make an OSError in the block name `path` instead of a hidden file next to it."""
    try:
        yield
    except OSError as error:
        if not error.errno:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def _created(folder):
    """Create a folder and its missing parents. After the block, remove those left empty."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # not empty
            for each in missing:
                each.rmdir()


class Run:
    """One run in its folder, from reading the data to writing the last file.

        with Run(settings, write_page, written, columns) as run:
            run.record(provenance)  # the data are valid; the folder belongs to this run now
            run.log(iteration, scores, files)
            run.finish(model, baseline_rows)

    Entering creates and locks the folder. Raises UserError if it contains a run that must be kept,
    or a file that a run would replace but no run wrote. No file changes before `record`. With
    several workers, only the chief uses the folder. NumPy and SciPy use one thread during the run.

    config.json lists each file under "files" before the file is written. --overwrite deletes only
    listed files. write_page(folder) writes INDEX and EVENTS and is called after new results.
    written: glob patterns of the files that runs write. columns: names of the scores to print.
    """

    def __init__(self, settings, write_page=lambda folder: None, written=(), columns=()):
        self.settings, self.folder = settings, settings.out
        self.write_page, self.columns = write_page, columns
        self.written = (CONFIG, SCORES, INDEX, EVENTS, MODEL, CHECKPOINT, *written)
        self.workers, self.rows = workers.Workers(), []
        self.previous = None  # settings of an earlier run in the folder
        self.owned = set()  # names of that run's files
        self.config = None  # settings and provenance of this run; None until its data are valid
        self.started = False  # true once this run has changed the folder
        self.waiting = {}  # files to write once the run has started

    def __enter__(self):
        self.workers = workers.join()
        with contextlib.ExitStack() as stack:
            stack.enter_context(cli.one_blas_thread())
            if self.workers.is_chief:
                self._open(stack)
            self.stack = stack.pop_all()
        return self

    def __exit__(self, kind, error, traceback):
        with self.stack:
            if error is None or isinstance(error, KeyboardInterrupt):  # the guard saved the state
                self._start()
            lost = error and self.workers.lost(error)
            shown = UserError(lost) if lost else error
            if self.config and (lost or isinstance(error, OSError | KeyboardInterrupt)):
                shown.add_note(f"to continue: {cli.command(self.settings, '--resume')}")
            if lost:
                raise shown from error

    @property
    def checkpoint(self):
        """Path of the checkpoint, or None for workers other than the chief."""
        return self.folder / CHECKPOINT if self.workers.is_chief else None

    def record(self, provenance):
        """Take over the folder and write settings and provenance. Call it once the data are valid.

        A resumed run changes nothing before `log`, because its checkpoint may still be rejected.
        provenance: a JSON-serializable dict about the data. --resume compares its `sha256`, if any.
        """
        if not self.workers.is_chief:
            return
        provenance = {**provenance, "versions": versions()}
        resumed = self.settings.resume and self.previous is not None
        if resumed:
            _check_provenance(self.folder, self.previous.get("provenance", {}), provenance)
        command = cli.command(self.settings)
        files = {CONFIG, CHECKPOINT, INDEX} | ({EVENTS} if self.settings.tensorboard else set())
        files |= self.owned if resumed else set()
        self.config = {**_stored(self.settings), "provenance": provenance, "command": command}
        self.config["files"] = sorted(files)
        if not resumed:
            self._start()

    def save(self, files):
        """Write each file completely or not at all. files: {name: function that writes a path}."""
        if not self.workers.is_chief:
            return
        if not self.started:
            self.waiting |= files
            return
        if new := files.keys() - set(self.config["files"]):
            self.config["files"] = sorted(new.union(self.config["files"]))
            self._save_config(self.config)
        for name, save in files.items():
            with replacing(self.folder / name) as path:
                save(path)

    def log(self, iteration, scores, files):
        """Write and print a checkpoint's scores, write its files, and update the page."""
        self._start()
        self.rows.append({"method": METHOD, "iteration": iteration, **scores})
        self._save_scores(self.rows)
        tqdm.write(tables.score_line(self.rows[-1], self.columns))
        self.save(files)
        self.write_page(self.folder)

    def finish(self, model, baseline_rows):
        """Save the model, print the final table, and mark the run as finished.

        baseline_rows: the rows of that table, each a dict of a method and its scores. They may
        include the model's own row.
        """
        self._start()
        self.save({MODEL: model.save})
        tables.print_table(baseline_rows)
        self._save_scores(self.rows + [row for row in baseline_rows if row["method"] != METHOD])
        self.write_page(self.folder)
        self.config["finished"] = True
        self._save_config(self.config)

    def _open(self, stack):
        """Create, lock and check the folder."""
        out, settings = self.folder, self.settings
        _check_apart(out, settings.data)
        stack.enter_context(_created(out))
        busy = f"--out {out}: another run is writing there; wait for it to end or choose another"
        stack.enter_context(_locked(out / ".lock", out, busy))
        self.previous = _previous(out)
        present = {name for name in os.listdir(out) if _matches(name, self.written)}
        if self.previous is not None:
            listed = self.previous.get("files", self.written)  # older runs have no list
            self.owned = {name for name in present if _matches(name, listed)}
        if foreign := sorted(present - self.owned):
            names = ", ".join(foreign[:MOST_NAMED]) + (", ..." if foreign[MOST_NAMED:] else "")
            problem = f"contains {names}, which no run wrote; choose another --out"
            raise UserError(f"--out {out}: {problem}")
        if settings.resume and self.previous is None:
            print(f"{out}: no run to resume; starting one")
        elif settings.resume:
            _check_settings(out, self.previous, settings)
        elif self.previous is not None and not settings.overwrite:
            state = "a finished" if self.previous.get("finished") else "an unfinished"
            remedy = "use --resume to continue it, --overwrite to replace it"
            remedy += ", or choose another --out"
            raise UserError(f"--out {out}: already contains {state} run; {remedy}")

    def _start(self):
        """Delete the files of an overwritten run and write this run's settings, but only once."""
        if self.started or not self.config:
            return
        self.started = True
        if self.settings.overwrite and self.previous is not None:
            # If deletion is interrupted, the folder must not look resumable or empty.
            deleted = {"experiment": HALF_DELETED, "finished": False, "files": sorted(self.owned)}
            self._save_config({**self.previous, **deleted})
            for name in sorted(self.owned - {CONFIG}):
                (self.folder / name).unlink(missing_ok=True)
        for pattern in self.written:
            for path in self.folder.glob(f".unfinished-{pattern}"):  # left by a killed run
                path.unlink()
        self._save_config(self.config)
        self.save(self.waiting)

    def _save_config(self, config):
        with replacing(self.folder / CONFIG) as path:
            path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    def _save_scores(self, rows):
        self.save({SCORES: lambda path: tables.write_csv(path, rows)})


def _matches(name, patterns):
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _check_apart(out, data):
    """Raise UserError if `out` or `data` contains the other. Results and data must not mix."""
    if data is None:
        return
    ours, theirs = out.resolve(), Path(data).resolve()
    if ours.is_relative_to(theirs) or theirs.is_relative_to(ours):
        problem = f"must be apart from --data ({data})"
        raise UserError(f"--out {out}: {problem}; choose a folder outside the data")


def versions():
    """Return what affects a run's last digits: the number of cores and versions of libraries."""
    found = {"cores": cli.cores(), "python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # for example tensorflow-cpu
            package, *_ = importlib.metadata.packages_distributions().get(name, [None])
            found[name] = package and f"{package} {importlib.metadata.version(package)}"
    return found


def _stored(settings):
    """Return the settings as a dict for config.json."""
    values = {"experiment": settings.experiment, **dataclasses.asdict(settings)}
    del values["resume"], values["overwrite"]
    return json.loads(json.dumps(values, default=str))


def _previous(out):
    """Return the config of the run in the folder `out`, or None if there is no run."""
    path = out / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        versions = config.get("provenance", {}).get("versions", {})
        files = config.get("files", [])
        types = type(config["experiment"]), type(config["iters"]), type(versions)
        if types != (str, int, dict) or not all(isinstance(name, str) for name in files):
            raise TypeError(f"expected str, int, dict and a list of str, got {types}, {files}")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: not the settings of a run; choose another --out") from error
    return config


def _check_settings(out, previous, settings):
    """Raise UserError if a run cannot resume with these settings, SystemExit if it is finished."""
    if previous["experiment"] == HALF_DELETED:
        problem = "contains a run that is half deleted; use --overwrite to replace it"
        raise UserError(f"--out {out}: {problem}")
    ours = _stored(settings)
    # Settings added since the run was written take their defaults.
    before = {**_stored(type(settings)()), **previous}
    ignored = NOT_COMPARED | ({"data"} if "sha256" in previous.get("provenance", {}) else set())
    different = [
        name
        for name in sorted((before.keys() | ours.keys()) - ignored)
        if _comparable(name, before.get(name)) != _comparable(name, ours.get(name))
    ]
    different += ["iters"] if ours["iters"] < before["iters"] else []
    if different:
        listed = "; ".join(
            f"--{name.replace('_', '-')}: expected {before.get(name)}, got {ours.get(name)}"
            for name in different
        )
        problem = f"contains a run with other settings ({listed}); resume it with its own"
        raise UserError(f"--out {out}: {problem}")
    if ours["iters"] > before["iters"]:
        print(
            f"{ours['iters']} iterations instead of {before['iters']}: the learning rate follows "
            "the longer schedule from here on, so it rises at once. The result differs from that "
            "of an uninterrupted run."
        )
    elif previous.get("finished"):
        remedy = "use a larger --iters to continue it, or --overwrite to repeat it"
        print(f"{out}: this run is finished; {remedy}")
        raise SystemExit(0)


def _comparable(name, value):
    """Return a setting to compare. The path of the data is made absolute, so x and x/ are equal."""
    return os.path.abspath(value) if name == "data" and isinstance(value, str) else value


def _check_provenance(out, previous, ours):
    """Raise UserError if a resumed run has other data. Print a line if it has other libraries."""
    if previous.get("sha256", ours.get("sha256")) != ours.get("sha256"):
        problem = f"contains a run with other data ({previous.get('source')})"
        raise UserError(f"--out {out}: {problem}; resume it with the same files")
    before = previous.get("versions", ours["versions"])
    # Earlier versions of these scripts recorded less.
    different = [name for name, now in ours["versions"].items() if before.get(name, now) != now]
    if different:
        started = ", ".join(f"{name} {before.get(name)}" for name in different)
        problem = f"started with {started}; the last digits may change from here on"
        print(f"{out}: {problem}", file=sys.stderr)

"""Manage the folder of a run: whose files are there, resume and overwrite."""

import contextlib
import dataclasses
import fnmatch
import hashlib
import importlib.metadata
import json
import os
import platform
import sys
from pathlib import Path

from harness import UserError, cli, tables, workers
from harness.errors import say
from harness.result_files import claimed, replacing

CONFIG, SCORES, MODEL, CHECKPOINT = "config.json", "scores.csv", "model.keras", "checkpoint.npz"
MODEL_FORMAT = 3  # increase it when old models do not fit new scripts, or new models old scripts
METHOD = "DVAE"  # the model's name in the column "method" of tables
REFINED = f"{METHOD}, refined"  # the model with posteriors refined per example
INDEX, EVENTS = "index.html", "events.out.tfevents."  # files of the page
NOT_COMPARED = {"out", "tensorboard", "command", "files", "finished", "iters", "provenance"}
VERSIONS = "tensorflow", "keras", "numpy", "scipy"
MOST_NAMED = 5  # maximum files named in a message


class Run:
    """One run in its folder, from reading the data to writing the last file.

        with Run(settings, page_files, written, columns) as run:
            run.record(provenance)  # the data are valid; the folder belongs to this run now
            run.log(iteration, scores, files)
            run.finish(model, baseline_rows)

    Entering creates and locks the folder. Raises UserError if it contains a run that must be kept,
    or a file that a run would replace but no run wrote. No file changes before `record`. With
    several workers, only the chief uses the folder. NumPy and SciPy use one thread during the run.

    Files are given as {name: function that writes a path}. page_files(folder) returns those of the
    run's page, and is called after new results. written: glob patterns, in lower case, of the files
    that runs write. columns: names of the scores to print.

    config.json lists the hash of each file under "files" before the file is written. Only files
    with a listed hash are ever replaced or deleted.
    """

    def __init__(self, settings, page_files=lambda folder: {}, written=(), columns=()):
        self.settings, self.folder = settings, settings.out
        self.page_files, self.columns = page_files, columns
        self.written = (CONFIG, SCORES, INDEX, f"{EVENTS}*", MODEL, CHECKPOINT, *written)
        self.workers, self.rows = workers.Workers(), []
        self.previous = None  # config of an earlier run in the folder
        self.listed = {}  # {name: hashes} of the files of runs; None accepts any content
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
            lost = error and self.workers.lost(error)
            shown = UserError(lost) if lost else error
            unfinished = self.config and not self.config.get("finished")
            if unfinished and (lost or isinstance(error, OSError | KeyboardInterrupt)):
                command = cli.command(self.settings, "--resume")
                if command and (self.folder / CONFIG).exists():
                    shown.add_note(f"to continue: {command}")
            if lost:
                raise shown from error

    @property
    def checkpoint(self):
        """Path of the checkpoint, or None for workers other than the chief."""
        return self.folder / CHECKPOINT if self.workers.is_chief else None

    def record(self, provenance):
        """Take over the folder and write settings and provenance. Call it once the data are valid.

        A resumed run changes nothing until training accepts its checkpoint and calls `log` or
        `save_checkpoint`. provenance: a JSON-serializable dict about the data. --resume compares
        its `sha256`, if any.
        """
        if not self.workers.is_chief:
            return
        provenance = {**provenance, "versions": versions()}
        resumed = self.settings.resume and self.previous is not None
        if resumed:
            _check_provenance(self.folder, self.previous.get("provenance", {}), provenance)
        command = cli.command(self.settings)
        self.config = {**_stored(self.settings), "provenance": provenance, "command": command}
        self.config["files"] = self.listed
        if not resumed:
            self._start()

    def save(self, files):
        """Write each file completely or not at all. Raises UserError if another's is in its place.

        files: {name: function that writes a path}.
        """
        if not self.workers.is_chief:
            return
        if not self.started:
            self.waiting |= files
            return
        for name, save in files.items():
            with replacing(self.folder / name) as path:
                save(path)
                before = self._refuse_foreign([name])[name]
                # List both, because the run may be killed before `path` is renamed.
                self.listed[name] = [each for each in (before, _digest(path)) if each]
                self._save_config()

    def save_checkpoint(self, save):
        """Write the checkpoint by save(path). An earlier one has been accepted, if there is one."""
        self._start()
        self.save({CHECKPOINT: save})

    def log(self, iteration, scores, files):
        """Write and print a checkpoint's scores, write its files, and update the page."""
        self._start()
        self.rows.append({"method": METHOD, "iteration": iteration, **scores})
        self._save_scores(self.rows)
        say(tables.score_line(self.rows[-1], self.columns))
        self.save(files)
        self.save(self.page_files(self.folder))

    def finish(self, model, baseline_rows):
        """Save the model, print the final table, and mark the run as finished.

        baseline_rows: the rows of that table, each a dict of a method and its scores. The model's
        own row may differ from its last checkpoint's, see `sound_dvae.own_estimates`.
        """
        self._start()
        self.save({MODEL: model.save})
        tables.print_table(baseline_rows)
        self._save_scores(self.rows + baseline_rows)
        self.save(self.page_files(self.folder))
        self.config["finished"] = True
        self._save_config()

    def _open(self, stack):
        """Create, lock and check the folder."""
        out, settings = self.folder, self.settings
        _check_apart(out, settings.data)
        busy = f"--out {out}: another run is writing there; wait for it to end or choose another"
        stack.enter_context(claimed(out / CONFIG, busy))
        self.previous = _previous(out)
        self.listed = self.previous["files"] if self.previous else {}
        self._refuse_foreign(name for name in os.listdir(out) if self._is_written(name))
        if settings.resume and self.previous is None:
            say(f"{out}: no run to resume; starting one")
        elif settings.resume:
            _check_settings(out, self.previous, settings)
        elif self.previous is not None and not settings.overwrite:
            state, remedy = "an unfinished", "--resume to continue it"
            if self.previous.get("finished"):
                state, remedy = "a finished", "--resume and a larger --iters to train it further"
            remedy = f"use {remedy}, --overwrite to replace it, or choose another --out"
            raise UserError(f"--out {out}: already contains {state} run; {remedy}")

    def _is_written(self, name):
        """Return True if runs write a file of this name. Some file systems ignore its case."""
        return any(fnmatch.fnmatchcase(name.lower(), pattern) for pattern in self.written)

    def _is_ours(self, name, digest):
        """Return True if there is no file of this name, or one with this hash that a run wrote."""
        hashes = self.listed.get(name, ())
        return hashes is None or not os.path.lexists(self.folder / name) or digest in hashes

    def _refuse_foreign(self, names):
        """Return {name: hash} of files. Raises UserError if some were not written by a run."""
        hashes = {name: _digest(self.folder / name) for name in names}
        if foreign := sorted(name for name in hashes if not self._is_ours(name, hashes[name])):
            shown = ", ".join(foreign[:MOST_NAMED]) + (", ..." if foreign[MOST_NAMED:] else "")
            problem = f"contains {shown}, which its config.json does not list with this content"
            remedy = "move it elsewhere or choose another --out"
            raise UserError(f"--out {self.folder}: {problem}; {remedy}")
        return hashes

    def _start(self):
        """Write this run's settings and waiting files, after deleting those of an earlier run."""
        if self.started or not self.config:
            return
        self.started = True
        if not (self.settings.resume and (self.folder / CHECKPOINT).exists()):
            # If interrupted, the folder must contain no checkpoint, or a run of these settings.
            self._delete([CHECKPOINT])
            self._save_config()
            self._delete(sorted(self.listed.keys() - {CONFIG}))
        for pattern in self.written:
            for path in self.folder.glob(f".unfinished-{pattern}"):  # left by a killed run
                path.unlink()
        self.save(self.waiting)

    def _delete(self, names):
        for name in names:
            path = self.folder / name
            if self._is_written(name) and self._is_ours(name, _digest(path)):
                path.unlink(missing_ok=True)
                self.listed.pop(name, None)

    def _save_config(self):
        self.listed[CONFIG] = None  # it cannot contain its own hash
        with replacing(self.folder / CONFIG) as path:
            path.write_text(json.dumps(self.config, indent=2) + "\n", encoding="utf-8")

    def _save_scores(self, rows):
        self.save({SCORES: lambda path: tables.write_csv(path, rows)})


def _digest(path):
    """Return the SHA-256 hash of a file, or None if there is none."""
    if path.is_file():
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _check_apart(out, data):
    """Raise UserError if `out` or `data` contains the other. Results and data must not mix."""
    ours, theirs = out.resolve(), data and Path(data).resolve()
    if data and (ours.is_relative_to(theirs) or theirs.is_relative_to(ours)):
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
    fixed = {name: getattr(settings, name) for name in ("experiment", "training_version")}
    values = {**fixed, **dataclasses.asdict(settings)}
    del values["resume"], values["overwrite"]
    return json.loads(json.dumps(values, default=str))


def _previous(out):
    """Return the config of the run in the folder `out`, or None if there is no run."""
    path, names = out / CONFIG, os.listdir(out)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        types = type(config["experiment"]), type(config["iters"])
        libraries = config.get("provenance", {}).get("versions", {})
        # Earlier versions listed names without hashes, or nothing.
        files = config.get("files", names)
        files = files if isinstance(files, dict) else dict.fromkeys(files)
        kinds = {*map(type, files), *map(type, files.values()), type(libraries)}
        if types != (str, int) or not kinds <= {str, list, type(None), dict}:
            raise TypeError(f"expected str, int and texts, got {types}, {kinds}")
        config["files"] = {name: files[name] for name in names if name in files} | {CONFIG: None}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: not the settings of a run; choose another --out") from error
    return config


def _check_settings(out, previous, settings):
    """Raise UserError if a run cannot resume with these settings, SystemExit if it is finished."""
    ours = _stored(settings)
    # Settings added since the run was written take their defaults.
    before = {**_stored(type(settings)()), "training_version": 1, **previous}
    trained = before.pop("training_version"), ours.pop("training_version")
    if before["experiment"] == ours["experiment"] and trained[0] != trained[1]:
        problem = "contains a run of another version of these scripts, which trained differently"
        raise UserError(f"--out {out}: {problem}; choose another --out, or use --overwrite")
    ignored = NOT_COMPARED | ({"data"} if "sha256" in previous.get("provenance", {}) else set())
    different = [
        name
        for name in sorted((before.keys() | ours.keys()) - ignored)
        if before.get(name) != ours.get(name)
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
        if previous.get("finished") and not (out / CHECKPOINT).exists():
            problem = f"the finished run has no {CHECKPOINT}, so it cannot be trained further"
            raise UserError(f"--out {out}: {problem}; choose another --out, or use --overwrite")
        say(
            f"{ours['iters']} iterations instead of {before['iters']}: the learning rate follows "
            "the longer schedule from here on, so it rises at once. The result differs from that "
            "of an uninterrupted run."
        )
    elif previous.get("finished"):
        remedy = "use a larger --iters to continue it, or --overwrite to repeat it"
        say(f"{out}: this run is finished; {remedy}")
        raise SystemExit(0)


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
        say(f"{out}: {problem}", sys.stderr)

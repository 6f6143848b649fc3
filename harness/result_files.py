"""Write result files: complete or not at all, and by one process at a time."""

import contextlib
import errno
import hashlib
import os
import stat
from pathlib import Path

import filelock

from harness import UserError

EXISTS = "already exists; --overwrite replaces it, or give another --out"
LONGEST_NAME = 255  # in bytes; the limit of most file systems
# Errors of file systems without locks. A defective disk gives EIO when the result is written too.
NO_LOCKS = errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EIO


@contextlib.contextmanager
def replacing(path):
    """Yield a temporary path to write to. If the block succeeds, rename it to `path`.

    The data are on the disk before the rename, so `path` is never half written. A replaced file
    keeps its mode and owner, if the file system and the user's rights allow it. If `path` is a
    link, its target is replaced. Pipes and devices are never replaced: UserError. An OSError names
    `path`.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not (target.is_file() or target.is_dir()):
        raise UserError(f"{path}: a pipe or a device; choose another --out")
    unfinished = _hidden("unfinished", target)
    try:
        with _errors_name(path):
            # Set the mode before data are written. Some libraries also create executable files.
            unfinished.touch()
            kept = (target if target.exists() else unfinished).stat()
            _set_access(unfinished, kept, stat.S_IMODE(kept.st_mode) | stat.S_IWUSR)
            try:
                yield unfinished
            except Exception as error:
                if not isinstance(error, OSError) and unfinished.exists():
                    # Some libraries hide the system's error. If the disk is full, this raises it.
                    with open(unfinished, "ab") as file:
                        file.write(bytes(2**16))
                raise
            with open(unfinished, "rb+") as file:
                os.fsync(file.fileno())
            _set_access(unfinished, kept, stat.S_IMODE(kept.st_mode))
            os.replace(unfinished, target)
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()


@contextlib.contextmanager
def claimed(path, busy=None):
    """Keep other processes from writing to `path` during the block.

    Creates missing folders; after the block, those still empty are removed. Raises UserError, with
    the message `busy`, if another process has claimed `path`. An OSError names `path`. The system
    releases the lock of a killed process.
    """
    target = Path(os.path.realpath(path))
    lock = filelock.FileLock(_hidden("lock", target), timeout=0, fallback_to_soft=False)
    with _created(target.parent):
        with _errors_name(path):
            try:
                lock.acquire()
            except filelock.Timeout:
                remedy = "wait for it to end or choose another --out"
                message = busy or f"{path}: another process is writing it; {remedy}"
                raise UserError(message) from None
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
        try:
            _hidden("unfinished", target).unlink(missing_ok=True)  # left by a killed process
            yield
        finally:
            # Remove it before the release. filelock rejects a file removed after being opened.
            with contextlib.suppress(OSError):  # fails on Windows, where `release` removes it
                os.remove(lock.lock_file)
            lock.release()


def _set_access(path, kept, mode):
    """Set a file's owner and mode if it is allowed. USB sticks and network shares may refuse."""
    if hasattr(os, "chown"):
        with contextlib.suppress(OSError):
            os.chown(path, kept.st_uid, kept.st_gid, follow_symlinks=False)
    with contextlib.suppress(OSError):
        path.chmod(mode)


def _hidden(kind, path):
    """Return the path of a hidden file next to `path`. A name that is too long becomes a hash."""
    name = f".{kind}-{path.name}"
    if len(encoded := os.fsencode(name)) > LONGEST_NAME:
        name = f".{kind}-{hashlib.sha256(encoded).hexdigest()}{path.suffix}"
    return path.with_name(name)


@contextlib.contextmanager
def _errors_name(path):
    """Make an OSError in the block name `path` instead of a hidden file next to it."""
    try:
        yield
    except OSError as error:
        if not error.errno:
            raise
        named = OSError(error.errno, error.strerror, str(path))
        if error.errno == errno.EBUSY:
            named.add_note("if it is mounted by itself, mount its folder, or choose another --out")
        raise named from error


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

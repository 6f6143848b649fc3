"""Helpers of tests that run the scripts as a user does."""

import importlib
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from harness import cli

ROOT = Path(__file__).parent.parent
posix = pytest.mark.skipif(os.name == "nt", reason="needs links, pipes, signals or modes of POSIX")


def run(script, *flags, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, ROOT / script, *map(str, flags)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
        timeout=240,
        cwd=cwd,
    )


def refused(done, *words):
    """Assert that a script ended with status 2 and one line on stderr with these words."""
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    for word in words:
        assert str(word) in done.stderr


def until(condition):
    """Wait until `condition()` is true. AssertionError after one minute."""
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert condition()


def inside(capsys, script, *flags):
    """Run a script in this process, without loading TensorFlow again. Returns as `run`."""
    module, status = importlib.import_module(script[:-3]), 0
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *map(str, flags)])
        try:
            with cli.one_line_errors():
                trains = hasattr(module, "Settings")
                module.main(cli.parse(module.Settings, "") if trains else module.read_flags())
        except SystemExit as end:
            status = end.code
    said = capsys.readouterr()
    return types.SimpleNamespace(returncode=status, stdout=said.out, stderr=said.err)

"""Helpers of tests that run the scripts as a user does."""

import contextlib
import importlib
import os
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

from harness import cli
from harness.quiet_tensorflow import tf

ROOT = Path(__file__).parent.parent
FEWER = {"HELD_OUT": 200, "HELD_OUT_WINDOWS": 200, "AUTOREGRESSED": 8, "GENERATED": 100}
posix = pytest.mark.skipif(os.name == "nt", reason="needs links, pipes, signals or modes of POSIX")


def run(script, *flags, options=(), cwd=None, **environment):
    return subprocess.run(
        [sys.executable, *options, str(ROOT / script), *map(str, flags)],
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


@contextlib.contextmanager
def without_xla():
    """Skip compilation by XLA, which dominates short runs. Runs in processes use compiled code."""
    traced = tf.function

    def without(*function, jit_compile=None, **options):
        return traced(*function, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf, "function", without, raising=False)
        yield


@contextlib.contextmanager
def eagerly():
    """Call functions of TensorFlow without tracing them, which dominates runs of few iterations."""
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(False)


@contextlib.contextmanager
def fewer_examples(fewer=FEWER):
    """Score few held-out and new examples."""
    with pytest.MonkeyPatch.context() as patch:
        for script in ("mnist_dvae", "sound_dvae"):
            module = importlib.import_module(script)
            for name in fewer.keys() & vars(module).keys():
                patch.setattr(module, name, fewer[name])
        yield


@contextlib.contextmanager
def quickly():
    """Run a script `eagerly` with `fewer_examples`."""
    with eagerly(), fewer_examples():
        yield


def inside(capsys, script, *flags, mode=contextlib.nullcontext):
    """Run a script in this process, without loading TensorFlow again. Returns as `run`.

    mode: `quickly` or another function that returns a context manager.
    """
    module, status = importlib.import_module(script[:-3]), 0
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch, mode():
        patch.setattr(sys, "argv", [script, *map(str, flags)])
        try:
            with cli.one_line_errors():
                trains = hasattr(module, "Settings")
                module.main(cli.parse(module.Settings, "") if trains else module.read_flags())
        except SystemExit as end:
            status = end.code
    said = capsys.readouterr()
    return types.SimpleNamespace(returncode=status, stdout=said.out, stderr=said.err)

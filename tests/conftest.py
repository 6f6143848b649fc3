"""What many tests need: one trained run of each script, which none of them changes, and signals as usual."""

import signal

import pytest
from commands import run


def trained(out, script, *flags):
    done = run(script, "--iters", 200, "--batch-size", 64, *flags, "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """The folder of a run, and what its process said."""
    return trained(tmp_path_factory.mktemp("sound run") / "new folder", "sound_dvae.py", "--seed", 1)


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("digits"), "mnist_dvae.py")


@pytest.fixture
def interruptible():
    """Signals end a program as usual, though whoever started the tests may have had them ignored."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)

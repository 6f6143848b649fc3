"""Shared fixtures: a trained run per script, a browser, a full disk, default signal handlers."""

import contextlib
import json
import os
import shutil
import signal
import subprocess

import pytest

# Test processes with as many threads as cores each would mostly wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from commands import run
from filelock import FileLock
from hypothesis import settings

from harness import cli

settings.register_profile("suite", max_examples=50, deadline=None, derandomize=True, database=None)
settings.load_profile("suite")


def trained(tmp_path_factory, script, *flags):
    """Return a run's folder and its finished process. All test processes share one run."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    out, said = shared / f"{script} run" / "new folder", shared / f"{script} said.json"
    with FileLock(shared / f"{script} lock"):
        if not said.exists():
            done = run(script, "--iters", 200, "--batch-size", 64, *flags, "--out", out)
            assert done.returncode == 0, done.stderr
            said.write_text(json.dumps([done.stdout, done.stderr]))
    stdout, stderr = json.loads(said.read_text())
    return out, subprocess.CompletedProcess([script], 0, stdout, stderr)


def pytest_collection_modifyitems(items):
    """Let each of three processes begin with a long task, so that none waits for another.

    These are the training of each script and the test of two workers.
    """

    def trains(fixture):
        needs = {fixture, "request", "tmp_path_factory"}  # no fixture of the module
        return lambda item: set(item.fixturenames) == needs

    long = trains("sound"), trains("digits"), lambda item: "two_workers_learn" in item.name
    begin = [next(filter(is_long, items), None) for is_long in long]
    if None not in begin:
        count = len(items)
        for item in begin:
            items.remove(item)
        for number, item in enumerate(begin):
            items.insert(number * count // len(begin), item)


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    return trained(tmp_path_factory, "sound_dvae.py", "--seed", 1)


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    return trained(tmp_path_factory, "mnist_dvae.py")


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    program = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("Chromium or chromedriver not found: apt-get install chromium chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program
    flags = (
        "headless=new no-sandbox no-first-run disable-background-networking "
        "disable-component-update disable-sync disable-quic disable-gpu "
        "use-fake-device-for-media-stream use-fake-ui-for-media-stream "
        "autoplay-policy=no-user-gesture-required"
    )
    for flag in (*flags.split(), f"user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    yield browser
    browser.quit()


@pytest.fixture
def full_disk():
    """Return a context manager that limits the size of files, in bytes, as a full disk would."""
    resource = pytest.importorskip("resource")

    @contextlib.contextmanager
    def limited(size):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    return limited


@pytest.fixture
def interruptible():
    """Use Python's default signal handlers, even if the tests were started with others."""
    usual = dict.fromkeys(cli.STOPPING, signal.SIG_DFL)
    usual[signal.SIGINT] = signal.default_int_handler
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)

"""Shared fixtures: a trained run per script, a browser, a full disk, default signal handlers."""

import contextlib
import gc
import json
import os
import shutil
import signal
import subprocess
import types

import pytest

# Test processes with as many threads as cores each would mostly wait for each other.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from commands import run
from filelock import FileLock
from hypothesis import settings

from harness import cli
from harness.quiet_tensorflow import load, stderr_held_back

settings.register_profile("suite", max_examples=50, deadline=None, derandomize=True, database=None)
settings.load_profile("suite")


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session):
    """Give TensorFlow two logical processors, which a test uses as replicas, before it starts."""
    if hasattr(session.config, "workerinput") or session.config.getoption("dist") == "no":
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        tf = load(devices=False)
        with stderr_held_back():  # a missing GPU is reported
            (cpu,) = tf.config.list_physical_devices("CPU")
            two = [tf.config.LogicalDeviceConfiguration() for _ in range(2)]
            tf.config.set_logical_device_configuration(cpu, two)


def pytest_collection_finish():
    """Exclude the libraries, which live as long as the process, from further garbage collection."""
    gc.collect()
    gc.freeze()


def once(tmp_path_factory, name, start):
    """Return the finished process of start(folder) and its folder. All test processes share it."""
    shared = tmp_path_factory.getbasetemp()
    shared = shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared
    folder, said = shared / name, shared / f"{name}.json"
    with FileLock(shared / f"{name} lock"):
        if not said.exists():
            folder.mkdir()
            done = start(folder)
            said.write_text(json.dumps([done.args, done.returncode, done.stdout, done.stderr]))
    return folder, subprocess.CompletedProcess(*json.loads(said.read_text()))


def trained(tmp_path_factory, script):
    """Return a run's folder, and what the script wrote to the terminal."""
    folder, done = once(tmp_path_factory, "both", lambda it: run("tests/both_scripts.py", it))
    assert done.returncode == 0, (done.stderr, *[path.read_text() for path in folder.glob("*err")])
    said = {name: (folder / f"{script} {name}").read_text() for name in ("stdout", "stderr")}
    return folder / f"{script} run/new folder", types.SimpleNamespace(**said)


def pytest_collection_modifyitems(items):
    """Divide the tests among three processes so that none waits for another.

    Each begins with a long task: the training of both scripts, all scripts in a process, the two
    workers. Tests that need the trained scripts come last in each process.
    """
    names = "sound_script_writes", "runs_on_other_systems", "two_workers_learn"
    begin = [next((item for item in items if name in item.name), None) for name in names]
    if None in begin:
        return
    others, ordered = [item for item in items if item not in begin], []

    def waits(item):
        return not {"sound", "digits"}.isdisjoint(item.fixturenames)

    for number, item in enumerate(begin):
        first, end = (len(others) * part // len(begin) for part in (number, number + 1))
        ordered += [item, *sorted(others[first:end], key=waits)]
    items[:] = ordered


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    return trained(tmp_path_factory, "sound_dvae.py")


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    return trained(tmp_path_factory, "mnist_dvae.py")


@pytest.fixture(scope="session")
def elsewhere(tmp_path_factory):
    """Return the folder and the process of elsewhere.py, with settings that would break it.

    The name of the folder is not in the encoding of the console.
    """
    own = {"floatx": "float16", "epsilon": 0.5, "backend": "torch"}
    own["image_data_format"] = "channels_first"
    settings = {"KERAS_BACKEND": "jax", "TF_USE_LEGACY_KERAS": "1", "MPLBACKEND": "qtagg"}
    settings |= {"OMP_NUM_THREADS": "3", "OPENBLAS_NUM_THREADS": "2", "PYTHONIOENCODING": "cp1252"}

    def start(folder):
        (folder / "keras.json").write_text(json.dumps(own))
        homes = {"KERAS_HOME": str(folder), "HOME": str(folder / "none")}
        options = "-P", "-X", "warn_default_encoding"
        return run("tests/elsewhere.py", folder, options=options, cwd=folder, **settings, **homes)

    return once(tmp_path_factory, "\N{SNOWMAN}", start)


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

"""Run all four scripts in one process without the names that only POSIX has, as on Windows.

    python -P -X warn_default_encoding tests/elsewhere.py FOLDER

A file that is opened without an encoding ends the program. Libraries are imported before the names
are hidden, because they have their own code for each system.
"""

import os
import runpy
import signal
import sys
import types
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from harness.quiet_tensorflow import load

tf = load()
for loaded in [name for name in sys.modules if name.startswith("harness")]:
    del sys.modules[loaded]  # the scripts import it after the names are hidden
import filelock  # noqa: F401
import matplotlib.backends.backend_agg  # noqa: F401
import numpy as np
import soundfile
from PIL import Image

ROOT = Path(__file__).parent.parent
MODULES = "fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"
NAMES = {
    os: """
        O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK chown fchdir fchmod fchown fork getgid getuid
        geteuid getegid getloadavg killpg lchown mkfifo mknod nice pathconf pipe2 posix_fadvise
        posix_fallocate pread process_cpu_count pwrite register_at_fork sched_getaffinity sendfile
        setsid statvfs sync sysconf uname wait""",
    signal: "SIGALRM SIGCHLD SIGHUP SIGKILL SIGPIPE SIGQUIT SIGUSR1 pthread_sigmask setitimer",
}


def hide():
    """Give modules that are imported from here on an `os` and a `signal` without the names."""
    sys.modules.update(dict.fromkeys(MODULES))  # importing them raises ImportError
    for module, names in NAMES.items():
        less = types.ModuleType(module.__name__)
        vars(less).update({k: v for k, v in vars(module).items() if k not in names.split()})
        sys.modules[module.__name__] = less


def call(script, *flags):
    tf.config.run_functions_eagerly(True)  # compiled code does not depend on the system
    sys.argv = [script, *map(str, flags)]
    sys.path[:] = [folder for folder in sys.path if folder != str(ROOT)]
    runpy.run_path(str(ROOT / script), run_name="__main__")
    assert str(ROOT) in sys.path, script  # `python -P` leaves it out


def main(folder):
    size = "--iters", 1, "--batch-size", 4, "--hidden", 8, "--latent", 2, "--components", 2
    size = *size, "--corruption", "salt-pepper"  # no posterior is refined
    (folder / "images").mkdir(parents=True)
    for number, image in enumerate(np.random.default_rng(0).integers(0, 255, (30, 8, 8), "uint8")):
        Image.fromarray(image).save(folder / f"images/{number}.png")
    flags = "--data", folder / "images", "--size", 8, "--tensorboard", "--out", folder / "digits"
    call("mnist_dvae.py", *size, *flags)
    sound = "--sample-rate", 1000, "--window", 64, "--notes", "C4", "--out", folder / "sounds"
    call("sound_dvae.py", *size, *sound)
    call("denoise.py", folder / "digits", folder / "images/0.png", "-o", folder / "restored.png")
    tone = np.sin(np.arange(3000)) * (np.arange(3000) % 500 > 30)
    soundfile.write(folder / "tone.wav", tone, 1000)
    call("denoise.py", folder / "sounds", folder / "tone.wav", "-o", folder / "restored.wav")
    call("sample.py", folder / "digits", "--map")
    call("sample.py", folder / "sounds", "--count", 2)


hide()
warnings.simplefilter("error", EncodingWarning)
main(Path(sys.argv[1]))

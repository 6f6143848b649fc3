"""TensorFlow, loaded at its first use and without its start-up lines.

`from harness.quiet_tensorflow import tf` costs nothing by itself: TensorFlow's 3 to 7 seconds are spent when `tf` is
first used, so that flags are read, and `--help` and mistakes answered, before them.
"""

import contextlib
import functools
import os
import sys
import tempfile

# Keras imports these if they can be found, which takes a second. Left out, save in a notebook: somebody may want there
# what Keras does with them.
UNUSED = "matplotlib.pyplot", "pandas", "sklearn"


@contextlib.contextmanager
def stderr_held_back():
    """Keep what native code writes to stderr meanwhile; let it out only if the block raises."""
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(terminal, kept.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)


@functools.cache
def load(devices=True):
    """TensorFlow, its devices found: both are the moments at which it talks. Other workers must be met in between."""
    # Without warnings and notes. With other workers, of whose loss we speak ourselves, without errors too.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if devices else "3")
    hidden = [name for name in UNUSED if name not in sys.modules and "IPython" not in sys.modules]
    with stderr_held_back():
        sys.modules.update(dict.fromkeys(hidden))
        try:
            import tensorflow
        finally:
            for name in hidden:
                del sys.modules[name]
        if devices:
            tensorflow.config.list_logical_devices()
    return tensorflow


class _LateTensorFlow:
    def __getattr__(self, name):
        return getattr(load(), name)


tf = _LateTensorFlow()

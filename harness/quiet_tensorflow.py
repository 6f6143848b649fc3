"""TensorFlow, loaded at first use and without start-up messages.

Loading takes 3 to 7 seconds. `from harness.quiet_tensorflow import tf` does not load it yet, so
`--help` and flag errors are fast.
"""

import contextlib
import functools
import os
import sys
import tempfile

from harness import UserError
from harness.errors import one_error

# Keras imports these if they are installed. That takes a second, and we do not need them.
UNUSED = "matplotlib.pyplot", "pandas", "sklearn"


@contextlib.contextmanager
def stderr_held_back():
    """Hide all output to stderr, including that of C++ code. Show it if the block raises an error.

    The output stays hidden for errors that are reported in one line.
    """
    sys.stderr.flush()
    terminal = os.dup(2)
    with tempfile.TemporaryFile() as hidden:
        os.dup2(hidden.fileno(), 2)
        try:
            yield
        except (UserError, MemoryError):
            raise
        except BaseException:
            hidden.seek(0)
            os.write(terminal, hidden.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)


@functools.cache
def load(devices=True):
    """Load and return TensorFlow. With devices=False, workers can connect before devices load.

    Raises UserError if TensorFlow cannot be loaded, for example for lack of memory.
    """
    # 2 hides warnings, 3 also errors. With several workers, `Workers.lost` reports the errors.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if devices else "3")
    # oneDNN runs only on some processors, changes the last digits and prints a message.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    for name in ("TF_USE_LEGACY_KERAS", "KERAS_NNX_ENABLED"):
        os.environ.pop(name, None)
    # Keras always reads the user's settings. Wrong ones raise errors; two that matter are reset.
    settings = os.path.join(os.environ.get("KERAS_HOME", "~/.keras"), "keras.json")
    remedy = "remove that file, free some memory, or repeat the installation"
    with stderr_held_back():
        with _unused_missing(), one_error(f"TensorFlow or its settings in {settings}", remedy):
            import tensorflow

            tensorflow.keras.config.set_floatx("float32")  # also imports Keras
            tensorflow.keras.config.set_image_data_format("channels_last")
        # TF32 would round the inputs of matrix products to 10 bits.
        tensorflow.config.experimental.enable_tensor_float_32_execution(False)
        if devices:
            tensorflow.config.list_logical_devices()
    return tensorflow


@contextlib.contextmanager
def _unused_missing():
    """Make imports of UNUSED packages fail, except in a notebook, where the user may need them."""
    hidden = [name for name in UNUSED if name not in sys.modules and "IPython" not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


class _LateTensorFlow:
    def __getattr__(self, name):
        return getattr(load(), name)


tf = _LateTensorFlow()

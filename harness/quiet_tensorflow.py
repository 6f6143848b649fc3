"""TensorFlow, loaded at its first use and without its start-up lines.

`from harness.quiet_tensorflow import tf` costs nothing by itself: TensorFlow's 3 to 7 seconds are spent when `tf` is
first used, so that flags are read, and `--help` and mistakes answered, before them.
"""

import contextlib
import functools
import json
import os
import sys
import tempfile

from harness import UserError

# Keras imports these if they can be found, which takes a second. Left out, save in a notebook: somebody may want there
# what Keras does with them.
UNUSED = "matplotlib.pyplot", "pandas", "sklearn"
KERAS_SETTINGS = {  # of keras.json: what Keras takes without an error, the first being its default and ours
    "floatx": ("float32", "float16", "float64"),
    "image_data_format": ("channels_last", "channels_first"),
    "nnx_enabled": (False,),
}


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
    # oneDNN is used on some processors only, changes the last digits there, and prints an error that is none.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    _leave_keras_settings_out()
    hidden = [name for name in UNUSED if name not in sys.modules and "IPython" not in sys.modules]
    with stderr_held_back():
        sys.modules.update(dict.fromkeys(hidden))
        try:
            import tensorflow

            tensorflow.keras.config.set_floatx(KERAS_SETTINGS["floatx"][0])
            tensorflow.keras.config.set_image_data_format(KERAS_SETTINGS["image_data_format"][0])
            tensorflow.keras.config.set_epsilon(1e-7)
        finally:
            for name in hidden:
                del sys.modules[name]
        tensorflow.config.experimental.enable_tensor_float_32_execution(False)  # TF32 keeps 10 bits
        if devices:
            tensorflow.config.list_logical_devices()
    return tensorflow


def _leave_keras_settings_out():
    """Have TensorFlow come with Keras 3 on top of it, whatever the user has set for other programs.

    UserError for a keras.json that Keras ends on; what it takes from one that is good is set back when it is loaded.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"
    for name in ("TF_USE_LEGACY_KERAS", "KERAS_NNX_ENABLED"):
        os.environ.pop(name, None)
    home = os.path.expanduser("~")  # where Keras looks, and in this order
    home = os.environ.get(
        "KERAS_HOME", os.path.join(home if os.access(home, os.W_OK) else "/tmp", ".keras")
    )
    path = os.path.expanduser(os.path.join(home, "keras.json"))
    try:
        with open(path) as file:
            own = json.load(file)
    except (FileNotFoundError, ValueError):  # no JSON at all is passed over by Keras, too
        return
    remedy = "fix it or remove it, and Keras writes a new one"
    if not isinstance(own, dict):
        raise UserError(f"{path}: not Keras's settings; {remedy}")
    wrong = [
        name for name, values in KERAS_SETTINGS.items() if own.get(name, values[0]) not in values
    ]
    wrong += ["epsilon"] if not isinstance(own.get("epsilon", 1e-7), float) else []
    if wrong:
        raise UserError(
            f"{path}: {wrong[0]} is {json.dumps(own[wrong[0]])}, which Keras does not take; {remedy}"
        )


class _LateTensorFlow:
    def __getattr__(self, name):
        return getattr(load(), name)


tf = _LateTensorFlow()

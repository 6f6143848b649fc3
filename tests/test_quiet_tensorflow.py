"""TensorFlow is loaded without messages, but an error shows them."""

import os
import sys

import pytest

from harness import UserError
from harness.quiet_tensorflow import UNUSED, _unused_missing, load, stderr_held_back


@pytest.mark.parametrize("error, shown", [(None, 0), (UserError, 0), (ZeroDivisionError, 1)])
def test_output_is_shown_only_with_a_traceback(capfd, error, shown):
    """Libraries write to the descriptor, so Python's `sys.stderr` would miss their output."""
    try:
        with stderr_held_back():
            os.write(2, b"libmpg123: odd header\n")
            if error:
                raise error("damaged")
    except (UserError, ZeroDivisionError):
        os.write(2, b"after\n")
    else:
        os.write(2, b"after\n")
    assert capfd.readouterr().err == shown * "libmpg123: odd header\n" + "after\n"


def test_matrix_products_are_not_rounded_on_a_gpu():
    """TensorFlow rounds inputs to 10 bits by default."""
    assert not load().config.experimental.tensor_float_32_execution_enabled()


def test_loading_resets_the_users_settings_of_keras():
    """Networks would round to half precision, or take the width of images for their channels."""
    config = load().keras.config
    config.set_floatx("float16")
    config.set_image_data_format("channels_first")
    load.__wrapped__(devices=False)
    found = load().keras.layers.Conv2D(3, 1)(load().zeros((1, 4, 5, 2)))
    assert found.shape == (1, 4, 5, 3) and found.dtype == "float32"


@pytest.mark.parametrize("notebook", [False, True])
@pytest.mark.parametrize("own", UNUSED)
def test_only_unused_packages_are_hidden_while_loading(monkeypatch, own, notebook):
    """The user may have imported one of them, or need them later in a notebook."""
    for name in (*UNUSED, "IPython"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, own, sys)
    if notebook:
        monkeypatch.setitem(sys.modules, "IPython", sys)
    before = dict(sys.modules)
    with _unused_missing():
        hidden = {name for name, module in sys.modules.items() if module is None}
        hidden -= {name for name, module in before.items() if module is None}
        assert hidden == (set() if notebook else {*UNUSED} - {own})
    assert sys.modules == before

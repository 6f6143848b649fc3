"""TensorFlow is loaded without messages, but an error shows them."""

import os

import pytest

from harness import UserError
from harness.quiet_tensorflow import load, stderr_held_back


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

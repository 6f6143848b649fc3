"""What carries a run and no reader of the experiments needs to know. It knows nothing of digits and sounds."""

import os
import sys

# Before NumPy is loaded, hence the first import of every script. Its BLAS would wait for work with all cores at full
# speed, which TensorFlow needs, and be slower on matrices as small as ours than with one; and sums end in other digits.
os.environ["OPENBLAS_NUM_THREADS"] = "1"  # counts before OMP_NUM_THREADS


class UserError(Exception):
    """What the user can fix: one line that names the file or flag, the problem and the remedy."""


def _open_closed_streams():
    """Give stdin, stdout and stderr somewhere to go: the next file opened would be taken for one that is closed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))


_open_closed_streams()

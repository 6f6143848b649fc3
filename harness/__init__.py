"""What carries a run and no reader of the experiments needs to know. It knows nothing of digits and sounds."""

import os

# Before NumPy is loaded, hence the first import of every script. Its BLAS would wait for work with all cores at full
# speed, which TensorFlow needs, and be slower on matrices as small as ours than with one; and sums end in other digits.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


class UserError(Exception):
    """What the user can mend: one line that names the file or flag, the problem and the remedy."""

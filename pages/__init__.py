"""Figures, HTML pages and the line that sums up a run."""

import os
import sys

if "IPython" not in sys.modules:  # a notebook needs its backend, but figures here need none
    os.environ.pop("MPLBACKEND", None)  # Matplotlib would refuse an unknown one

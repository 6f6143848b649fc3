"""Infrastructure for experiments (flags, files, resuming), independent of the kind of data."""

import importlib.util
import sys

if not importlib.util.find_spec("tensorflow"):
    print(
        f"{sys.executable}: no module named 'tensorflow'; activate the environment in which it is "
        "installed, or pip install -r requirements.txt",
        file=sys.stderr,
    )
    sys.exit(2)


class UserError(Exception):
    """A problem the user can fix. The one-line message says where, what is wrong and what to do."""

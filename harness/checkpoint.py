"""What a run is resumed from: one .npz file of the variables' values and, as JSON, the state beside them."""

import json
import time

import numpy as np

from harness import UserError
from harness.run_folder import replacing

FORMAT = 2  # of the file
ITERATIONS, SECONDS = 1000, 60  # a run that is killed loses no more than that
REMEDY = "--overwrite starts anew"


class Saver:
    """Saves variables to a path, None for nowhere, at the latest every ITERATIONS and every SECONDS."""

    def __init__(self, path, variables, iteration):
        self.path, self.variables = path, variables
        self.iteration, self.time = iteration, time.monotonic()

    def due(self, iteration):
        return iteration - self.iteration >= ITERATIONS or time.monotonic() - self.time >= SECONDS

    def save(self, state):
        if self.path:
            save(self.path, self.variables, state)
            self.iteration, self.time = state["iteration"], time.monotonic()


def save(path, variables, state):
    """Write the variables' values and the state, which JSON must be able to hold, into a file."""
    values = {f"variable_{i}": variable.numpy() for i, variable in enumerate(variables)}
    with replacing(path) as unfinished, open(unfinished, "wb") as file:
        np.savez(file, state=json.dumps({"format": FORMAT, **state}, default=float), **values)


def restore(path, variables, expected):
    """Give the variables their values in a file that `save` wrote, and return the state beside them.

    expected: a state of the same names and types. UserError if it is no such file, or one of another run: with another
    `first_batch` than expected, or of another network.
    """
    try:
        with np.load(path) as file:  # without pickle: no code from the file is run
            state = json.loads(str(file["state"]))
            written = state["format"]
            if written == FORMAT:
                state = {name: type(value)(state[name]) for name, value in expected.items()}
                ours, theirs = (np.array(each["first_batch"], float) for each in (expected, state))
                values = [file[f"variable_{i}"] for i in range(len(variables))]
    except (
        Exception
    ) as error:  # a broken file makes NumPy and what it calls raise nearly everything
        raise UserError(
            f"{path}: not a whole checkpoint ({type(error).__name__}); {REMEDY}"
        ) from error
    if written != FORMAT:
        raise UserError(f"{path}: written by another version of these scripts; {REMEDY}")
    if ours.shape != theirs.shape or not np.allclose(
        ours, theirs, rtol=1e-3, atol=1e-6
    ):  # as another machine rounds
        raise UserError(f"{path}: of other data; {REMEDY}")
    if [(value.shape, value.dtype) for value in values] != [(v.shape, v.dtype) for v in variables]:
        raise UserError(f"{path}: weights of another network; {REMEDY}")
    for variable, value in zip(variables, values):
        variable.assign(value)
    return state

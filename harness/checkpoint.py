"""Save and restore checkpoints: .npz files of all variables and of the run's state as JSON."""

import json

import numpy as np

from harness import UserError

FORMAT = 2  # version of the file format; increase it when old files can no longer be read
REMEDY = "use --overwrite to start over"


def save(path, variables, state):
    """Save the values of the variables and the state, a JSON-serializable dict."""
    values = {f"variable_{i}": variable.numpy() for i, variable in enumerate(variables)}
    with open(path, "wb") as file:  # `np.savez` adds .npz to names
        np.savez(file, state=json.dumps({"format": FORMAT, **state}, default=float), **values)


def restore(path, variables, expected):
    """Assign the values in a file written by `save` to the variables. Return the saved state.

    expected: a state of this run. The saved state must have the same names and types, and the same
    `first_batch` up to rounding, which differs between machines. Raises UserError if the file is
    damaged or belongs to another run.
    """
    try:
        with np.load(path) as file:  # does not unpickle, so the file cannot run code
            state = json.loads(str(file["state"]))
            written = state["format"]
            if written == FORMAT:
                state = {name: type(value)(state[name]) for name, value in expected.items()}
                ours, theirs = (np.array(each["first_batch"], float) for each in (expected, state))
                values = [file[f"variable_{i}"] for i in range(len(variables))]
    except Exception as error:  # NumPy raises almost any exception for a damaged file
        problem = f"not a complete checkpoint ({type(error).__name__})"
        raise UserError(f"{path}: {problem}; {REMEDY}") from error
    if written != FORMAT:
        problem = f"written by another version of these scripts (format {written})"
    elif ours.shape != theirs.shape or not np.allclose(ours, theirs, rtol=1e-3, atol=1e-6):
        problem = "belongs to a run with other data or another seed"
    elif [(v.shape, v.dtype) for v in values] != [(v.shape, v.dtype) for v in variables]:
        problem = "contains the weights of another network"
    else:
        for variable, value in zip(variables, values):
            variable.assign(value)
        return state
    raise UserError(f"{path}: {problem}; {REMEDY}")

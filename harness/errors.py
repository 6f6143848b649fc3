"""Library errors as one line for the user."""

import contextlib

from harness import UserError


@contextlib.contextmanager
def one_error(path, remedy):
    """Turn any error of the block into a UserError, "PATH: first line of the error; REMEDY".

    For blocks that read a file: libraries raise almost any exception for a damaged one.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        raise UserError(f"{path}: {reason.splitlines()[0]}; {remedy}") from error

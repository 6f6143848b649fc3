"""Convert exceptions of libraries to one-line errors for the user."""

import contextlib

from harness import UserError


@contextlib.contextmanager
def one_error(path, remedy):
    """Convert any exception in the block to a UserError with the message "PATH: REASON; REMEDY".

    Use it where a library reads or writes a file, because almost any exception can occur there.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        raise UserError(f"{path}: {reason.splitlines()[0]}; {remedy}") from error

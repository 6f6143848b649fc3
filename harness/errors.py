"""Turn the exceptions of libraries into one-line errors for the user."""

import contextlib

from harness import UserError


@contextlib.contextmanager
def one_error(path, remedy):
    """Turn any exception in the block into a UserError: "PATH: its first line; REMEDY".

    Use it where a library reads or writes a file: a broken file can raise almost any exception.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        raise UserError(f"{path}: {reason.splitlines()[0]}; {remedy}") from error

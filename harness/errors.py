"""One-line messages for the user, from exceptions and about files with any names."""

import contextlib
import sys
import unicodedata

from tqdm import tqdm

from harness import UserError


def printable(text):
    """Return text or a path on one line, with its control characters and lone bytes escaped.

    File names can contain line breaks, terminal commands, and characters that reverse the text.
    """
    hidden = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, format, surrogates, separators of lines
    return "".join(
        each.encode("unicode_escape").decode() if unicodedata.category(each) in hidden else each
        for each in str(text)
    )


def say(line, file=None):
    """Print one line to stdout or `file`, above the progress bars. Use it for all file names."""
    tqdm.write(printable(line), file=file or sys.stdout)


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

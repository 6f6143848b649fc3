"""Machinery of a run that readers of the experiments may skip. It knows no digits and no sounds."""


class UserError(Exception):
    """A problem the user can fix. One line: the file or flag, what is wrong, what to do."""

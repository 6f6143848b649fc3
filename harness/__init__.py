"""Machinery that runs an experiment: flags, files, resuming. It knows no digits and no sounds."""


class UserError(Exception):
    """A problem the user can fix. One line: the file or flag, what is wrong, what to do."""

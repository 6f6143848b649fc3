"""Infrastructure for experiments (flags, files, resuming), independent of the kind of data."""


class UserError(Exception):
    """A problem the user can fix. The one-line message says where, what is wrong and what to do."""

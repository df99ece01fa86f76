"""The one error that a user can mend."""


class UserError(Exception):
    """Something outside the code is wrong: a config value, a file, a folder, an image.

    The message is one sentence that names the thing and the mend. Commands print it without a
    traceback and exit with code 2.
    """

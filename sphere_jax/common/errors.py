"""The error that a user can fix."""


class UserError(Exception):
    """Something outside the code is wrong: a config value, a file, a folder, an image.

    The message is one sentence that names the thing, what is wrong and the fix. Commands print it
    without a traceback and exit with code 2.
    """

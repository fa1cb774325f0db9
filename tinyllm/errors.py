"""The one exception that the command line turns into a single line and exit code 2."""


class UserError(ValueError):
    """Something the user asked for cannot be had. The message says what was expected, what came, and the remedy.

    It is a ValueError, so library callers need not know it; `tinyllm.commands` prints it without a traceback.
    Everything that is our own mistake keeps its traceback.
    """

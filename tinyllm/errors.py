"""The one exception that the command line turns into a single line and exit code 2."""

import difflib


class UserError(ValueError):
    """Something the user asked for cannot be had. The message says what was expected, what came, and the remedy.

    It is a ValueError, so library callers need not know it; `tinyllm.commands` prints it without a traceback.
    Everything that is our own mistake keeps its traceback.
    """


def did_you_mean(word, known):
    """`; did you mean 'x'?` with the nearest known word, or nothing. For the end of a message."""
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""

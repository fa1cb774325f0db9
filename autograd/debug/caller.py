"""Which line of the user's program called an op."""

import linecache
import os
import sys
from pathlib import Path

ENGINE = str(Path(__file__).parents[1]) + os.sep


def caller():
    """(file, line, function) of the innermost frame outside `autograd`; None if there is none."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(ENGINE):
        frame = frame.f_back
    return None if frame is None else (frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)


def shown(at):
    """`model.py:12, in forward: y = exp(x)`; the file as seen from the working directory if it is below it."""
    file, line, function = at
    source = linecache.getline(file, line).strip()
    file = file.removeprefix(os.getcwd() + os.sep)
    return f"{file}:{line}, in {function}" + (f": {source}" if source else "")

"""Where the tests here find the table of op cases and the strict stand-in array module."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "autograd"))

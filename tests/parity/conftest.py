"""Lets the tests here import each other's tables and those of tests/autograd, and prints what they measured."""

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "parity"), str(TESTS / "autograd")]

import measurements  # noqa: E402  (found through the path above)


@pytest.fixture(autouse=True)
def _one_thread_for_pytorch():
    """Its threads and NumPy's wait for work by spinning: on few cores each side would take the other's time."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def pytest_terminal_summary(terminalreporter):
    """The figures behind the dots."""
    for table in measurements.TABLES:
        terminalreporter.section(table)
        for line in measurements.lines(table):
            terminalreporter.write_line(line)

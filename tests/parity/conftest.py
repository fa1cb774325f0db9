"""Lets the tests here import each other's tables and those of tests/autograd, and prints what they measured."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "parity"), str(TESTS / "autograd")]

import measurements  # noqa: E402  (found through the path above)


def pytest_terminal_summary(terminalreporter):
    """The figures behind the dots."""
    for table in measurements.TABLES:
        terminalreporter.section(table)
        for line in measurements.lines(table):
            terminalreporter.write_line(line)

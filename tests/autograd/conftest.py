"""Lets the tests here import their table of cases and the strict array module, which must be a top-level module."""

import sys
from pathlib import Path

import pytest

from autograd.engine import PRIMITIVES

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _restore_primitives():
    """Ops that a test makes for itself do not stay in the registry."""
    before = dict(PRIMITIVES)
    yield
    PRIMITIVES.clear()
    PRIMITIVES.update(before)

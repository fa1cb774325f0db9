"""Where the reference files are: TINYLLM_REFERENCE, by default ../shared/reference beside the project."""

import os
from pathlib import Path

import pytest

REFERENCE = Path(os.environ.get("TINYLLM_REFERENCE") or Path(__file__).parents[3] / "shared" / "reference")


@pytest.fixture(scope="session")
def reference():
    """The folder of reference files; the test is skipped, saying so, where it is absent."""
    if not REFERENCE.is_dir():
        pytest.skip(f"no reference files (TINYLLM_REFERENCE) in {REFERENCE}")
    return REFERENCE

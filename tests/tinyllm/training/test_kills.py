"""Runs killed by SIGKILL while they write, and resumed, end as if nothing had been. `make soak` does it for longer."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tinyllm

KILLS = Path(__file__).parents[2] / "soak" / "kills.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks the runs that it kills")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_run_killed_three_times_ends_like_one_that_was_not(precision):
    command = [sys.executable, KILLS, "--kills", "3", "--seed", "6", "--aimed", "--precision", precision]
    environment = os.environ | {"PYTHONPATH": str(Path(tinyllm.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"^{precision}: kills 3, ", done.stdout, re.MULTILINE)
    assert re.search(r"half a checkpoint [1-3],", done.stdout)
    assert re.search(r"half a line [1-3],", done.stdout)

"""A real run against PyTorch: nanoGPT's CPU preset on Shakespeare, the loss of each of the first 200 steps.

PyTorch against itself with another number of threads differs by 5e-7 in float32.
"""

import concurrent.futures
import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
from measurements import record
from shakespeare_run import our_losses, their_losses

REFERENCE = Path(os.environ.get("TINYLLM_REFERENCE") or Path(__file__).parents[3] / "shared" / "reference")
TEXT = REFERENCE / "text" / "tinyshakespeare.txt"

pytestmark = [
    pytest.mark.reference,
    pytest.mark.skipif(not TEXT.is_file(), reason=f"no reference files (TINYLLM_REFERENCE) in {REFERENCE}"),
]

STEPS = 200
BARS = {"float32": 2e-5, "float64": 1e-9}


@pytest.mark.parametrize("dtype", BARS)
def test_loss_curves_agree(dtype, monkeypatch):
    for library in ("OMP", "OPENBLAS", "MKL"):
        monkeypatch.setenv(f"{library}_NUM_THREADS", "1")
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=spawn) as processes:
        sides = [processes.submit(losses, str(TEXT), dtype, STEPS) for losses in (our_losses, their_losses)]
        ours, theirs = (np.array(side.result()) for side in sides)
    assert len(ours) == len(theirs) == STEPS
    apart = float(abs(ours - theirs).max())
    record(
        f"shakespeare-char-cpu against PyTorch, {STEPS} steps: largest difference of the loss in nats",
        dtype,
        first=f"{ours[0]:.4f}",
        last=f"{ours[-1]:.4f}",
        apart=apart,
    )
    assert ours[-1] < 0.7 * ours[0]
    assert apart <= BARS[dtype]

"""Skips tests marked `gpu` where CuPy finds no GPU, and says at the end what was proven about gradients."""

import sys

import pytest

from autograd.engine import PRIMITIVES

OURS = sorted(PRIMITIVES)


def no_gpu():
    """Why GPU tests cannot run here, or None."""
    try:
        import cupy

        return None if cupy.cuda.runtime.getDeviceCount() else "CuPy finds no GPU"
    except Exception as error:  # not installed, no driver, wrong driver, ...
        return f"no GPU through CuPy: {type(error).__name__}: {error}"


def pytest_collection_modifyitems(items):
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and (reason := no_gpu()):
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter):
    record = sys.modules.get("proof_record")
    if record and (lines := list(record.lines(OURS))):
        terminalreporter.section("proofs")
        for line in lines:
            terminalreporter.write_line(line)

"""Skips tests marked `gpu` where CuPy finds no GPU; they need not look for themselves."""

import pytest


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

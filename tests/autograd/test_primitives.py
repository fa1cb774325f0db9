"""Every primitive of the registry, on every case of `primitive_cases.py`."""

import warnings

import numpy as np
import pytest
from primitive_cases import CASES

from autograd.engine import PRIMITIVES
from autograd.testing import check_primitive

OURS = sorted(name for name, op in PRIMITIVES.items() if op.reference.__module__.startswith("autograd."))
EVERY = [pytest.param(name, case, id=f"{name}: {case.label}") for name in OURS for case in CASES.get(name, [])]
every_case = pytest.mark.parametrize(("name", "case"), EVERY)


def test_every_primitive_has_cases_and_every_case_a_primitive():
    assert set(OURS) == set(CASES)


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def options_of(name, case):
    """check_primitive gives dropout its own seed."""
    return case.options | ({"dtype": np.float64} if name == "cast" else {})


@every_case
def test_gradient_in_float64(name, case):
    check_primitive(PRIMITIVES[name], *case.inputs, seed=7, **options_of(name, case))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@every_case
def test_narrow_dtypes_are_kept_and_near_float64(name, case, dtype):
    if case.narrow:
        check_primitive(PRIMITIVES[name], *case.cast(dtype), seed=7, **options_of(name, case))

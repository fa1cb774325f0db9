"""Every gradient proven, by registry: each primitive on inputs that hypothesis draws, against central differences.

`test_primitives.py` has the cases somebody thought of; here are those nobody did.
"""

import warnings

import hypothesis.strategies as st
import pytest
from primitive_strategies import STRATEGIES, Floats, drawn
from proof_record import example
from test_primitives import OURS

from autograd.engine import PRIMITIVES
from autograd.testing import check_primitive


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_every_primitive_has_a_strategy_and_every_strategy_a_primitive():
    assert set(OURS) == set(STRATEGIES)


@pytest.mark.parametrize("name", OURS)
@drawn(data=st.data())
def test_the_gradient_is_what_differences_say(name, data):
    case = data.draw(STRATEGIES[name](Floats()))
    example(name, check_primitive(PRIMITIVES[name], *case.inputs, **case.options))

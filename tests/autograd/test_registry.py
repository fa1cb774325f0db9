"""Every gradient proven, by registry: each primitive on inputs that hypothesis draws, against central differences.

`test_primitives.py` has the cases somebody thought of; here are those nobody did.
"""

import inspect
import warnings

import hypothesis.strategies as st
import numpy as np
import pytest
from primitive_strategies import STRATEGIES, Floats, drawn
from proof_record import example
from test_idiom import really_saved, says_it_saves
from test_primitives import OURS

from autograd.context import context
from autograd.engine import PRIMITIVES
from autograd.testing import LAYOUTS, check_primitive, laid_out


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


def arrays_saved(closure):
    """The arrays among a closure's free variables, also inside tuples and through functions it captures."""
    found, stack = [], [cell.cell_contents for cell in closure.__closure__ or ()]
    while stack:
        value = stack.pop()
        if isinstance(value, np.ndarray):
            found.append(value)
        elif isinstance(value, tuple | list):
            stack.extend(value)
        elif inspect.isfunction(value):
            stack.extend(cell.cell_contents for cell in value.__closure__ or ())
    return found


@pytest.mark.parametrize("name", OURS)
@drawn(data=st.data(), layout=st.sampled_from([*LAYOUTS, "repeated"]), seed=st.integers(0, 99))
def test_the_pullback_itself_saves_what_it_says_and_hands_out_nobodys_memory(name, data, layout, seed):
    """Without the engine, which copies: what an op returns as a gradient is new, or it is dy. dy may lie in any way."""
    case = data.draw(STRATEGIES[name](Floats()))
    inputs = PRIMITIVES[name].bind(case.inputs, {})  # with the defaults of those left out
    wanted = tuple(i in case.floats() for i in range(len(inputs)))
    given = [x for x in (*case.inputs, *case.options.values()) if isinstance(x, np.ndarray)]
    with context.set(needs=wanted):
        y, vjp = PRIMITIVES[name].reference(*inputs, **case.options)
    closures = [f if want else None for f, want in zip(vjp, wanted, strict=True)] if isinstance(vjp, tuple) else [vjp]

    def pull(dy):
        return [f and f(dy) for f in closures] if isinstance(vjp, tuple) else vjp(dy)

    dy = laid_out(np.asarray(np.random.default_rng(seed).standard_normal(y.shape)), layout)
    dy.flags.writeable = False
    saved = [x for closure in closures if closure for x in arrays_saved(closure)]
    for dx, of_a_copy in zip(pull(dy), pull(dy.copy("C")), strict=True):
        if dx is not None:
            assert not any(np.shares_memory(dx, x) for x in (*given, *saved, y))
            np.testing.assert_allclose(dx, of_a_copy, rtol=1e-12, atol=1e-12 * abs(of_a_copy).max(initial=0))

    really = really_saved(name, case)
    for closure, said in says_it_saves(name).items():
        assert really[closure] <= said

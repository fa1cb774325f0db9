"""The table of kernels, with a toy backend: which ran, which declined, and that both are counted."""

import inspect
import sys
import types
from collections import defaultdict

import numpy as np
import pytest

import autograd as ag
from autograd import kernels
from autograd.engine import Tensor
from autograd.kernels import available

TOY = """
from autograd.ops import exp
import numpy as np

@exp.kernel("toy")
def exp_kernel(x):
    if x.dtype != np.float32:
        return NotImplemented
    y = np.exp(x)
    def vjp(dy):
        return 2 * dy * y,       # wrong by a factor, so that one sees that it ran
    return y, vjp
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A folder `autograd/backends` with one backend, and counts that start at zero."""
    (tmp_path / "toy.py").write_text(TOY)
    backends = types.ModuleType("autograd.backends")
    backends.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, "autograd.backends", backends)
    monkeypatch.delitem(sys.modules, "autograd.backends.toy", raising=False)
    monkeypatch.setattr(ag.exp, "kernels", {})
    ag.kernels_used(reset=True)
    yield
    sys.modules.pop("autograd.backends.toy", None)


def gradient_of_exp_at_zero(dtype=np.float32):
    x = Tensor(np.zeros(1, dtype), requires_grad=True)
    ag.exp(x).backward()
    return x.grad.item()


def test_a_kernel_runs_only_where_it_was_asked_for(toy):
    assert gradient_of_exp_at_zero() == 1
    with ag.use_kernels("toy"):
        assert gradient_of_exp_at_zero() == 2
        with ag.use_kernels("reference"):
            assert gradient_of_exp_at_zero() == 1
        assert gradient_of_exp_at_zero() == 2
    assert gradient_of_exp_at_zero() == 1
    assert ag.kernels_used()["exp"] == {"reference": 3, "toy": 2}


def test_a_kernel_that_declines_leaves_the_reference_and_is_counted(toy):
    with ag.use_kernels("toy"):
        assert gradient_of_exp_at_zero(np.float64) == 1
        assert gradient_of_exp_at_zero(np.float32) == 2
        ag.tanh(np.ones(2))
    used = ag.kernels_used(reset=True)
    assert used["exp"] == {"toy declined": 1, "reference": 1, "toy": 1}
    assert used["tanh"] == {"reference": 1}
    assert ag.kernels_used() == {}
    assert str(used).splitlines()[0].split() == ["op", "reference", "toy", "toy", "declined"]
    assert str(used).splitlines()[1].split() == ["exp", "1", "1", "1"]


def test_what_ran_forward_runs_backward_also_outside_the_block(toy):
    x = Tensor(np.zeros(1, np.float32), requires_grad=True)
    with ag.use_kernels("toy"):
        y = ag.exp(x)
    y.backward()
    assert x.grad.item() == 2


def test_several_backends_are_tried_in_order(toy):
    with ag.use_kernels("reference", "toy"):
        assert gradient_of_exp_at_zero() == 2


def test_an_unknown_name_is_an_error_that_names_the_known(toy):
    assert available() == ("toy",)
    with pytest.raises(ValueError, match="no kernels named 'tyo' in this version; there are: reference, toy"):
        ag.use_kernels("tyo")


def test_a_wrong_kernel_is_caught_by_check_primitive(toy):
    x = np.ones((2, 3), np.float32)
    ag.testing.check_primitive(ag.exp, x)
    with ag.use_kernels("toy"), pytest.raises(AssertionError, match="exp: gradient of input 0 in float32 is far"):
        ag.testing.check_primitive(ag.exp, x)


TOY_RULE = """
from autograd import kernels
import numpy as np

@kernels.for_rule("halve", "toy")
def halve_kernel(x, *, times):
    if x.dtype != np.float32:
        return NotImplemented
    x /= 3 ** times                  # wrong, so that one sees that it ran
"""


@pytest.fixture
def toy_rule(toy, tmp_path, monkeypatch):
    """The toy backend has a kernel for a rule `halve`; nothing of that name stays."""
    (tmp_path / "toy.py").write_text(TOY_RULE)
    monkeypatch.setattr(kernels, "_rules", {})
    monkeypatch.setattr(kernels, "_kernels_of_rules", defaultdict(dict))


def make_halve():
    @kernels.rule
    def halve(x, *, times):
        """x <- x / 2^times, in place."""
        x /= 2**times

    return halve


@pytest.mark.parametrize("kernel_first", [False, True])
def test_a_rule_finds_its_kernels_by_its_name_whichever_is_there_first(toy_rule, kernel_first):
    if kernel_first:
        ag.use_kernels("toy")
    halve, x = make_halve(), np.full(2, 36, np.float32)
    halve(x, times=1)
    assert x.tolist() == [18, 18]
    with ag.use_kernels("toy"):
        halve(x, times=2)
    assert x.tolist() == [2, 2]
    assert ag.kernels_used()["halve"] == {"reference": 1, "toy": 1}


def test_a_kernel_of_a_rule_that_declines_leaves_the_reference_and_is_counted(toy_rule):
    halve, x = make_halve(), np.full(2, 36.0)
    with ag.use_kernels("toy"):
        halve(x, times=1)
    assert x.tolist() == [18, 18]
    assert ag.kernels_used() == {"halve": {"toy declined": 1, "reference": 1}}


def test_a_rule_keeps_its_name_and_its_text(toy_rule):
    halve = make_halve()
    assert (halve.__name__, repr(halve)) == ("halve", "<rule halve>")
    assert halve.__doc__.startswith("x <- x / 2")
    assert inspect.signature(halve).parameters["times"].kind is inspect.Parameter.KEYWORD_ONLY


def test_a_name_of_a_rule_is_taken_once_but_a_module_may_be_read_again(toy_rule):
    make_halve()
    make_halve()

    def halve(x, *, times):
        return x

    halve.__module__ = "elsewhere"
    with pytest.raises(ValueError, match=r"test_kernels has a rule halve, with kernels of its own; rename this one"):
        kernels.rule(halve)

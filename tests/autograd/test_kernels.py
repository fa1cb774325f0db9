"""The table of kernels, with a toy backend: which ran, which declined, and that both are counted."""

import sys
import types

import numpy as np
import pytest

import autograd as ag
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

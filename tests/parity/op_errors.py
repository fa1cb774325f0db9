"""One primitive on both sides, forward and backward: how far each is from the exact result.

The exact result is PyTorch's in float64 from the same inputs: what was rounded to float16 and widened again loses
nothing, so an error that is left was made by the op.
"""

import math
from dataclasses import dataclass

import numpy as np
from larger_cases import cases_of
from torch_ops import FEW_DIGITS, NO_HALF, OTHER_CONVENTION, TORCH, to_torch, torch

import autograd as ag

SEED = 3
"""Of dropout, on both sides."""

LOST = 0.05
"""A case in which PyTorch's own error is above this sets no bar: a half float that overflowed, say."""


@dataclass
class Worst:
    """The largest error seen, and where."""

    error: float = 0.0
    case: str = ""

    def see(self, error, case):
        if not error <= self.error:  # NaN too
            self.error, self.case = error, case


class Errors:
    """Of the result or of one input's gradient, over all cases: ours and PyTorch's."""

    def __init__(self):
        self.ours, self.theirs = Worst(), Worst()


def is_float(x):
    return isinstance(x, np.ndarray) and x.dtype.kind == "f"


def relative(value, exact):
    """Largest error against the largest entry."""
    assert value.shape == exact.shape
    value, exact = value.astype(np.float64), exact.astype(np.float64)
    error, scale = np.abs(value - exact).max(initial=0), np.abs(exact).max(initial=0)
    return 0.0 if error == 0 else error / scale if scale > 0 else math.inf


def incoming(shape, dtype):
    """The gradient of the result, in `dtype`, the same on every side."""
    return np.asarray(np.random.default_rng(5).standard_normal(shape)).astype(dtype)


def run_ours(name, inputs, options, dtype):
    """[result, gradient of each input or None]"""
    leaves = [ag.Tensor(x, requires_grad=is_float(x)) if isinstance(x, np.ndarray) else x for x in inputs]
    y = ag.PRIMITIVES[name](*leaves, **options | ({"seed": SEED} if name == "dropout" else {}))
    y.backward(incoming(y.shape, dtype))
    return [y.data] + [x.grad if is_float(given) else None for x, given in zip(leaves, inputs, strict=True)]


def run_theirs(name, inputs, options, dtype, compute):
    """The same from PyTorch, computed in the dtype `compute`."""
    if name == "dropout":
        ones = np.ones(inputs[0].shape)
        options = options | {"kept": ag.dropout(ones, rate=options["rate"], seed=SEED).data != 0}
    leaves = [to_torch(x, compute).requires_grad_(is_float(x)) if isinstance(x, np.ndarray) else x for x in inputs]
    y = TORCH[name](*leaves, **options)
    y.backward(torch.tensor(incoming(tuple(y.shape), dtype)).to(y.dtype))
    gradients = [x.grad.numpy() if is_float(given) else None for x, given in zip(leaves, inputs, strict=True)]
    return [y.detach().numpy(), *gradients]


def peer(name, inputs, options, dtype):
    """PyTorch in `dtype`; where it has no half precision, in float32 and rounded."""
    if dtype == "float16" and name in NO_HALF:
        results = run_theirs(name, inputs, options, dtype, torch.float32)
        return [None if x is None else x.astype(dtype) for x in results]
    return run_theirs(name, inputs, options, dtype, getattr(torch, dtype))


def comparable_cases(name, dtype):
    """Cases in which both sides compute the same thing and `dtype` has digits for it."""
    left_out = OTHER_CONVENTION | (FEW_DIGITS if dtype == "float32" else {})
    cases = [case for case in cases_of(name) if (name, case.label) not in left_out]
    return [case for case in cases if case.narrow or dtype == "float64"]


def measure(name, dtype):
    """A list of Errors: of the result, then of each input that has a gradient."""
    errors = {}
    for case in comparable_cases(name, dtype):
        inputs = case.cast(dtype)
        options = {key: value.astype(dtype) if is_float(value) else value for key, value in case.options.items()}
        ours = run_ours(name, inputs, options, dtype)
        theirs = peer(name, inputs, options, dtype)
        exact = run_theirs(name, inputs, options, dtype, torch.float64)
        for i, (a, b, c) in enumerate(zip(ours, theirs, exact, strict=True)):
            if c is not None:
                slot = errors.setdefault(i, Errors())
                slot.ours.see(relative(a, c), case.label)
                if relative(b, c) < LOST:
                    slot.theirs.see(relative(b, c), case.label)
    return [errors[i] for i in sorted(errors)]


def largest(worsts):
    return float(max(worst.error for worst in worsts))

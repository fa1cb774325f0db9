"""A small reverse-mode automatic differentiation engine over NumPy and CuPy arrays, every derivative written out.

    import autograd as ag
    x = ag.Tensor([1.0, 2.0, 3.0], requires_grad=True)
    (ag.exp(x) * x).sum().backward()
    x.grad                                    # e^x (1 + x)

Start reading in `engine.py`, then any file of `ops/`.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (a checkout on the path meets any Python)
    raise ImportError(f"autograd needs Python 3.11 or newer, and this is {sys.version.split()[0]}; use a newer one")

from autograd import debug, operators, testing
from autograd.context import needs, no_grad, scope
from autograd.engine import PRIMITIVES, Tensor, primitive
from autograd.kernels import kernels_used, use_kernels
from autograd.ops import *  # noqa: F403
from autograd.ops import __all__ as _ops
from autograd.recompute import recompute

__all__ = [
    "PRIMITIVES", "Tensor", "debug", "kernels_used", "needs", "no_grad", "operators", "primitive", "recompute", "scope",
    "testing", "use_kernels", *_ops,
]  # fmt: skip

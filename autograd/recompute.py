"""Trade time for memory: forget a block's activations, compute them again in backward.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost".
"""

from autograd.arrays import xp_of
from autograd.context import context
from autograd.engine import ARRIVED, Tensor


def recompute(f, *inputs):
    """`f(*inputs)`, saving only the inputs; backward runs `f` again to have its activations.

    f: takes Tensors, returns one Tensor, does the same each time (randomness from seeds). Trainable leaves that `f`
    touches get their gradients as always. A result computed outside that `f` uses must be passed as an input.

    The first pass runs without recording but collects every trainable leaf it meets. The node's parents are the
    inputs *and those leaves*: so it exists even when no input needs a gradient, and arrivals at a weight that is also
    used elsewhere are counted rightly.
    """
    if not context.recording:  # also inside another recompute's first pass, which collects for both
        return f(*inputs)
    leaves = {}
    inside = [x.detach() if isinstance(x, Tensor) else x for x in inputs]
    with context.set(recording=False, collecting=leaves):
        result = f(*inside)
    wanted = [isinstance(x, Tensor) and x.requires_grad for x in inputs]
    if not leaves and not any(wanted):
        return result
    surroundings = {"kernels": context.kernels, "path": context.path, "recording": True, "collecting": None}

    def vjp(dy):
        pairs = zip(inside, wanted, strict=True)
        again = [Tensor(x.data, requires_grad=w) if isinstance(x, Tensor) else x for x, w in pairs]
        arrived = []
        with context.set(**surroundings):
            y = f(*again)
            if y.requires_grad:
                y.backward(dy, on_leaf=arrived.append)
        if not set(arrived) <= {*leaves, *(x for x in again if isinstance(x, Tensor))}:
            raise RuntimeError("recompute: the function used other parameters the second time; it must repeat itself")
        dxs = [gradient_or_zeros(x) if w else None for x, w in zip(again, wanted, strict=True)]
        return (*dxs, *(ARRIVED for _ in leaves))

    parents = [(x.node or x) if w else None for x, w in zip(inputs, wanted, strict=True)]
    y = Tensor(result.data)
    name = f"recompute({getattr(f, '__name__', type(f).__name__)})"
    arguments = (*(f"input {i}" for i in range(len(inputs))), *(f"leaf {i}" for i in range(len(leaves))))
    y.node = context.record(name, arguments, y.data, (*parents, *leaves), vjp)
    y.requires_grad = True
    return y


def gradient_or_zeros(x):
    """An input that `f` did not depend on has gradient zero."""
    return xp_of(x.data).zeros_like(x.data) if x.grad is None else x.grad

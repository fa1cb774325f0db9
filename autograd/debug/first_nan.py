"""Which op made the first NaN.

Once a NaN is there, every result after it is NaN, and then every gradient and every weight; the loss says only that it
happened. So each result is looked at when it is made. An op is to blame when what came in was finite and what went out
is not.
"""

import contextlib
import weakref

from autograd.arrays import xp_of
from autograd.context import context
from autograd.debug.caller import caller, shown
from autograd.debug.saved import saved
from autograd.engine import Tensor, describe, is_floating, layer


class NonFinite(FloatingPointError):
    """A NaN or an infinity, and the op that made it.

    op: its name. phase: "forward" or "backward". path: the dotted name of the layer, "" outside any. at: (file, line,
    function) of the call, None for an op whose forward ran before the watch began.
    """

    def __init__(self, what, op, phase, path, at, values):
        self.op, self.phase, self.path, self.at = op, phase, ".".join(path), at
        lines = [f"{what}{layer(path)}", *(f"    {name}: {range_of(x)}" for name, x in values)]
        super().__init__("\n".join(lines + ([f"    called at {shown(at)}"] if at else [])))


@contextlib.contextmanager
def first_nan():
    """`with first_nan():` raises `NonFinite` at the first op, forward or backward, that makes a NaN or an infinity.

    The error names the op, its layer, the range of each input and the line that called it. Infinities that come in
    as constants may pass (a mask of -inf is one); a NaN may not. Every result is read once more: a training step takes
    about a tenth longer (docs/benchmarks.md).
    """
    run, record, pull = context.run, context.record, context.pull
    lines = weakref.WeakKeyDictionary()  # node -> the line that called its op

    infinite = False  # is the result of the newest op?

    def watched_run(op, arrays, options):
        nonlocal infinite
        y, vjp = run(op, arrays, options)
        infinite = not finite(y)
        if infinite:
            check_forward(op, arrays, y)
        return y, vjp

    def noted_record(*parts):
        node = record(*parts)
        lines[node] = caller()
        if infinite:
            check_leaves(node)
        return node

    def watched_pull(node, dy):
        at = lines.get(node)
        if not finite(dy):
            what = f"the gradient of the result of {node.name} is not finite: the seed is not, or a sum over its uses"
            raise NonFinite(what, node.name, "backward", node.path, at, [("dy", dy)])
        before = saved(node)
        dxs = pull(node, dy)
        check_backward(node, dy, dxs, before, at)
        return dxs

    with context.set(run=watched_run, record=noted_record, pull=watched_pull):
        yield


def check_forward(op, arrays, y):
    """`y` is not finite. Raise, unless it only passes on an infinity that came in."""
    inputs = [(name, x) for name, x in zip(op.names_of(arrays), arrays, strict=True) if hasattr(x, "dtype")]
    given = [name for name, x in inputs if has_nan(x)]
    if given:
        what = f"{' and '.join(given)} of {op.name} held NaN already when it came in"
    elif has_nan(y) or all(finite(x) for _, x in inputs):
        what = f"forward of {op.name} made the first non-finite value"
    else:
        return
    raise NonFinite(what, op.name, "forward", context.path, caller(), [*inputs, ("result", y)])


def check_leaves(node):
    """The result of `node` is infinite, passed on from what came in. From a leaf that is trained it is no mask."""
    for name, leaf in zip(node.arguments, node.parents, strict=True):
        if isinstance(leaf, Tensor) and not finite(leaf.data):
            what = f"{name} of {node.name} held infinities already when it came in"
            raise NonFinite(what, node.name, "forward", node.path, caller(), [(name, leaf.data)])


def check_backward(node, dy, dxs, before, at):
    """`dy` was finite. Raise if a gradient is not."""
    if not isinstance(dxs, tuple | list):
        return  # the engine says what is wrong with it
    made = [(f"gradient of {name}", dx) for name, dx in zip(node.arguments, dxs, strict=False) if not finite(dx)]
    if made:
        what = f"backward of {node.name} made the first non-finite value"
        raise NonFinite(what, node.name, "backward", node.path, at, [("dy", dy), *unique(before), *made])


def unique(arrays):
    """Saved arrays for a message, each once, without those that say little."""
    return list({name: x for name, x in arrays if is_floating(x.dtype)}.items())


def finite(x):
    """No NaN and no infinity in it; true for what has no floating point numbers."""
    return not holds_floats(x) or bool(xp_of(x).isfinite(x).all())


def has_nan(x):
    return holds_floats(x) and bool(xp_of(x).isnan(x).any())


def holds_floats(x):
    return hasattr(x, "dtype") and is_floating(x.dtype)


def range_of(x):
    """`float32[2, 3], -1.5 … 2, 4 NaN, 1 inf`: what is in an array, in one line."""
    if not holds_floats(x) or not x.size:
        return describe(x)
    xp = xp_of(x)
    good, nans = xp.isfinite(x), int(xp.isnan(x).sum())
    infinities = x.size - int(good.sum()) - nans
    numbers = x[good]
    parts = [describe(x)]
    parts += [f"{float(numbers.min()):.4g} … {float(numbers.max()):.4g}"] if numbers.size else ["nothing finite"]
    parts += [f"{n:,} {kind}" for n, kind in ((nans, "NaN"), (infinities, "inf")) if n]
    return ", ".join(parts)

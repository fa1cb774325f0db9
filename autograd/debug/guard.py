"""Who overwrote an array that backward still needs.

A pullback keeps the arrays that it names, not copies of them. Write into one between forward and backward, with an
optimizer step say, or `x.data *= 2`, or a buffer used again, and the gradient belongs to no function at all. Nothing
fails and nothing shows.
"""

import contextlib
import weakref
import zlib

import numpy as np

from autograd.arrays import to_device
from autograd.context import context
from autograd.debug.caller import caller, shown
from autograd.debug.saved import buffer_of, saved
from autograd.engine import describe, layer


class Overwritten(RuntimeError):
    """An array that a pullback had saved was changed before the pullback ran.

    op, path, name: whose it was, and its name in the op's source. at: (file, line, function) of the op's call.
    """

    def __init__(self, node, name, array, owner, at):
        self.op, self.path, self.name, self.at = node.name, ".".join(node.path), name, at
        super().__init__(
            f"{name} {describe(array)}, saved by {node.name}{layer(node.path)}, was overwritten between forward and "
            f"backward{owner}; write into a copy, or call backward first"
            + (f"\n    {node.name} was called at {shown(at)}" if at else "")
        )


@contextlib.contextmanager
def guard():
    """`with guard():` around forward and backward raises `Overwritten` when a saved array changed in between.

    The error names the array as the op's source does, its op and layer, and the line that called the op. A checksum of
    all saved arrays is taken when an op runs and again before its pullback: a training step takes about a third longer,
    and much longer on a GPU, from which every array is fetched.
    """
    record, pull = context.record, context.pull
    sums = weakref.WeakKeyDictionary()  # node -> (checksum of each saved array, the line that called the op)

    def noted_record(*parts):
        node = record(*parts)
        sums[node] = [checksum(array) for _, array in saved(node)], caller()
        return node

    def checked_pull(node, dy):
        before, at = sums.pop(node, (None, None))
        if before is not None:
            for (name, array), checksum_then in zip(saved(node), before, strict=True):
                if checksum(array) != checksum_then:
                    raise Overwritten(node, name, array, owner_of(node, array), at)
        return pull(node, dy)

    with context.set(record=noted_record, pull=checked_pull):
        yield


def checksum(array):
    """A number that changes when the contents do: CRC-32 of the bytes."""
    return zlib.crc32(np.ascontiguousarray(to_device(array, "cpu")).reshape(-1).view(np.uint8))


def owner_of(node, array):
    """`, it belongs to argument weight, a leaf` when the memory is that of a leaf; else nothing."""
    for name, parent in zip(node.arguments, node.parents, strict=False):
        if hasattr(parent, "data") and buffer_of(parent.data) is buffer_of(array):
            return f" (it is the memory of {name}, a leaf that was written to: by an optimizer's step?)"
    return ""

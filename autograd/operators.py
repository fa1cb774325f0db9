"""The one table of operators and methods that Tensors have. Everything else is a function: `ag.softmax(x)`."""

from autograd import ops
from autograd.debug.drawing import display
from autograd.engine import Node, Tensor


def swapped(op):
    """`2 - x` asks x.__rsub__(2)."""
    return lambda x, other: op(other, x)


def shape_arguments(arguments):
    """`x.reshape(2, 3)` and `x.reshape((2, 3))` both."""
    return arguments[0] if len(arguments) == 1 and not isinstance(arguments[0], int) else arguments


Tensor.__add__ = lambda x, other: ops.add(x, other)
Tensor.__radd__ = swapped(ops.add)
Tensor.__sub__ = lambda x, other: ops.subtract(x, other)
Tensor.__rsub__ = swapped(ops.subtract)
Tensor.__mul__ = lambda x, other: ops.multiply(x, other)
Tensor.__rmul__ = swapped(ops.multiply)
Tensor.__truediv__ = lambda x, other: ops.divide(x, other)
Tensor.__rtruediv__ = swapped(ops.divide)
Tensor.__pow__ = lambda x, other: ops.power(x, other)
Tensor.__rpow__ = swapped(ops.power)
Tensor.__matmul__ = lambda x, other: ops.matmul(x, other)
Tensor.__rmatmul__ = swapped(ops.matmul)
Tensor.__neg__ = lambda x: ops.negative(x)
Tensor.__abs__ = lambda x: ops.absolute(x)
Tensor.__getitem__ = lambda x, index: ops.getitem(x, index=index)

# Comparisons have no gradient: plain arrays of bools, ready for `where`.
Tensor.__lt__ = lambda x, other: x.data < getattr(other, "data", other)
Tensor.__le__ = lambda x, other: x.data <= getattr(other, "data", other)
Tensor.__gt__ = lambda x, other: x.data > getattr(other, "data", other)
Tensor.__ge__ = lambda x, other: x.data >= getattr(other, "data", other)

Tensor.sum = lambda x, axis=None, keepdims=False: ops.sum(x, axis=axis, keepdims=keepdims)
Tensor.mean = lambda x, axis=None, keepdims=False: ops.mean(x, axis=axis, keepdims=keepdims)
Tensor.max = lambda x, axis=None, keepdims=False: ops.max(x, axis=axis, keepdims=keepdims)
Tensor.reshape = lambda x, *shape: ops.reshape(x, shape=shape_arguments(shape))
Tensor.transpose = lambda x, *axes: ops.transpose(x, axes=shape_arguments(axes) if axes else None)
Tensor.T = property(lambda x: ops.transpose(x))
Tensor.astype = lambda x, dtype: ops.cast(x, dtype=dtype)

# In a notebook a tensor shows its values and a node its graph.
Tensor._repr_html_ = display.tensor_html
Node._repr_svg_ = display.node_svg

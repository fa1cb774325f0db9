"""Reverse-mode automatic differentiation over arrays, whole.

A primitive is a function of raw arrays that returns its result and its pullback:

    @primitive
    def multiply(a, b):
        y = a * b
        def vjp(dy):            # dy is dL/dy, same shape as y
            return dy * b, dy * a
        return y, vjp

Calling `multiply` on Tensors runs that body and hangs a `Node` on the result. A node knows its parents and its
pullback, never its own array; the pullback's free variables (`a` and `b` above) are the saved activations, and
nothing else is saved. So there are no reference cycles, and an array lives exactly as long as something names it.

`backward` walks the nodes from newest to oldest, which is the reverse of the order in which they ran, hands each
pullback the gradient of its output and adds what comes back to the gradients of its parents.
"""

import functools
import inspect
import itertools

import numpy as np

from autograd import kernels
from autograd.arrays import is_half, xp_of
from autograd.context import Context, context

PRIMITIVES = {}
_numbers = itertools.count()


class Tensor:
    """An array and, if asked for, its gradient. Its operators (`x + y`) and methods stand in `operators.py`.

    data: the array (NumPy's or CuPy's). grad: None, or an array of the same shape and dtype (leaves only).
    requires_grad: True for a leaf whose gradient is wanted and for every result computed from one.
    node: how it was computed; None for leaves and constants. buffer: an array that a leaf's gradient is to be written
    into, a slice of an optimizer's flat store say, or a function that supplies it when the first gradient arrives; None
    for an array of its own.
    """

    __slots__ = ("__weakref__", "buffer", "data", "grad", "node", "requires_grad")
    __array_ufunc__ = None  # so that `array * tensor` asks Tensor.__rmul__ and not NumPy

    def __init__(self, array, requires_grad=False):
        if isinstance(array, Tensor):
            raise TypeError("Tensor(…) takes an array; for a Tensor's array without its history use .detach()")
        self.data = as_array(array if hasattr(array, "dtype") else np.asarray(array))
        if self.data.dtype.kind not in "fiubcV":
            raise TypeError(f"Tensor(…) takes numbers, not {describe(self.data)}; stack(*tensors) joins tensors")
        if requires_grad and not is_floating(self.data.dtype):
            raise TypeError(f"only floating point tensors have gradients, not {describe(self.data)}")
        self.grad = None
        self.requires_grad = requires_grad
        self.node = None
        self.buffer = None

    shape = property(lambda self: self.data.shape)
    dtype = property(lambda self: self.data.dtype)
    ndim = property(lambda self: self.data.ndim)
    size = property(lambda self: self.data.size)

    def numpy(self):
        """The array on the host (NumPy). No copy if it is there already."""
        return self.data.get() if hasattr(self.data, "get") else np.asarray(self.data)

    def item(self):
        """The value of a tensor with one element, as a Python number."""
        return self.data.item()

    def detach(self):
        """A constant Tensor over the same array."""
        return Tensor(self.data)

    def backward(self, seed=None, on_leaf=None):
        """Add dL/dleaf into `.grad` of every leaf this tensor depends on; see `autograd.engine.backward`."""
        backward(self, seed, on_leaf)

    def __len__(self):
        return len(self.data)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __repr__(self):
        origin = f", from {self.node.name}" if self.node else ", requires_grad=True" if self.requires_grad else ""
        return f"Tensor({np.array2string(self.numpy(), threshold=20, precision=4)}, {describe(self.data)}{origin})"


class Node:
    """One op that ran: where its gradient goes (parents) and how it gets there (vjp).

    parents: one entry per positional argument (their names: arguments): the Node that computed it, the leaf Tensor, or
    None where no gradient is wanted. vjp: one function dy -> gradients of all arguments, or a tuple of functions, one
    per argument.
    """

    __slots__ = ("__weakref__", "arguments", "dtype", "name", "number", "parents", "path", "shape", "vjp")

    def __init__(self, name, arguments, y, parents, vjp):
        if isinstance(vjp, tuple):  # drop the closures of frozen inputs and with them what they would have saved
            expect_one_each(name, "be", vjp, parents)
            vjp = tuple(f if parent is not None else None for f, parent in zip(vjp, parents, strict=True))
        self.number = next(_numbers)
        self.name, self.arguments = name, arguments
        self.path = context.path
        self.shape, self.dtype = y.shape, y.dtype
        self.parents = parents
        self.vjp = vjp

    def pull(self, dy):
        """The gradients of all arguments (None where not wanted); a large weight's lands in its own buffer."""
        if not isinstance(self.vjp, tuple):
            return self.vjp(dy)
        return [f and lay(f, dy, p, self.parents.count(p) == 1) for f, p in zip(self.vjp, self.parents, strict=True)]


class Primitive:
    """An op: its reference body, its optional kernels, and the recording of a call. Made by `@primitive`."""

    def __init__(self, body):
        functools.update_wrapper(self, body)
        self.name = body.__name__
        self.reference = body
        self.kernels = {}
        self.argument_names = body.__code__.co_varnames[: body.__code__.co_argcount]
        self.defaults = dict(zip(reversed(self.argument_names), reversed(body.__defaults__ or ()), strict=False))
        self.variadic = inspect.getfullargspec(body).varargs
        namesake = PRIMITIVES.get(self.name, self)  # one from another module stays where it is, this goes beside it
        PRIMITIVES[self.name if namesake.__module__ == self.__module__ else f"{self.__module__}.{self.name}"] = self

    def kernel(self, backend):
        """`@op.kernel("numba")`: register a fused version, same signature, which may return NotImplemented."""

        def register(body):
            self.kernels[backend] = body
            return body

        return register

    def bind(self, inputs, options):
        """Arguments given by name, and the defaults of those not given, in their places."""
        if rest := self.argument_names[len(inputs) :]:
            given = self.defaults | {name: options.pop(name) for name in rest if name in options}
            if missing := [name for name in rest if name not in given]:
                raise TypeError(f"{self.name}: argument {missing[0]} is missing")
            inputs = (*inputs, *(given[name] for name in rest))
        for name, value in options.items():
            if isinstance(value, Tensor):
                raise TypeError(f"{self.name}: option {name}= is not differentiated; pass an array (tensor.data)")
        if inputs and isinstance(inputs[0], list | tuple) and any(isinstance(x, Tensor) for x in inputs[0]):
            raise TypeError(f"{self.name} takes its tensors one by one: {self.name}(*tensors)")
        return inputs

    def names_of(self, arguments):
        """A name for each positional argument; those of `concatenate(*xs)` are xs[0], xs[1], …"""
        named = self.argument_names
        if len(arguments) <= len(named):
            return named
        return (*named, *(f"{self.variadic}[{i}]" for i in range(len(arguments) - len(named))))

    def __call__(self, *inputs, **options):
        inputs = self.bind(inputs, options)
        arrays = [x.data if isinstance(x, Tensor) else x for x in inputs]
        if context.collecting is not None:
            collect(self.name, inputs)
        recording = context.recording
        wanted = tuple(recording and isinstance(x, Tensor) and x.requires_grad for x in inputs)
        context.needs = wanted
        try:
            y, vjp = context.run(self, arrays, options)
        except Exception as error:
            error.add_note(f"in forward of {self.name}({', '.join(map(describe, arrays))}){layer(context.path)}")
            if mixture := devices_of(dict(zip(self.names_of(arrays), arrays, strict=False)) | options):
                error.add_note(mixture)
            raise
        result = Tensor(y)
        if any(wanted):
            parents = tuple((x.node or x) if w else None for x, w in zip(inputs, wanted, strict=True))
            result.node = context.record(self.name, self.names_of(parents), result.data, parents, vjp)
            result.requires_grad = True
        return result

    def __repr__(self):
        return f"<primitive {self.name}>"


def primitive(body):
    """Make a differentiable op of a function of arrays that returns `(y, vjp)`.

    Positional arguments are differentiated (a variable number of them: `*xs`), keyword arguments are options. `vjp`
    is one function `dy -> (gradient of each argument)`, or a tuple of functions, one per argument, where a caller may
    freeze an argument. An argument that has no gradient (integers, a mask, None) gets None.
    """
    return Primitive(body)


def backward(tensor, seed=None, on_leaf=None):
    """Add dL/dleaf into `.grad` of every leaf that `tensor` depends on.

    seed: dL/dtensor, same shape; may be left out for a tensor with one element (then 1). on_leaf(leaf): called once
    per leaf, as soon as its last gradient has arrived, while the walk goes on. A graph can be walked once.
    """
    if not tensor.requires_grad:
        raise ValueError("backward: this tensor depends on nothing that requires a gradient")
    root = tensor.node or tensor
    nodes, uses = reachable(root)
    gradients = {root: (as_seed(tensor, seed), False)}  # node -> its gradient so far, and whether we made that array
    if isinstance(root, Tensor):
        deliver(root, gradients[root][0], uses, on_leaf)
    for node in sorted(nodes, key=lambda node: node.number, reverse=True):
        dy, _ = gradients.pop(node)
        try:
            dxs = context.pull(node, dy)
            expect_one_each(node.name, "return", dxs, node.parents)
            dxs = [checked(node, i, dx, p) for i, (dx, p) in enumerate(zip(dxs, node.parents, strict=True))]
        except Exception as error:
            error.add_note(f"in backward of {node.name} -> {describe(node)}{layer(node.path)}")
            raise
        parents, node.vjp, node.parents = node.parents, None, ()  # free what was saved
        del dy
        for parent, dx in zip(parents, dxs, strict=True):
            if isinstance(parent, Tensor):
                deliver(parent, dx, uses, on_leaf)
            elif parent is not None:
                add_gradient(gradients, parent, dx)
        dxs = dx = None  # else the next pullback runs with these still alive


def reachable(root):
    """All nodes that `root` depends on, and how many gradients will arrive at each leaf."""
    nodes, uses = set(), {}
    stack = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, Tensor):
            uses[node] = uses.get(node, 0) + 1
        elif node is not None and node not in nodes:
            if node.vjp is None:
                raise RuntimeError(
                    f"backward ran through this graph already (at {node.name}{layer(node.path)}) and freed what it "
                    "had saved; compute the loss again, or add the losses and call backward once"
                )
            nodes.add(node)
            stack.extend(node.parents)
    return nodes, uses


def add_gradient(gradients, node, dx):
    """Sum over all uses of an intermediate result, in place only in an array that was made here.

    A pullback may hand one array to two parents (`add` does), so what arrives first is only borrowed.
    """
    total, ours = gradients.get(node, (None, False))
    if total is None:
        gradients[node] = dx, False
    elif is_half(dx.dtype):
        gradients[node] = sum_of_halves(total, dx), True
    elif ours:
        total += dx
    else:
        gradients[node] = as_array(total + dx), True


@kernels.rule
def sum_of_halves(a, b):
    """a + b of two gradients in half precision, for which backends may have a kernel: NumPy is slow at it."""
    return as_array(a + b)


def deliver(leaf, dx, uses, on_leaf):
    """Add a gradient into a leaf, which never keeps a borrowed array, and tell `on_leaf` if it was the last."""
    if dx is ARRIVED:
        pass
    elif leaf.grad is not None:
        leaf.grad += dx
    elif leaf.buffer is None:
        leaf.grad = dx.copy()
    else:
        leaf.grad = buffer_of(leaf)
        if dx is not leaf.grad:
            leaf.grad[...] = dx
    uses[leaf] -= 1
    if on_leaf is not None and uses[leaf] == 0:
        on_leaf(leaf)


def buffer_of(leaf):
    """The array that a leaf's gradient is to be written into. A function that supplies it gives the same each time."""
    return leaf.buffer() if callable(leaf.buffer) else leaf.buffer


def lay(vjp, dy, parent, alone):
    """Run one argument's pullback; if it can write into a given array and the leaf owns one, let it.

    Not for a leaf that is two arguments of one op, `linear(w, w)`: two gradients cannot be laid in one buffer.
    """
    writes = "out" in vjp.__code__.co_varnames[: vjp.__code__.co_argcount]
    if writes and alone and isinstance(parent, Tensor) and parent.grad is None and parent.buffer is not None:
        return vjp(dy, out=buffer_of(parent))
    return vjp(dy)


ARRIVED = object()  # what `recompute` returns for a leaf whose gradient its inner backward has delivered


def expect_one_each(name, verb, items, arguments):
    """A vjp is, or returns, a tuple with one entry for each positional argument."""
    if not isinstance(items, tuple | list) or len(items) != len(arguments):
        came = f"{len(items)}" if isinstance(items, tuple | list) else describe(items)
        raise TypeError(
            f"the vjp of {name} must {verb} a tuple of {len(arguments)}, one for each argument "
            f"(None where there is no gradient), not {came}"
        )


def checked(node, i, dx, parent):
    """The gradient of argument `i`, which must have exactly that argument's shape and dtype."""
    if parent is None or dx is ARRIVED:
        return dx
    dx = as_array(dx)
    if getattr(dx, "shape", None) != parent.shape or dx.dtype != parent.dtype:
        raise TypeError(
            f"the vjp of {node.name} returned {describe(dx)} as the gradient of argument {i} "
            f"({node.arguments[i]}), which is {describe(parent)}"
        )
    return dx


def as_seed(tensor, seed):
    """The gradient to start from: one for a single element, else the caller's, which must fit."""
    xp = xp_of(tensor.data)
    if seed is None and tensor.size == 1:
        return xp.ones_like(tensor.data)
    if seed is None:
        raise ValueError(f"backward of {describe(tensor)} needs a seed of that shape; only a single number needs none")
    seed = xp.asarray(seed.data if isinstance(seed, Tensor) else seed, dtype=tensor.dtype)
    if seed.shape != tensor.shape:
        raise ValueError(f"backward of {describe(tensor)} got a seed of shape {list(seed.shape)}; they must be equal")
    return seed


def collect(name, inputs):
    """In recompute's first pass: remember trainable leaves, refuse results computed outside."""
    for x in inputs:
        if isinstance(x, Tensor) and x.requires_grad:
            if x.node is not None:
                raise ValueError(
                    f"recompute: {name} uses a tensor computed outside ({describe(x)}, from {x.node.name}); "
                    "pass it to recompute as an input"
                )
            context.collecting[x] = None


def as_array(x):
    """NumPy turns results without axes into scalars; make them arrays again."""
    return np.asarray(x) if isinstance(x, np.generic) else x


def is_floating(dtype):
    """True for float16, float32, float64 and bfloat16 (which NumPy files under kind V)."""
    return np.dtype(dtype).kind == "f" or np.dtype(dtype).name == "bfloat16"


def describe(x):
    """`float32[2, 3]` for anything with dtype and shape, else the type's name."""
    if hasattr(x, "dtype") and hasattr(x, "shape"):
        return f"{x.dtype}{list(x.shape)}"
    return repr(x) if x is None or isinstance(x, int | float) else type(x).__name__


def devices_of(arguments):
    """After an op failed: whose array module is each argument's (dict name -> value), if they are not all the same."""
    modules = {name: xp_of(x).__name__ for name, x in arguments.items() if hasattr(x, "dtype") and hasattr(x, "shape")}
    if len(set(modules.values())) < 2:
        return None
    places = ", ".join(f"{name} of {module}" for name, module in modules.items())
    return f"host and device arrays do not mix: {places}; move them together with autograd.arrays.to_device"


def layer(path):
    return f", layer {'.'.join(path)}" if path else ""


# What a mode of `autograd.debug` may put its own function around.
Context.run, Context.record, Context.pull = map(staticmethod, (kernels.run, Node, Node.pull))

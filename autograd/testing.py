"""How a gradient is proven: against the definition of a derivative.

A pullback takes dy, the gradient of some number L by an op's result y, and returns the gradient of L by the op's
inputs. Nothing in it can be seen to be right; but L can be computed at x + h and at x - h, and

    (L(x + h) - L(x - h)) / 2h   =   dL/dx + O(h²)

needs the forward only. In float64 with h = 1e-5 both sides agree to about ten digits, and an error of one part in a
hundred thousand shows. `check_vjp` compares them for any pair of array functions, `check_gradient` for a function of
Tensors, `check_primitive` for an op, with everything else that the engine expects of one:

    from autograd.testing import arrays, check_gradient, check_primitive, check_vjp

    check_vjp(lambda x: x**3, lambda dy, x: dy * 3 * x**2, np.array([1.0, 2.0]))
    check_gradient(lambda x, w: (x @ w).sum(axis=0), np.ones((2, 3)), np.ones((3, 4)))
    check_primitive(my_op, np.random.randn(3, 4), axis=-1)

    @hypothesis.given(arrays(shape=(3, 4)))                 # values, strides and dtype drawn
    def test_my_op(x):
        check_primitive(my_op, x)

Each returns the worst relative error that it saw, or raises an AssertionError that names the op, the input, the worst
element, both numbers and the seed that repeats the check. A derivative does not exist at a kink (`abs` at 0): keep
inputs more than h away from one, or pass `kinks=True`, and what the op says must lie between its slopes on both sides.
"""

import inspect
import itertools

import numpy as np

from autograd.arrays import to_device, xp_of
from autograd.context import no_grad
from autograd.engine import Tensor, describe, is_floating

__all__ = ["arrays", "check_gradient", "check_primitive", "check_vjp", "laid_out", "sample_array"]

SMALL = 100  # up to so many elements the whole Jacobian is compared, entry by entry


def check_vjp(forward, vjp, *arrays, seed=0, h=1e-5, rtol=1e-5, kinks=False):
    """Prove any pair of array functions: a formula, a kernel, an op of another library. No Tensor is needed.

    forward(*arrays) -> y;  vjp(dy, *arrays) -> one gradient per array (None for arrays of integers, and for
    arguments that are not arrays). Floating point arrays are checked in float64 whatever they came as.

    For each input, dL/dx along a random direction, L = Σ y dy with a random dy; and up to 100 elements the Jacobian,
    every ∂y_j/∂x_i. Errors are relative to the largest entry, beyond what rounding in `forward` makes of 2h.

    kinks: the inputs lie where the function has no derivative (a maximum of equal numbers). Then every ∂y_j/∂x_i must
    lie between the difference quotients to the left and to the right of x_i, and nothing else is asked.

        check_vjp(lambda x: x**3, lambda dy, x: dy * 3 * x**2, np.array([1.0, 2.0]))
        check_vjp(np.abs, lambda dy, x: dy * np.sign(x), np.array([-1.0, 0.0, 2.0]), kinks=True)
    """
    xp, proof = xp_of(*arrays), Proof(name_of(forward), names_of_inputs(forward, arrays), seed, h, rtol)
    xs = [to_host(widest(x)) if is_array(x) else x for x in arrays]

    def y_of(*xs):
        y = to_host(forward(*(xp.asarray(x) if is_array(x) else x for x in xs)))
        require(y.dtype == np.float64, f"{proof.name} of float64 inputs returned {y.dtype}: too coarse for differences")
        return y

    def with_input(i):
        return lambda x: y_of(*xs[:i], x, *xs[i + 1 :])

    def gradients_of(dy):
        dxs = vjp(xp.asarray(dy), *(xp.asarray(x) if is_array(x) else x for x in xs))
        return [None if dx is None else to_host(dx) for dx in one_each(proof.name, dxs, xs)]

    y = y_of(*xs)
    rng = np.random.default_rng(seed)
    dy = rng.standard_normal(y.shape)
    dxs = gradients_of(dy)
    for i, (x, dx) in enumerate(zip(xs, dxs, strict=True)):
        if not is_differentiable(x):
            require(dx is None, f"{proof.name}: {proof.input(i)} is {describe(x)}, its gradient must be None")
            continue
        require(
            dx is not None and dx.shape == x.shape,
            f"{proof.name}: the gradient of {proof.input(i)} is {describe(dx)}, the input {describe(x)}",
        )
        if not kinks:
            proof.along_a_direction(i, with_input(i), x, dy, dx, rng)
    if y.size <= SMALL:
        compare = proof.between_the_slopes if kinks else proof.whole_jacobian
        rows = [gradients_of(basis) for basis in unit_arrays(y.shape)]  # row j: the pullback of ∂/∂y_j
        for i, x in enumerate(xs):
            if is_differentiable(x) and 0 < x.size <= SMALL and rows:
                compare(i, with_input(i), x, y, np.stack([row[i] for row in rows]))
    elif kinks:
        raise ValueError(f"{proof.name}: kinks are checked entry by entry; take a result of at most {SMALL} elements")
    return proof.worst


class Proof:
    """One input at a time: what the pullback says against what a central difference says."""

    def __init__(self, name, names, seed, h, rtol):
        self.name, self.names, self.seed, self.h, self.rtol = name, names, seed, h, rtol
        self.worst = 0.0

    def input(self, i):
        return f"input {i} ({self.names[i]})" if i < len(self.names) else f"input {i}"

    def central_difference(self, y_at, x, direction):
        """dy/dt of y(x + t · direction) at t = 0."""
        return (y_at(x + self.h * direction) - y_at(x - self.h * direction)) / (2 * self.h)

    def rounding(self, size_of_y):
        """What cannot be resolved: the last few bits of y, divided by h, in a difference; those of dy in a gradient."""
        return 8 * np.finfo(np.float64).eps * (size_of_y / self.h + 1)

    def along_a_direction(self, i, y_at, x, dy, dx, rng):
        """One number: Σ dx v must be the slope of L(x + t v), L = Σ y dy."""
        v = rng.standard_normal(x.shape)
        claimed = float((dx * v).sum())
        measured = float((self.central_difference(y_at, x, v) * dy).sum())
        scale = max(abs(measured), float(np.sqrt((dx * dx).sum())))
        allowed = self.rtol * scale + self.rounding(float(np.abs(y_at(x) * dy).sum()))
        if not abs(claimed - measured) <= allowed:
            self.each_element(i, y_at, x, dy, dx)
            self.fail(f"gradient of {self.input(i)} along a random direction", claimed, measured, scale)
        self.worst = max(self.worst, self.rtol * abs(claimed - measured) / allowed)

    def each_element(self, i, y_at, x, dy, dx):
        """After a failure along a direction: which element is it? All of a small input, 500 of a large one."""
        places = list(np.ndindex(x.shape))
        if len(places) > 500:
            places = [places[n] for n in np.random.default_rng(self.seed).choice(len(places), 500, replace=False)]
        measured = np.array([(self.central_difference(y_at, x, unit(x.shape, at)) * dy).sum() for at in places])
        claimed = np.array([dx[at] for at in places])
        self.compare(
            claimed, measured, self.rounding(float(np.abs(y_at(x) * dy).sum())),
            lambda worst: f"gradient of {self.input(i)} at {list(places[worst])}",
        )  # fmt: skip

    def whole_jacobian(self, i, y_at, x, y, claimed):
        """Every ∂y_j/∂x_i. claimed: y.size rows, each of the shape of x."""
        columns = [self.central_difference(y_at, x, direction).reshape(-1) for direction in unit_arrays(x.shape)]
        measured = np.stack(columns, axis=1)

        def where(worst):
            return self.entry(i, x, y, worst)

        self.compare(claimed.reshape(-1), measured.reshape(-1), self.rounding(float(np.abs(y).max())), where)

    def entry(self, i, x, y, number):
        """Which entry of the Jacobian has this number."""
        j, k = divmod(number, x.size)
        at_y, at_x = np.unravel_index(j, y.shape), np.unravel_index(k, x.shape)
        return f"∂y{list(map(int, at_y))} / ∂x{list(map(int, at_x))} of {self.input(i)}"

    def between_the_slopes(self, i, y_at, x, y, claimed):
        """At a kink: every ∂y_j/∂x_i between the quotients on its two sides, up to the curvature times h."""
        steps = [self.h * direction for direction in unit_arrays(x.shape)]
        right = np.stack([(y_at(x + step) - y).reshape(-1) / self.h for step in steps], axis=1)
        left = np.stack([(y - y_at(x - step)).reshape(-1) / self.h for step in steps], axis=1)
        claimed = claimed.reshape(right.shape)
        scale = float(np.maximum(np.abs(left), np.abs(right)).max(initial=0))
        allowed = 10 * self.h * max(scale, 1.0) + self.rounding(float(np.abs(y).max()))
        low, high = np.minimum(left, right) - allowed, np.maximum(left, right) + allowed
        inside = (low <= claimed) & (claimed <= high)
        if not inside.all():
            worst = int(np.argmin(inside))
            raise AssertionError(
                f"{self.name}: {self.entry(i, x, y, worst)}: the vjp says {claimed.flat[worst]:.10g}, which is not "
                f"between the slopes {left.flat[worst]:.10g} on the left and {right.flat[worst]:.10g} on the right; "
                f"seed={self.seed} repeats this"
            )

    def compare(self, claimed, measured, rounding, where):
        """Largest error against the largest entry."""
        scale = float(np.abs(measured).max(initial=0))
        error = np.abs(claimed - measured)
        allowed = self.rtol * scale + rounding
        if not (error <= allowed).all():
            worst = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
            self.fail(where(worst), claimed[worst], measured[worst], scale)
        self.worst = max(self.worst, self.rtol * float(error.max(initial=0)) / allowed)  # relative, beyond rounding

    def fail(self, where, claimed, measured, scale):
        raise AssertionError(
            f"{self.name}: {where}: the vjp says {claimed:.10g}, the central difference {measured:.10g} "
            f"(largest {scale:.3g}, rtol {self.rtol:g}); seed={self.seed} repeats this"
        )


def check_gradient(f, *arrays, seed=0, h=1e-5, rtol=1e-5, kinks=False):
    """Prove the gradient of a function of Tensors, through the engine.

    f: takes Tensors (and whatever of `arrays` is no array, as it is), returns a Tensor of any shape. Everything else as
    for `check_vjp`.

        check_gradient(lambda x, w: ag.softmax(x @ w), np.ones((2, 3)), np.ones((3, 4)))
    """

    def forward(*xs):
        with no_grad():
            return f(*(Tensor(x) if is_array(x) else x for x in xs)).data

    def vjp(dy, *xs):
        leaves = as_leaves(xs)
        y = f(*leaves)
        if y.requires_grad:
            y.backward(dy)
        return [gradient_of(leaf) for leaf in leaves]

    forward.__name__, forward.__wrapped__ = name_of(f), f
    return check_vjp(forward, vjp, *arrays, seed=seed, h=h, rtol=rtol, kinks=kinks)


def check_primitive(op, *inputs, seed=0, **options):
    """Prove an op on the given inputs: its gradient, and what else the engine relies on.

    In the inputs' own dtype: inputs, options and dy are left as they were; gradients have shape and dtype of their
    inputs, share no memory with anything, are near those of float64; the pullback is linear in dy and can be asked
    twice; a frozen input gets no gradient and changes no other; under `no_grad` nothing is recorded. Then
    `check_gradient`. An op that has an option `seed` itself (dropout) is given the same one.

        check_primitive(ag.softmax, np.random.randn(3, 4), axis=0)
    """
    if "seed" in inspect.signature(op.reference).parameters:
        options["seed"] = seed

    def call(*xs):
        return op(*xs, **options)

    call.__name__, call.__wrapped__ = op.name, op.reference
    everything = {f"input {i}": x for i, x in enumerate(inputs)} | {f"option {k}": v for k, v in options.items()}
    before = {name: x.copy() for name, x in everything.items() if is_array(x)}
    dy, y, dxs = run(call, inputs, seed)
    for name, copy in before.items():
        require(same_bits(everything[name], copy), f"{op.name} wrote into its {name}; seed={seed}")
    require_own_memory(op.name, inputs, dy, dxs)
    require_linear(call, inputs, seed)
    require_freezing(call, inputs, dxs, seed)
    with no_grad():
        quiet = call(*as_leaves(inputs))
    require(quiet.node is None and not quiet.requires_grad, f"{op.name} recorded a node under no_grad")
    require_precision(call, inputs, y, dy, dxs, seed)
    return check_gradient(call, *inputs, seed=seed)


def run(call, inputs, seed, frozen=(), dy=None):
    """Forward and backward of `call` with a random dy: (dy, y, gradients), None where there is none."""
    leaves = as_leaves(inputs, frozen)
    y = call(*leaves)
    require(is_floating(y.dtype), f"{call.__name__} returned {y.dtype}: only floating point results have gradients")
    if dy is None:
        dy = np.asarray(np.random.default_rng(seed).standard_normal(y.shape), dtype=y.dtype)
        dy = xp_of(y.data).asarray(dy)
    copy = dy.copy()
    if y.requires_grad:
        y.backward(dy)
    require(same_bits(dy, copy), f"the vjp of {call.__name__} wrote into dy; seed={seed}")
    return dy, y.data, [gradient_of(leaf) for leaf in leaves]


def require_own_memory(name, inputs, dy, dxs):
    """A leaf's gradient is its own: an optimizer may write into it."""
    others = [*(x for x in inputs if is_array(x)), dy]
    for i, dx in enumerate(dxs):
        if isinstance(dx, np.ndarray):
            shared = [x for x in (*others, *dxs[:i]) if isinstance(x, np.ndarray) and np.shares_memory(x, dx)]
            require(not shared, f"{name}: the gradient of input {i} shares memory with an input, dy or another one")


def require_linear(call, inputs, seed):
    """vjp(2 a - 3 b) = 2 vjp(a) - 3 vjp(b), in float64; and asking again gives the same bits."""
    y = call(*as_leaves([widest(x) for x in inputs]))
    if not y.requires_grad or y.dtype != np.float64:
        return
    rng = np.random.default_rng(seed)
    a, b = (xp_of(y.data).asarray(rng.standard_normal(y.shape)) for _ in range(2))
    of_a, of_b, of_both, again = (copies(y.node.pull(dy)) for dy in (a, b, 2 * a - 3 * b, a))
    for i, (da, db, dboth, da_again) in enumerate(zip(of_a, of_b, of_both, again, strict=True)):
        if da is not None:
            # Where terms of the size of dy cancel (softmax of a row that is all but one), that is what rounding is of.
            scale = sum(float(abs(to_host(x)).max(initial=0)) for x in (a, b, da, db))
            require(
                (np.abs(dboth - (2 * da - 3 * db)) <= 1e-10 * scale).all(),
                f"{call.__name__}: the vjp is not linear in dy (input {i}); seed={seed}",
            )
            require(same_bits(da, da_again), f"{call.__name__}: its vjp, asked twice, answers differently (input {i})")


def require_freezing(call, inputs, dxs, seed):
    """What one input's gradient is does not depend on which others are wanted."""
    wanted = [i for i, x in enumerate(inputs) if is_differentiable(x)]
    for frozen in {*itertools.combinations(wanted, 1), *itertools.combinations(wanted, len(wanted) - 1)}:
        _, _, others = run(call, inputs, seed, frozen)
        for i, (dx, other) in enumerate(zip(dxs, others, strict=True)):
            if i in frozen:
                require(other is None, f"{call.__name__}: frozen input {i} received a gradient")
            elif dx is not None:
                require(
                    near(other, dx, 1e-12 if dx.dtype == np.float64 else 1e-5),
                    f"{call.__name__}: freezing {list(frozen)} changes the gradient of input {i}; seed={seed}",
                )


def require_precision(call, inputs, y, dy, dxs, seed):
    """Result and gradients in a narrow dtype are near those of the same numbers in float64."""
    _, exact_y, exact_dxs = run(call, [widest(x) for x in inputs], seed, dy=widest(dy))
    for name, value, exact in [("result", y, exact_y)] + [
        (f"gradient of input {i}", dx, exact) for i, (dx, exact) in enumerate(zip(dxs, exact_dxs, strict=True))
    ]:
        if value is not None:
            rtol = {2: 1e-2, 4: 1e-5}.get(value.dtype.itemsize, 1e-12)
            require(near(value, exact, rtol), f"{call.__name__}: {name} in {value.dtype} is far from that in float64")


def arrays(shape=None, dtype=np.float64, regime=None, layout=None):
    """A hypothesis strategy for awkward arrays: what is drawn is a shape, a layout, a regime and a *seed*.

    Drawing raw floats finds NaN and nothing else; a seed and a regime find what breaks ops, and shrink to an example
    that prints as the call of `sample_array` that makes it.

    shape: a tuple, a strategy for one, or None (up to 4 axes of length up to 5). dtype, regime, layout: one, a list to
    draw from, or None for all of `REGIMES` and `LAYOUTS`.

        @given(arrays(shape=(3, 4), dtype=["float32", "float64"], regime="normal"))
        def test_my_op(x): ...
    """
    from hypothesis import strategies as st
    from hypothesis.extra.numpy import array_shapes

    def choice(value, default):
        value = default if value is None else value
        return st.sampled_from(list(value)) if isinstance(value, list | tuple | dict) else st.just(value)

    if shape is None:
        shape = array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=5)
    return st.builds(
        sample_array,
        shape if isinstance(shape, st.SearchStrategy) else st.just(shape),
        dtype=choice(dtype, None).map(lambda dtype: np.dtype(dtype).name),
        regime=choice(regime, REGIMES),
        layout=choice(layout, LAYOUTS),
        seed=st.integers(0, 2**32 - 1),
    )


REGIMES = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "tiny": lambda rng, shape: 1e-4 * rng.standard_normal(shape),
    "large": lambda rng, shape: 1e3 * rng.standard_normal(shape),
    "ties": lambda rng, shape: rng.integers(-1, 2, shape).astype(np.float64),
}
LAYOUTS = ("contiguous", "transposed", "strided", "reversed")


def sample_array(shape, dtype="float64", regime="normal", layout="contiguous", seed=0):
    """The array that a seed stands for. Equal arguments, equal array. layout: see `laid_out`."""
    x = REGIMES[regime](np.random.default_rng(seed), shape)
    return laid_out(np.asarray(x, dtype=dtype), layout)


def laid_out(x, layout):
    """The same numbers with other strides.

    layout: "contiguous"; "transposed", last axis slowest; "strided", every second element of a larger array;
    "reversed", negative strides; "repeated", only on request since it changes the numbers: what is first along the
    first axis, repeated with stride 0 and read-only, as `np.broadcast_to` makes it.
    """
    if x.ndim == 0:
        return x
    backwards = (slice(None, None, -1),) * x.ndim
    if layout == "transposed":
        return x.copy(order="F")
    if layout == "reversed":
        return x[backwards].copy()[backwards]
    if layout == "strided":
        between = np.nan if is_floating(x.dtype) else np.array(-1).astype(x.dtype)  # what an op that strays there finds
        larger = np.full([2 * n for n in x.shape], between, x.dtype)
        every_second = larger[(..., *(slice(None, None, 2) for _ in x.shape))]
        every_second[...] = x
        return every_second
    if layout == "repeated":
        return np.broadcast_to(x[:1], x.shape)
    return x


def is_array(x):
    return hasattr(x, "dtype") and hasattr(x, "shape") and not isinstance(x, type)


def is_differentiable(x):
    return is_array(x) and is_floating(x.dtype)


def to_host(x):
    return np.asarray(to_device(x, "cpu"))


def widest(x):
    """Floating point arrays in float64, everything else as it is."""
    return x.astype(np.float64) if is_differentiable(x) else x


def as_leaves(inputs, frozen=()):
    """Tensors over the arrays among `inputs`, those of floating point wanting gradients unless frozen."""
    return [
        Tensor(x, requires_grad=is_differentiable(x) and i not in frozen) if is_array(x) else x
        for i, x in enumerate(inputs)
    ]


def gradient_of(leaf):
    """A leaf's gradient; zeros for one that the result does not depend on; None where none is wanted."""
    if not isinstance(leaf, Tensor) or not leaf.requires_grad:
        return None
    return xp_of(leaf.data).zeros_like(leaf.data) if leaf.grad is None else leaf.grad


def one_each(name, dxs, xs):
    """The gradients as a list, one for each input; a single gradient needs no tuple around it."""
    dxs = list(dxs) if isinstance(dxs, tuple | list) else [dxs]
    require(len(dxs) == len(xs), f"{name}: the vjp returned {len(dxs)} gradients for {len(xs)} inputs")
    return dxs


def unit(shape, at):
    """Zeros, but for a one at one place."""
    x = np.zeros(shape)
    x[at] = 1
    return x


def unit_arrays(shape):
    return (unit(shape, at) for at in np.ndindex(shape))


def copies(dxs):
    return [None if dx is None else to_host(dx).copy() for dx in dxs]


def near(a, b, rtol):
    """Equal up to `rtol` of the largest entry."""
    a, b = to_host(a).astype(np.float64), to_host(b).astype(np.float64)
    return a.shape == b.shape and bool((np.abs(a - b) <= rtol * np.abs(b).max(initial=0)).all())


def same_bits(a, b):
    a, b = to_host(a), to_host(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def names_of_inputs(f, inputs):
    """What the function calls its arguments, as far as it says so."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):  # written in C, say
        return []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    variadic = [p.name for p in parameters if p.kind is p.VAR_POSITIONAL]
    return names + [f"{name}[{i}]" for name in variadic for i in range(len(inputs) - len(names))]


def name_of(f):
    return getattr(f, "__name__", type(f).__name__)


def require(condition, message):
    if not condition:
        raise AssertionError(message)

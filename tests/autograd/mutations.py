"""Wrong gradients, planted in every primitive to see whether the proofs catch them.

A mutant is an op's reference with something wrong in its backward. There are three kinds: generic ones, here, spoil
what the pullback returns; `mutations_of_source.py` changes an operator, a term, an axis of its text;
`mutations_by_hand.py` has the mistakes that people make, with masks and normalizers above all. `fate_of` says what
became of one.
"""

import functools
import itertools
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from mutations_by_hand import mutants_by_hand, texts_by_hand
from mutations_of_source import mutants_of_source
from primitive_cases import CASES

from autograd import testing
from autograd.context import context, needs
from autograd.engine import PRIMITIVES


class Mutant(NamedTuple):
    """name: what is wrong, readable and unique within its op. make() -> what takes the place of the op's reference."""

    op: str
    kind: str
    name: str
    make: Callable


class Fate(NamedTuple):
    """verdict: "caught", "equivalent" (to the op: no mutant at all) or "missed". error: what it was caught with."""

    mutant: Mutant
    verdict: str
    error: str = ""

    @property
    def by_its_number(self):
        """Whether it was caught as a wrong number, and not by its shape or for what it broke down with."""
        return "the vjp says" in self.error


def mutants_of(op):
    """All mutants of an op, the same ones in the same order at every run."""
    reference = PRIMITIVES[op].reference
    yield from (Mutant(op, "generic", name, make) for name, make in generic(op, reference))
    yield from (Mutant(op, "by hand", name, make) for name, make in mutants_by_hand(op, reference))
    known = texts_by_hand(op, reference)
    yield from (Mutant(op, "source", name, make) for name, make in mutants_of_source(reference, known))


# Generic: what every pullback could get wrong


def transposed(dx):
    return np.swapaxes(dx, -1, -2).copy() if is_square(dx) else dx


def is_square(x):
    return x.ndim >= 2 and x.shape[-1] == x.shape[-2] > 1


CORRUPTIONS = {
    "0.1 % too large": lambda dx: dx * dx.dtype.type(1.001),
    "zeroed": lambda dx: np.zeros_like(dx),
    "rolled by one": lambda dx: np.roll(dx, 1),
    "transposed": transposed,
}


def generic(op, reference):
    """(name, how to make it) for each corruption of each input's gradient, and each two inputs of equal shape."""
    inputs = sorted({i for case in CASES[op] for i in case.floats()})
    for i in inputs:
        for corruption in CORRUPTIONS:
            if corruption != "transposed" or any(
                i in case.floats() and is_square(case.inputs[i]) for case in CASES[op]
            ):
                yield f"{corruption}: input {i}", functools.partial(corrupted, reference, i, CORRUPTIONS[corruption])
    for i, j in itertools.combinations(inputs, 2):
        if any(are_alike(case.inputs, i, j) for case in CASES[op]):
            yield f"swapped: input {i} and input {j}", functools.partial(swapped, reference, i, j)


def are_alike(inputs, i, j):
    """Whether two inputs, if there are so many, are arrays of one shape."""
    shapes = [getattr(x, "shape", None) for x in inputs]
    return j < len(inputs) and shapes[i] is not None and shapes[i] == shapes[j]


def corrupted(reference, i, corruption):
    """The op with one input's gradient spoilt, where it has one."""

    def spoilt(dx):
        return dx if dx is None else corruption(dx)

    @functools.wraps(reference)
    def body(*inputs, **options):
        y, vjp = reference(*inputs, **options)
        if isinstance(vjp, tuple):
            return y, tuple((f and j == i and (lambda dy, f=f: spoilt(f(dy)))) or f for j, f in enumerate(vjp))
        return y, lambda dy: tuple(spoilt(dx) if j == i else dx for j, dx in enumerate(vjp(dy)))

    return body


def swapped(reference, i, j):
    """The op with the gradients of two inputs exchanged where they are of one shape."""

    def exchange(items):
        items = list(items)
        items[i], items[j] = items[j], items[i]
        return tuple(items)

    @functools.wraps(reference)
    def body(*inputs, **options):
        if not are_alike(inputs, i, j):
            return reference(*inputs, **options)
        # The closure of one that is frozen is asked in the other's place, so its gradient is wanted too.
        with context.set(needs=tuple(k in (i, j) or want for k, want in enumerate(needs()))):
            y, vjp = reference(*inputs, **options)
        return y, exchange(vjp) if isinstance(vjp, tuple) else lambda dy: exchange(vjp(dy))

    return body


# The runner


def made(mutant):
    """What takes the place of the reference; what the compiler warns of in it does not matter."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mutant.make()


@contextmanager
def planted(op, reference):
    """While this lasts, the op computes with another body; what a wrong one warns of does not matter."""
    primitive = PRIMITIVES[op]
    before, primitive.reference = primitive.reference, reference
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield primitive
    finally:
        primitive.reference = before


def options_of(case, op):
    return case.options | ({"dtype": np.float64} if op == "cast" else {})


def fate_of(mutant):
    """What becomes of a mutant: the first case that catches it decides.

    check_primitive proves each case as `test_primitives.py` does; whatever it raises, an AssertionError or what the
    mutant broke down with, is a catch. What no case catches is compared with the op itself.
    """
    reference = made(mutant)
    with planted(mutant.op, reference) as op:
        for case in smallest_first(CASES[mutant.op]):
            try:
                testing.check_primitive(op, *case.inputs, **options_of(case, mutant.op))
            except Exception as error:
                return Fate(mutant, "caught", f"{type(error).__name__}: {error}")
    return Fate(mutant, "equivalent" if changes_nothing(mutant.op, reference) else "missed")


def smallest_first(cases):
    """Cases in the order of how much there is to compute; those with nothing in an input, which prove little, last."""

    def size(case):
        sizes = [case.inputs[i].size for i in case.floats()]
        return sum(sizes) if all(sizes) else np.inf

    return sorted(cases, key=size)


def changes_nothing(op, reference, draws=10):
    """Whether gradients agree to 1e-9 on random inputs of the shapes of the cases, ten draws of each.

    Values are between 0.1 and 2, with the signs of the case's own: a logarithm needs positive ones.
    """
    for case in CASES[op]:
        for draw in range(draws):
            rng = np.random.default_rng(draw)
            inputs = [
                np.copysign(rng.uniform(0.1, 2, x.shape), x) if i in case.floats() else x
                for i, x in enumerate(case.inputs)
            ]
            right = gradients(op, PRIMITIVES[op].reference, inputs, options_of(case, op), draw)
            wrong = gradients(op, reference, inputs, options_of(case, op), draw)
            for a, b in zip(wrong, right, strict=True):
                if b is not None and not np.abs(a - b).max(initial=0) <= 1e-9 * np.abs(b).max(initial=0):
                    return False
    return True


def gradients(op, reference, inputs, options, seed):
    """The gradient of each input (None where there is none) for one dy, which the seed decides."""
    if op == "dropout":
        options = options | {"seed": seed}
    with planted(op, reference) as primitive:
        leaves = testing.as_leaves(inputs)
        y = primitive(*leaves, **options)
        y.backward(np.random.default_rng(seed).standard_normal(y.shape))
        return [testing.gradient_of(leaf) for leaf in leaves]

"""Optional fused kernels: which may run, which did.

An op's array code is the reference and always there. A backend is a folder `autograd/backends/NAME` whose import
registers kernels with `@softmax.kernel("NAME")`: same signature, returns `(y, vjp)`, or `NotImplemented` for shapes or
dtypes it does not do. The reference then runs, and the count shows it.

A function of arrays without a gradient, an optimizer's rule say, has kernels in the same way. It is marked `@rule`
where it stands, which may be in a package that a backend cannot import. So they meet by name:

    @kernels.rule                           # in the package
    def scale(x, *, factor):
        x *= factor

    @kernels.for_rule("scale", "NAME")      # in the backend: same signature, same result, or NotImplemented
    def scale_kernel(x, *, factor):
        ...
"""

import functools
import importlib
import pkgutil
import warnings
from collections import Counter, defaultdict

from autograd.context import context

_counts = defaultdict(Counter)
_listener = None
_unusable = set()  # backends that could not be imported
_rules = {}  # name -> Rule
_kernels_of_rules = defaultdict(dict)  # name of a rule, which need not be there yet -> backend -> kernel


def available():
    """Names of the backends that this installation has, besides the reference."""
    try:
        backends = importlib.import_module("autograd.backends")
    except ModuleNotFoundError:
        return ()
    return tuple(module.name for module in pkgutil.iter_modules(backends.__path__))


def load(names):
    """Import the named backends ("reference" needs none) and return the tuple of those to try, in order."""
    wanted = [name for name in names if name != "reference"]
    for name in wanted:
        if name not in available():
            known = ", ".join(("reference", *available()))
            raise ValueError(f"no kernels named {name!r} in this version; there are: {known}")
    return tuple(name for name in wanted if importable(name))


def importable(name):
    """Import a backend. If what it needs is missing or broken, say so once; the reference runs then."""
    if name in _unusable:
        return False
    try:
        importlib.import_module(f"autograd.backends.{name}")
    except Exception as error:  # a compiler can break in any way
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        warnings.warn(f"the kernels {name!r} cannot be used here ({reason}); the reference runs", stacklevel=4)
        _unusable.add(name)
        return False
    return True


def setup(name):
    """What a backend that can be used says of itself on this machine: dict name -> words."""
    return importlib.import_module(f"autograd.backends.{name}").setup()


def on_compiling(listener):
    """Call `listener()` once, when a backend has to compile its first kernel here, and so will compile more."""
    global _listener
    _listener = listener


def announce():
    """Tell the listener, if there is one, for a backend that compiles."""
    global _listener
    listener, _listener = _listener, None
    if listener:
        listener()


def use_kernels(*names):
    """`with use_kernels("numba"):` ops run the named backends' kernels where they have one; "reference" for none."""
    return context.set(kernels=load(names))


def chosen():
    """Names of what runs in this thread, in the order in which it is tried; the reference comes last."""
    return (*context.kernels, "reference")


def run(op, arrays, options):
    """Run the first kernel that accepts these inputs, else the reference. Returns what they do: an op's (y, vjp)."""
    for name in context.kernels:
        if kernel := op.kernels.get(name):
            result = kernel(*arrays, **options)
            if result is not NotImplemented:
                _counts[op.name][name] += 1
                return result
            _counts[op.name][f"{name} declined"] += 1
    _counts[op.name]["reference"] += 1
    return op.reference(*arrays, **options)


class Rule:
    """A function of arrays that has no gradient, and its optional kernels. Made by `@rule`."""

    def __init__(self, body):
        functools.update_wrapper(self, body)
        self.name, self.reference = body.__name__, body
        self.kernels = _kernels_of_rules[self.name]
        namesake = _rules.setdefault(self.name, self)
        if namesake.__module__ != self.__module__:
            raise ValueError(f"{namesake.__module__} has a rule {self.name}, with kernels of its own; rename this one")

    def __call__(self, *arrays, **options):
        return run(self, arrays, options)

    def __repr__(self):
        return f"<rule {self.name}>"


def rule(body):
    """Give a function of arrays, with keyword options, the kernels that backends register under its name.

    It may write into its arrays. A kernel that declines must not have written.
    """
    return Rule(body)


def for_rule(name, backend):
    """`@for_rule("adamw", "numba")`: register a fused version of the rule of that name."""

    def register(body):
        _kernels_of_rules[name][backend] = body
        return body

    return register


class KernelsUsed(dict):
    """name of an op or a rule -> Counter of "reference", a backend's name, "NAME declined". Prints as a table."""

    def __str__(self):
        columns = sorted({column for counts in self.values() for column in counts})
        table = [["op", *columns], *([op, *(str(self[op][column]) for column in columns)] for op in sorted(self))]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return "\n".join("  ".join(f"{cell:>{w}}" for cell, w in zip(row, widths, strict=True)) for row in table)

    __repr__ = __str__


def kernels_used(reset=False):
    """How often each op and rule ran its reference, a kernel, or was declined by one, since the start or last reset."""
    used = KernelsUsed({name: Counter(counts) for name, counts in _counts.items()})
    if reset:
        _counts.clear()
    return used

"""Optional fused kernels: which may run, which did.

An op's array code is the reference and always there. A backend is a folder `autograd/backends/NAME` whose import
registers kernels with `@softmax.kernel("NAME")`: same signature, returns `(y, vjp)`, or `NotImplemented` for shapes or
dtypes it does not do. The reference then runs, and the count shows it.
"""

import importlib
import pkgutil
import warnings
from collections import Counter, defaultdict

from autograd.context import context

_counts = defaultdict(Counter)
_listener = None
_unusable = set()  # backends that could not be imported


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
    """Run the first kernel that accepts these inputs, else the reference. Returns (y, vjp)."""
    for name in context.kernels:
        if kernel := op.kernels.get(name):
            result = kernel(*arrays, **options)
            if result is not NotImplemented:
                _counts[op.name][name] += 1
                return result
            _counts[op.name][f"{name} declined"] += 1
    _counts[op.name]["reference"] += 1
    return op.reference(*arrays, **options)


class KernelsUsed(dict):
    """op name -> Counter of "reference", a backend's name, "NAME declined". Prints as a table."""

    def __str__(self):
        columns = sorted({column for counts in self.values() for column in counts})
        table = [["op", *columns], *([op, *(str(self[op][column]) for column in columns)] for op in sorted(self))]
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        return "\n".join("  ".join(f"{cell:>{w}}" for cell, w in zip(row, widths, strict=True)) for row in table)

    __repr__ = __str__


def kernels_used(reset=False):
    """How often each op ran its reference, a kernel, or was declined by one, since the start or the last reset."""
    used = KernelsUsed({name: Counter(counts) for name, counts in _counts.items()})
    if reset:
        _counts.clear()
    return used

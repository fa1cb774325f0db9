"""A stand-in for CuPy: arrays "on a device", computed by NumPy, that refuse to meet host arrays.

`xp_of` finds this module through the class's `__module__`, as it finds CuPy. Python and NumPy scalars may meet device
arrays, NumPy arrays may not; only `asarray` and `array` move one over, only `.get()` moves one back. As in CuPy a
result without axes is still an array.
"""

import numpy as np


class Array:
    """A NumPy array that nothing else may touch."""

    __array_priority__ = 1000

    def __init__(self, host):
        self._host = host

    def get(self):
        return self._host

    def __array__(self, *_, **__):
        raise TypeError("implicit transfer of a device array to the host")

    def __array_ufunc__(self, ufunc, method, *_, **__):
        raise TypeError(f"NumPy's {ufunc.__name__} called with a device array")

    def __array_function__(self, function, *_):
        raise TypeError(f"NumPy's {function.__name__} called with a device array")

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = getattr(self._host, name)
        return on_device(value) if callable(value) else leave(value)

    def __len__(self):
        return len(self._host)

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index):
        return leave(self._host[enter(index)])

    def __setitem__(self, index, value):
        self._host[enter(index)] = enter(value)

    __bool__ = lambda self: bool(self._host)  # noqa: E731
    __int__ = lambda self: int(self._host)  # noqa: E731
    __float__ = lambda self: float(self._host)  # noqa: E731
    __hash__ = None


def operator(name):
    def apply(self, *others):
        if any(isinstance(other, np.ndarray) for other in others):
            raise TypeError(f"{name} between a device array and a host array")
        if not all(isinstance(other, Array | int | float | np.generic) for other in others):
            return NotImplemented  # a Tensor on the right has its turn
        return leave(getattr(self._host, name)(*map(enter, others)))

    return apply


for _name in (
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and",
    "or",
    "xor",
    "lshift",
    "rshift",
):
    setattr(Array, f"__{_name}__", operator(f"__{_name}__"))
    setattr(Array, f"__r{_name}__", operator(f"__r{_name}__"))
for _name in ("eq", "ne", "lt", "le", "gt", "ge", "neg", "abs", "invert"):
    setattr(Array, f"__{_name}__", operator(f"__{_name}__"))


def in_place(name):
    def apply(self, other):
        if isinstance(other, np.ndarray):
            raise TypeError(f"{name} between a device array and a host array")
        self._host = getattr(self._host, name)(enter(other))
        return self

    return apply


for _name in ("add", "sub", "mul", "truediv", "and", "or", "xor", "rshift", "lshift"):
    setattr(Array, f"__i{_name}__", in_place(f"__i{_name}__"))


def enter(x):
    """Arguments of a device function: its own arrays unwrapped, host arrays refused."""
    if isinstance(x, Array):
        return x._host
    if isinstance(x, np.ndarray):
        raise TypeError(f"a host array {x.dtype}{list(x.shape)} meets the device")
    if isinstance(x, list | tuple):
        return type(x)(enter(item) for item in x)
    return x


def leave(x):
    """Results of a device function: arrays wrapped, NumPy's scalars as arrays without axes."""
    if isinstance(x, np.ndarray | np.generic):
        return Array(np.asarray(x))
    if isinstance(x, list | tuple) and any(isinstance(item, np.ndarray) for item in x):
        return type(x)(leave(item) for item in x)
    return x


def on_device(function):
    def call(*arguments, **options):
        out = options.get("out")
        result = function(*enter(arguments), **{name: enter(value) for name, value in options.items()})
        return leave(result) if out is None else out

    return call


class Ufunc:
    """`xp.add(a, b)` and `xp.add.reduceat(a, i)`."""

    def __init__(self, ufunc):
        self._ufunc = ufunc

    def __call__(self, *arguments, **options):
        return on_device(self._ufunc)(*arguments, **options)

    def __getattr__(self, name):
        return on_device(getattr(self._ufunc, name))


def asarray(x, dtype=None):
    """The one way in."""
    return Array(np.array(x.get() if isinstance(x, Array) else x, dtype=dtype))


array = asarray


def __getattr__(name):
    value = getattr(np, name)
    if isinstance(value, np.ufunc):
        return Ufunc(value)
    if isinstance(value, type) or not callable(value):
        return value  # dtypes and constants
    return on_device(value)

"""What a node keeps alive: the arrays among the free variables of its pullback, by name."""


def saved(node):
    """[(name, array)] for every array that the closures of `node` hold, also in lists and in functions they hold.

    The names are those in the op's source. One array under two names, or in two closures, stands here twice.
    """
    closures = node.vjp if isinstance(node.vjp, tuple) else (node.vjp,)
    found, seen = [], set()
    for closure in closures:
        captured(closure, found, seen)
    return found


def captured(function, found, seen):
    """Add what one function holds; `seen` keeps a function that holds itself from going round for ever."""
    if getattr(function, "__closure__", None) and id(function) not in seen:
        seen.add(id(function))
        for name, cell in zip(function.__code__.co_freevars, function.__closure__, strict=True):
            held(name, cell.cell_contents, found, seen)


def held(name, value, found, seen):
    if hasattr(value, "dtype") and hasattr(value, "nbytes"):
        found.append((name, value))
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            held(f"{name}[{i}]", item, found, seen)
    elif hasattr(value, "data") and hasattr(value, "requires_grad"):  # a Tensor, which `recompute` holds
        held(name, value.data, found, seen)
    else:
        captured(value, found, seen)


def buffer_of(array):
    """The array that owns the memory which `array` is a view of."""
    while getattr(array, "base", None) is not None and hasattr(array.base, "nbytes"):
        array = array.base
    return array

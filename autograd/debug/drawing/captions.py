"""What a box of a drawing says: a few lines in it, everything else in its tooltip."""

import collections
import unicodedata

from autograd.debug.saved import buffer_of, saved
from autograd.engine import Tensor, describe

ROWS = {  # style of a line of text -> font size and height of the line, in pixels
    "arguments": (9, 11),
    "layer": (10.5, 13),
    "name": (13, 17),
    "small": (10.5, 14),
    "shape": (11, 15),
    "leaf": (10, 16),
    "title": (10.5, 18),
}
CELL = 0.62  # width of a character of a monospace font, in font sizes; the widest of the usual ones has 0.61
LONGEST = 44  # characters shown in one line
FEW_LINES = 4  # leaves listed in the box of one op; more are only counted


def describe_box(box, around):
    """Fill in rows and tooltip. around: path of the frame it is in, which its own name need not repeat."""
    inside = ".".join(box.path[len(around) :])
    if box.kind == "leaf":
        [(name, leaf)] = box.leaves
        box.rows = [("name", name), ("shape", describe(leaf))]
        box.tooltip = f"{name}\nleaf {describe(leaf)}, {quantity(leaf.size, 'number')}"
        return
    last = box.nodes[-1]
    if box.kind == "layer":
        counts = quantity(len(box.nodes), "op")
        box.rows = [("name", inside), ("small", counts + parameters_of(box)), ("shape", describe(last))]
    else:
        names = [("arguments", "  ".join(name for name, _ in box.arrows))] if named_arrows(box) else []
        box.rows = [*names, *([("layer", inside)] if inside else []), ("name", last.name), ("shape", describe(last))]
        shown = [f"{name} {describe(leaf)}" for name, leaf in box.leaves]
        counted = f"{len(shown)} leaves{parameters_of(box)}"
        box.rows += [("leaf", text) for text in (shown if len(shown) <= FEW_LINES else [counted])]
    box.tooltip = "\n".join(details(box))


def named_arrows(box):
    """The arrows of an op with several arguments are named where they arrive, unless there are very many."""
    return 1 < len(box.arrows) <= 6 and box.kind == "op"


def parameters_of(box):
    return f", {quantity(box.parameters, 'parameter')}" if box.leaves else ""


def details(box):
    """The lines of a box's tooltip."""
    last = box.nodes[-1]
    if box.kind == "layer":
        names = collections.Counter(node.name for node in box.nodes)
        yield f"layer {'.'.join(box.path)} -> {describe(last)}"
        yield f"{quantity(len(box.nodes), 'op')}: {', '.join(f'{n} {name}' for name, n in names.items())}"
        yield quantity(box.parameters, "parameter")
    else:
        yield f"{last.name} -> {describe(last)}"
        if last.path:
            yield f"layer {'.'.join(last.path)}"
        for argument, parent in zip(last.arguments, last.parents, strict=False):
            origin = "no gradient" if parent is None else "a leaf" if isinstance(parent, Tensor) else parent.name
            yield f"{argument}: {origin}" + (f", {describe(parent)}" if parent is not None else "")
    kept = activations(box.nodes)
    names = f" ({', '.join(dict.fromkeys(name for name, _ in kept))})" if box.kind == "op" and kept else ""
    yield f"keeps {sum(size for _, size in kept):,} bytes for backward{names}"


def activations(nodes):
    """[(name, bytes)] of what the pullbacks keep alive, each array once and without the leaves, which live anyway."""
    leaves = {id(buffer_of(p.data)) for node in nodes for p in node.parents if isinstance(p, Tensor)}
    kept = {}
    for node in nodes:
        for name, array in saved(node):
            owner = buffer_of(array)
            if id(owner) not in leaves:
                kept.setdefault(id(owner), (name, owner.nbytes))
    return list(kept.values())


def quantity(n, what):
    return f"{n:,} {what}" + ("" if n == 1 else "s")


def text_width(style, text):
    cells = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in shortened(text))
    return cells * CELL * ROWS[style][0]


def shortened(text):
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"

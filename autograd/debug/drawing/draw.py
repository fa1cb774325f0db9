"""`draw(loss).save("loss.svg")`: a picture of the graph that a tensor was computed with."""

import os

from autograd.debug.drawing.boxes import gather
from autograd.debug.drawing.svg import render, summary
from autograd.engine import Node, Tensor, describe


class Drawing:
    """A graph drawn. svg: the text of the file; title: its first line. A notebook shows it; `.save(path)` writes it."""

    def __init__(self, svg, title):
        self.svg, self.title = svg, title

    def save(self, path):
        """Write the SVG file; returns this drawing."""
        write_whole(path, self.svg)
        return self

    def _repr_svg_(self):
        return self.svg

    def __repr__(self):
        return f"<drawing of {self.title}>"


def draw(tensor, *, depth=None, save=None):
    """The graph that `tensor` (or a tensor's node) was computed with; before `backward`, which frees it.

    Blue boxes are ops with the dtype and shape of their result; arrows lead from results to the ops that use them, and
    a thick one takes a shortcut past other ops, as a residual connection does. Green are the leaves that get a
    gradient: those of a layer stand in the box of the one op that uses them, others (inputs, tied weights) have a box
    and as many arrows as uses. Arguments without gradient (token ids, masks, constants) are not part of the graph
    and not drawn. Frames are layers: the scopes in which ops ran. Tooltips tell more, also what backward keeps alive.

    depth: draw a layer as one box from that level of the path on: 1 for `blocks.0`, 2 for `blocks.0.attention`. None
    for every op by itself, or, if these are more than 60 boxes, as many levels as make at most 60 (at least one).
    Calls of one layer directly after each other become one box. save: a path to write the SVG file to.
    Raises RuntimeError after `backward`, ValueError for a tensor without graph.
    """
    if not isinstance(tensor, Tensor | Node):
        raise TypeError(f"draw takes a Tensor, not {describe(tensor)}")
    if depth is not None and depth < 1:
        raise ValueError(f"draw: depth counts levels of layers from 1, not {depth}")
    if isinstance(tensor, Tensor) and not tensor.requires_grad:
        raise ValueError("draw: this tensor has no graph; nothing it was computed from requires a gradient")
    root = tensor if isinstance(tensor, Node) else tensor.node or tensor
    frame = gather(root, depth)
    drawing = Drawing(render(frame), summary(frame))
    return drawing if save is None else drawing.save(save)


def write_whole(path, text):
    """Write a file so that a killed process leaves the old one or the new one, never half of it."""
    unfinished = f"{os.fspath(path)}.{os.getpid()}.tmp"
    try:
        with open(unfinished, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        if os.path.exists(unfinished):
            os.remove(unfinished)
        raise

"""What a drawing shows: the ops and leaves of a graph as boxes with arrows, the boxes of one layer in a frame.

Nodes that become one box, and boxes that share a frame, are always consecutive in the order in which they ran. That is
an order in which every node comes after its parents, and drawing intervals of such an order together never makes a
circle of arrows.
"""

import dataclasses
import itertools
import math

from autograd.debug.drawing.captions import FEW_LINES, describe_box
from autograd.engine import Tensor, reachable

FEW = 60  # boxes that a reader takes in
FEW_LEAVES = 6  # of a graph, so that each can have a box


@dataclasses.dataclass(eq=False, repr=False)
class Box:
    """One op, a layer with all its ops, or a leaf. path: of the layer; nodes: the ops in it, none in a leaf.

    leaves: [(argument, Tensor)] that only this box uses and that are shown in it. arrows: [(argument, Box)] that
    arrive, in order; a layer's have no argument. shortcuts: those of their boxes from which also a longer way leads
    here. rows: [(style, text)], top to bottom. tooltip: everything else.
    """

    path: tuple
    nodes: list
    leaves: list = dataclasses.field(default_factory=list)
    arrows: list = dataclasses.field(default_factory=list)
    shortcuts: set = dataclasses.field(default_factory=set)
    rows: list = dataclasses.field(default_factory=list)
    tooltip: str = ""

    @property
    def kind(self):
        return "leaf" if not self.nodes else "op" if len(self.nodes) == 1 else "layer"

    @property
    def parameters(self):
        """How many numbers its leaves have."""
        return sum(leaf.size for _, leaf in self.leaves)


@dataclasses.dataclass(eq=False, repr=False)
class Frame:
    """A layer that is drawn open: the boxes and frames in it, each after all that it gets arrows from."""

    path: tuple
    items: list = dataclasses.field(default_factory=list)

    def boxes(self):
        """[(box, the frames around it, outermost first)] of all boxes below."""
        found = []
        for item in self.items:
            inner = [(item, ())] if isinstance(item, Box) else item.boxes()
            found += [(box, (self, *frames)) for box, frames in inner]
        return found


def gather(root, depth):
    """The outermost Frame of all that `root` (a Node or a leaf Tensor) was computed from; depth as in `draw`."""
    try:
        nodes, _ = reachable(root)
    except RuntimeError:
        raise RuntimeError("draw: backward ran through this graph already and freed it; draw before backward") from None
    nodes = sorted(nodes, key=lambda node: node.number)
    levels = [math.inf, *range(max((len(node.path) for node in nodes), default=0), 0, -1)] if depth is None else [depth]
    for level in levels:
        frame = frame_of((), nodes, level) if nodes else Frame((), [Box((), [], [("leaf", root)])])
        connect(frame)
        if len(frame.boxes()) <= FEW:
            break
    mark_shortcuts([box for box, _ in frame.boxes()])
    for box, frames in frame.boxes():
        describe_box(box, frames[-1].path)
    return frame


def frame_of(path, nodes, depth):
    """A Frame for the layer `path`, in which `nodes` ran one after the other; layers at `depth` become one box each."""
    frame, level = Frame(path), len(path) + 1
    for _, run in itertools.groupby(nodes, lambda node: node.path[:level] if len(node.path) >= level else node):
        run = list(run)
        if len(run) == 1:
            frame.items.append(Box(run[0].path, run))
        elif level >= depth:
            frame.items.append(Box(run[0].path[:level], run))
        else:
            inner = frame_of(run[0].path[:level], run, depth)
            frame.items.append(inner if len(inner.items) > 1 else inner.items[0])
    return frame


def connect(root):
    """Give every box its leaves and arrows, and a leaf that several boxes use (or an input) a box of its own."""
    frames = dict(root.boxes())
    owner = {node: box for box in frames for node in box.nodes}
    uses = {}
    for box in frames:
        for node in box.nodes:
            for i, parent in enumerate(node.parents):
                if isinstance(parent, Tensor):
                    uses.setdefault(parent, []).append((box, node, i))
    leaves = {}  # frame -> the boxes of leaves in it
    for leaf, places in uses.items():
        if belongs_inside(places, uses):
            box, node, i = places[0]
            box.leaves.append((node.arguments[i], leaf))
        else:
            owner[leaf] = Box((), [], [(name_of_leaf(places), leaf)])
            leaves.setdefault(home([frames[box] for box, _, _ in places]), []).append(owner[leaf])
    for frame, boxes in leaves.items():
        frame.items[:0] = boxes
    for box in frames:
        box.arrows = arrows(box, owner)


def arrows(box, owner):
    """[(argument, Box)] for what arrives at a box from others; what a layer uses several times arrives once."""
    found = [
        (argument, owner[parent])
        for node in box.nodes
        for argument, parent in zip(node.arguments, node.parents, strict=False)
        if owner.get(parent, box) is not box
    ]
    return found if box.kind == "op" else [(None, source) for source in dict.fromkeys(source for _, source in found)]


def mark_shortcuts(boxes):
    """Find the arrows past other boxes: those whose target is also reached from their source the long way round."""
    targets = {}
    for box in boxes:
        for source in dict.fromkeys(source for _, source in box.arrows):
            targets.setdefault(source, []).append(box)
    rank = ranks(boxes)
    ordered = sorted(boxes, key=rank.get)
    for source, ends in targets.items():
        far = max(map(rank.get, ends))
        if len(ends) < 2 or far == rank[source] + 1:
            continue
        reached, wanted = set(ends), set(ends)
        for box in itertools.islice(ordered, rank[source] + 1, far + 1):
            if box in reached:
                reached.update(targets.get(box, ()))
                for end in wanted.intersection(targets.get(box, ())):
                    end.shortcuts.add(source)


def ranks(boxes):
    """{box: its number in an order in which arrows only lead on}: leaves first, then by the first op in a box."""
    ordered = sorted(boxes, key=lambda box: box.nodes[0].number if box.nodes else -1)
    return {box: i for i, box in enumerate(ordered)}


def belongs_inside(places, uses):
    """Is a leaf, used in these places, shown inside the box that uses it, as the parameters of a layer are?"""
    if len({box for box, _, _ in places}) > 1:
        return False
    box, node, i = places[0]
    if box.kind == "layer":
        return True
    own = sum(len(uses.get(parent, ())) == 1 for parent in node.parents if isinstance(parent, Tensor))
    parameter = node.path != () or own > FEW_LINES
    return len(places) == 1 and len(uses) > FEW_LEAVES and parameter and not is_input(node, i)


def is_input(node, i):
    """The first of several arguments is what flows through an op; the others are its parameters."""
    return i == 0 and sum(parent is not None for parent in node.parents) > 1


def name_of_leaf(places):
    """What the ops call a leaf; a parameter of a layer has its path in front, as it is named in the model."""
    _, node, i = places[0]
    if node.path and not is_input(node, i):
        return ".".join((*node.path, node.arguments[i]))
    return ", ".join(dict.fromkeys(node.arguments[i] for _, node, i in places))


def home(chains):
    """The frame to draw a leaf in: one outside of the innermost frame that has all its uses, as it comes from there."""
    shared = [frames[0] for frames in zip(*chains, strict=False) if all(frame is frames[0] for frame in frames)]
    return shared[max(len(shared) - 2, 0)]

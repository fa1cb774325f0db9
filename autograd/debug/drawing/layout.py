"""Where the boxes of a drawing stand and how its arrows run, after Sugiyama, Tagawa and Toda 1981.

Each frame is laid out by itself, innermost first, and is then one large box in the frame around it. Boxes stand in
rows, every row below all that its boxes get arrows from. An arrow that passes rows by has a bend in each of them, which
takes a place like a box does: arrows slant only in the gaps between rows, and never cross a box. An arrow that crosses
the border of a frame has a port there, which both sides of the border share.
"""

import dataclasses
import itertools

from autograd.debug.drawing.boxes import Box, Frame
from autograd.debug.drawing.captions import ROWS, text_width
from autograd.debug.drawing.rows import SHORTCUT, WEIGHTS, Place, align, order

PADDING = 10  # between the border of a box or a frame and what is in it
MANY_BENDS = 20_000


@dataclasses.dataclass(eq=False, repr=False)
class Plan:
    """A frame laid out: its places (positions from its upper left corner), arrows through it and ports on its border.

    links: {(from item or None, value, to item or None, argument): the Places it passes}, None for the border; value is
    the Box whose result it carries. direct: the links that not only shortcuts use. inlets, outlets: {value: Place of
    the port}. spans: (top, bottom) of each row.
    """

    links: dict = dataclasses.field(default_factory=dict)
    direct: set = dataclasses.field(default_factory=set)
    places: dict = dataclasses.field(default_factory=dict)
    inlets: dict = dataclasses.field(default_factory=dict)
    outlets: dict = dataclasses.field(default_factory=dict)
    rows: list = dataclasses.field(default_factory=list)
    spans: list = dataclasses.field(default_factory=list)
    width: float = 0.0
    height: float = 0.0


def lay_out(root):
    """{Frame: Plan} for a drawing, all frames below `root` included."""
    around = dict(root.boxes())
    frames = dict.fromkeys(frame for frames in around.values() for frame in frames)
    plans = {frame: Plan() for frame in sorted(frames, key=lambda frame: -len(frame.path))}
    for box, frames in around.items():
        for i, (_, source) in enumerate(box.arrows):
            for frame, link in hops(source, around[source], box, frames, i):
                plans[frame].links[link] = None
                if source not in box.shortcuts:
                    plans[frame].direct.add(link)
    for frame, plan in plans.items():
        arrange(frame, plan, plans, titled=frame is not root)
    return plans


def hops(source, outer, target, inner, i):
    """The links that make up arrow i of a box, out of the source's frames and into the target's: (frame, link)."""
    shared = sum(1 for a, b in zip(outer, inner, strict=False) if a is b)
    leaving, entering = [*outer[shared:], source], [*inner[shared:], target]
    for frame, item in zip(reversed(leaving[:-1]), reversed(leaving[1:]), strict=True):
        yield frame, (item, source, None, None)
    slots = [*(None for _ in entering[1:]), i]
    yield inner[shared - 1], (leaving[0], source, entering[0], slots[0])
    for frame, item, slot in zip(entering[:-1], entering[1:], slots[1:], strict=True):
        yield frame, (None, source, item, slot)


def arrange(frame, plan, plans, titled):
    """Fill in the plan of one frame; those of the frames in it are ready."""
    first = 1 if titled else 0
    row_of = rows_of(frame.items, plan.links, first)
    for item in frame.items:
        width, height = (plans[item].width, plans[item].height) if isinstance(item, Frame) else size(item)
        plan.places[item] = Place(item, row_of[item], width, height)
    last = max(row_of.values()) + 1
    for source, value, target, _ in plan.links:
        if source is None:
            plan.inlets.setdefault(value, Place("port", 0))
        if target is None:
            plan.outlets.setdefault(value, Place("port", last))
    title = [Place("title", 0, text_width("title", ".".join(frame.path)), ROWS["title"][1])] if titled else []
    plan.rows = [[] for _ in range(last + 1 if plan.outlets else last)]
    for place in (*title, *plan.inlets.values(), *plan.places.values(), *plan.outlets.values()):
        plan.rows[place.row].append(place)
    route(plan, plans)
    order(plan.rows)
    align(plan.rows)
    stack(plan)


def rows_of(items, links, first):
    """{item: row}, each as high as what it depends on lets it; one that depends on nothing just above its first use."""
    above, below = {item: [] for item in items}, {item: [] for item in items}
    for source, _, target, _ in links:
        if source is not None and target is not None:
            above[target].append(source)
            below[source].append(target)
    entered = {target for source, _, target, _ in links if source is None}
    rows = {}
    for item in items:
        rows[item] = max((rows[source] + 1 for source in above[item]), default=first)
    for item in items:
        if not above[item] and item not in entered and below[item]:
            rows[item] = min(rows[target] for target in below[item]) - 1
    return rows


def size(box):
    """Width and height of a box, which its text never leaves."""
    width = max(text_width(style, text) for style, text in box.rows if style != "arguments") + 2 * PADDING
    arriving = len(box.arrows) * between_arrows(box) + PADDING
    return max(width, arriving, 64), sum(ROWS[style][1] for style, _ in box.rows) + PADDING


def between_arrows(box):
    """Distance of the points where arrows arrive: room for their names, if there are any; less if they are many."""
    named = [text_width("arguments", name) + 8 for name, _ in box.arrows if box.rows[0][0] == "arguments"]
    return max([36, *named]) if len(box.arrows) <= 6 else 8


def slot(box, i):
    """Where its arrow number i meets the top of a box, from its middle."""
    return between_arrows(box) * (i - (len(box.arrows) - 1) / 2)


def inlet(item, value, argument, plans):
    """Where an arrow meets the top of an item, from its middle."""
    if isinstance(item, Frame):
        return plans[item].inlets[value].x - plans[item].width / 2
    return slot(item, argument)


def outlet(item, value, plans):
    return plans[item].outlets[value].x - plans[item].width / 2 if isinstance(item, Frame) else 0.0


def verticals(link, plan, plans):
    """[(x, top, bottom)] of a link's way through the rows of its frame: down each place, curves go in between."""
    source, value, target, argument = link
    found = [[place.x, *plan.spans[place.row]] for place in plan.links[link]]
    if source is not None:
        found[0][0] += outlet(source, value, plans)
        found[0][1] = plan.places[source].y + plan.places[source].height
    if target is not None:
        found[-1][0] += inlet(target, value, argument, plans)
        found[-1][2] = plan.places[target].y
    return found


def route(plan, plans):
    """Give every link its places, with a bend in each row it passes; links with the same value share their bends."""
    bends, joined = {}, set()
    for link in plan.links:
        source, value, target, argument = link
        start = plan.inlets[value] if source is None else plan.places[source]
        end = plan.outlets[value] if target is None else plan.places[target]
        passed = [start]
        for row in range(start.row + 1, end.row):
            if (value, row) not in bends:
                bends[value, row] = Place(None, row)
                plan.rows[row].append(bends[value, row])
            passed.append(bends[value, row])
        if len(bends) > MANY_BENDS:
            raise ValueError(
                "draw: this graph is too tangled for a picture; name its parts with ag.scope and draw it with depth=1"
            )
        plan.links[link] = passed = [*passed, end]
        out = 0.0 if source is None else outlet(source, value, plans)
        into = 0.0 if target is None else inlet(target, value, argument, plans)
        for a, b in itertools.pairwise(passed):
            at_a, at_b = (out if a is start else 0.0), (into if b is end else 0.0)
            if (a, b, at_b) not in joined:
                joined.add((a, b, at_b))
                bent = (a.item is None) + (b.item is None)
                weight = WEIGHTS[bent] if link in plan.direct or bent == 2 else SHORTCUT
                a.down.append((b, at_b, at_a, weight))
                b.up.append((a, at_a, at_b, weight))


def stack(plan):
    """Set y of all rows and the size of the frame, and move everything so that its upper left corner is (0, 0)."""
    everything = [place for row in plan.rows for place in row]
    left = min(place.x - place.width / 2 for place in everything) - PADDING
    for place in everything:
        place.x = round(place.x - left, 1)
    plan.width = max(place.x + place.width / 2 for place in everything) + PADDING
    y = 0.0
    for row in plan.rows:
        height = max((place.height for place in row), default=0.0)
        for place in row:
            rests = isinstance(place.item, Box) and not place.up  # what nothing flows into stands near its use
            place.y = y + height - place.height if rests else y
        plan.spans.append((y, y + height))
        y += height
        slant = max((abs(b.x + at_b - a.x - at_a) for a in row for b, at_b, at_a, _ in a.down), default=0.0)
        y += 24 + min(0.06 * slant, 30) if row is not plan.rows[-1] else 0.0
    plan.height = y if plan.outlets else y + PADDING

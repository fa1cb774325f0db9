"""A laid out drawing as SVG. It has a background of its own, so it reads on light pages and on dark ones."""

import itertools
from html import escape

from autograd.debug.drawing.boxes import Frame
from autograd.debug.drawing.captions import CELL, ROWS, quantity, shortened, text_width
from autograd.debug.drawing.layout import PADDING, hops, lay_out, size, slot, verticals
from autograd.engine import describe

MARGIN = 16
HEADER = 24
LEGEND = 30
HEAD = 7  # length of an arrow's head
FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace"
STYLE = f"""
.autograd-graph {{ font-family: {FONT}; }}
.autograd-graph text {{ fill: #1f2733; white-space: pre; }}
.autograd-graph .paper {{ fill: #ffffff; }}
.autograd-graph .frame > rect {{ fill: #59677f; fill-opacity: .055; stroke: #b3bccb; }}
.autograd-graph .op > rect {{ fill: #eaf1fb; stroke: #5b82bd; }}
.autograd-graph .layer > rect {{ fill: #f1ebfb; stroke: #7f5fb8; stroke-width: 1.6; }}
.autograd-graph .leaf > rect {{ fill: #e6f4e8; stroke: #4e8f5b; }}
.autograd-graph rect.held {{ fill: #d3ecd7; stroke: none; }}
.autograd-graph .arrow path {{ fill: none; stroke: #66738a; stroke-width: 1.3; }}
.autograd-graph .arrow polygon {{ fill: #66738a; }}
.autograd-graph .shortcut path {{ stroke: #c85a11; stroke-width: 2; }}
.autograd-graph .shortcut polygon {{ fill: #c85a11; }}
.autograd-graph text.name, .autograd-graph text.header {{ font-weight: 600; }}
.autograd-graph text.layer, .autograd-graph text.title {{ fill: #6a4aa3; }}
.autograd-graph text.shape, .autograd-graph text.small, .autograd-graph text.legend {{ fill: #4a5568; }}
.autograd-graph text.arguments {{ fill: #66738a; }}
.autograd-graph text.leaf {{ fill: #28613a; }}
.autograd-graph .arrow:hover path {{ stroke-width: 3.5; }}
""".strip()


def render(root):
    """The drawing of a Frame from `boxes.gather`, as the text of an SVG file."""
    boxes = [box for box, _ in root.boxes()]
    plans = lay_out(root)
    corners = corners_of(root, plans)
    names = {box: f"b{i}" for i, box in enumerate(boxes)}
    title, legend = summary(root), legend_entries(boxes)
    words = max(len(title) * CELL * ROWS["name"][0], sum(entry_width(text) for _, text in legend))
    width = max(plans[root].width, words) + 2 * MARGIN
    height = plans[root].height + HEADER + LEGEND + 2 * MARGIN
    frames = [frame_svg(frame, *corner, plans[frame]) for frame, corner in corners.items() if isinstance(frame, Frame)]
    body = "\n".join(
        [*frames, *arrows_svg(root, plans, corners, names), *(box_svg(box, *corners[box], names[box]) for box in boxes)]
    )
    return f"""<svg xmlns="http://www.w3.org/2000/svg" class="autograd-graph" role="img" aria-label="{xml(title)}" \
width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">
<title>{xml(title)}</title>
<style>{STYLE}</style>
<rect class="paper" width="100%" height="100%" rx="8"/>
{text_svg("header", ROWS["name"][0], MARGIN, MARGIN + 12, title, "start")}
<g transform="translate({(width - plans[root].width) / 2:g} {MARGIN + HEADER})">
{body}
</g>
{legend_svg(legend, height - MARGIN - 6)}
</svg>
"""


def summary(root):
    """What is drawn, in one line."""
    boxes = [box for box, _ in root.boxes()]
    ops = [node for box in boxes for node in box.nodes]
    leaves = sum(len(box.leaves) for box in boxes)
    counts = f"{leaves} {'leaf' if leaves == 1 else 'leaves'} ({quantity(sum(b.parameters for b in boxes), 'number')})"
    if not ops:
        return counts
    last = max(ops, key=lambda node: node.number)
    merged = f" in {len(boxes)} boxes" if any(box.kind == "layer" for box in boxes) else ""
    return f"{last.name} {describe(last)}: {quantity(len(ops), 'op')}{merged}, {counts}"


def corners_of(root, plans):
    """{frame or box: its upper left corner}, outer frames first; the root's own, which is not drawn, left out."""
    corners, todo = {root: (0.0, 0.0)}, [root]
    for frame in todo:
        x, y = corners[frame]
        for item, place in plans[frame].places.items():
            corners[item] = x + place.x - place.width / 2, y + place.y
            todo += [item] if isinstance(item, Frame) else []
    del corners[root]
    return corners


def frame_svg(frame, x, y, plan):
    path = xml(".".join(frame.path))
    return (
        f'<g class="frame" data-path="{path}">{rect_svg(x, y, plan.width, plan.height, 8)}'
        f"{text_svg('title', ROWS['title'][0], x + PADDING, y + 14, shortened('.'.join(frame.path)), 'start')}</g>"
    )


def arrows_svg(root, plans, corners, names):
    """All arrows, shortcuts last and so on top."""
    around, plain, shortcuts = dict(root.boxes()), [], []
    for target, frames in around.items():
        for i, (argument, source) in enumerate(target.arrows):
            segments = []
            for frame, link in hops(source, around[source], target, frames, i):
                x, y = corners.get(frame, (0.0, 0.0))
                segments += [(x + at, y + top, y + bottom) for at, top, bottom in verticals(link, plans[frame], plans)]
            short = source in target.shortcuts
            kind = "arrow shortcut" if short else "arrow"
            data = f'data-from="{names[source]}" data-to="{names[target]}" data-argument="{xml(argument or "")}"'
            (shortcuts if short else plain).append(f'<g class="{kind}" {data}>{line_svg(segments)}</g>')
    return plain + shortcuts


def line_svg(segments):
    """An arrow down vertical segments [(x, top, bottom)], with smooth curves in the gaps between them."""
    x, end, _ = segments.pop()
    segments.append((x, end - HEAD, end - HEAD))
    left, top, _ = segments[0]
    path = f"M{left:.1f} {top:.1f}"
    for (x0, _, y0), (x1, y1, _) in itertools.pairwise(segments):
        bend = (y1 - y0) / 2
        if abs(x0 - x1) >= 0.1:
            path += f"V{y0:.1f}C{x0:.1f} {y0 + bend:.1f} {x1:.1f} {y1 - bend:.1f} {x1:.1f} {y1:.1f}"
    path += f"V{end - HEAD:.1f}"
    head = f"{x - 4:.1f},{end - HEAD - 1:.1f} {x + 4:.1f},{end - HEAD - 1:.1f} {x:.1f},{end:.1f}"
    return f'<path d="{path}"/><polygon points="{head}"/>'


def legend_entries(boxes):
    """[(style, text)] for what this drawing has."""
    kinds = {box.kind for box in boxes}
    held = any(style == "leaf" for box in boxes for style, _ in box.rows)
    entries = {
        "op": ("op" in kinds, "op: name, result"),
        "layer": ("layer" in kinds, "layer of several ops"),
        "leaf": ("leaf" in kinds or held, "leaf: gets a gradient"),
        "shortcut": (any(box.shortcuts for box in boxes), "shortcut past other ops"),
    }
    return [(style, text) for style, (shown, text) in entries.items() if shown]


def entry_width(text):
    return text_width("small", text) + 44


def legend_svg(entries, y):
    """One line below the drawing."""
    parts, x = [], MARGIN
    for style, text in entries:
        if style == "shortcut":
            mark = f'<g class="arrow shortcut"><path d="M{x:.1f} {y - 4:.1f}h18"/></g>'
        else:
            mark = f'<g class="{style}">{rect_svg(x, y - 10, 18, 12, 6 if style == "leaf" else 3)}</g>'
        parts.append(mark + text_svg("legend", ROWS["small"][0], x + 24, y, text, "start"))
        x += entry_width(text)
    return f'<g class="legend">{"".join(parts)}</g>'


def box_svg(box, x, y, name):
    """One box: its lines from top to bottom, leaves on green, all else in the tooltip."""
    width, height = size(box)
    middle, line, parts = x + width / 2, y + PADDING / 2, []
    for style, text in box.rows:
        font, step = ROWS[style]
        if style == "leaf":
            parts.append(rect_svg(x + 4, line + 1, width - 8, step - 2, 3, "held"))
        if style == "arguments":
            for i, (argument, _) in enumerate(box.arrows):
                parts.append(text_svg(style, font, middle + slot(box, i), line + font - 1, shortened(argument)))
        else:
            parts.append(text_svg(style, font, middle, line + step - 4, shortened(text)))
        line += step
    outline = rect_svg(x, y, width, height, 4 if box.nodes else min(height / 2, 14))
    return (
        f'<g class="{box.kind}" data-id="{name}" data-ops="{len(box.nodes)}" data-parameters="{box.parameters}" '
        f'data-path="{xml(".".join(box.path))}"><title>{xml(box.tooltip)}</title>{outline}{"".join(parts)}</g>'
    )


def xml(text):
    """Text fit for XML: `<lambda>` escaped, control characters, which XML cannot have, as question marks."""
    return escape("".join(c if c.isprintable() or c == "\n" else "?" for c in text))


def rect_svg(x, y, width, height, radius, style=""):
    style = f' class="{style}"' if style else ""
    return f'<rect{style} x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius:g}"/>'


def text_svg(style, size, x, y, text, anchor="middle"):
    return (
        f'<text class="{style}" x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" text-anchor="{anchor}">{xml(text)}</text>'
    )

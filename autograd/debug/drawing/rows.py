"""The order of the places in each row, so that few arrows cross, and their x, so that most arrows are straight."""

import bisect
import dataclasses
import itertools

from autograd.debug.drawing.boxes import Frame

BETWEEN = 18  # between neighbours in a row
WEIGHTS = 1.0, 0.5, 8.0  # how straight a piece of an arrow is to be: with no bend, a bend at one end, two bends
SHORTCUT = 0.001  # and the first and the last piece of a shortcut
SWEEPS = 24
NEARLY = 40  # pixels that a bend moves to be straight below another


@dataclasses.dataclass(eq=False, repr=False)
class Place:
    """A box, a frame, "title", "port" or (item None) a bend of an arrow: its row, the middle of its width, its top.

    up, down: [(neighbour in the row above or below, where the arrow meets it, where it meets this, weight)], both
    counted from the middle. Heavy arrows are kept straight.
    """

    item: object
    row: int
    width: float = 0.0
    height: float = 0.0
    x: float = 0.0
    y: float = 0.0
    order: int = 0
    up: list = dataclasses.field(default_factory=list)
    down: list = dataclasses.field(default_factory=list)


def order(rows):
    """Sort every row so that few arrows cross: by the mean of the neighbours above and of those below, in turns."""
    number(rows)
    best, fewest = [list(row) for row in rows], crossings(rows)
    for sweep in range(SWEEPS):
        if fewest == 0:
            break
        down = sweep % 2 == 0
        for row in rows[1:] if down else rows[-2::-1]:
            row.sort(key=lambda place: barycenter(place, place.up if down else place.down))
            for i, place in enumerate(row):
                place.order = i
        if (now := crossings(rows)) < fewest:
            best, fewest = [list(row) for row in rows], now
    rows[:] = best
    number(rows)


def number(rows):
    for row in rows:
        for i, place in enumerate(row):
            place.order = i


def barycenter(place, neighbours):
    """A title stays at the left."""
    if place.item == "title":
        return -1.0
    if not neighbours:
        return float(place.order)
    return sum(position(other, at) for other, at, _, _ in neighbours) / len(neighbours)


def position(place, at):
    """A number that sorts like the points where arrows meet the boxes of a row."""
    return place.order + at / (place.width + 1)


def crossings(rows):
    """How many pairs of arrows cross."""
    count = 0
    for row in rows:
        ends = sorted((position(a, at_a), position(b, at_b)) for a in row for b, at_b, at_a, _ in a.down)
        seen = []
        for _, end in ends:
            count += len(seen) - bisect.bisect_right(seen, end)
            bisect.insort(seen, end)
    return count


def align(rows):
    """Set x: every place as straight above and below its neighbours as the others in its row let it.

    First by means, which move whole columns together, then by medians, which gather what cannot be straight in few
    places: from above or below in turns, then from both, at last from above.
    """
    for row in rows:
        x = 0.0
        for a, b in itertools.pairwise([None, *row]):
            x += gap(a, b) if a else 0.0
            b.x = x
    for sweep in range(4 * SWEEPS):
        middle = mean if sweep < 3 * SWEEPS else median
        down = sweep % 2 == 0
        for row in rows if down else rows[::-1]:
            settle(row, [target_x(place, sweep < SWEEPS, down, middle) for place in row])
    for row in rows:
        settle(row, [hung(place) for place in row])
    for title, *others in rows[:1]:
        if title.item == "title":
            left = min(place.x - place.width / 2 for row in rows for place in row if place is not title)
            title.x = min([left + title.width / 2] + [place.x - gap(title, place) for place in others[:1]])


def target_x(place, one_side, down, middle):
    """(x, weight): where a place would like to be, and how much."""
    neighbours = (place.up if down else place.down) if one_side else place.up + place.down
    if not neighbours:
        return place.x, 0.001
    return middle([(straight(place, *arrow), arrow[-1]) for arrow in neighbours])


def straight(place, other, at, own, _):
    """The x at which a place would be straight above or below another; on boxes arrows aim at the middle."""
    at_port = isinstance(other.item, Frame) * at
    return other.x + at_port - isinstance(place.item, Frame) * own


def hung(place):
    """The last word: a box straight below what it comes from; a bend where it is, or there if it almost is."""
    if not place.up:
        return place.x, 1.0
    x, _ = median([(straight(place, *arrow), arrow[-1]) for arrow in place.up])
    return (x, 1.0) if place.item is not None else (x if abs(x - place.x) < NEARLY else place.x, WEIGHTS[2])


def mean(wishes):
    total = sum(weight for _, weight in wishes)
    return sum(x * weight for x, weight in wishes) / total, total


def median(wishes):
    """The weighted median, half way if two share it, and the sum of weights."""
    wishes = sorted(wishes)
    total = sum(weight for _, weight in wishes)
    below = list(itertools.accumulate(weight for _, weight in wishes))
    i = bisect.bisect_left(below, total / 2)
    return ((wishes[i][0] + wishes[i + 1][0]) / 2 if below[i] == total / 2 else wishes[i][0]), total


def settle(row, wishes):
    """Set x of a row, in its order and with its gaps, as near to the wishes (x, weight) as can be: least squares.

    With the gaps taken out this is isotonic regression: neighbours that want to pass each other move together.
    """
    shift, blocks = 0.0, []  # block: [weighted mean, weight, count]
    shifts = []
    for i, (x, weight) in enumerate(wishes):
        shift += gap(row[i - 1], row[i]) if i else 0.0
        shifts.append(shift)
        blocks.append([x - shift, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            mean, w, n = blocks.pop()
            before = blocks[-1]
            before[0] = (before[0] * before[1] + mean * w) / (before[1] + w)
            before[1] += w
            before[2] += n
    places = iter(zip(row, shifts, strict=True))
    for mean, _, n in blocks:
        for place, shift in itertools.islice(places, n):
            place.x = mean + shift


def gap(a, b):
    """Least distance between the middles of neighbours in a row."""
    return (a.width + b.width) / 2 + (BETWEEN if a.item is not None or b.item is not None else 10)

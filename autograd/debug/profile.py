"""Where the time goes: forward and backward of each op, and what is left for the engine and for Python."""

import collections
import contextlib
import dataclasses
import time

from autograd.arrays import synchronize
from autograd.context import context
from autograd.debug.tables import layer_name, table
from autograd.kernels import kernels_used


@contextlib.contextmanager
def profile():
    """`with profile() as times:` around a step, or better a few; then `print(times)`, `print(times.by_layer(2))`.

    Time is exclusive: what `recompute` runs again in its pullback counts for those ops, as further forward calls and
    their time. So all rows, and what was spent outside ops (the engine, the model's Python, an optimizer), add up to
    the block.

    Looking at the clock costs some microseconds an op. A GPU is waited for before and after each op, so host and device
    take turns, and the block takes longer than without. Ops of this thread are timed; which kernels ran is counted for
    the whole process.
    """
    run, pull = context.run, context.pull
    times = Profile()

    def timed_run(op, arrays, options):
        times.begin("forward", op.name, context.path, arrays)
        try:
            return run(op, arrays, options)
        finally:
            times.end(arrays)

    def timed_pull(node, dy):
        times.begin("backward", node.name, node.path, [dy])
        try:
            return pull(node, dy)
        finally:
            times.end([dy])

    with context.set(run=timed_run, pull=timed_pull):
        try:
            yield times
        finally:
            times.close()


class Profile:
    """What `profile()` measured: by_op() and by_layer(); printed it is by_op()."""

    def __init__(self):
        self.spent = {}  # (phase, op, path) -> [calls, seconds]
        self.running = []  # those entries whose ops are running, innermost last
        self.kernels_before, self.kernels_after = kernels_used(), None
        self.started = self.last = time.perf_counter()
        self.stopped = None

    def begin(self, phase, op, path, arrays):
        """An op starts: until it ends, time is its own and not that of an op around it."""
        synchronize(*arrays)
        self.read_clock()
        entry = self.spent.setdefault((phase, op, path), [0, 0.0])
        entry[0] += 1
        self.running.append(entry)

    def end(self, arrays):
        synchronize(*arrays)
        self.read_clock()
        self.running.pop()

    def read_clock(self):
        """The time since the last reading belongs to the innermost op that runs."""
        now = time.perf_counter()
        if self.running:
            self.running[-1][1] += now - self.last
        self.last = now

    def close(self):
        self.stopped, self.kernels_after = time.perf_counter(), kernels_used()

    def by_op(self):
        """One row for each op, with the kernels that ran it."""
        before, after = self.kernels_before, self.kernels_after or kernels_used()
        rows = self.rows(lambda path, op: ("", op))
        for row in rows:
            nothing = collections.Counter()
            row.kernels = after.get(row.op, nothing) - before.get(row.op, nothing)
        return rows

    def by_layer(self, depth=None, each=False):
        """One row for each layer, `depth` parts of its path long; blocks of one kind are summed unless `each`."""
        return self.rows(lambda path, op: (layer_name(path, depth, each) or "(no layer)", ""))

    def rows(self, key):
        """Rows by `key(path, op)`, which gives (layer, op)."""
        rows = {}
        for (phase, op, path), (calls, seconds) in self.spent.items():
            place = key(path, op)
            row = rows.setdefault(place, Row(*place))
            setattr(row, phase, getattr(row, phase) + seconds)
            setattr(row, f"{phase}_calls", getattr(row, f"{phase}_calls") + calls)
        return Rows(rows.values(), (self.stopped or time.perf_counter()) - self.started)

    def __str__(self):
        return str(self.by_op())

    __repr__ = __str__


@dataclasses.dataclass
class Row:
    """One line of a table: calls, and the seconds in them. kernels: what ran forward, and how often."""

    layer: str
    op: str
    forward_calls: int = 0
    backward_calls: int = 0
    forward: float = 0.0
    backward: float = 0.0
    kernels: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    @property
    def seconds(self):
        return self.forward + self.backward


class Rows(list):
    """Rows, the slowest first. Prints as a table in milliseconds whose columns add up.

    total: seconds that the block took. in_ops, outside: of these, inside and outside of ops.
    """

    def __init__(self, rows, total):
        super().__init__(sorted(rows, key=lambda row: -row.seconds))
        self.total = total
        self.in_ops = sum(row.seconds for row in self)
        self.outside = total - self.in_ops

    def __str__(self):
        first = "layer " if any(row.layer for row in self) else "op "
        header = [first, "calls", "back", "forward ms", "backward ms", "both ms", "share", "kernels "]
        lines = [[row.layer or row.op, *self.figures([row]), counted(row.kernels)] for row in self]
        lines.append(["all ops", *self.figures(self), ""])
        for name, seconds in (("outside ops", self.outside), ("the block", self.total)):
            lines.append([name, "", "", "", "", *self.shared(seconds), ""])
        return "\n".join(table(header, lines))

    def figures(self, rows):
        """Calls forward and backward, times, and the share of some rows together."""
        calls = sum(row.forward_calls for row in rows), sum(row.backward_calls for row in rows)
        seconds = sum(row.forward for row in rows), sum(row.backward for row in rows)
        return [*map(str, calls), *map(milliseconds, seconds), *self.shared(sum(seconds))]

    def shared(self, seconds):
        return [milliseconds(seconds), f"{seconds / self.total:.1%}"]


def milliseconds(seconds):
    return f"{1000 * seconds:.2f}"


def counted(kernels):
    """`numba 24`, or `numba declined 20, reference 20, numba 4`."""
    return ", ".join(f"{name} {calls}" for name, calls in kernels.most_common())

"""Where the memory goes: what a graph keeps alive until backward, and how far above that the step rises."""

import contextlib
import dataclasses
import threading

from autograd.context import context
from autograd.debug.high_water import HighWater, Moment
from autograd.debug.kept import Kept
from autograd.debug.tables import in_bytes, layer_name, table, unit_of
from autograd.engine import Tensor

one_at_a_time = threading.Lock()


@contextlib.contextmanager
def ledger():
    """`with ledger() as book:` around a forward pass, or a whole step; then `print(book)`.

    Kept are the arrays that pullbacks name, from the op's forward until its pullback has run: each base buffer once,
    however many views and ops share it. Memory that no op in the block made (weights, a batch) is there anyway and not
    counted. Transient is everything else that is alive while ops run: results that nobody saves, temporaries inside
    an op, gradients on their way, and all that `recompute` runs again during backward.

    book.bytes: the most that was kept at any moment, normally at the end of the forward pass. book.transient: how far
    the highest use of memory rises above that, book.where: in which op. Together, book.peak, they are what the block
    needs beyond what was there when its first op ran, and beyond book.gradients: those of leaves that own no buffer
    (a ParameterStore gives every leaf one). book.by_op(), by_layer() and by_layer_and_op() are the tables, and also
    show the largest transient of each op by itself, the most in use beyond what was kept at that moment. The peak is
    rarely that much higher than the ledger: where little is kept any longer, there is room.

    Measured is the memory of the first op's arrays. On the CPU tracemalloc does it, which slows the step, resets a peak
    that you measure with it yourself and does not see what compiled code allocates for itself; on a GPU a hook of
    CuPy's memory pool. What other threads allocate on the CPU shows as transient, so does an optimizer's step inside
    the block, and only one ledger can be open at a time. No array lives longer because of it.
    """
    if not one_at_a_time.acquire(blocking=False):
        raise RuntimeError("another ledger is open; only one can watch the highest use of memory")
    book = Ledger()
    try:
        with context.set(**hooks(book.kept, book.water)):
            yield book
    finally:
        book.close()
        one_at_a_time.release()


def hooks(kept, water):
    """What the engine does with an op, with our notes around it."""
    run, record, pull = context.run, context.record, context.pull

    def watched_run(op, arrays, options):
        recorded, outermost = any(context.needs), not water.running
        water.begin("forward", op.name, context.path, arrays)
        if outermost:
            with water.unseen():
                kept.meet((*arrays, *options.values()), outside=True)
        try:
            y, vjp = run(op, arrays, options)
        finally:
            water.end()
        if outermost:
            with water.unseen():
                kept.meet([y], outside=False)
        if not recorded:
            water.settle(kept.now)
        return y, vjp

    def noted_record(name, arguments, y, parents, vjp):
        node = record(name, arguments, y, parents, vjp)
        water.start(y)
        if not water.running:  # what runs again in a pullback goes with it
            with water.unseen():
                kept.meet([leaf.data for leaf in parents if isinstance(leaf, Tensor)], outside=True)
                kept.meet([y], outside=False)
                kept.keep(node)
            water.settle(kept.now)
        return node

    def watched_pull(node, dy):
        water.begin("backward", node.name, node.path, [dy])
        if len(water.running) == 1:
            water.expect(node.parents)
        try:
            dxs = pull(node, dy)
        finally:
            water.end()
            water.settle(kept.now)
        with water.unseen():
            kept.release(id(node))
        return dxs

    return {"run": watched_run, "record": noted_record, "pull": watched_pull}


@dataclasses.dataclass
class Row:
    """One line of a table.

    kept: bytes, in `calls` calls. forward, backward: the largest transient while one such call ran, the most in use
    minus what was kept then. saves: `name float32[2, 3]` -> Saved.
    """

    layer: str
    op: str
    calls: int = 0
    kept: int = 0
    forward: int = 0
    backward: int = 0
    saves: dict = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Saved:
    """Arrays of one name and shape: their bytes, and which other layers (or ops outside any) hold them too."""

    nbytes: int = 0
    sharers: list = dataclasses.field(default_factory=list)


class Rows(list):
    """Rows, the largest first. Prints as a table, without the columns of text in which nothing stands.

    Its last two columns of numbers, + forward and + backward, are the largest transient of one call.
    """

    def __init__(self, rows):
        super().__init__(sorted(rows, key=lambda row: -row.kept))

    def __str__(self):
        total = sum(row.kept for row in self)
        unit = unit_of(max([total, *(max(row.forward, row.backward) for row in self)]))
        columns = {
            f"kept {unit[0]}": [in_bytes(row.kept, unit) for row in self],
            "share": [f"{row.kept / max(total, 1):.1%}" for row in self],
            "calls": [str(row.calls) for row in self],
            "layer ": [row.layer for row in self],
            "op ": [row.op for row in self],
            "+ forward": [in_bytes(row.forward, unit) for row in self],
            "+ backward": [in_bytes(row.backward, unit) for row in self],
            "saves ": [shown(row.saves) for row in self],
        }
        columns = {title: cells for title, cells in columns.items() if any(cells)}
        return "\n".join(table(list(columns), zip(*columns.values(), strict=True)))


def shown(saves):
    """`rows float32[8, 4] (also key, value), …`"""
    largest = sorted(saves.items(), key=lambda item: -item[1].nbytes)
    parts = [what + (f" (also {', '.join(array.sharers)})" if array.sharers else "") for what, array in largest]
    return ", ".join(parts[:3] + ["…"] * (len(parts) > 3))


class Ledger:
    """What `ledger()` found; it says what the attributes are."""

    def __init__(self):
        self.kept, self.water = Kept(), HighWater()

    bytes = property(lambda self: self.kept.most)
    peak = property(lambda self: max(self.water.peak, self.kept.most))
    transient = property(lambda self: self.peak - self.bytes)
    where = property(lambda self: self.water.where)
    gradients = property(lambda self: self.water.gradients)

    @property
    def outside(self):
        """Bytes of weights, batches and other memory that ops saved and none of them made."""
        buffers = {b for entry in self.kept.entries() for _, _, b in entry.saved if b.outside}
        return sum(buffer.nbytes for buffer in buffers)

    def by_op(self):
        """One row for each op."""
        return self.rows(lambda path, op: ("", op))

    def by_layer(self, depth=None, each=False):
        """One row for each layer, `depth` parts of its path long; blocks of one kind summed unless `each`."""
        return self.rows(lambda path, op: (layer_name(path, depth, each) or "(no layer)", ""))

    def by_layer_and_op(self, depth=None, each=False):
        """One row for each op in each layer."""
        return self.rows(lambda path, op: (layer_name(path, depth, each), op))

    def rows(self, key):
        """Rows by `key(path, op)`, which gives (layer, op). A shared buffer counts for the op that saved it first."""
        rows, first = {}, {}  # first: Buffer -> the entry and the Saved that it was counted in
        for entry in self.kept.entries():
            where = key(entry.path, entry.op)
            row = rows.setdefault(where, Row(*where))
            row.calls += 1
            for name, what, buffer in entry.saved:
                if buffer.outside:
                    continue
                if buffer not in first:
                    first[buffer] = entry, row.saves.setdefault(f"{name} {what}", Saved())
                    first[buffer][1].nbytes += buffer.nbytes
                    row.kept += buffer.nbytes
                owner, array = first[buffer]
                sharer = entry.path[-1] if entry.path else entry.op
                if owner is not entry and sharer not in array.sharers:
                    array.sharers.append(sharer)
        for (phase, op, path), transient in self.water.transients.items():
            where = key(path, op)
            row = rows.setdefault(where, Row(*where))
            setattr(row, phase, max(getattr(row, phase), transient))
        return Rows(rows.values())

    @property
    def largest_transient(self):
        """(bytes, "backward of gelu, layer …"): the most that one op had in use beyond what was kept while it ran."""
        key = max(self.water.transients, key=self.water.transients.get, default=None)
        return (self.water.transients[key], str(Moment(*key))) if key else (0, "")

    def __str__(self):
        if self.water.newest is None:
            return "no op ran"
        rows = self.by_layer_and_op()
        most, during = self.largest_transient
        summary = {
            "kept for backward": f"{in_bytes(self.bytes)}, by {sum(row.calls for row in rows)} recorded ops",
            "peak": f"{in_bytes(self.peak)}, {in_bytes(self.transient)} above what is kept, {self.where}",
            "largest transient": f"{in_bytes(most)} beyond what was kept at that moment, in {during}",
            "not counted": self.outside and f"{in_bytes(self.outside)} that no op here made: weights, a batch",
            "new gradients": self.gradients and f"{in_bytes(self.gradients)}, of leaves that own no buffer",
            "keep nothing": ", ".join(row.op for row in self.by_op() if not row.kept),
        }
        lines = [f"{title:<19}{text}" for title, text in summary.items() if text]
        kept = Rows(row for row in rows if row.kept)
        return "\n".join([*lines, "", str(kept)] if kept else lines)

    __repr__ = __str__

    def close(self):
        """The block has ended: look on no longer."""
        self.water.close()
        self.kept.forget()

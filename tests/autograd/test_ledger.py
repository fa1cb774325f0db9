"""What the ledger says is kept is what is kept, to the byte where a person can count, and as tracemalloc sees it."""

import gc
import threading
import tracemalloc
import types
import weakref

import numpy as np
import pytest

import autograd as ag
from autograd import arrays
from autograd.context import context
from autograd.engine import Tensor, primitive
from tinyllm.models import Decoder, decoder, gpt2, llama
from tinyllm.training import AdamW, ParameterStore

N = 1000
ARRAY = 8 * N  # bytes of N float64
MEGABYTE = 10**6


def leaf(n=N):
    return Tensor(np.linspace(0.5, 1.5, n), requires_grad=True)


def kept(compute, *inputs):
    """The ledger of a forward pass whose graph is held to the end."""
    with ag.debug.ledger() as book:
        result = compute(*inputs)
    del result
    return book


# Byte counts worked out by hand. `x + 1` is an array that an op made and that `add` does not save.


def test_multiply_saves_both():
    assert kept(lambda x: (x + 1) * (x + 2), leaf()).bytes == 2 * ARRAY


def test_one_array_under_two_names_counts_once():
    def square(x):
        a = x + 1
        return a * a

    assert kept(square, leaf()).bytes == ARRAY


def test_a_view_keeps_its_whole_base_and_views_share_it():
    def of_views(x):
        a = x + 1
        return a[:10] * a.reshape(10, -1).transpose(1, 0)[:10, 0]

    book = kept(of_views, leaf())
    assert book.bytes == ARRAY
    assert "float64[10] of float64[1000]" in str(book)


def test_a_part_that_is_saved_keeps_the_whole_that_nobody_has_seen():
    @primitive
    def first_of_two(x):
        y = np.concatenate([x, x])[:10]

        def vjp(dy):
            return (np.full(x_shape, y.sum() * dy.sum()),)

        x_shape = x.shape
        return y, vjp

    assert kept(first_of_two, leaf()).bytes == 2 * ARRAY


def test_two_ops_share_a_buffer_which_counts_for_the_first():
    def shared(x):
        y = ag.exp(x)  # saves y
        return y * (x + 1)  # saves y and x + 1

    book = kept(shared, leaf())
    assert book.bytes == 2 * ARRAY
    rows = {row.op: row for row in book.by_op()}
    assert (rows["exp"].kept, rows["multiply"].kept, rows["add"].kept) == (ARRAY, ARRAY, 0)
    assert [array.sharers for array in rows["exp"].saves.values()] == [["multiply"]]
    assert "(also multiply)" in str(book)


def test_what_a_frozen_input_would_have_saved_is_not_kept():
    def times_constant(x):
        constant = Tensor(np.ones(N)) + 1.0
        return (x + 1) * constant  # dx needs the constant; nobody needs x + 1

    book = kept(times_constant, leaf())
    assert book.bytes == ARRAY
    assert [list(row.saves) for row in book.by_op() if row.kept] == [["b float64[1000]"]]


def test_no_grad_keeps_nothing():
    def without(x):
        with ag.no_grad():
            return (x + 1) * (x + 2)

    assert kept(without, leaf()).bytes == 0


def test_weights_and_batches_are_not_counted_but_told():
    rows, weight = Tensor(np.ones((20, 10))), Tensor(np.ones((30, 10)), requires_grad=True)
    book = kept(ag.linear, rows, weight)
    assert (book.bytes, book.outside) == (0, rows.data.nbytes)  # no gradient for rows, so the weight is not saved
    x = Tensor(np.ones((20, 10)), requires_grad=True)
    book = kept(lambda x: ag.linear(x, weight), x)
    assert (book.bytes, book.outside) == (0, x.data.nbytes + weight.data.nbytes)
    assert "not counted" in str(book)


def test_recompute_keeps_its_inputs():
    def block(x):
        return ag.exp(ag.exp(x * 1e-3) * (x + 1))

    def plain(x):
        return block(x + 1).sum()

    def again(x):
        return ag.recompute(block, x + 1).sum()

    assert kept(plain, leaf()).bytes == 3 * ARRAY  # two results of exp and x + 1
    assert kept(again, leaf()).bytes == ARRAY
    with ag.debug.ledger() as book:
        again(leaf()).backward()
    assert book.bytes == ARRAY
    assert 3 * ARRAY < book.transient < 9 * ARRAY
    assert "in backward of recompute(block)" in book.where


def test_recompute_of_a_function_without_ops():
    with ag.debug.ledger() as book:
        ag.recompute(lambda x: x, leaf()).sum().backward()
    assert book.bytes == 0


def test_the_most_that_is_kept_at_a_time_not_the_sum():
    x, held = leaf(), []
    with ag.debug.ledger() as book:
        for _ in range(3):
            product = (x + 1) * (x + 2)
            product.sum().backward()
            held.append(product)  # its node lives, what that saved does not
            del product
    assert book.bytes == 2 * ARRAY
    assert sum(row.kept for row in book.by_op()) == book.bytes
    with ag.debug.ledger() as book:
        held = [((x + 1) * (x + 2)).sum() for _ in range(3)]  # three graphs at once
    assert book.bytes == 6 * ARRAY
    assert sum(row.kept for row in book.by_op()) == book.bytes


def test_a_graph_that_is_dropped_without_backward_is_kept_no_more():
    x = leaf()
    with ag.debug.ledger() as book:
        for _ in range(3):
            y = (x + 1) * (x + 2)
            del y
    assert book.bytes == 2 * ARRAY
    assert {row.op: row.calls for row in book.by_op()} == {"add": 2, "multiply": 1}


def test_an_address_that_is_used_again_is_another_buffer():
    weight = leaf()
    with ag.debug.ledger() as book:
        for _ in range(30):  # what is an input's memory now is a result's memory in the next round
            given = Tensor(np.ones(N))
            a = given + weight
            del given
            b = a + 1
            del a
            y = b * b
            assert book.kept.now == ARRAY
            del b, y


# Against the allocator. Every figure comes from a run without a ledger.


SIZES = {"vocab_size": 256, "hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 12}
MODELS = {
    "gpt2": (gpt2, {}),
    "llama": (llama, {"num_key_value_heads": 1}),
    "dropout": (gpt2, {"dropout": 0.1}),
    "large vocabulary": (gpt2, {"vocab_size": 8192}),
    "loss in pieces": (llama, {"vocab_size": 8192}),
}


@pytest.fixture(params=MODELS)
def step(request, monkeypatch):
    """A function that runs forward; gradients lie in a store, the optimizer's state exists."""
    family, changes = MODELS[request.param]
    if request.param == "loss in pieces":
        monkeypatch.setattr(decoder, "CHUNK", 2**20)  # four pieces
    model = Decoder(family.config(**SIZES | {"max_position_embeddings": 128} | changes))
    ids = np.random.default_rng(0).integers(0, 256, (4, 129))
    store = ParameterStore(model)
    optimizer = AdamW(store, lr=1e-3)

    def forward():
        store.zero()
        return model.loss(ids[:, :-1], ids[:, 1:], dropout_seed=np.arange(4))

    forward().backward()
    store.clip(1.0)
    optimizer.step()
    return forward


def traced(forward):
    """(bytes at the end of forward, bytes at the highest during forward and backward), by tracemalloc alone."""
    gc.collect()
    tracemalloc.start()
    try:
        loss = forward()
        at_the_end = tracemalloc.get_traced_memory()[0]
        loss.backward()
        return at_the_end, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_deep_model_keeps_and_needs_what_tracemalloc_sees(step):
    with ag.debug.ledger() as book:
        step().backward()
    at_the_end, peak = traced(step)
    assert book.bytes > 20 * MEGABYTE
    assert book.bytes == pytest.approx(at_the_end, rel=0.02)
    assert book.bytes + book.transient == pytest.approx(peak, rel=0.10)
    assert book.transient > 0.02 * MEGABYTE
    assert book.gradients == 0
    for rows in (book.by_op(), book.by_layer(), book.by_layer(1), book.by_layer_and_op(each=True)):
        assert sum(row.kept for row in rows) == book.bytes


def test_the_ledger_of_a_deep_model_can_be_read():
    model = Decoder(gpt2.config(**SIZES, max_position_embeddings=64))
    ids = np.zeros((2, 64), int)
    with ag.debug.ledger() as book:
        model.loss(ids, ids).backward()
    text = str(book)
    assert len(text.splitlines()) < 25
    assert "12  blocks.*.feed_forward.down" in text
    assert "rows float32[128, 64] (also key, value)" in text  # one array of the norm's, for three products
    attention = [row for row in book.by_layer_and_op(each=True) if row.op == "attention"]
    assert {(row.layer, row.calls) for row in attention} == {(f"blocks.{i}.attention", 1) for i in range(12)}
    assert {row.layer for row in book.by_layer(1)} == {
        "embedding", "position", "blocks.*", "final_norm", "head", "(no layer)",
    }  # fmt: skip


# The transient.


@primitive
def extravagant(x, *, forward=0, backward=0):
    """x, with so many bytes in use for a moment."""
    np.ones(forward, np.uint8)
    y = x.copy()

    def vjp(dy):
        np.ones(backward, np.uint8)
        return (dy,)

    return y, vjp


@pytest.mark.parametrize("phase", ["forward", "backward"])
@pytest.mark.parametrize("place", ["early", "late"])
def test_the_op_with_the_huge_temporary_is_named(phase, place):
    x = leaf()
    with ag.debug.ledger() as book, ag.scope("blocks.3"):
        y = extravagant(x, **{phase: 5 * MEGABYTE}) if place == "early" else x
        y = (y + 1) * (y + 2)
        y = extravagant(y, **{phase: 5 * MEGABYTE}) if place == "late" else y
        y.sum().backward()
    assert book.where == f"in {phase} of extravagant, layer blocks.3"
    assert book.largest_transient[1] == f"{phase} of extravagant, layer blocks.3"
    assert book.largest_transient[0] == pytest.approx(5 * MEGABYTE, abs=10 * ARRAY)
    assert book.transient == pytest.approx(5 * MEGABYTE, abs=10 * ARRAY)
    row = next(row for row in book.by_op() if row.op == "extravagant")
    assert getattr(row, phase) == pytest.approx(5 * MEGABYTE, abs=10 * ARRAY)


def test_the_op_inside_a_recomputed_block_is_named():
    x = leaf()
    with ag.debug.ledger() as book:
        y = ag.recompute(lambda x: extravagant(x + 1, backward=5 * MEGABYTE), x)
        y.sum().backward()
    assert book.where == "in backward of recompute(<lambda>), there in backward of extravagant"
    assert book.largest_transient == (pytest.approx(5 * MEGABYTE, abs=10 * ARRAY), "backward of recompute(<lambda>)")


def test_a_huge_array_between_two_ops_is_said_to_be_there():
    x = leaf()
    with ag.debug.ledger() as book:
        y = ag.exp(x)
        np.ones(5 * MEGABYTE, np.uint8)
        y.sum().backward()
    assert book.where == "after forward of exp"
    assert book.transient == pytest.approx(5 * MEGABYTE, abs=10 * ARRAY)


def test_neither_what_an_op_saves_nor_what_was_kept_before_is_its_transient():
    x = leaf(10**6)
    with ag.debug.ledger() as book:
        y = ag.exp(x)
        y = extravagant(y, forward=20 * MEGABYTE)
    assert book.bytes == 8 * MEGABYTE
    rows = {row.op: row.forward for row in book.by_op()}
    assert rows["exp"] < 0.1 * MEGABYTE
    assert rows["extravagant"] == pytest.approx(20 * MEGABYTE, abs=0.1 * MEGABYTE)
    assert book.peak == pytest.approx(8 * MEGABYTE + rows["extravagant"], rel=0.01)


def test_an_op_that_is_not_recorded_has_a_transient():
    with ag.debug.ledger() as book, ag.no_grad():
        extravagant(leaf(), forward=5 * MEGABYTE)
    assert book.largest_transient == (pytest.approx(5 * MEGABYTE, abs=10 * ARRAY), "forward of extravagant")
    assert book.bytes == 0


def test_the_objects_that_python_makes_after_an_op_do_not_take_the_peak_from_it():
    with ag.debug.ledger() as book:
        y = ag.exp(leaf(10**5))
        objects = [object() for _ in range(10)]
    del y, objects
    assert book.where == "in forward of exp"


def test_memory_from_before_and_the_ledgers_own_are_left_out():
    def chain():
        y = x
        for _ in range(2000):
            y = y + 1
        return y.sum()

    x = leaf(10)
    with ag.debug.ledger() as book:
        chain().backward()
    _, peak = traced(chain)
    assert book.peak == pytest.approx(peak, rel=0.10)  # 2000 nodes and what else Python needs
    tracemalloc.start()
    try:
        before = np.ones(5 * MEGABYTE, np.uint8)
        with ag.debug.ledger() as book:
            chain().backward()
        del before
    finally:
        tracemalloc.stop()
    assert book.peak == pytest.approx(peak, rel=0.10)


def test_new_gradients_of_leaves_are_told_apart():
    x, weight = leaf(10**5), leaf(10**5)
    with ag.debug.ledger() as book:
        (x * weight).sum().backward()
    assert book.gradients == 2 * x.data.nbytes
    assert book.peak < 3.2 * x.data.nbytes  # gradients on their way, and no copies of them
    assert "new gradients" in str(book)
    x.grad, weight.grad, weight.buffer = None, None, np.empty(10**5)
    with ag.debug.ledger() as book:
        (x * weight).sum().backward()
    assert book.gradients == x.data.nbytes


# Looking on changes nothing.


def test_no_array_lives_longer_because_of_the_ledger():
    x, arrays_made = leaf(), []

    @primitive
    def saving(x):
        y = np.exp(x)
        arrays_made.append(weakref.ref(y))

        def vjp(dy):
            return (dy * y,)

        return y, vjp

    with ag.debug.ledger() as book:
        y = saving(saving(x)).sum()
        assert all(reference() is not None for reference in arrays_made)
        y.backward()
        assert [reference() for reference in arrays_made] == [None, None]
        y = saving(x)
        del y
        assert arrays_made[2]() is None
        y = saving(x)
    assert arrays_made[3]() is not None
    del y
    assert arrays_made[3]() is None
    assert book.bytes == 2 * ARRAY


def modes():
    return context.run, context.record, context.pull


def test_an_error_inside_leaves_everything_as_before():
    before = modes()

    @primitive
    def breaks(x):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), ag.debug.ledger() as book:
        breaks(leaf() + 1)
    assert modes() == before
    assert not tracemalloc.is_tracing()
    assert "breaks" in str(book)
    with ag.debug.ledger():  # and another can be opened
        pass


def test_an_op_that_fails_and_is_caught_does_not_confuse_it():
    @primitive
    def breaks(x):
        raise ValueError("no")

    x = leaf()
    with ag.debug.ledger() as book:
        with pytest.raises(ValueError, match="no"):
            breaks(x)
        assert not book.water.running
        y = (x + 1) * (x + 2)
        y.sum().backward()
    assert book.bytes == 2 * ARRAY


def test_tracing_that_was_on_stays_on():
    tracemalloc.start()
    try:
        with ag.debug.ledger():
            (leaf() * 2).sum().backward()
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()


def test_only_one_at_a_time():
    with ag.debug.ledger(), pytest.raises(RuntimeError, match="another ledger is open"), ag.debug.ledger():
        pass


@pytest.mark.parametrize("inside", [True, False])
def test_beside_other_modes(inside):
    x = leaf()
    other = [ag.debug.first_nan, ag.debug.guard, ag.debug.profile]
    for mode in other:
        first, second = (ag.debug.ledger, mode) if inside else (mode, ag.debug.ledger)
        with first() as a, second() as b:
            ((x + 1) * (x + 2)).sum().backward()
        assert (a if inside else b).bytes == 2 * ARRAY
        assert context.run is ag.kernels.run


def test_other_threads_are_not_looked_at():
    x = leaf()
    with ag.debug.ledger() as book:
        thread = threading.Thread(target=lambda: kept_elsewhere.append((x + 1) * (x + 2)))
        kept_elsewhere = []
        thread.start()
        thread.join()
        y = x * (x + 1)
    del y
    assert book.bytes == ARRAY


def test_a_ledger_without_ops():
    with ag.debug.ledger() as book:
        pass
    assert str(book) == "no op ran"
    assert not tracemalloc.is_tracing()


# The device: CuPy's memory pool calls a hook for every piece that it hands out and takes back.


class MemoryHook:
    """As CuPy's: entered, it is called by the pool."""

    hooks = []  # noqa: RUF012 (one list, as CuPy has)

    def __enter__(self):
        self.hooks.append(self)
        return self

    def __exit__(self, *_):
        self.hooks.remove(self)

    def malloc_postprocess(self, **_):
        pass

    def free_postprocess(self, **_):
        pass


def pool(event, nbytes, pointer=512):
    for hook in MemoryHook.hooks:
        getattr(hook, event)(device_id=0, size=nbytes, mem_size=nbytes, mem_ptr=pointer, pmem_id=1)


def test_the_meter_of_a_device(monkeypatch):
    cuda = types.SimpleNamespace(MemoryHook=MemoryHook)
    monkeypatch.setattr(arrays, "xp_of", lambda *_: types.SimpleNamespace(cuda=cuda))
    with arrays.allocations(None) as memory:
        pool("free_postprocess", 100)  # from before
        before = memory.used()
        pool("malloc_postprocess", 3000)
        pool("malloc_postprocess", 9000, pointer=0)  # there was not enough
        pool("free_postprocess", 2000)
        assert (memory.used() - before, memory.peak() - before) == (1000, 3000)
        assert memory.peak() - before == 1000
        pool("malloc_postprocess", 500)
        assert memory.peak() - before == 1500
    assert not MemoryHook.hooks
    assert not tracemalloc.is_tracing()

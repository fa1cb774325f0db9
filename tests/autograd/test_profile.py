"""Counts are exact, time is exclusive, and the columns add up."""

import threading
import time
import types

import numpy as np
import pytest

import autograd as ag
from autograd import arrays
from autograd.context import context
from autograd.debug.profile import profile
from autograd.engine import Tensor, primitive
from tinyllm.models import Decoder, gpt2

NAP = 0.05  # seconds, against microseconds


def leaf(n=10):
    return Tensor(np.linspace(0.5, 1.5, n), requires_grad=True)


@primitive
def sleepy(x, *, forward=0.0, backward=0.0):
    """x, late."""
    time.sleep(forward)
    y = x.copy()

    def vjp(dy):
        time.sleep(backward)
        return (dy,)

    return y, vjp


def by_name(rows):
    return {row.layer or row.op: row for row in rows}


def calls(rows):
    return {name: (row.forward_calls, row.backward_calls) for name, row in by_name(rows).items()}


def test_calls_are_counted():
    x = leaf()
    with profile() as times:
        y = x * x
        y = y * ag.exp(x)
        with ag.no_grad():
            ag.exp(x)
        y.sum().backward()
    assert calls(times.by_op()) == {"multiply": (2, 2), "exp": (2, 1), "sum": (1, 1)}


def test_calls_by_layer():
    model = Decoder(gpt2.config(vocab_size=20, hidden_size=8, num_attention_heads=2, num_hidden_layers=3))
    ids = np.zeros((2, 5), int)
    with profile() as times:
        model.loss(ids, ids).backward()
    found = calls(times.by_layer())
    assert found["blocks.*.attention.query"] == (3, 3)
    assert found["final_norm"] == (1, 1)
    whole = calls(times.by_layer(1))
    assert set(whole) == {"embedding", "position", "blocks.*", "final_norm", "head", "(no layer)"}
    each = calls(times.by_layer(1, each=True))
    assert each["blocks.0"] == each["blocks.2"] == tuple(n // 3 for n in whole["blocks.*"])
    assert sum(n for n, _ in calls(times.by_op()).values()) == sum(n for n, _ in found.values())


@pytest.mark.parametrize("phase", ["forward", "backward"])
def test_the_slowest_is_named(phase):
    x = leaf()
    with profile() as times, ag.scope("bed"):
        y = sleepy(ag.exp(x), **{phase: NAP}) * x
        y.sum().backward()
    slowest = times.by_op()[0]
    assert slowest.op == "sleepy"
    assert getattr(slowest, phase) >= max(NAP, slowest.seconds / 2)
    assert times.by_layer()[0].layer == "bed"


def test_everything_adds_up():
    x = leaf()
    with profile() as times:
        time.sleep(NAP)
        y = sleepy(x, forward=NAP, backward=NAP)
        y.sum().backward()
    for rows in (times.by_op(), times.by_layer()):
        assert rows.total >= 3 * NAP
        assert sum(row.forward for row in rows) + sum(row.backward for row in rows) == pytest.approx(rows.in_ops)
        assert rows.in_ops + rows.outside == pytest.approx(rows.total)
        assert rows.outside >= NAP
        assert rows.in_ops >= 2 * NAP
        lines = [line.split() for line in str(rows).splitlines()]
        printed = {" ".join(line[:2]): line for line in lines}
        total = float(printed["the block"][2])
        assert float(printed["all ops"][6]) + float(printed["outside ops"][2]) == pytest.approx(total, abs=0.02)


def test_what_is_recomputed_counts_for_the_ops_that_run_again():
    x = leaf()
    with profile() as times:
        ag.recompute(lambda x: sleepy(ag.exp(x), forward=4 * NAP), x).sum().backward()
    rows = by_name(times.by_op())
    assert calls(times.by_op()) == {
        "exp": (2, 1), "sleepy": (2, 1), "sum": (1, 1), "recompute(<lambda>)": (0, 1),
    }  # fmt: skip
    assert rows["sleepy"].forward >= 8 * NAP
    assert rows["recompute(<lambda>)"].seconds < 4 * NAP  # its own, without the op that ran inside
    assert times.by_op().in_ops <= times.by_op().total


def test_which_kernel_ran():
    @primitive
    def doubled(x):
        def vjp(dy):
            return (2 * dy,)

        return 2 * x, vjp

    @doubled.kernel("swift")
    def swift_doubled(x):
        return NotImplemented if x.size > 10 else doubled.reference(x)

    doubled(leaf())
    with context.set(kernels=("swift",)), profile() as times:
        for n in (10, 10, 20):
            doubled(leaf(n))
    assert times.by_op()[0].kernels == {"swift": 2, "swift declined": 1, "reference": 1}
    doubled(leaf())  # after the block
    assert times.by_op()[0].kernels["reference"] == 1
    assert {"swift 2", "swift declined 1", "reference 1"} <= set(str(times).splitlines()[1].split("  ")[-1].split(", "))


def test_an_error_inside_leaves_everything_as_before():
    before = context.run, context.pull

    @primitive
    def breaks(x):
        time.sleep(NAP)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"), profile() as times:
        breaks(leaf())
    assert (context.run, context.pull) == before
    assert calls(times.by_op()) == {"breaks": (1, 0)}
    assert times.by_op()[0].seconds >= NAP
    with profile() as times:  # caught inside, what follows is not inside `breaks`
        with pytest.raises(ValueError, match="no"):
            breaks(leaf())
        sleepy(leaf(), forward=NAP)
    assert not times.running
    assert by_name(times.by_op())["sleepy"].seconds >= NAP


def test_one_inside_another():
    with profile() as outer:
        ag.exp(leaf())
        with profile() as inner:
            ag.exp(leaf())
    assert (calls(outer.by_op()), calls(inner.by_op())) == ({"exp": (2, 0)}, {"exp": (1, 0)})


def test_other_threads_are_not_timed():
    with profile() as times:
        thread = threading.Thread(target=lambda: ag.exp(leaf()))
        thread.start()
        thread.join()
    assert times.by_op() == []


def test_printed_before_the_block_ends():
    with profile() as times:
        ag.exp(leaf())
        assert "exp" in str(times)


def test_a_device_is_waited_for_before_the_clock_is_read(monkeypatch):
    """What was asked of the device before an op is not the op's, what the op asks for is."""
    waiting = []

    def wait():
        for seconds in waiting:
            time.sleep(seconds)
        waiting.clear()

    stream = types.SimpleNamespace(synchronize=wait)
    cuda = types.SimpleNamespace(get_current_stream=lambda: stream)
    monkeypatch.setattr(arrays, "xp_of", lambda *_: types.SimpleNamespace(cuda=cuda))

    @primitive
    def launches(x):
        waiting.append(NAP)

        def vjp(dy):
            waiting.append(2 * NAP)
            return (dy,)

        return x.copy(), vjp

    with profile() as times:
        waiting.append(10 * NAP)
        launches(leaf()).sum().backward()
    rows = by_name(times.by_op())
    assert NAP <= rows["launches"].forward < 10 * NAP
    assert 2 * NAP <= rows["launches"].backward < 10 * NAP
    assert times.by_op().outside >= 10 * NAP


def test_the_cpu_needs_no_waiting():
    arrays.synchronize(np.ones(3), 1.0, None)

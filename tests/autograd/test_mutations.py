"""Proof of the proofs: wrong gradients are planted in every primitive, and all of them are caught.

A mutant whose gradients are the op's own on random inputs is no mutant; each of those stands in EQUIVALENT with the
reason why it changes nothing. The summary at the end of `make test` prints how many there were and what became of them.
"""

import functools
import re
from collections import Counter

import numpy as np
import proof_record
import pytest
from mutations import Mutant, fate_of, made, mutants_of, options_of, planted
from mutations_by_hand import FORGOTTEN, REWRITTEN, rewritten
from mutations_of_source import Program, mutants_of_source
from primitive_cases import CASES
from test_primitives import OURS

from autograd import testing
from autograd.engine import PRIMITIVES
from autograd.ops.reduce import restore_axes

every_op = pytest.mark.parametrize("op", OURS)

# What changes nothing, and why

UNBROADCAST = {
    "unbroadcast: shape[i - new] == 1 and n != 1 -> shape[i - new] == 1": (
        "also sums over axes of length one, and the sum of one number is that number"
    ),
    "unbroadcast: widen(dy).sum(repeated, keepdims=True) -> widen(dy).sum(repeated)": (
        "the reshape that follows puts axes of length one wherever they belong"
    ),
}
SCATTER_ADD = {
    "scatter_add: target[rows[starts]] += xp.add.reduceat(values[order], starts, axis=0)"
    " -> target[rows[starts]] = xp.add.reduceat(values[order], starts, axis=0)": (
        "each row is written once, with the sum of its run, and the target is zero before"
    ),
}
RESTORE_AXES = {"restore_axes: y.reshape((1,) * ndim) -> y": "a single number broadcasts as well without axes"}
SILENT = "one process alone has nobody to tell; with several, test_collectives.py catches it"
EQUIVALENT = {
    **{
        (op, name): reason
        for op in (
            "add",
            "broadcast_to",
            "divide",
            "matmul",
            "maximum",
            "minimum",
            "multiply",
            "power",
            "subtract",
            "where",
        )
        for name, reason in UNBROADCAST.items()
    },
    **{(op, name): reason for op in ("embedding", "gather") for name, reason in SCATTER_ADD.items()},
    **{(op, name): reason for op in ("max", "mean", "sum") for name, reason in RESTORE_AXES.items()},
    ("add", "swapped: input 0 and input 1"): "both gradients are dy",
    ("clip", "body: x >= low -> x > low"): (
        "another convention where x is exactly at the limit, a kink; test_op_values.py holds ours"
    ),
    ("clip", "body: x <= high -> x < high"): "the same at the other limit",
    ("copy_to_ranks", "vjp: sum_of_all(dy, ranks) -> dy"): SILENT,
    ("gather_from_ranks", "vjp: rows_of_sum(dy, ranks, ends) -> dy"): SILENT,
    ("scatter_sum_to_ranks", "vjp: all_rows(dy, ranks, ends) -> dy"): SILENT,
    (
        "gelu",
        "swapped: input 0 and input 1",
    ): "of one shape they are in a single row only, and then both gradients are dx",
    ("linear", "dx: dy.reshape(two_axes) -> dy"): "a product with batches gives the same numbers as one of all rows",
    ("mean", "body: y.size or 1 -> y.size or 2"): "without any result there is no gradient to divide",
    ("mean", "restore_axes: axis is None or ndim == 0 -> axis is None"): (
        "NumPy has no mean along an axis of an array without axes (it has sum and max there)"
    ),
    ("mean", "restore_axes: ndim == 0 -> ndim == 1"): "the same, and the only axis of a vector becomes (1,) either way",
    ("power", "dc: xp.where(x == 0, 1, x) -> xp.where(x == 0, 2, x)"): (
        "where x is 0 the result is 0 too, and what it is multiplied with matters only if it is infinite"
    ),
}


# The proof


@functools.cache
def fates(op):
    return [fate_of(mutant) for mutant in mutants_of(op)]


def require_all_caught(op, fates):
    """No mutant is missed, and exactly those that EQUIVALENT lists change nothing."""
    missed = [fate.mutant.name for fate in fates if fate.verdict == "missed"]
    assert not missed, f"no case of {op} sees what is wrong with: {missed}"
    unchanged = {fate.mutant.name for fate in fates if fate.verdict == "equivalent"}
    listed = {name for listed_op, name in EQUIVALENT if listed_op == op}
    assert not unchanged - listed, f"of {op}, without a reason in EQUIVALENT: {sorted(unchanged - listed)}"
    assert not listed - unchanged, f"of {op}, in EQUIVALENT, but caught or not there: {sorted(listed - unchanged)}"


@every_op
def test_every_wrong_gradient_is_caught_or_changes_nothing_for_a_reason(op):
    for fate in fates(op):
        proof_record.mutant(op, fate.verdict, fate.by_its_number)
    require_all_caught(op, fates(op))


@every_op
def test_what_a_pullback_got_wrong_is_reported_as_a_wrong_number_of_that_input(op):
    for fate in fates(op):
        if fate.mutant.kind == "generic" and fate.verdict == "caught":
            inputs = "|".join(re.findall(r"input (\d)", fate.mutant.name))
            assert re.search(rf"of input ({inputs})\b.*the vjp says .*central difference .*seed=0", fate.error), fate


@every_op
def test_every_input_has_generic_mutants_and_two_inputs_at_least_four(op):
    caught = [fate.mutant for fate in fates(op) if fate.verdict == "caught"]
    inputs = {i for case in CASES[op] for i in case.floats()}
    for i in inputs:
        assert {f"{corruption}: input {i}" for corruption in ("0.1 % too large", "zeroed", "rolled by one")} <= {
            mutant.name for mutant in caught
        }
    assert len(caught) >= (4 if len(inputs) > 1 else 3)


def test_at_most_one_mutant_in_ten_changes_nothing():
    verdicts = Counter(fate.verdict for op in OURS for fate in fates(op))
    by_op = {op: f"{sum(of == op for of, _ in EQUIVALENT)} of {len(fates(op))}" for op in OURS}
    assert verdicts["equivalent"] <= verdicts.total() / 10, by_op


def test_no_two_mutants_of_an_op_share_a_name_and_what_is_listed_exists():
    for op in OURS:
        names = Counter(fate.mutant.name for fate in fates(op))
        assert names.most_common(1)[0][1] == 1
    assert {op for op, _ in (*EQUIVALENT, *REWRITTEN, *FORGOTTEN)} <= set(OURS)


def test_no_mutant_breaks_for_want_of_a_name():
    """Which would be a mistake in how it was made, and would count as caught."""
    assert not [fate for op in OURS for fate in fates(op) if fate.error.startswith(("NameError", "UnboundLocalError"))]


# The proof can fail


@pytest.mark.parametrize("op", ["attention", "layer_norm", "multiply", "softmax"])
def test_the_proof_fails_where_the_checker_tolerates_five_percent(monkeypatch, op):
    monkeypatch.setattr(testing, "check_gradient", functools.partial(testing.check_gradient, rtol=0.05))
    of_tolerant = [fate_of(mutant) for mutant in mutants_of(op) if mutant.kind == "generic"]
    missed = {fate.mutant.name for fate in of_tolerant if fate.verdict == "missed"}
    assert missed == {fate.mutant.name for fate in of_tolerant if fate.mutant.name.startswith("0.1 % too large")}
    with pytest.raises(AssertionError, match=r"no case of \w+ sees what is wrong with: .*0\.1 % too large: input 0"):
        require_all_caught(op, of_tolerant)


def test_the_proof_fails_where_the_checker_compares_nothing(monkeypatch):
    """The other things that check_primitive asks do not prove a gradient."""
    monkeypatch.setattr(testing, "check_gradient", lambda *arguments, **options: 0.0)
    of_blind = [fate_of(mutant) for mutant in mutants_of("softmax")]
    assert {"zeroed: input 0", "not weighted by p"} <= {f.mutant.name for f in of_blind if f.verdict == "missed"}


def test_the_proof_fails_on_an_equivalent_mutant_without_a_reason_and_on_a_reason_without_one(monkeypatch):
    of_add = fates("add")
    monkeypatch.delitem(EQUIVALENT, ("add", "swapped: input 0 and input 1"))
    with pytest.raises(AssertionError, match=r"without a reason in EQUIVALENT: .*swapped"):
        require_all_caught("add", of_add)
    monkeypatch.setitem(EQUIVALENT, ("add", "swapped: input 0 and input 1"), "both gradients are dy")
    monkeypatch.setitem(EQUIVALENT, ("add", "zeroed: input 0"), "nobody needs it")
    with pytest.raises(AssertionError, match=r"caught or not there: .*zeroed"):
        require_all_caught("add", of_add)


@every_op
def test_a_right_gradient_is_not_caught(op):
    """Neither the op itself nor its source, compiled again without a change in both ways that mutants are made."""
    reference = PRIMITIVES[op].reference
    for same in (reference, Program(reference).compile(), rewritten(reference, {})):
        assert fate_of(Mutant(op, "none", "unchanged", lambda: same)).verdict == "equivalent"
    assert PRIMITIVES[op].reference is reference


# How mutants are made


@every_op
def test_source_mutants_compute_the_same_forward(op):
    """What was changed is the backward and nothing else; a mutant that cannot even compute is not among these."""
    case = CASES[op][1]
    options = options_of(case, op) | ({"seed": 5} if op == "dropout" else {})
    right, _ = PRIMITIVES[op].reference(*case.inputs, **options)
    computed = 0
    for name, make in mutants_of_source(PRIMITIVES[op].reference):
        reference = made(Mutant(op, "source", name, make))
        try:
            with planted(op, reference):
                y, _ = reference(*case.inputs, **options)
        except Exception:
            continue
        assert np.array_equal(y, right), name
        computed += 1
    assert computed >= 0.5 * len(list(mutants_of_source(PRIMITIVES[op].reference)))


def test_making_mutants_registers_no_primitive_and_is_deterministic():
    before = dict(PRIMITIVES)
    names = [[mutant.name for mutant in mutants_of(op)] for op in OURS]
    assert names == [[mutant.name for mutant in mutants_of(op)] for op in OURS]
    assert before == PRIMITIVES


def toy(x, weight, *, axis=-1):
    total = x.sum(axis, keepdims=True)
    y = weight * x / total
    half, inside = 0.5, x > 0
    if axis is None:
        inside = x >= -1

    def vjp(dy):
        dx = (dy - inside).sum(axis, keepdims=True) * half
        dx += restore_axes(dy, axis, 2).astype(dy.dtype, copy=False)
        return -dx, None

    return y, vjp


def test_mutants_of_the_source_are_these_and_no_others():
    names = [name for name, _ in mutants_of_source(toy) if not name.startswith("restore_axes:")]
    assert names == [
        "body: (0.5, x > 0) -> (1.0, x > 0)",
        "body: x > 0 -> x >= 0",
        "body: x > 0 -> x < 0",
        "body: x > 0 -> x > 1",
        "body: axis is None -> axis is not None",
        "body: x >= -1 -> x > -1",
        "body: x >= -1 -> x < -1",
        "body: x >= -1 -> x >= 0",
        "vjp: (dy - inside).sum(axis, keepdims=True) * half -> (dy - inside).sum(axis, keepdims=True)",
        "vjp: (dy - inside).sum(axis, keepdims=True) * half -> (dy - inside).sum(axis, keepdims=True) / half",
        "vjp: (dy - inside).sum(axis, keepdims=True) * half -> half",
        "vjp: (dy - inside).sum(axis, keepdims=True) -> (dy - inside).sum(0, keepdims=True)",
        "vjp: (dy - inside).sum(axis, keepdims=True) -> (dy - inside).sum(-1, keepdims=True)",
        "vjp: (dy - inside).sum(axis, keepdims=True) -> (dy - inside).sum(axis)",
        "vjp: (dy - inside).sum(axis, keepdims=True) -> (dy - inside).mean(axis, keepdims=True)",
        "vjp: (dy - inside).sum(axis, keepdims=True) -> dy - inside",
        "vjp: dy - inside -> dy",
        "vjp: dy - inside -> dy + inside",
        "vjp: dy - inside -> -inside",
        "vjp: dx += restore_axes(dy, axis, 2).astype(dy.dtype, copy=False)"
        " -> dx -= restore_axes(dy, axis, 2).astype(dy.dtype, copy=False)",
        "vjp: dx += restore_axes(dy, axis, 2).astype(dy.dtype, copy=False) -> pass",
        "vjp: restore_axes(dy, axis, 2) -> restore_axes(dy, 0, 2)",
        "vjp: restore_axes(dy, axis, 2) -> restore_axes(dy, -1, 2)",
        "vjp: restore_axes(dy, axis, 2) -> dy",
        "vjp: restore_axes(dy, axis, 2) -> restore_axes(dy, axis, 3)",
        "vjp: -dx -> dx",
    ]


def test_a_mutant_is_equivalent_only_if_its_gradients_agree_to_nine_digits():
    reference = PRIMITIVES["exp"].reference

    def off_by(share):
        def body(x):
            y, vjp = reference(x)
            return y, lambda dy: (vjp(dy)[0] * (1 + share),)

        return body

    verdicts = [fate_of(Mutant("exp", "none", "", lambda: off_by(share))).verdict for share in (1e-3, 1e-7, 1e-11)]
    assert verdicts == ["caught", "missed", "equivalent"]

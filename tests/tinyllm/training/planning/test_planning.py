"""A plan is right where what it says can be counted: parameters, bytes, products, messages."""

import itertools
import math
import sys
from collections import Counter

import numpy as np
import pytest
from rank_threads import on_ranks

import autograd as ag
from autograd.arrays import allocations
from tinyllm.data import RandomBatches
from tinyllm.errors import UserError
from tinyllm.models import FAMILIES, Decoder, gpt2, llama, textbook
from tinyllm.training.config import TrainingConfig
from tinyllm.training.loop import Pretraining, accumulate, one_step
from tinyllm.training.optimizers import make_optimizer, make_store
from tinyllm.training.parallel.config import ParallelConfig
from tinyllm.training.planning import (
    Workload,
    hardware,
    kept_by_block,
    kept_until_backward,
    make_plan,
    page,
    parameter_shapes,
    peak_of_step,
)  # fmt: skip
from tinyllm.training.planning.arithmetic import flops_of_token
from tinyllm.training.planning.compute_optimal import LAWS, tokens_by_law
from tinyllm.training.planning.hardware import DEVICES
from tinyllm.training.planning.memory import borrowed, persistent
from tinyllm.training.planning.messages import ROUNDS, messages_of_step
from tinyllm.training.planning.outline import OutlinedStore
from tinyllm.training.planning.page import in_bytes, in_time, number
from tinyllm.training.planning.shapes import by_part, count

TINY = {
    "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 8,
}  # fmt: skip
CHANGES = (
    {},
    {"num_key_value_heads": 2, "query_key_norm": True},
    {"norm": "rmsnorm", "tie_word_embeddings": False, "norm_place": "post", "feed_forward": "swiglu"},
    {"position": "alibi", "attention_bias": False, "head_dim": 10, "feed_forward": "relu2", "norm_bias": False},
)


@pytest.mark.parametrize("changes", CHANGES)
@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_are_those_of_the_model(family, changes):
    config = FAMILIES[family].config(**TINY | changes)
    model = Decoder(config)
    there = {name: tensor.shape for name, tensor in model.parameters().items()}
    assert list(parameter_shapes(config).items()) == list(there.items())
    assert sum(number for number, _ in by_part(config).values()) == model.num_parameters()


def test_gpt2_has_the_parameters_that_it_is_called_after():
    assert count(parameter_shapes(gpt2.config())) == 124_439_808
    assert count(parameter_shapes(llama.config(intermediate_size=11008))) == 6_738_415_616  # Llama 2 7B


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lion", "muon", "adafactor"])
@pytest.mark.parametrize("family", FAMILIES)
def test_persistent_bytes_are_those_of_the_store_and_the_optimizer(family, optimizer):
    config = FAMILIES[family].config(**TINY)
    training = TrainingConfig(batch_size=2, optimizer=optimizer)
    store = make_store(Decoder(config), training)
    there = {
        "weights": store.values.nbytes,
        "gradients": store.gradients.nbytes,
        "optimizer": sum(array.nbytes for array in make_optimizer(store, training).arrays.values()),
    }
    assert persistent(OutlinedStore(parameter_shapes(config), training), optimizer, 0) == there


def outlined(config, ranks=1, **training):
    return OutlinedStore(parameter_shapes(config), TrainingConfig(**training), ranks)


def test_each_stage_divides_one_kind_more():
    P = outlined(gpt2.config()).size * 4
    kinds = ("optimizer", "gradients", "weights")
    for stage in range(4):
        found = persistent(outlined(gpt2.config(), 8), "adamw", stage)
        for since, (kind, whole) in enumerate(zip(kinds, (2 * P, P, P), strict=True), 1):
            assert found[kind] == (pytest.approx(whole / 8, rel=1e-5) if stage >= since else whole)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_parts_and_places_are_those_of_the_shared_store(optimizer):
    """Where matrices stay whole parts are not equal, and the largest one counts."""
    training = TrainingConfig(optimizer=optimizer)
    config = gpt2.config(**TINY)

    def of_rank(ranks):
        store = make_store(Decoder(config), training, ParallelConfig(zero=3), ranks)
        return store.places, store.values.size

    ranks = on_ranks(3, of_rank)
    ours = outlined(config, 3, optimizer=optimizer)
    assert ours.places == ranks[0][0]
    assert ours.largest_part == max(size for _, size in ranks)


def case(config, samples, precision, kernels, recompute):
    training = TrainingConfig(batch_size=samples, precision=precision, recompute=recompute)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, 2000)
    batches = RandomBatches(tokens, batch_size=samples, context=config.max_position_embeddings, seed=0)
    with ag.use_kernels(kernels):
        with allocations(tokens) as memory:
            before = memory.used()
            run = Pretraining(Decoder(config), batches, training)
            one_step(run)  # loads the kernels, and what Python keeps of them
            memory.peak()
            one_step(run)
            whole = memory.peak() - before
        inputs, targets = batches.batch(0, samples)
        with ag.debug.ledger() as book:
            accumulate(run, inputs, targets, 0)
    blocks = run.model.recomputed_blocks
    return book, whole, Workload(config, samples, config.max_position_embeddings, precision, kernels, blocks)


MEDIUM = {"num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 128}
MODELS = {
    "textbook": (textbook.config(vocab_size=1024, hidden_size=128, **MEDIUM), 8),
    "gpt2": (gpt2.config(vocab_size=256, hidden_size=128, dropout=0.1, **MEDIUM), 8),
    "many words": (llama.config(vocab_size=12000, hidden_size=96, **MEDIUM | {"num_key_value_heads": 2}), 6),
}
VARIANTS = [
    *(("textbook", "numba", *rest) for rest in itertools.product(("fp32", "bf16"), ("none", "all"))),
    ("textbook", "reference", "fp32", "none"),
    ("gpt2", "numba", "fp16", "none"),
    ("gpt2", "numba", "fp32", 2),
    ("gpt2", "reference", "fp32", "all"),
    ("gpt2", "reference", "bf16", "none"),
    ("many words", "numba", "fp32", "none"),
    ("many words", "numba", "bf16", "all"),
    ("many words", "reference", "fp32", "none"),
]


@pytest.mark.parametrize(("name", "kernels", "precision", "recompute"), VARIANTS)
def test_memory_is_within_a_tenth_of_what_is_measured(name, kernels, precision, recompute):
    if kernels == "numba":
        pytest.importorskip("numba")
    if precision == "bf16":
        pytest.importorskip("ml_dtypes")
    config, samples = MODELS[name]
    book, whole, work = case(config, samples, precision, kernels, recompute)
    assert kept_until_backward(work) == pytest.approx(book.bytes, rel=0.02)
    assert peak_of_step(work)[0] == pytest.approx(book.peak, rel=0.1)
    training = TrainingConfig(batch_size=samples, precision=precision, recompute=recompute)
    plan = make_plan(config, training, hardware("laptop"), kernels=kernels)
    assert plan["memory"]["rank_bytes"] == pytest.approx(whole, rel=0.1)


@pytest.mark.parametrize("kernels", ["numba", "reference"])
def test_the_table_of_a_block_names_what_each_op_keeps(kernels):
    if kernels == "numba":
        pytest.importorskip("numba")
    config, samples = MODELS["textbook"]
    book, _, work = case(config, samples, "fp32", kernels, "none")
    planned, there = {}, {}
    for _, op, array in kept_by_block(work):
        planned[op] = planned.get(op, 0) + 3 * array.num_bytes
    for row in book.by_layer_and_op():
        if row.layer.startswith("blocks"):
            there[row.op] = there.get(row.op, 0) + row.kept
    for op in {*planned, *there} - {"rope"}:  # a table of angles, which a kernel shares among all layers
        # Which of two ops that keep one array counts it is the order in which they ran.
        assert planned.get(op, 0) == pytest.approx(there.get(op, 0), rel=0.01), op


def test_flops_are_those_of_all_products(monkeypatch):
    """Every matrix product of the reference, forward and backward, counted as it runs."""
    config = gpt2.config(**TINY | {"num_key_value_heads": 2, "max_position_embeddings": 12})
    flops = 0

    def counting(product):
        def counted(a, b, out=None):
            nonlocal flops
            y = product(a, b, out=out) if out is not None else product(a, b)
            flops += 2 * y.size * a.shape[-1]
            return y

        return counted

    for module in (sys.modules["autograd.ops.linalg"], sys.modules["autograd.ops.attention"]):
        monkeypatch.setattr(module, "product", counting(module.product))
    model, ids = Decoder(config), np.arange(24).reshape(2, 12)
    model.loss(ids, ids).backward()
    assert flops / ids.size == flops_of_token(config, 12)["total"]
    plain, flops, model.recomputed_blocks = flops, 0, 2
    model.loss(ids, ids).backward()
    expected = flops_of_token(config, 12, recomputed=2)
    assert (flops - plain) / ids.size == expected["recomputation"]


def test_flops_of_gpt2_are_the_published_estimate():
    found = flops_of_token(gpt2.config(vocab_size=50304), 1024)["total"]  # padded, as llm.c has it
    assert found == pytest.approx(854.7e6, rel=1e-3)


def test_messages_are_two_and_three_times_the_parameters():
    store = outlined(gpt2.config(), 8)
    P, outside = store.size * 4, store.outside().size * 4
    sent = [sum(m.sent_bytes for m in messages_of_step(store, ParallelConfig(zero=stage))) for stage in range(4)]
    assert sent[:3] == pytest.approx([2 * P * 7 / 8] * 3)
    assert sent[3] == pytest.approx((3 * P - outside) * 7 / 8)  # what is outside of blocks is gathered once
    assert messages_of_step(outlined(gpt2.config()), ParallelConfig(zero=3)) == []


@pytest.mark.parametrize("accumulation", [1, 2])
@pytest.mark.parametrize("one_message", [True, False])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_messages_and_borrowed_bytes_are_those_of_a_step(family, stage, one_message, accumulation):
    """one_message: whether reduce-scatter and all-gather are asked for, or all-reduce and broadcasts in their place."""
    config = FAMILIES[family].config(**TINY)
    training = TrainingConfig(batch_size=4, accumulation=accumulation)
    kinds = {"reduce_scatter": one_message, "all_gather": one_message}
    parallel = ParallelConfig(zero=stage, reduce_bucket=1500, gather_bucket=2000, **kinds)

    def of_rank(ranks):
        batches = RandomBatches(np.arange(200) % 50, batch_size=4, context=8, seed=0)
        run = Pretraining(Decoder(config), batches, training, parallel, ranks)
        one_step(run)
        sent = [(m.kind, m.num_bytes) for m in ranks.messages if m.kind in ROUNDS]
        return sent, run.store.borrowed.peak if stage >= 2 else 0

    sent, peak = on_ranks(2, of_rank)[0]
    store = outlined(config, 2)
    planned = Counter()
    for m in messages_of_step(store, parallel, accumulation):
        planned.update({m.kind: m.count, f"{m.kind} bytes": m.array_bytes})
    there = Counter(kind for kind, _ in sent)
    for kind, num_bytes in sent:
        there[f"{kind} bytes"] += num_bytes
    assert planned == there
    bound = sum(borrowed(store, parallel, config.tie_word_embeddings).values())
    assert bound / 2 <= peak <= bound


def test_smaller_buckets_are_more_messages_of_the_same_bytes():
    store = outlined(gpt2.config(), 4)
    large, small = (
        messages_of_step(store, ParallelConfig(zero=2, reduce_bucket=size, gather_bucket=size))
        for size in (2**24, 2**20)
    )
    assert [m.sent_bytes for m in large] == [m.sent_bytes for m in small]
    assert all(few.count < many.count for few, many in zip(large, small, strict=True))


def test_without_overlap_the_whole_gradient_waits():
    store = outlined(llama.config(**TINY | {"vocab_size": 5000, "num_hidden_layers": 12}), 2)
    small = {"zero": 2, "reduce_bucket": 2048}
    assert borrowed(store, ParallelConfig(**small, overlap=False), False)["buckets"] == store.size * 4
    assert borrowed(store, ParallelConfig(**small), False)["buckets"] < store.size * 4
    assert borrowed(store, ParallelConfig(zero=1), False) == {"buckets": 0, "gathered": 0}


def test_the_law_gives_the_best_use_of_its_flops():
    for law, (A, B, alpha, beta) in LAWS.items():
        N = 1e9
        D = tokens_by_law(N, law)

        def loss(n, A=A, B=B, alpha=alpha, beta=beta, products=N * D):
            return A / n**alpha + B / (products / n) ** beta

        assert loss(N) < min(loss(0.99 * N), loss(1.01 * N))
    assert 15 < tokens_by_law(70e9, "Besiroglu et al. 2024") / 70e9 < 25


def plan(**changes):
    options = {"batch_size": 16} | {
        k: changes.pop(k) for k in ("batch_size", "accumulation", "recompute") if k in changes
    }
    config = changes.pop("config", gpt2.config())
    return make_plan(config, TrainingConfig(**options), hardware(changes.pop("machine", "laptop")), **changes)


def test_time_and_price_follow_from_flops():
    found = plan(machine="8xh100", tokens=1e9, utilization=0.5, price=2.0)
    step = 16 * 1024 / 8 * found["flops_of_token"]["total"] / (67e12 * 0.5)
    time = found["time"]
    assert time["step_computing_seconds"] == pytest.approx(step)
    assert time["run_seconds"] == math.ceil(1e9 / (16 * 1024)) * time["step_overlapped_seconds"]
    assert time["dollars"] == pytest.approx(time["run_seconds"] / 3600 * 8 * 2)
    assert time["step_serial_seconds"] == step + time["step_sending_seconds"]
    assert time["step_overlapped_seconds"] == pytest.approx(step)  # a node's links are fast


def test_what_messages_can_be_sent_beside():
    def step(**changes):
        parallel = ParallelConfig(zero=changes.pop("zero"), overlap=changes.pop("overlap", True))
        time = plan(machine="1000xh100", batch_size=1000 * changes.pop("samples"), parallel=parallel, **changes)["time"]
        return tuple(time[f"step_{name}_seconds"] for name in ("overlapped", "computing", "sending"))

    whole, computing, sending = step(zero=0, samples=1)
    assert whole == pytest.approx(computing / 3 + max(computing * 2 / 3, sending))
    whole, computing, sending = step(zero=1, samples=1)
    assert whole == pytest.approx(computing / 3 + max(computing * 2 / 3, sending / 2) + sending / 2)
    whole, computing, sending = step(zero=1, samples=100, accumulation=50)
    assert whole == pytest.approx(computing * (1 - 2 / 3 / 50) + max(computing * 2 / 3 / 50, sending / 2) + sending / 2)
    whole, computing, sending = step(zero=3, samples=1)
    assert whole == pytest.approx(max(computing, sending))
    whole, computing, sending = step(zero=0, samples=1, overlap=False)
    assert whole == pytest.approx(computing + sending)


def test_at_the_balance_messages_take_as_long_as_computing():
    time = plan(machine="1000xh100", batch_size=3000)["time"]
    at_balance = time["step_computing_seconds"] * time["balance_tokens"] / (3 * 1024)
    assert at_balance == pytest.approx(time["step_sending_seconds"])


LARGE = gpt2.config(hidden_size=2048, num_hidden_layers=24, num_attention_heads=16)


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"batch_size": 128, "machine": "h100"}, {"accumulation"}),
        ({"batch_size": 1, "machine": "h100", "config": LARGE.replace(max_position_embeddings=24576)}, {"recompute"}),
        (
            {"batch_size": 8, "machine": "8xh100", "config": LARGE.replace(hidden_size=4096, num_hidden_layers=25)},
            {"zero"},
        ),
        (
            {"batch_size": 8, "machine": "h100", "config": LARGE.replace(hidden_size=8192, num_hidden_layers=12)},
            {"zero", "ranks", "accumulation"},
        ),
    ],
)
def test_what_does_not_fit_has_a_remedy_that_does(options, changed):
    kernels = "reference" if changed == {"accumulation"} else "numba"
    found = plan(**options, kernels=kernels)
    assert not found["memory"]["fits"]
    changes = dict(found["instead"]["changes"])
    assert changed <= set(changes)
    parallel = {"zero": changes.pop("zero")} if "zero" in changes else {}
    mended = plan(**options | changes, kernels=kernels, parallel=ParallelConfig(**parallel))
    assert mended["memory"]["fits"]
    assert mended["memory"]["rank_bytes"] == found["instead"]["rank_bytes"]
    assert "It fits with --" in page(found)


def test_what_nothing_mends_is_said():
    huge = plan(config=LARGE.replace(hidden_size=8192), batch_size=1)
    assert huge["instead"] is None
    assert "Nothing that this project has makes it fit" in page(huge)


def test_ranks_on_a_laptop_share_its_memory_and_its_cores():
    config = gpt2.config(**TINY)
    one, two = (plan(config=config, ranks=ranks) for ranks in (1, 2))
    assert two["memory"]["machine_bytes"] == 2 * two["memory"]["rank_bytes"]
    assert two["time"]["step_computing_seconds"] == pytest.approx(one["time"]["step_computing_seconds"])


def test_stage_3_computes_every_forward_twice():
    found = plan(machine="8xh100", parallel=ParallelConfig(zero=3))
    assert found["asked"]["recomputed_blocks"] == 12
    assert found["flops_of_token"]["recomputation"] > 0
    assert "computes its forward twice" in page(found)


@pytest.mark.parametrize("name", [*DEVICES, "8xh100", "1000xh100"])
def test_every_machine_has_a_page_that_fits_a_page(name):
    lines = page(plan(machine=name, batch_size=1000)).splitlines()
    assert len(lines) < 60
    assert max(map(len, lines)) <= 110


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranks": 3}, "a batch of 16 samples does not divide by 3 ranks; --batch-size 15 does"),
        ({"ranks": 2, "accumulation": 16}, "does not divide by 2 ranks x accumulation 16; --batch-size 32 does"),
        ({"ranks": 0}, "--ranks must be at least 1, not 0"),
        ({"ranks": 16, "machine": "8xh100"}, "16 ranks do not fit 8 devices"),
        ({"tokens": -1}, "--tokens must be above 0 and finite, not -1"),
        ({"tokens": math.inf}, "--tokens must be above 0 and finite, not inf"),
        ({"utilization": 1.5}, "--utilization is a share of the peak, at most 1, not 1.5"),
        ({"price": math.nan}, "--price must not be negative, infinite or NaN; it was nan"),
        ({"machine": "h10"}, "no hardware is called 'h10'; did you mean 'h100'?"),
        ({"machine": "abacus"}, "there are laptop, a100, h100, h200"),
        ({"machine": "0xh100"}, "none is not enough; take h100"),
        ({"machine": "3xlaptop"}, "its network is no match for its memory; take laptop"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(UserError) as error:
        plan(**options)
    assert message in str(error.value)


def test_figures_have_three_digits_and_a_unit():
    assert [number(x) for x in (0, 5, 999, 1234, 124e6, 6.7e9)] == ["0", "5.00", "999", "1.23 k", "124 M", "6.70 B"]
    assert [in_bytes(x) for x in (12, 8.63e9, 2.5e12)] == ["12.0 B", "8.63 GB", "2.50 TB"]
    assert [in_time(x) for x in (3e-6, 0.0199, 90, 5e7)] == ["3.00 us", "19.9 ms", "1.50 min", "1.59 years"]

"""Blocks that are computed again in backward: the same bits, less memory, and what the report says of it."""

import dataclasses
import json

import numpy as np
import pytest

import autograd as ag
from tinyllm.data import RandomBatches, load_corpus
from tinyllm.errors import UserError
from tinyllm.models import Decoder, gpt2, llama, textbook
from tinyllm.training.config import TrainingConfig
from tinyllm.training.divergence import Diverged
from tinyllm.training.inspection import RECOMPUTATION, kept_bytes, recomputation
from tinyllm.training.loop import Pretraining, accumulate, pretrain
from tinyllm.training.runs import begin_run, complete, resume_run

CONFIG = TrainingConfig(steps=3, batch_size=4, learning_rate=1e-2, min_learning_rate=1e-3, warmup_steps=1, seed=5)
SIZE = {"vocab_size": 17, "hidden_size": 16, "num_attention_heads": 2, "max_position_embeddings": 8}
TOKENS = np.arange(300) ** 2 % 17


def make(family=gpt2, num_layers=12, dropout=0.0, **changes):
    shape = family.config(**SIZE, num_hidden_layers=num_layers, dropout=dropout)
    batches = RandomBatches(TOKENS, batch_size=4, context=8, seed=5)
    return Pretraining(Decoder(shape, seed=5), batches, dataclasses.replace(CONFIG, **changes))


def gradients(training):
    """(loss, the flat gradient) of the first batch."""
    inputs, targets = training.batches.batch(0, 4)
    training.store.zero()
    loss = accumulate(training, inputs, targets, 40)
    return loss, training.store.gradients.copy()


@pytest.fixture(params=["reference", "numba"])
def kernels(request):
    if request.param == "numba":
        pytest.importorskip("numba")
    with ag.use_kernels(request.param):
        yield request.param


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_gradient_of_every_parameter_is_the_same_to_the_bit(kernels, precision, dropout, accumulation):
    if precision == "bf16":
        pytest.importorskip("ml_dtypes")
    options = {"dropout": dropout, "precision": precision, "accumulation": accumulation}
    plain = make(**options)
    loss, expected = gradients(plain)
    assert np.isfinite(expected).all()
    assert expected.any()
    for recompute in ("all", 5):
        training = make(**options, recompute=recompute)
        again, found = gradients(training)
        assert again == loss
        for name, place in plain.store.places.items():
            ours, theirs = found[place.start : place.stop], expected[place.start : place.stop]
            np.testing.assert_array_equal(ours, theirs, err_msg=name)


@pytest.mark.parametrize("family", [gpt2, llama, textbook])
def test_a_run_is_the_same_run_to_the_bit(kernels, family):
    runs = []
    for recompute in ("none", "all"):
        training, records = make(family, 3, dropout=0.1, accumulation=2, recompute=recompute), []
        pretrain(training, after_step=records.append)
        runs.append((training.store.values, [record["loss_nats"] for record in records]))
    assert runs[0][1] == runs[1][1]
    np.testing.assert_array_equal(runs[0][0], runs[1][0])


def test_each_place_in_the_model_drops_other_elements():
    from tinyllm.models.decoder import Dropout

    drop, x = Dropout(0.5, np.arange(2)), ag.Tensor(np.ones((2, 4, 16)))
    masks = [drop(x, place=1), *(drop.of_block(i)(x, place=place) for i in range(12) for place in (1, 2))]
    assert len({mask.data.tobytes() for mask in masks}) == 25


def kept(**options):
    """Bytes that a step keeps for backward."""
    training = make(**options)
    with ag.debug.ledger() as book:
        gradients(training)
    return book.bytes


def test_a_recomputed_block_keeps_its_input_and_nothing_else():
    samples, context, width = 4, 8, 16
    with ag.use_kernels("reference"):
        plain = [kept(num_layers=n) for n in (11, 12)]
        saved = [kept(recompute=n) for n in (11, 12)]
        everything = [kept(num_layers=n, recompute="all") for n in (11, 12)]
    block, only_input = plain[1] - plain[0], samples * context * width * 4
    assert everything[1] - everything[0] == only_input
    assert saved[0] - saved[1] == pytest.approx(block - only_input, abs=only_input)  # neighbours share arrays
    assert everything[1] < 0.15 * plain[1]


def test_blocks_run_once_where_nothing_is_recorded():
    training = make(num_layers=2, recompute="all")
    ag.kernels_used(reset=True)
    with ag.no_grad():
        training.model(TOKENS[None, :8])
    assert sum(ag.kernels_used()["attention"].values()) == 2


def test_what_breaks_in_a_recomputed_block_is_named():
    training = make(recompute="all")
    training.model.parameters()["blocks.3.attention.key.weight"].data[0, 1] = np.nan
    with pytest.raises(Diverged, match=r"Weight of linear held NaN already when it came in, layer blocks\.3\.att"):
        pretrain(training)


@pytest.mark.parametrize(("recompute", "blocks"), [("none", 0), (0, 0), ("all", 12), (3, 3), (99, 12)])
def test_how_many_blocks(recompute, blocks):
    assert make(recompute=recompute).model.recomputed_blocks == blocks


@pytest.mark.parametrize("recompute", ["some", -1, 1.5, True, None])
def test_what_is_no_number_of_blocks_is_refused(recompute):
    with pytest.raises(UserError, match=r"^recompute must be none, all or a number of blocks, not "):
        dataclasses.replace(CONFIG, recompute=recompute)


def test_what_it_saves_and_costs_is_measured_and_forgotten():
    with ag.use_kernels("reference"):
        training = make(dropout=0.2, batch_size=4, accumulation=2, recompute=6)
        weights, position = training.store.values.copy(), training.batches.position
        measured = recomputation(training)
        inputs, _ = training.batches.batch(0, 2)
        kept = {}
        for blocks in (0, 6):
            training.model.recomputed_blocks = blocks
            with ag.debug.ledger() as book:
                training.model.hidden(inputs, dropout_seed=np.arange(2))
            kept[blocks] = book.bytes
    assert (measured["blocks"], measured["of_blocks"]) == (6, 12)
    assert (measured["kept_bytes"], measured["kept_bytes_without"]) == (kept[6], kept[0])
    assert measured["time_ratio"] > 0
    np.testing.assert_array_equal(training.store.values, weights)
    assert training.batches.position == position
    assert all(p.grad is None for p in training.store.parameters.values())
    assert recomputation(make()) is None


def test_more_samples_keep_what_the_line_through_two_says():
    with ag.use_kernels("reference"):
        training = make(precision="fp16", recompute="all")  # casts keep a copy of each weight, whatever the samples
        inputs, _ = training.batches.batch(0, 4)
        training.model.recomputed_blocks = 0
        with ag.debug.ledger() as book:
            training.model.hidden(inputs)
        assert kept_bytes(training, 0, 4) == book.bytes


def test_a_run_that_recomputes_is_the_same_run_and_its_report_says_what_that_saved(tmp_path):
    (tmp_path / "text.txt").write_text("The old sailor sat by the sea and told it again. " * 40)
    model = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "max_position_embeddings": 16}
    results = []
    for recompute in ("none", "all"):
        training = {"steps": 4, "batch_size": 2, "sample_tokens": 4, "recompute": recompute}
        corpus, folder = load_corpus(str(tmp_path / "text.txt")), tmp_path / recompute
        run = begin_run(folder, "textbook", corpus, tokenizer="bytes", model=model, training=training)
        results.append(complete(run)["loss_nats"])
    assert results[0] == results[1]
    assert not (tmp_path / "none" / RECOMPUTATION).exists()
    assert "computed again" not in (tmp_path / "none" / "report.html").read_text()
    measured = json.loads((tmp_path / "all" / RECOMPUTATION).read_text())
    assert measured["kept_bytes"] < measured["kept_bytes_without"]
    report = (tmp_path / "all" / "report.html").read_text()
    assert "Activations of 3 of 3 blocks were computed again in backward: " in report
    assert f"{measured['time_ratio']:.2f} times as long as without." in report
    resumed = resume_run(tmp_path / "all", steps=5)
    assert resumed.training.model.recomputed_blocks == 3
    complete(resumed)
    assert json.loads((tmp_path / "all" / RECOMPUTATION).read_text()) == measured

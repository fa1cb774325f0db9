"""What each key of DeepSpeed's file does to a run, as its messages show; and the issue's file on two processes."""

import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rank_threads import on_ranks

from tinyllm.data import RandomBatches
from tinyllm.models import Decoder, gpt2
from tinyllm.training.config import TrainingConfig, changed
from tinyllm.training.loop import Pretraining, pretrain
from tinyllm.training.metrics import read_metrics
from tinyllm.training.parallel.config import ParallelConfig
from tinyllm.training.parallel.deepspeed import deepspeed_changes
from tinyllm.training.parallel.message_log import MESSAGES, MessageLog, during_backward, message_summary
from tinyllm.training.parallel.ranks import BACKWARD_BEGINS, BACKWARD_ENDS, MARKS

SHAPE = gpt2.config(
    vocab_size=17, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, max_position_embeddings=6
)
PRESET = TrainingConfig(steps=3, batch_size=8, learning_rate=1e-2, warmup_steps=1)
TOKENS = np.arange(300) ** 2 % 17
SMALL = 3000
"""Elements of a bucket: about a block's."""


@dataclasses.dataclass
class Trained:
    """losses: of each step. records: of the log of messages. pieces: how many samples each forward pass had.
    state: numbers of the optimizer's state on this rank."""

    losses: list
    records: list
    pieces: list
    state: int

    def messages(self):
        return [record for record in self.records if record["kind"] not in MARKS]

    def kinds(self):
        return {record["kind"] for record in self.messages()}

    def of(self, *kinds):
        return [record for record in self.messages() if record["kind"] in kinds]


def trained(content, ranks):
    """A run as the file says, of one of the ranks."""
    changes, parallel = deepspeed_changes(content, ranks.size, PRESET.learning_rate)
    config, pieces, losses, log = changed(PRESET, changes), [], [], []
    model = Decoder(SHAPE, seed=0)
    loss = model.loss
    model.loss = lambda ids, *others, **options: pieces.append(len(ids)) or loss(ids, *others, **options)
    batches = RandomBatches(TOKENS, batch_size=config.batch_size, context=6, seed=0)
    training = Pretraining(model, batches, config, ParallelConfig(**parallel), ranks)
    messages = MessageLog(log, ranks, began=0.0)

    def after_step(record):
        losses.append(record["loss_nats"])
        messages.append(record["step"])

    messages.taken()
    pretrain(training, after_step=after_step)
    state = sum(array.size for array in training.optimizer.arrays.values())
    return Trained(losses, log, pieces, state)


@functools.cache
def run_of(text, size=2):
    """The first rank's run with a file of this text."""
    return on_ranks(size, lambda ranks: trained(json.loads(text), ranks))[0]


def run(stage, size=2, top=None, **zero):
    return run_of(json.dumps((top or {}) | {"zero_optimization": {"stage": stage} | zero}), size)


def between_the_marks(records):
    """What was started while backward ran. A thread sends it, which on a busy machine may come to it later."""
    kinds, found = [record["kind"] for record in records], []
    while BACKWARD_ENDS in kinds:
        begin, end = kinds.index(BACKWARD_BEGINS), kinds.index(BACKWARD_ENDS)
        found += records[begin + 1 : end]
        records, kinds = records[end + 1 :], kinds[end + 1 :]
    return found


def test_the_stage_parts_the_state_and_leaves_the_losses():
    whole = run(0)
    assert run(1).state == run(2).state == run(3).state
    assert run(1).state == pytest.approx(whole.state / 2, rel=0.05)
    assert run(1).losses == run(2).losses == run(3).losses == whole.losses


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_reduce_scatter_off_sends_the_whole_sums(stage):
    usual, whole = run(stage), run(stage, reduce_scatter=False)
    assert "reduce_scatter" in usual.kinds()
    assert "all_reduce" not in usual.kinds()
    assert "reduce_scatter" not in whole.kinds()
    assert "all_reduce" in whole.kinds()
    assert usual.losses == whole.losses


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_allgather_partitions_off_lets_each_rank_send_its_weights(stage):
    usual, one_by_one = run(stage), run(stage, allgather_partitions=False)
    assert "all_gather" in usual.kinds()
    assert "broadcast" not in usual.kinds()
    assert "all_gather" not in one_by_one.kinds()
    assert len(one_by_one.of("broadcast")) > len(usual.of("all_gather"))
    assert usual.losses == one_by_one.losses


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_overlap_comm_lets_a_bucket_start_before_backward_ends_and_none_when_off(stage):
    on, off = (run(stage, overlap_comm=overlap, reduce_bucket_size=SMALL) for overlap in (True, False))
    sums = ("all_reduce", "reduce_scatter")
    assert [record for record in between_the_marks(on.records) if record["kind"] in sums]
    for early in (between_the_marks(off.records), during_backward(off.records)):
        assert not [record for record in early if record["kind"] in sums]
    assert on.losses == off.losses


@pytest.mark.parametrize(
    ("key", "kind", "stages"),
    [("reduce_bucket_size", "reduce_scatter", (1, 2, 3)), ("allgather_bucket_size", "all_gather", (1, 2, 3))],
)
def test_a_bucket_size_bounds_each_message_and_decides_how_many_there_are(key, kind, stages):
    for stage in stages:
        large, small = run(stage, **{key: 5e7}), run(stage, **{key: 500.0})
        assert max(record["bytes"] for record in small.of(kind)) <= 4 * 500
        assert len(small.of(kind)) > len(large.of(kind))
        assert sum(r["bytes"] for r in small.of(kind)) == sum(r["bytes"] for r in large.of(kind))
        assert large.losses == small.losses


def test_the_batch_is_cut_as_the_file_says():
    assert run_of('{"train_batch_size": 16}').pieces == [8] * 3
    assert run_of('{"train_batch_size": 16, "gradient_accumulation_steps": 4}').pieces == [2] * 12
    assert run_of('{"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 3}').pieces == [2] * 9
    whole, cut = (
        run_of('{"train_batch_size": 16}'),
        run_of('{"train_batch_size": 16, "gradient_accumulation_steps": 4}'),
    )
    np.testing.assert_allclose(cut.losses, whole.losses, rtol=1e-5)


def test_clipping_and_the_optimizers_and_schedulers_numbers_change_the_course():
    usual = run_of("{}").losses
    for content in (
        {"gradient_clipping": 0.01},
        {"optimizer": {"type": "Adam", "params": {"lr": 0.01, "betas": [0.9, 0.99], "weight_decay": 0.5}}},
        {"optimizer": {"type": "Adam", "params": {"lr": 0.01, "betas": [0.9, 0.99], "weight_decay": 0.1, "eps": 0.1}}},
        {"optimizer": {"type": "Lion", "params": {"lr": 1e-3}}},
        {"optimizer": {"type": "Muon", "params": {"lr": 0.01}}},
        {"optimizer": {"type": "SGD", "params": {"lr": 0.1, "momentum": 0.9, "nesterov": True}}},
        {"scheduler": {"type": "WarmupLR", "params": {"warmup_num_steps": 2, "warmup_min_lr": 1e-3}}},
    ):
        assert run_of(json.dumps(content)).losses[2] != usual[2], content


# --- On processes -----------------------------------------------------------------------------------------------------

FILE = """{"train_batch_size": 32, "fp16": {"enabled": true}, "zero_optimization": {"stage": 2,
"allgather_partitions": true, "allgather_bucket_size": 5e7, "overlap_comm": true, "reduce_scatter": true,
"reduce_bucket_size": 5e7, "contiguous_gradients": true}}"""
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
DEADLINE = 120


def pretrained(folder, *before, **options):
    """`tinyllm pretrain` with the issue's file, as somebody would type it; returns its folder."""
    folder.mkdir(parents=True)
    (folder / "ds.json").write_text(FILE)
    (folder / "text.txt").write_text("Nobody has told the sea, and it comes again. " * 400)
    words = [*before, sys.executable, "-m", "tinyllm.commands.main", "pretrain", "textbook", "--data", "text.txt"]
    words += [
        "--tokenizer",
        "bytes",
        "--run",
        "run",
        "--steps",
        "4",
        "--deepspeed",
        "ds.json",
        "--kernels",
        "reference",
    ]
    options |= {"model.hidden-size": 16, "model.num-hidden-layers": 1, "model.num-attention-heads": 2}
    options |= {"model.max-position-embeddings": 8, "training.sample-tokens": 2, "parallel.log-messages": True}
    words += [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr + done.stdout
    return folder / "run"


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return pretrained(tmp_path_factory.mktemp("local") / "here", devices=2)


def losses(folder):
    return [record["loss_nats"] for record in read_metrics(folder)]


def test_the_file_trains_as_it_is_on_two_processes(local):
    config = json.loads((local / "config.json").read_text())
    assert config["deepspeed"] == json.loads(FILE)
    assert (config["training"]["batch_size"], config["training"]["precision"]) == (32, "fp16")
    assert config["training"]["loss_scaling"] == "patient"
    assert (config["parallel"]["zero"], config["parallel"]["ranks"]) == (2, 2)
    assert message_summary(local).kinds.keys() == {"reduce_scatter", "all_gather"}
    records = read_metrics(local)
    assert [record["loss_scale"] for record in records if record["split"] == "train"] == [2.0**16] * 4
    assert records[3]["loss_nats"] < records[0]["loss_nats"]


def test_the_file_trains_under_mpiexec_to_the_same_bits(tmp_path, local):
    pytest.importorskip("mpi4py")
    if MPIEXEC is None:
        pytest.skip("no mpiexec here")
    folder = pretrained(tmp_path / "here", MPIEXEC, "-n", "2")
    assert losses(folder) == losses(local)
    assert [(r["step"], r["kind"], r["bytes"]) for r in read_metrics(folder, MESSAGES)] == [
        (r["step"], r["kind"], r["bytes"]) for r in read_metrics(local, MESSAGES)
    ]


def test_another_number_of_ranks_than_the_batch_divides_by_is_refused_in_one_line(tmp_path):
    (tmp_path / "ds.json").write_text(FILE)
    words = [sys.executable, "-m", "tinyllm.commands.main", "pretrain", "textbook", "--data", "text.txt"]
    done = subprocess.run(
        [*words, "--deepspeed", "ds.json", "--devices", "3"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr == (
        "tinyllm: ds.json: train_batch_size 32 is no multiple of ranks 3; change the file or --devices\n"
    )
    assert not (tmp_path / "runs").exists()

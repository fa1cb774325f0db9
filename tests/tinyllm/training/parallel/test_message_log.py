"""The log of messages: what a run writes of them, and what they come to."""

import pytest
from rank_threads import on_ranks

from tinyllm.data import load_corpus
from tinyllm.training import runs
from tinyllm.training.journal import Journal
from tinyllm.training.metrics import MetricsLog, NoLog, read_metrics
from tinyllm.training.parallel import Ranks
from tinyllm.training.parallel.config import ParallelConfig
from tinyllm.training.parallel.message_log import MESSAGES, MessageLog, message_summary, summary
from tinyllm.training.parallel.ranks import Message
from tinyllm.training.runs import begin_run, complete, resume_run

MODEL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 8}
TRAINING = {
    "steps": 4, "batch_size": 4, "evaluate_every": 2, "sample_tokens": 3, "checkpoint_every": 2,
    "evaluation_windows": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text("Nobody has told the sea, and it comes again. " * 60)
    return load_corpus(str(path))


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """No curves, and no measurement of memory, of which a process can make one at a time."""
    monkeypatch.setattr(runs, "measure_recomputation", lambda run: None)
    monkeypatch.setattr(runs, "write_report", lambda folder: None)


def begin(folder, corpus, ranks, zero=1):
    config = ParallelConfig(zero=zero, log_messages=True)
    options = {"tokenizer": "bytes", "model": MODEL, "training": TRAINING}
    return begin_run(folder, "textbook", corpus, **options, parallel=config, ranks=ranks)


def of_steps(folder):
    """dict step -> list of (kind, bytes)."""
    found = {}
    for record in read_metrics(folder, MESSAGES):
        found.setdefault(record["step"], []).append((record["kind"], record["bytes"]))
    return found


@pytest.mark.parametrize("zero", [1, 3])
def test_a_run_that_is_asked_to_logs_the_messages_of_each_step_and_forgets_them(tmp_path, corpus, zero):
    folder = tmp_path / "run"

    def train(ranks):
        complete(begin(folder, corpus, ranks, zero))
        return len(ranks.messages)

    left = on_ranks(2, train)
    steps = of_steps(folder)
    assert list(steps) == [1, 2, 3, 4]
    assert len({str(messages) for messages in steps.values()}) == 1  # nothing of evaluations or samples between them
    assert {kind for kind, _ in steps[1]} == {"backward begins", "backward ends", "reduce_scatter", "all_gather"}
    assert max(left) < 2 * len(steps[1])  # those of the last evaluation and sample
    for record in read_metrics(folder, MESSAGES):
        assert 0 <= record["started"] <= record["ended"]
        assert record["waited"] >= 0
    assert message_summary(folder).steps == 4
    assert "reduce_scatter of" in str(message_summary(folder))


def test_a_run_that_is_not_asked_leaves_none(tmp_path, corpus):
    folder = tmp_path / "run"
    on_ranks(2, lambda ranks: complete(begin_run(
        folder, "textbook", corpus, tokenizer="bytes", model=MODEL, training=TRAINING, ranks=ranks
    )))  # fmt: skip
    assert not (folder / MESSAGES).exists()
    assert message_summary(folder) is None


def test_a_resumed_run_logs_each_step_once_and_goes_on_by_its_clock(tmp_path, corpus, monkeypatch):
    """Killed after step 3, with a checkpoint of step 2."""
    folder, full, save = tmp_path / "run", runs.pretrain, Journal.save
    with monkeypatch.context() as patch:
        patch.setattr(
            runs,
            "pretrain",
            lambda training, **options: full(training, **options | {"stop": lambda: training.step >= 3}),
        )
        patch.setattr(Journal, "save", lambda journal: save(journal) if journal.run.training.step == 2 else None)
        on_ranks(2, lambda ranks: complete(begin(folder, corpus, ranks, zero=0)))
    assert list(of_steps(folder)) == [1, 2, 3]
    on_ranks(2, lambda ranks: complete(resume_run(folder, ranks=ranks)))
    assert list(of_steps(folder)) == [1, 2, 3, 4]
    records = read_metrics(folder, MESSAGES)
    before = max(record["ended"] for record in records if record["step"] <= 2)
    assert before < min(record["started"] for record in records if record["step"] > 2)


def log_of(tmp_path, *messages):
    ranks = Ranks()
    ranks.messages = list(messages)
    with MetricsLog(tmp_path, MESSAGES) as file:
        log = MessageLog(file, ranks, began=100.0)
        log.append(7)
    assert ranks.messages == []
    return read_metrics(tmp_path, MESSAGES)


def test_times_are_seconds_since_the_run_began(tmp_path):
    assert log_of(tmp_path, Message("all_reduce", 12, 101.5, 102.25, 0.5)) == [
        {"step": 7, "kind": "all_reduce", "bytes": 12, "started": 1.5, "ended": 2.25, "waited": 0.5}
    ]


def test_without_a_log_messages_are_forgotten_too():
    ranks = Ranks()
    ranks.messages = [Message("all_reduce", 12, 1.0, 2.0)]
    MessageLog(NoLog(), ranks, began=0.0).append(1)
    assert ranks.messages == []


def record(step, kind, started, ended, waited=0.0, num_bytes=0):
    return {
        "step": step, "kind": kind, "bytes": num_bytes, "started": started, "ended": ended, "waited": waited,
    }  # fmt: skip


def test_the_summary_counts_by_step_and_kind_and_says_what_was_waited_for():
    """Two pieces of a batch: what goes between two backward passes does not count as beside one."""
    came = summary([
        record(1, "backward begins", 1.0, 1.0),
        record(1, "reduce_scatter", 1.5, 2.5, 0.25, 100),
        record(1, "backward ends", 2.0, 2.0),
        record(1, "reduce_scatter", 2.5, 3.0, 0.75, 60),  # and a quarter until its turn came
        record(1, "backward begins", 4.0, 4.0),
        record(1, "reduce_scatter", 4.0, 4.5, 0.0, 100),
        record(1, "backward ends", 5.0, 5.0),
        record(2, "backward begins", 11.0, 11.0),
        record(2, "backward ends", 12.0, 12.0),
        record(2, "all_gather", 12.0, 14.0, 2.0, 40),
    ])  # fmt: skip
    assert came.kinds == {"reduce_scatter": (1.5, 130), "all_gather": (0.5, 20)}
    assert (came.steps, came.seconds, came.waited, came.early) == (2, 2.0, 1.5, 1.0)
    assert came.overlapped == pytest.approx((0.75 + 0.5) / 4)
    assert str(came).startswith("Messages a step: 1.5 reduce_scatter of 0.00013 MB together; 0.5 all_gather")

"""A run folder trained by several ranks is that of one process."""

import json

import numpy as np
import pytest
from rank_threads import on_ranks

from tinyllm.data import load_corpus
from tinyllm.formats.run_folders import checkpoints
from tinyllm.training import runs
from tinyllm.training.metrics import read_metrics
from tinyllm.training.parallel.config import ParallelConfig
from tinyllm.training.runs import begin_run, complete, resume_run

MODEL = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 16}
TRAINING = {
    "steps": 6, "batch_size": 4, "warmup_steps": 2, "evaluate_every": 2, "sample_every": 3, "checkpoint_every": 2,
    "sample_tokens": 5, "evaluation_windows": 40, "learning_rate": 1e-2,
}  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text("The old sailor sat by the sea and told it again. " * 400)
    return load_corpus(str(path))


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    """No curves: they take longer than such a run."""
    monkeypatch.setattr(runs, "write_report", lambda folder: (folder / "report.html").touch())


def begin(folder, corpus, ranks=None, zero=0, **changes):
    training = TRAINING | changes
    parallel = ParallelConfig(zero=zero)
    return begin_run(
        folder, "textbook", corpus, tokenizer="bytes", model=MODEL, training=training, parallel=parallel, ranks=ranks
    )


def losses(folder):
    return {(r["step"], r["split"]): r["loss_nats"] for r in read_metrics(folder)}


def without_times(folder):
    clock = {"seconds", "tokens_per_second", "waited_seconds"}
    return [{name: r[name] for name in r if name not in clock} for r in read_metrics(folder)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory, corpus):
    """The folder of a run by one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "write_report", lambda folder: None)
        complete(begin(folder, corpus))
    return folder


@pytest.mark.parametrize(("size", "stage"), [(2, 0), (4, 0), (2, 1), (4, 1)])
def test_a_run_on_ranks_leaves_the_folder_of_one_process(tmp_path, corpus, alone, size, stage):
    folder = tmp_path / "run"
    results = on_ranks(size, lambda ranks: complete(begin(folder, corpus if ranks.first else None, ranks, stage)))
    assert len({result["loss_nats"] for result in results}) == 1
    ours, theirs = losses(alone), losses(folder)
    assert list(ours) == list(theirs)
    np.testing.assert_allclose([*theirs.values()], [*ours.values()], rtol=1e-5)
    assert {p.name for p in folder.iterdir()} == {p.name for p in alone.iterdir()} | {"report.html"}
    assert [p.name for p in checkpoints(folder)] == [p.name for p in checkpoints(alone)]
    assert json.loads((folder / "config.json").read_text())["parallel"]["ranks"] == size
    assert not list(folder.rglob(".*"))


@pytest.mark.parametrize(
    ("first", "then"), [((2, 0), (4, 0)), ((4, 1), (2, 1)), ((2, 1), (1, 0)), ((1, 0), (2, 1)), ((4, 0), (4, 1))]
)
def test_a_stopped_run_goes_on_with_any_number_of_ranks(tmp_path, corpus, alone, monkeypatch, first, then):
    folder = tmp_path / "run"
    full = runs.pretrain
    with monkeypatch.context() as patch:
        patch.setattr(
            runs,
            "pretrain",
            lambda training, **options: full(training, **options | {"stop": lambda: training.step >= 3}),
        )
        assert on_ranks(first[0], lambda ranks: complete(begin(folder, corpus, ranks, first[1])))[0] is None
    on_ranks(then[0], lambda ranks: complete(resume_run(folder, ranks=ranks, parallel=ParallelConfig(zero=then[1]))))
    ours, theirs = losses(alone), losses(folder)
    assert list(ours) == list(theirs)
    np.testing.assert_allclose([*theirs.values()], [*ours.values()], rtol=1e-5)

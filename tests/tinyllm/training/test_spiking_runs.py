"""Runs that go back after a spike: the folder tells it once, however the run is interrupted."""

import numpy as np
import pytest

from tinyllm.data import load_corpus
from tinyllm.formats.arrays import read_arrays
from tinyllm.formats.run_folders import checkpoints, newest_checkpoint
from tinyllm.training import loop, runs
from tinyllm.training.divergence import TooManySpikes
from tinyllm.training.metrics import read_all_metrics, read_metrics
from tinyllm.training.progress import Silent
from tinyllm.training.runs import begin_run, complete, resume_run

MODEL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16}
TRAINING = {
    "steps": 26,
    "batch_size": 2,
    "warmup_steps": 2,
    "evaluate_every": 7,
    "sample_every": 9,
    "sample_tokens": 3,
    "checkpoint_every": 6,
    "on_spike": "roll-back",
}


@pytest.fixture
def corpus(tmp_path):
    (tmp_path / "text.txt").write_text("The old sailor sat by the sea and told it again. " * 40)
    return load_corpus(str(tmp_path / "text.txt"))


@pytest.fixture(autouse=True)
def without_reports(monkeypatch):
    """Drawing curves would take most of the time here."""
    monkeypatch.setattr(runs, "write_report", lambda folder: None)


@pytest.fixture
def bad_batches(monkeypatch):
    """bad_batches(3, 16): the third and sixteenth batch of the data come to NaN, whenever they are met."""

    def plant(*batches):
        original = loop.accumulate

        def accumulate(training, inputs, targets, first_sample, samples):
            loss = original(training, inputs, targets, first_sample, samples)
            if first_sample // training.config.batch_size + 1 in batches:
                for p in training.model.parameters().values():
                    p.grad[...] = np.nan
            return loss

        monkeypatch.setattr(loop, "accumulate", accumulate)

    return plant


def begin(folder, corpus, **changes):
    return begin_run(folder, "textbook", corpus, tokenizer="bytes", model=MODEL, training=TRAINING | changes)


def story(folder):
    """All records but for what depends on the clock."""
    timed = ("seconds", "tokens_per_second")
    return [{k: v for k, v in record.items() if k not in timed} for record in read_all_metrics(folder)]


def final_state(folder):
    return {
        f"{file}/{name}": array
        for file in ("weights.safetensors", "optimizer.safetensors")
        for name, array in read_arrays(newest_checkpoint(folder) / file).items()
    }


def assert_same(folder, other):
    assert story(folder) == story(other)
    one, two = final_state(folder), final_state(other)
    assert one.keys() == two.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, two[name], err_msg=name)
    assert (folder / "samples.txt").read_text() == (other / "samples.txt").read_text()


def killed_after(monkeypatch, steps):
    """complete() dies, without a word, after so many steps of this start, those that were taken back included."""

    def dying(training, *, after_step, **options):
        def count(metrics):
            nonlocal steps
            after_step(metrics)
            steps -= 1
            if not steps:
                raise SystemExit("killed")

        loop.pretrain(training, after_step=count, **options)

    monkeypatch.setattr(runs, "pretrain", dying)


def stopped_at(monkeypatch, step):
    """complete() sees Ctrl-C when it comes to a step."""

    def stopping(training, **options):
        loop.pretrain(training, **options | {"stop": lambda: training.step == step})

    monkeypatch.setattr(runs, "pretrain", stopping)


def test_a_run_goes_back_and_tells_so_once(tmp_path, corpus, bad_batches):
    bad_batches(3, 16, 22)
    said = []
    display = Silent()
    display.note = said.append
    complete(begin(tmp_path / "run", corpus), display)
    standing, everything = read_metrics(tmp_path / "run"), read_all_metrics(tmp_path / "run")
    assert [r["step"] for r in standing if r["split"] == "train"] == list(range(1, 27))
    skipped = [r for r in standing if r.get("skipped") and r["split"] == "train"]
    assert [(r["step"], r["no_roll_back"]) for r in skipped] == [(3, "there is no checkpoint to go back to yet")]
    # Batch 22 is met at step 18: at step 12 the run went on behind batch 16.
    backs = [(r["number"], r["step"], r["to_step"]) for r in everything if r["split"] == "roll-back"]
    assert backs == [(1, 16, 12), (2, 18, 12)]
    assert [r["step"] for r in everything if r["split"] == "train"] == [*range(1, 16), *range(13, 18), *range(13, 27)]
    assert [line.split(";")[-1].strip() for line in said] == [
        "its batch is skipped, since there is no checkpoint to go back to yet",
        "back to step 12, on the data after this batch",
        "back to step 12, on the data after this batch",
    ]
    assert said[1].startswith("step 16: gradient norm not a number")


@pytest.mark.parametrize("steps", [13, 15, 16, 18, 21, 24])
def test_a_run_killed_around_a_roll_back_ends_as_if_it_had_not_been(tmp_path, corpus, bad_batches, monkeypatch, steps):
    bad_batches(16, 22)
    complete(begin(tmp_path / "through", corpus))
    with monkeypatch.context() as patch:
        killed_after(patch, steps)
        with pytest.raises(SystemExit):
            complete(begin(tmp_path / "killed", corpus))
    complete(resume_run(tmp_path / "killed"))
    assert_same(tmp_path / "killed", tmp_path / "through")


@pytest.mark.parametrize("steps", [(14,), (13, 15), (14, 16)])
def test_ctrl_c_does_not_change_what_a_run_goes_back_to(tmp_path, corpus, bad_batches, monkeypatch, steps):
    bad_batches(16, 22)
    complete(begin(tmp_path / "through", corpus, keep_checkpoints=1))
    run = begin(tmp_path / "stopped", corpus, keep_checkpoints=1)
    for step in steps:
        with monkeypatch.context() as patch:
            stopped_at(patch, step)
            complete(run)
        run = resume_run(tmp_path / "stopped")
    complete(run)
    assert_same(tmp_path / "stopped", tmp_path / "through")


def test_going_back_takes_away_what_is_newer(tmp_path, corpus, bad_batches, monkeypatch):
    bad_batches(16)
    run = begin(tmp_path / "run", corpus)
    with monkeypatch.context() as patch:
        stopped_at(patch, 14)
        complete(run)
    run = resume_run(tmp_path / "run")
    assert [path.name for path in checkpoints(tmp_path / "run")][-2:] == ["step-000012", "step-000014"]
    with monkeypatch.context() as patch:
        stopped_at(patch, 13)
        complete(run)
    assert [path.name for path in checkpoints(tmp_path / "run")][-2:] == ["step-000012", "step-000013"]
    assert resume_run(tmp_path / "run").training.spikes.roll_backs == 1


def test_a_run_that_gives_up_leaves_the_last_step_in_its_metrics(tmp_path, corpus, bad_batches):
    bad_batches(*range(9, 99))
    with pytest.raises(TooManySpikes, match="has gone back 2 times already"):
        complete(begin(tmp_path / "run", corpus, most_roll_backs=2))
    last = story(tmp_path / "run")[-1]
    assert (last["step"], last["split"], last["spike"]) == (7, "diverged", {"of": "gradient_norm", "z": None})
    assert "not_finite" in last
    with pytest.raises(TooManySpikes):
        complete(resume_run(tmp_path / "run"))
    assert [record["split"] for record in story(tmp_path / "run")].count("diverged") == 1

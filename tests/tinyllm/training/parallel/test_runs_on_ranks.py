"""A run folder trained by several ranks is that of one process."""

import contextlib
import dataclasses
import errno
import itertools
import json
import os
import shutil
import threading

import numpy as np
import pytest
from rank_threads import on_ranks

import tinyllm
from tinyllm.data import load_corpus
from tinyllm.errors import UserError
from tinyllm.evaluation.loss import held_out_loss
from tinyllm.formats.arrays import read_arrays
from tinyllm.formats.run_folders import checkpoints, chosen_checkpoint, is_whole, newest_checkpoint
from tinyllm.models import Decoder, gpt2
from tinyllm.training import journal, loop, runs
from tinyllm.training.divergence import Diverged
from tinyllm.training.inspection import inspection
from tinyllm.training.metrics import read_all_metrics, read_metrics
from tinyllm.training.parallel import agreement
from tinyllm.training.parallel.config import ParallelConfig
from tinyllm.training.parallel.shared_checkpoints import SharedSnapshot
from tinyllm.training.progress import Silent
from tinyllm.training.run_lock import RunLock
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
def through(tmp_path_factory, corpus):
    """A function that gives the folder of a run by so many ranks at this stage, which nobody has disturbed."""
    folders = {}

    def folder_of(size, stage):
        if (size, stage) not in folders:
            folder = folders[size, stage] = tmp_path_factory.mktemp("through") / "run"
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(runs, "write_report", lambda folder: None)
                on_ranks(size, lambda ranks: complete(begin(folder, corpus, ranks, stage)))
        return folders[size, stage]

    return folder_of


@pytest.fixture(scope="module")
def alone(through):
    """The folder of a run by one process."""
    return through(1, 0)


@pytest.mark.parametrize(("size", "stage"), [(2, 0), (4, 1), (2, 2), (4, 3)])
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


def test_a_run_that_is_over_is_over_on_all_ranks(tmp_path, through):
    """Its last evaluation and sample are there, which only the first rank sees."""
    shutil.copytree(through(2, 3), tmp_path / "run")
    results = on_ranks(2, lambda ranks: complete(resume_run(tmp_path / "run", ranks=ranks)))
    assert results[0] == results[1] == read_metrics(through(2, 3))[-1]
    assert without_times(tmp_path / "run") == without_times(through(2, 3))
    assert (tmp_path / "run" / "samples.jsonl").read_text() == (through(2, 3) / "samples.jsonl").read_text()


@pytest.mark.parametrize("spread", [(2, 0), (2, 1), (2, 3)])
def test_a_run_stopped_on_one_rank_goes_on_to_the_bit(tmp_path, corpus, through, monkeypatch, spread):
    size, stage = spread
    stopped = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(runs, "stop_on_signals", signal_to(rank=size - 1, checks=4))
        results = on_ranks(size, lambda ranks: complete(begin(stopped, corpus, ranks, stage)))
    assert results == [None] * size
    steps = [record["step"] for record in read_metrics(stopped) if record["split"] == "train"]
    assert steps == [1, 2, 3]
    assert newest_checkpoint(stopped).name == "step-000003"
    on_ranks(size, lambda ranks: complete(resume_run(stopped, ranks=ranks)))
    assert without_times(stopped) == without_times(through(*spread))
    assert arrays_of(stopped) == arrays_of(through(*spread))
    assert (stopped / "samples.txt").read_text() == (through(*spread) / "samples.txt").read_text()


def signal_to(rank, checks):
    """In place of `stop_on_signals`: a signal that reaches one rank alone, and is there when it looks so many times."""
    names = itertools.count()

    class Signal:
        def __init__(self):
            self.looked = 0

        def is_set(self):
            self.looked += 1
            return self.looked >= checks and chosen[0] is self

    chosen = []

    @contextlib.contextmanager
    def stop_on_signals():
        signal = Signal()
        if next(names) == rank:
            chosen.append(signal)
        yield signal

    return stop_on_signals


def arrays_of(folder):
    """All arrays of the newest checkpoint, as bytes."""
    paths = sorted(newest_checkpoint(folder).glob("*.safetensors"))
    return {(path.name, name): array.tobytes() for path in paths for name, array in read_arrays(path).items()}


def test_a_bad_start_is_one_error_on_all_ranks_and_leaves_nothing(tmp_path, corpus):
    def error_of(ranks, start):
        with pytest.raises(UserError) as error:
            start(ranks)
        return str(error.value)

    def errors(start, size=2):
        told = on_ranks(size, lambda ranks: error_of(ranks, start))
        assert len(set(told)) == 1
        assert not (tmp_path / "run").exists()
        return told[0]

    (tmp_path / "short.txt").write_text("too short")
    short = load_corpus(str(tmp_path / "short.txt"))
    assert "single token" in errors(lambda ranks: begin(tmp_path / "run", short, ranks))
    message = (
        "3 ranks with accumulation 1 cannot share a batch of 4 equally; choose a batch size divisible by 3, as 6 is"
    )
    assert message in errors(lambda ranks: begin(tmp_path / "run", corpus, ranks), size=3)
    message = "rank 1 has another parallel than rank 0"
    assert message in errors(lambda ranks: begin(tmp_path / "run", corpus, ranks, zero=ranks.rank))
    message = "rank 1 has another training than rank 0"
    assert message in errors(lambda ranks: begin(tmp_path / "run", corpus, ranks, steps=7 + ranks.rank))
    assert "is not a run folder: it does not exist" in errors(lambda ranks: resume_run(tmp_path / "run", ranks=ranks))


def test_a_folder_that_the_ranks_do_not_share_is_refused(tmp_path, corpus):
    message = r"rank 1 does not see .*/(run|other) as rank 0 does; the folder of a run must be on a disk that all its"
    with pytest.raises(UserError, match=message):
        on_ranks(2, lambda ranks: begin(tmp_path / "run" if ranks.first else tmp_path / "other", corpus, ranks))
    assert not (tmp_path / "run").exists()


def test_ranks_with_other_code_are_refused(tmp_path, corpus, monkeypatch):
    codes = iter(["abc", "abd"])
    monkeypatch.setattr(agreement, "checksum_of_code", lambda: next(codes))
    with pytest.raises(UserError, match="rank 1 has another code of tinyllm than rank 0"):
        on_ranks(2, lambda ranks: begin(tmp_path / "run", corpus, ranks))


def test_a_run_in_use_or_lost_from_sight_is_one_error_on_all_ranks(tmp_path, alone, corpus):
    folder = tmp_path / "run"
    shutil.copytree(alone, folder)
    held = RunLock(folder)
    with pytest.raises(UserError, match="is in use by process"):
        on_ranks(2, lambda ranks: resume_run(folder, ranks=ranks))
    held.release()
    shutil.copytree(folder, tmp_path / "copy")
    with pytest.raises(UserError, match="rank 1 does not see"):
        on_ranks(2, lambda ranks: resume_run(folder if ranks.first else tmp_path / "copy", ranks=ranks))
    assert not (folder / ".lock").exists()
    with pytest.raises(UserError, match="has come to step 6; it cannot end at step 5"):
        on_ranks(2, lambda ranks: resume_run(folder, steps=5, ranks=ranks))
    assert not (folder / ".lock").exists()


class Notes(Silent):
    """A display that keeps the notes."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def bad_disk_of(monkeypatch, rank, steps):
    """The disk takes nothing from one rank at these steps of the run. Returns dict step -> what stood before a save."""
    at, stood = {}, {}
    after_step, save, write_part = journal.Journal.after_step, journal.Journal.save, SharedSnapshot.write_part

    def write_or_fail(snapshot, folder):
        if any(f"-rank-{rank}-" in name for name in snapshot.files) and at[rank] in steps:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_part(snapshot, folder)

    def count(self, record):
        at[self.run.ranks.rank] = record["step"]
        after_step(self, record)
        self.checkpoints.wait()  # so that it is known what is written when

    def look(self):
        if self.run.ranks.first:
            stood[self.run.training.step] = [path.name for path in checkpoints(self.run.folder) if is_whole(path)]
        save(self)

    monkeypatch.setattr(SharedSnapshot, "write_part", write_or_fail)
    monkeypatch.setattr(journal.Journal, "after_step", count)
    monkeypatch.setattr(journal.Journal, "save", look)
    return stood


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_whose_disk_is_full_for_a_while_loses_nothing(tmp_path, corpus, through, monkeypatch, rank):
    folder, display = tmp_path / "run", Notes()
    with monkeypatch.context() as patch:
        stood = bad_disk_of(patch, rank, steps=(3, 4, 5))
        on_ranks(2, lambda ranks: complete(begin(folder, corpus, ranks, 1), display))
    assert stood == {2: [], 4: ["step-000002"], 6: ["step-000002"]}
    assert without_times(folder) == without_times(through(2, 1))
    assert arrays_of(folder) == arrays_of(through(2, 1))
    whose = f"rank {rank}: " if rank else ""
    assert display.notes == [
        f"{folder} cannot be written to ({whose}No space left on device): training goes on, and what is missing is "
        "kept in memory and written when that is possible",
        f"{folder} can be written to again, and nothing is missing",
    ]
    assert not list(folder.rglob(".*"))


def test_a_rank_whose_disk_stays_full_ends_the_run_on_all_in_one_line(tmp_path, corpus, monkeypatch):
    folder = tmp_path / "run"
    monkeypatch.setattr(journal, "PATIENCE_SECONDS", 0)

    def work(ranks):
        run = begin(folder, corpus, ranks, 1)
        with pytest.raises(UserError) as error:
            complete(run)
        return str(error.value)

    with monkeypatch.context() as patch:
        bad_disk_of(patch, 1, steps=(4, 5, 6))
        one, other = on_ranks(2, work)
    assert one == other
    assert one.startswith(
        f"{folder} cannot be written to (rank 1: No space left on device); its newest checkpoint is step"
    )
    assert [path.name for path in checkpoints(folder)] == ["step-000002"]
    on_ranks(4, lambda ranks: complete(resume_run(folder, ranks=ranks)))
    assert newest_checkpoint(folder).name == "step-000006"
    assert not list(folder.rglob(".*"))


class Killed(BaseException):
    """Stands for a kill: nothing is tidied up that the program would tidy up."""


@pytest.mark.parametrize(
    ("rank", "moment"), [(1, "before its part"), (0, "after its part"), (1, "after its part"), (0, "before the name")]
)
def test_a_rank_that_dies_while_a_checkpoint_is_written_leaves_the_older_one(
    tmp_path, corpus, through, monkeypatch, rank, moment
):
    folder = tmp_path / "run"
    write_part, finish = SharedSnapshot.write_part, SharedSnapshot.finish

    def die_at_part(snapshot, folder):
        mine = (snapshot.kind, snapshot.step) == (
            "step",
            4,
        ) and f"optimizer-rank-{rank}-of-2.safetensors" in snapshot.files
        if not mine or moment == "before the name":
            return write_part(snapshot, folder)
        if moment == "after its part":
            write_part(dataclasses.replace(snapshot), folder)
        raise Killed  # before the others hear of it

    def die_at_name(snapshot, folder):
        if (snapshot.kind, snapshot.step) == ("step", 4):
            raise Killed
        finish(snapshot, folder)

    with monkeypatch.context() as patch:
        patch.setattr(SharedSnapshot, "write_part", die_at_part)
        if moment == "before the name":
            patch.setattr(SharedSnapshot, "finish", die_at_name)
        with pytest.raises(Killed):
            on_ranks(2, lambda ranks: complete(begin(folder, corpus, ranks, 1)))
    (folder / ".lock").unlink(missing_ok=True)
    assert [path.name for path in checkpoints(folder)] == ["step-000002"]
    assert all(map(is_whole, checkpoints(folder)))
    assert list((folder / "checkpoints").glob(".step-000004.*.unfinished"))
    on_ranks(2, lambda ranks: complete(resume_run(folder, ranks=ranks)))
    assert without_times(folder) == without_times(through(2, 1))
    assert arrays_of(folder) == arrays_of(through(2, 1))
    assert not list(folder.rglob(".*"))


# ------------------------------------------------------------------------------------ what happens between the steps


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("first", [None, 1, 40])
def test_held_out_text_is_shared_and_scored_to_the_same_bit(size, first):
    """Seven batches of windows, of which the last is not full; every rank calls the model as often as the others."""
    model = Decoder(gpt2.config(vocab_size=32, **MODEL), seed=0)
    tokens = np.random.default_rng(0).integers(0, 32, 16 * 200)
    calls = threading.local()

    class Counted:
        config, embedding = model.config, model.embedding

        def loss(self, *inputs, **options):
            calls.count = getattr(calls, "count", 0) + 1
            return model.loss(*inputs, **options)

    def score(ranks):
        return held_out_loss(Counted(), tokens, first=first, ranks=ranks), calls.count

    alone = held_out_loss(model, tokens, first=first)
    scored = on_ranks(size, score)
    assert [result for result, _ in scored] == [alone] * size
    batches = -(-min(first or 200, 200) // 32)
    assert [count for _, count in scored] == [-(-batches // size)] * size


@pytest.mark.parametrize("stage", [0, 3])
def test_a_spike_takes_all_ranks_back_together(tmp_path, corpus, monkeypatch, stage):
    """The batch of step 4 comes to NaN, on the second rank alone."""
    accumulate = loop.accumulate

    def planted(training, inputs, targets, first_sample, samples):
        loss = accumulate(training, inputs, targets, first_sample, samples)
        return float("nan") if first_sample == 12 and training.ranks.rank == training.ranks.size - 1 else loss

    monkeypatch.setattr(loop, "accumulate", planted)
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    changes = {"steps": 8, "on_spike": "roll-back"}
    complete(begin(alone, corpus, **changes))
    on_ranks(2, lambda ranks: complete(begin(shared, corpus, ranks, stage, **changes)))
    ours, theirs = map(read_all_metrics, (alone, shared))
    assert [(r["step"], r["split"]) for r in theirs] == [(r["step"], r["split"]) for r in ours]
    told = [np.array([r["loss_nats"] for r in records], np.float64) for records in (theirs, ours)]  # None becomes NaN
    np.testing.assert_allclose(*told, rtol=1e-5)
    assert [(r["step"], r["to_step"]) for r in read_metrics(shared) if r["split"] == "roll-back"] == [(4, 2)]


def test_a_run_that_diverges_ends_on_all_ranks_with_the_same_words(tmp_path, corpus, monkeypatch):
    accumulate = loop.accumulate

    def planted(training, inputs, targets, first_sample, samples):
        if first_sample == 12 and training.ranks.rank == 1:
            with training.store.whole():
                training.model.embedding.weight.data[...] = np.nan
        return accumulate(training, inputs, targets, first_sample, samples)

    def work(ranks):
        run = begin(tmp_path / "run", corpus, ranks, 1)
        with pytest.raises(Diverged) as error:
            complete(run)
        return str(error.value)

    monkeypatch.setattr(loop, "accumulate", planted)
    one, other = on_ranks(2, work)
    assert one == other
    assert one.startswith("step 4 came to no number")
    last = read_metrics(tmp_path / "run")[-1]
    assert (last["split"], last["step"]) == ("diverged", 4)
    assert newest_checkpoint(tmp_path / "run").name == "step-000002"
    assert not list((tmp_path / "run").rglob(".*"))


def test_a_run_on_ranks_measures_what_recomputing_saves_and_where_a_step_spends(tmp_path, corpus):
    def work(ranks):
        run = begin(tmp_path / "run", corpus, ranks, 1, recompute="all")
        text = inspection(run.training)
        complete(run)
        return text

    text, nothing = on_ranks(2, work)
    assert text.startswith("Memory of one step")
    assert nothing is None
    measured = json.loads((tmp_path / "run" / "recomputation.json").read_text())
    assert measured["kept_bytes"] < measured["kept_bytes_without"]
    on_ranks(2, lambda ranks: complete(begin(tmp_path / "parted", corpus, ranks, 3, recompute="all")))
    assert not (tmp_path / "parted" / "recomputation.json").exists()  # there is nothing to compare with


def test_metrics_say_what_was_sent_and_how_long_was_waited(through, alone):
    records = [record for record in read_metrics(through(2, 1)) if record["split"] == "train"]
    parts = newest_checkpoint(through(2, 1)).glob("optimizer-*")
    gradient_and_weights = sum(array.nbytes for part in parts for array in read_arrays(part).values())  # as m and v
    assert {record["message_bytes"] for record in records} == {gradient_and_weights}
    assert all(record["waited_seconds"] > 0 for record in records)
    assert "waited_seconds" not in read_metrics(alone)[0]


@pytest.mark.parametrize("which", ["newest", "best"])
def test_a_model_is_put_together_from_its_parts(through, alone, which):
    folder = through(2, 3)
    parts = {path.name for path in chosen_checkpoint(folder, which).glob("weights*")}
    assert parts == {"weights-rank-0-of-2.safetensors", "weights-rank-1-of-2.safetensors"}
    ours, theirs = (tinyllm.load(where, which)[0].parameters() for where in (alone, folder))
    for name, tensor in ours.items():
        np.testing.assert_allclose(theirs[name].data, tensor.data, rtol=1e-4, atol=1e-5, err_msg=name)

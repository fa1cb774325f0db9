"""Checkpoints: a true copy written beside the training, the best one kept, damage found, and a bad disk survived."""

import errno
import json
import os
import shutil
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

import tinyllm
from tinyllm import files
from tinyllm.data import RandomBatches, load_corpus
from tinyllm.errors import UserError
from tinyllm.files import remove_folder
from tinyllm.formats.arrays import read_arrays
from tinyllm.formats.run_folders import checkpoints, is_whole, newest_checkpoint, read_state, step_of, write_checkpoint
from tinyllm.models import Decoder, gpt2
from tinyllm.training import checkpoints as checkpoints_module
from tinyllm.training import journal, runs
from tinyllm.training.checkpoints import Checkpoints, Snapshot, clear_leftovers, load_checkpoint, save_checkpoint
from tinyllm.training.config import TrainingConfig
from tinyllm.training.loop import Pretraining, pretrain
from tinyllm.training.metrics import MetricsLog, comparable_loss, read_metrics
from tinyllm.training.progress import Silent

VERSION_1 = Path(__file__).parent / "run_of_version_1"
SHAPE = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 8}
MODEL = SHAPE | {"max_position_embeddings": 16}
TRAINING = {
    "steps": 12, "batch_size": 2, "warmup_steps": 2, "evaluate_every": 2, "sample_every": 5, "checkpoint_every": 3,
    "sample_tokens": 3, "learning_rate": 1e-2, "evaluation_windows": 2,
}  # fmt: skip


def a_training(steps=0, hidden_size=8, **changes):
    """A Pretraining of a tiny model that has come to `steps`."""
    model = Decoder(gpt2.config(vocab_size=32, **SHAPE | {"hidden_size": hidden_size}), seed=0)
    tokens = np.random.default_rng(0).integers(0, 32, 500)
    config = TrainingConfig(steps=50, batch_size=2, warmup_steps=1, **changes)
    training = Pretraining(model, RandomBatches(tokens, batch_size=2, context=8), config)
    advance(training, steps)
    return training


def advance(training, steps):
    end = training.step + steps
    pretrain(training, stop=lambda: training.step >= end)


@pytest.fixture
def saving(tmp_path):
    with Checkpoints(tmp_path, keep=2) as saving:
        yield saving


@pytest.fixture
def held(monkeypatch):
    """An Event without which no checkpoint is written."""
    event, write = threading.Event(), Snapshot.write

    def wait_and_write(snapshot, folder):
        assert event.wait(60)
        write(snapshot, folder)

    monkeypatch.setattr(Snapshot, "write", wait_and_write)
    yield event
    event.set()


def names(folder):
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_training_goes_on_while_a_checkpoint_is_written_and_does_not_change_it(tmp_path, saving, held):
    training = a_training(2)
    expected = training.store.values.copy()
    saving.save(training)
    assert not (tmp_path / "checkpoints").exists()
    advance(training, 3)
    held.set()
    saving.wait()
    resumed = a_training()
    assert load_checkpoint(tmp_path, resumed) == 2
    np.testing.assert_array_equal(resumed.store.values, expected)
    advance(resumed, 3)
    np.testing.assert_array_equal(resumed.store.values, training.store.values)


def test_the_next_save_waits_for_the_one_before(tmp_path, saving, held):
    training = a_training(1)
    saving.save(training)
    threading.Timer(0.05, held.set).start()
    advance(training, 1)
    saving.save(training)  # returns only when the first is written
    assert is_whole(tmp_path / "checkpoints" / "step-000001")
    saving.wait()
    assert names(tmp_path) == ["step-000001", "step-000002"]


def test_a_mistake_of_ours_in_the_background_is_not_lost(saving, monkeypatch):
    def broken(snapshot, folder):
        raise ZeroDivisionError

    monkeypatch.setattr(Snapshot, "write", broken)
    saving.save(a_training())
    with pytest.raises(ZeroDivisionError):
        saving.wait()


def test_what_a_checkpoint_says(tmp_path):
    checkpoint = save_checkpoint(tmp_path, a_training(3, precision="fp16"), keep=1)
    state = json.loads((checkpoint / "state.json").read_text())
    assert state["format_version"] == 2
    assert (state["step"], state["batch_position"]) == (3, 6)
    assert set(state["loss_scaling"]) == {"scale", "good_steps"}
    assert state["settings"] == {"optimizer": "adamw", "precision": "fp16"}
    assert state["made_with"] == {"tinyllm": tinyllm.__version__, "numpy": np.__version__}
    assert set(state["sha256"]) == {"weights.safetensors", "optimizer.safetensors"}


def test_device_arrays_are_copied_to_the_host():
    class OnADevice:
        memory = np.arange(3.0)

        def get(self):
            return self.memory

    copies = checkpoints_module.copied({"a": OnADevice()})
    assert not np.shares_memory(copies["a"], OnADevice.memory)


# ------------------------------------------------------------------------------------------------ the best so far


def best_steps(folder):
    return [step_of(path) for path in checkpoints(folder, "best")]


def test_the_best_is_kept_beside_and_only_the_best(tmp_path, saving):
    training, weights = a_training(), {}
    for loss in (3.0, 2.0, 2.0, 2.5, float("nan")):
        advance(training, 1)
        weights[training.step] = training.store.values.copy()
        saving.save_if_best(training, loss)
    saving.wait()
    assert best_steps(tmp_path) == [2]
    state = read_state(newest_checkpoint(tmp_path, "best"))
    assert (state["step"], state["loss_nats"]) == (2, 2.0)
    other = a_training()
    other.model.load_weights(read_arrays(tmp_path / "checkpoints" / "best-000002" / "weights.safetensors"))
    np.testing.assert_array_equal(other.store.values, weights[2])


def test_every_checkpoint_can_find_what_was_the_best_at_its_time(tmp_path, saving):
    training = a_training()
    kept = {}
    for loss in (5.0, 4.0, 3.0, 6.0, 2.0, 1.0):  # two steps for each
        advance(training, 1)
        saving.save_if_best(training, loss)
        advance(training, 1)
        saving.save(training)
        saving.wait()
        kept[training.step] = best_steps(tmp_path)
    assert kept == {2: [1], 4: [1, 3], 6: [3, 5], 8: [5], 10: [5, 9], 12: [9, 11]}
    assert names(tmp_path) == ["best-000009", "best-000011", "step-000010", "step-000012"]


def test_what_waits_is_written_in_its_order(tmp_path, saving):
    """A best that overtook the checkpoint before it would push out what was the best for that."""
    training = a_training(1)
    saving.save_if_best(training, 4.0)
    saving.wait()
    advance(training, 1)
    saving.unwritten["step"] = Snapshot.of_training(training)
    advance(training, 1)
    saving.save_if_best(training, 3.0)
    saving.wait()
    assert names(tmp_path) == ["best-000001", "best-000003", "step-000002"]


def test_a_best_of_steps_that_were_taken_back_is_none(tmp_path, saving):
    training = a_training()
    for loss in (4.0, 2.0, 1.0):
        advance(training, 1)
        saving.save_if_best(training, loss)
        saving.save(training)
    saving.wait()
    remove_folder(tmp_path / "checkpoints" / "step-000003")
    assert saving.load(training) == 2
    assert (best_steps(tmp_path), saving.lowest) == ([2], 2.0)
    advance(training, 1)
    saving.save_if_best(training, 1.5)  # no record while the one at step 3 counted
    saving.wait()
    assert best_steps(tmp_path) == [2, 3]


def test_going_back_waits_for_what_is_being_written(tmp_path, saving, held):
    training = a_training(2)
    saving.save(training)
    expected = training.store.values.copy()
    advance(training, 1)
    threading.Timer(0.05, held.set).start()
    assert saving.load(training) == 2
    np.testing.assert_array_equal(training.store.values, expected)


def test_a_damaged_best_counts_no_longer(tmp_path, saving):
    training = a_training(1)
    saving.save_if_best(training, 1.0)
    saving.wait()
    (tmp_path / "checkpoints" / "best-000001" / "weights.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="best-000001 is damaged; it counts no longer as the best so far"):
        saving.rewind(1)
    saving.save_if_best(training, 5.0)
    saving.wait()
    assert read_state(newest_checkpoint(tmp_path, "best"))["loss_nats"] == 5.0


# --------------------------------------------------------------------------------------- damage, and other versions


@pytest.mark.parametrize("first", [0, 5])
def test_a_flipped_bit_in_the_state_is_found(tmp_path, first):
    checkpoint = tmp_path / "step-000001"
    state = {"step": 1, "batch_position": 2, "optimizer": {"steps": 1}, "loss_scaling": {"scale": 65536.0}}
    write_checkpoint(checkpoint, {"weights.safetensors": {"w": np.ones(1)}}, state)
    path = checkpoint / "state.json"
    whole, before = path.read_bytes(), read_state(checkpoint)
    assert before["optimizer"] == {"steps": 1}
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << (first + place) % 8]) + whole[place + 1 :])
        assert read_state(checkpoint) in (None, before), place


def test_a_flipped_bit_in_the_arrays_is_found(tmp_path):
    checkpoint = save_checkpoint(tmp_path, a_training(1), keep=1)
    for path in checkpoint.glob("*.safetensors"):
        whole = path.read_bytes()
        for place in range(0, len(whole), 97):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
            assert not is_whole(checkpoint)
        path.write_bytes(whole)
    assert is_whole(checkpoint)


def rewritten(checkpoint, **changes):
    """The same checkpoint with another state.json, its checksums right."""
    state = read_state(checkpoint) | changes
    arrays = {name: read_arrays(checkpoint / name) for name in state.pop("sha256")}
    write_checkpoint(checkpoint, arrays, {name: state[name] for name in state if name != "state_sha256"})


def test_a_newer_version_is_refused_and_not_passed_over(tmp_path):
    training = a_training(1)
    save_checkpoint(tmp_path, training, keep=2)
    advance(training, 1)
    rewritten(save_checkpoint(tmp_path, training, keep=2), format_version=4)
    with pytest.raises(UserError, match=r"step-000002 was written by a newer tinyllm \(format 4, this one reads 3\)"):
        load_checkpoint(tmp_path, training)


@pytest.mark.usefixtures("plain")
def test_a_run_of_version_1_goes_on_as_it_would_have_then(tmp_path):
    """Begun and stopped at step 4 of 6 by the code of November 2026; the losses of steps 5 and 6 are its own."""
    folder = tmp_path / "run"
    shutil.copytree(VERSION_1, folder)
    assert read_state(folder / "checkpoints" / "step-000004")["format_version"] == 1
    run = runs.resume_run(folder)
    assert run.training.step == run.training.optimizer.steps == 4
    result = runs.complete(run)
    losses = [record["loss_nats"] for record in read_metrics(folder) if record["split"] == "train"]
    assert losses[-2:] == pytest.approx([5.4356465, 5.4321985], rel=1e-5)
    assert result["loss_nats"] == pytest.approx(5.4126399, rel=1e-5)
    assert read_state(newest_checkpoint(folder))["format_version"] == 2


FOREIGN = {
    "optimizer": (lambda: a_training(1, optimizer="sgd"), "it was made with optimizer sgd, and config.json says adamw"),
    "precision": (lambda: a_training(1, precision="fp16"), "it was made with precision fp16, and config.json says fp3"),
    "model": (lambda: a_training(1, hidden_size=16), r"m has \d+ numbers, and this model's has \d+"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_checkpoint_of_another_run_is_refused_and_changes_nothing(tmp_path, what):
    made, message = FOREIGN[what]
    save_checkpoint(tmp_path, made(), keep=1)
    training = a_training(2)
    before = training.store.values.copy()
    with pytest.raises(UserError, match=f"step-000001 does not fit this run: {message}"):
        load_checkpoint(tmp_path, training)
    np.testing.assert_array_equal(training.store.values, before)
    assert training.step == 2


def test_an_optimizer_that_is_not_ours_is_refused_name_by_name(tmp_path):
    checkpoint = save_checkpoint(tmp_path, a_training(1), keep=1)
    arrays = read_arrays(checkpoint / "optimizer.safetensors")
    weights = read_arrays(checkpoint / "weights.safetensors")
    state = {"step": 1, "batch_position": 2, "optimizer": {"steps": 1, "momentums": 3}}
    foreign = {"m": arrays["m"], "u": np.ones(2)}
    write_checkpoint(checkpoint, {"weights.safetensors": weights, "optimizer.safetensors": foreign}, state)
    message = "does not fit this run: unknown optimizer fields momentums, u; the state of adamw is m, v, steps"
    with pytest.raises(UserError, match=message):
        load_checkpoint(tmp_path, a_training())
    state["optimizer"] = {}
    write_checkpoint(checkpoint, {"weights.safetensors": weights, "optimizer.safetensors": arrays}, state)
    with pytest.raises(UserError, match="does not fit this run: the state of adamw lacks steps"):
        load_checkpoint(tmp_path, a_training())


def test_weights_of_another_model_are_refused(tmp_path):
    checkpoint = save_checkpoint(tmp_path, a_training(1), keep=1)
    files = {name: read_arrays(checkpoint / name) for name in ("weights.safetensors", "optimizer.safetensors")}
    files["weights.safetensors"]["more"] = files["weights.safetensors"].pop("embedding.weight")
    write_checkpoint(
        checkpoint, files, {name: read_state(checkpoint)[name] for name in ("step", "batch_position", "optimizer")}
    )
    with pytest.raises(UserError, match=r"not this model's: missing embedding.weight \[32, 8\]; unexpected more"):
        load_checkpoint(tmp_path, a_training())


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    save_checkpoint(tmp_path, a_training(1), keep=1)
    before = names(tmp_path)
    for left in (".step-000002.unfinished", ".best-000001.removed"):
        (tmp_path / "checkpoints" / left).mkdir()
        (tmp_path / "checkpoints" / left / "weights.safetensors").write_bytes(b"half of it")
    (tmp_path / ".samples.txt.4711.tmp").touch()
    (tmp_path / "checkpoints" / ".file.4711.tmp").touch()
    (tmp_path / ".mine").touch()
    clear_leftovers(tmp_path)
    assert names(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine", "checkpoints"]


# --------------------------------------------------------------------------------------------- whole runs, bad disks


class Notes(Silent):
    """A display that keeps the notes."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


class Disk:
    """Stands between the program and the disk, which takes nothing while `error`, an errno, is set.

    Real ones are tried too (below, and in tests/tinyllm/commands), but only some machines allow it, and none lets
    anybody make a disk read-only under a running program.
    """

    def __init__(self, monkeypatch):
        self.error = None
        for module, name in ((files.os, "fsync"), (Path, "mkdir"), (Path, "rename"), (shutil, "rmtree")):
            monkeypatch.setattr(module, name, self.guarded(getattr(module, name)))
        opened = MetricsLog.open

        def open_guarded(log):
            opened(log)
            log.file = GuardedFile(log.file, self)

        monkeypatch.setattr(MetricsLog, "open", open_guarded)

    def check(self):
        if self.error:
            raise OSError(self.error, os.strerror(self.error))

    def guarded(self, function):
        def call(*parts, **options):
            if not options.get("ignore_errors"):
                self.check()
            return function(*parts, **options)

        return call


class GuardedFile:
    """The first write to a bad disk still takes some bytes, as on one that fills up."""

    def __init__(self, file, disk):
        self.file, self.disk, self.room = file, disk, 9
        self.truncate, self.close = file.truncate, file.close

    def write(self, data):
        if self.disk.error and self.room:
            data, self.room = data[: self.room], 0
        else:
            self.disk.check()
        return self.file.write(data)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text("The old sailor sat by the sea and told it again. " * 40)
    return load_corpus(str(path))


def begin(folder, corpus):
    return runs.begin_run(folder, "textbook", corpus, tokenizer="bytes", model=MODEL, training=TRAINING)


@pytest.fixture(scope="module")
def through(tmp_path_factory, corpus):
    """The folder of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("through") / "run"
    runs.complete(begin(folder, corpus))
    return folder


@pytest.fixture
def plain(monkeypatch):
    """No curves: they take longer than such a run."""
    monkeypatch.setattr(runs, "write_report", lambda folder: (folder / "report.html").touch())


def content(folder):
    """Everything in a run folder but what the clock says and the report, which shows it."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    told = {name: path.read_bytes() for name, path in found.items() if name not in ("metrics.jsonl", "report.html")}
    clock = {"seconds", "tokens_per_second"}
    return told | {"metrics": [{n: r[n] for n in r if n not in clock} for r in read_metrics(folder)]}


def outcome(folder):
    """What a run has come to: `content` without the checkpoints that it goes no further from."""
    ends = {newest_checkpoint(folder).name, newest_checkpoint(folder, "best").name}
    return {
        name: data
        for name, data in content(folder).items()
        if not name.startswith("checkpoints/") or name.split("/")[1] in ends
    }


def at_steps(monkeypatch, actions):
    """Do something after some steps of the following runs. actions: dict step -> function."""
    after_step = journal.Journal.after_step

    def act(self, record):
        self.checkpoints.wait()
        actions.get(record["step"], lambda: None)()
        after_step(self, record)

    monkeypatch.setattr(journal.Journal, "after_step", act)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize(("bad_from", "bad_until"), [(1, 4), (2, 8), (5, 6), (6, 11)])
def test_a_disk_that_takes_nothing_for_a_while_loses_nothing(
    tmp_path, corpus, through, monkeypatch, error, bad_from, bad_until
):
    folder, display, disk = tmp_path / "run", Notes(), Disk(monkeypatch)
    run = begin(folder, corpus)
    stood = []
    actions = {bad_from: lambda: setattr(disk, "error", error), bad_until: lambda: stood.append(whole(folder))}
    with monkeypatch.context() as patch:
        at_steps(patch, actions | {bad_until + 1: lambda: setattr(disk, "error", None)})
        runs.complete(run, display)
    assert outcome(folder) == outcome(through)
    assert stood == [[step for step in (3, 6, 9) if step < bad_from][-2:]]
    first, second = display.notes
    assert first.startswith(f"{folder} cannot be written to ({os.strerror(error)}): training goes on, and what is miss")
    assert second == f"{folder} can be written to again, and nothing is missing"


def whole(folder):
    return [step_of(path) for path in checkpoints(folder) if is_whole(path)]


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_is_bad_to_the_end_is_waited_for(tmp_path, corpus, through, monkeypatch, error):
    folder, display, disk = tmp_path / "run", Notes(), Disk(monkeypatch)
    run = begin(folder, corpus)
    with monkeypatch.context() as patch:
        at_steps(patch, {8: lambda: setattr(disk, "error", error)})
        patch.setattr(journal.time, "sleep", lambda seconds: setattr(disk, "error", None))
        runs.complete(run, display)
    assert display.notes[-2] == f"{folder} cannot be written to ({os.strerror(error)}): trying for 60 s more"
    assert outcome(folder) == outcome(through)


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_stays_bad_ends_the_run_in_one_line_and_keeps_what_there_was(
    tmp_path, corpus, through, monkeypatch, error
):
    folder = tmp_path / "run"
    monkeypatch.setattr(journal, "PATIENCE_SECONDS", 0)
    run = begin(folder, corpus)
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        at_steps(patch, {8: lambda: setattr(disk, "error", error)})
        message = r"its newest checkpoint is step-000006, and what came after is lost; make room or let it be written"
        with pytest.raises(UserError, match=rf"cannot be written to \({os.strerror(error)}\); {message}"):
            runs.complete(run)
    assert whole(folder) == [3, 6]
    assert runs.complete(runs.resume_run(folder))["step"] == 12
    assert content(folder) == content(through)


def test_the_best_is_the_lowest_of_all_evaluations_over_the_same_windows(through):
    evaluations = [record for record in read_metrics(through) if record["split"] == "validation"]
    assert "first_windows_loss_nats" in evaluations[-1]  # the last one has looked at all windows
    lowest = min(evaluations, key=comparable_loss)
    state = read_state(newest_checkpoint(through, "best"))
    assert (state["step"], state["loss_nats"]) == (lowest["step"], comparable_loss(lowest))
    assert (
        f"step {lowest['step']} ({comparable_loss(lowest):.3f} nats per token)" in (through / "report.html").read_text()
    )


def test_a_model_is_loaded_from_the_checkpoint_that_is_asked_for(through):
    for which, name in (("newest", "step-000012"), (9, "step-000009"), ("9", "step-000009")):
        model, _ = tinyllm.load(through, which)
        weights = read_arrays(through / "checkpoints" / name / "weights.safetensors")
        np.testing.assert_array_equal(model.embedding.weight.numpy(), weights["embedding.weight"])
    best = newest_checkpoint(through, "best")
    model, _ = tinyllm.load(through, checkpoint="best")
    np.testing.assert_array_equal(
        model.embedding.weight.numpy(), read_arrays(best / "weights.safetensors")["embedding.weight"]
    )
    with pytest.raises(UserError, match=r"has no checkpoint of step 3 \(any more\); there are those of: 9, 12"):
        tinyllm.load(through, 3)
    with pytest.raises(UserError, match="a checkpoint is newest, best or the number of a step, not 'last'"):
        tinyllm.load(through, "last")


@pytest.mark.usefixtures("plain")
def test_a_run_without_evaluations_on_the_way_has_its_last_step_as_best(tmp_path, corpus, monkeypatch):
    run = begin(tmp_path / "run", corpus)
    monkeypatch.setattr(journal.Journal, "final", lambda self: None)
    with monkeypatch.context() as patch:
        patch.setattr(journal.Journal, "evaluate", lambda self: None)
        runs.complete(run)
    with pytest.raises(UserError, match="has no whole best checkpoint yet; an evaluation on the way writes one"):
        tinyllm.load(tmp_path / "run", "best")
    monkeypatch.undo()
    runs.complete(runs.resume_run(tmp_path / "run"))
    assert best_steps(tmp_path / "run") == [12]


@pytest.mark.usefixtures("plain")
def test_a_run_resumed_before_its_best_ends_like_one_that_was_not(tmp_path, corpus, through):
    folder = tmp_path / "run"
    shutil.copytree(through, folder)
    (folder / "checkpoints" / "step-000012" / "state.json").write_text("{")
    with pytest.warns(UserWarning, match="step-000012 is damaged; using step-000009"):
        run = runs.resume_run(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runs.complete(run)
    assert content(folder) == content(through)

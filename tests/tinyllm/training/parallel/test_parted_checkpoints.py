"""A checkpoint of any number of ranks and any stage goes on with any other; damage to a part is found and named."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from rank_threads import on_ranks

from tinyllm.data.batches import RandomBatches
from tinyllm.errors import UserError
from tinyllm.formats.arrays import read_arrays, read_stretches, sizes_in, write_arrays
from tinyllm.formats.run_folders import (
    CHECKPOINTS,
    checkpoints,
    is_whole,
    newest_checkpoint,
    optimizer_files,
    part_name,
    read_state,
    read_weights,
    sha256_of_state,
)
from tinyllm.models import Decoder, DecoderConfig
from tinyllm.training.checkpoints import Checkpoints, load_checkpoint
from tinyllm.training.config import TrainingConfig
from tinyllm.training.loop import Pretraining, pretrain
from tinyllm.training.parallel.config import ParallelConfig
from tinyllm.training.parallel.shared_checkpoints import SharedCheckpoints, SharedSnapshot

SHAPE = DecoderConfig(
    vocab_size=17, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
    max_position_embeddings=6, dropout=0.1,
)  # fmt: skip
CONFIG = TrainingConfig(steps=5, batch_size=4, learning_rate=1e-2, warmup_steps=3)
TOKENS = np.arange(300) ** 2 % 17
SPREADS = [(1, 0), (2, 0), (2, 1), (2, 2), (2, 3), (4, 0), (4, 1), (4, 2), (4, 3)]
"""(ranks, stage)."""


def a_training(ranks, stage, config=CONFIG, dtype="float64", **changes):
    model = Decoder(dataclasses.replace(SHAPE, **changes), seed=0, dtype=dtype)
    batches = RandomBatches(TOKENS, batch_size=config.batch_size, context=6, seed=0)
    return Pretraining(model, batches, config, ParallelConfig(zero=stage), ranks)


def advance(training, end):
    """Train to step `end`; returns the losses."""
    losses = []
    pretrain(training, after_step=lambda r: losses.append(r["loss_nats"]), stop=lambda: training.step >= end)
    return losses


def checkpoints_of(folder, ranks):
    return Checkpoints(folder, 2) if ranks.size == 1 else SharedCheckpoints(folder, 2, 1, ranks)


def write(folder, spread, config=CONFIG, dtype="float64", steps=3, **changes):
    """Train on so many ranks and leave a checkpoint. Returns its folder."""
    size, stage = spread

    def work(ranks):
        training = a_training(ranks, stage, config, dtype, **changes)
        advance(training, steps)
        with checkpoints_of(folder, ranks) as saving:
            saving.save(training)
            saving.wait()

    on_ranks(size, work)
    return newest_checkpoint(folder)


def go_on(folder, spread, config=CONFIG, dtype="float64", end=None, **changes):
    """The losses of each rank after it has loaded the newest checkpoint, and its loss scaler."""
    size, stage = spread

    def work(ranks):
        training = a_training(ranks, stage, config, dtype, **changes)
        load_checkpoint(folder, training)
        return advance(training, end or config.steps), training.scaler.state()

    return on_ranks(size, work)


def whole(checkpoint):
    """(weights, optimizer arrays), put together from their parts."""
    files = optimizer_files(checkpoint)
    arrays = read_stretches(files, {name: (0, size) for name, size in sizes_in(files).items()})
    return read_weights(checkpoint), arrays


def name_of(spread):
    return "{} ranks, stage {}".format(*spread)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """dict spread -> the folder of its checkpoint at step 3."""
    folders = {spread: tmp_path_factory.mktemp("written") for spread in SPREADS}
    for spread, folder in folders.items():
        write(folder, spread)
    return folders


@pytest.fixture(scope="module")
def alone():
    """The losses of one process, undisturbed."""
    return advance(a_training(None, 0), CONFIG.steps)


@pytest.mark.parametrize("then", SPREADS, ids=name_of)
@pytest.mark.parametrize("first", SPREADS, ids=name_of)
def test_every_spread_goes_on_from_every_other(written, alone, first, then):
    for losses, _ in go_on(written[first], then):
        np.testing.assert_allclose(losses, alone[3:], rtol=1e-10)


@pytest.mark.parametrize("spread", SPREADS[1:], ids=name_of)
def test_the_parts_are_the_state_of_one_process(written, spread):
    weights, arrays = whole(newest_checkpoint(written[spread]))
    for ours, theirs in zip(whole(newest_checkpoint(written[1, 0])), (weights, arrays), strict=True):
        assert ours.keys() == theirs.keys()
        for name, array in ours.items():
            np.testing.assert_allclose(theirs[name], array, rtol=1e-6, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("spread", SPREADS, ids=name_of)
def test_on_as_many_ranks_it_goes_on_to_the_bit(tmp_path, spread):
    size, stage = spread
    through = on_ranks(size, lambda ranks: advance(a_training(ranks, stage, dtype="float32"), CONFIG.steps))
    write(tmp_path, spread, dtype="float32")
    assert [losses for losses, _ in go_on(tmp_path, spread, dtype="float32")] == [losses[3:] for losses in through]


@pytest.mark.parametrize("optimizer", ["muon", "adafactor", "lion", "sgd"])
def test_every_optimizer_goes_on_with_other_ranks(tmp_path, optimizer):
    config = dataclasses.replace(CONFIG, optimizer=optimizer)
    expected = advance(a_training(None, 0, config), CONFIG.steps)[3:]
    write(tmp_path, (4, 1), config)
    for spread in ((2, 1), (1, 0), (4, 0)):
        for losses, _ in go_on(tmp_path, spread, config):
            np.testing.assert_allclose(losses, expected, rtol=1e-10)


def test_the_loss_scale_goes_on_with_other_ranks(tmp_path):
    config = dataclasses.replace(CONFIG, precision="fp16")
    expected = advance(a_training(None, 0, config, "float32"), CONFIG.steps)[3:]
    write(tmp_path, (2, 1), config, "float32")
    for losses, scaling in go_on(tmp_path, (4, 1), config, "float32"):
        np.testing.assert_allclose(losses, expected, rtol=1e-3)
        assert scaling == {"scale": 2.0**16, "good_steps": 5}


def test_what_is_in_the_folder(written):
    assert sorted(path.name for path in newest_checkpoint(written[2, 0]).iterdir()) == [
        "optimizer.safetensors", "state.json", "weights.safetensors",
    ]  # fmt: skip
    assert read_state(newest_checkpoint(written[2, 0]))["format_version"] == 2
    checkpoint = newest_checkpoint(written[2, 1])
    names = ["optimizer-rank-0-of-2.safetensors", "optimizer-rank-1-of-2.safetensors", "weights.safetensors"]
    assert sorted(path.name for path in checkpoint.iterdir()) == sorted([*names, "state.json"])
    state = read_state(checkpoint)
    assert state["format_version"] == 3
    assert state["parts"] == {"ranks": 2, "zero": 1}
    assert sorted(state["sha256"]) == names


def test_what_is_the_best_is_the_same_on_all_ranks_after_going_on(tmp_path):
    """Only the first rank can read it; the others would write, and wait for it, where it does not."""

    def work(ranks, *losses):
        training = a_training(ranks, 1)
        advance(training, 1)
        with checkpoints_of(tmp_path, ranks) as saving:
            saving.rewind(5)
            for loss in losses:
                saving.save_if_best(training, loss)
                advance(training, training.step + 1)
            saving.wait()
            return saving.lowest

    assert on_ranks(2, lambda ranks: work(ranks, 3.0, 4.0, 2.0)) == [2.0, 2.0]
    assert on_ranks(2, lambda ranks: work(ranks, 2.5)) == [2.0, 2.0]
    assert [path.name for path in checkpoints(tmp_path, "best")] == ["best-000003"]


# -------------------------------------------------------------------------------------------------- what goes wrong


def test_a_checkpoint_that_is_given_up_leaves_nothing(tmp_path, monkeypatch):
    write_part = SharedSnapshot.write_part

    def fail_at_first(snapshot, folder):
        if snapshot.step == 1 and part_name("optimizer.safetensors", 1, 2) in snapshot.files:
            raise OSError("no room")
        write_part(snapshot, folder)

    def work(ranks):
        training = a_training(ranks, 1)
        with checkpoints_of(tmp_path, ranks) as saving:
            for step in (1, 2):
                advance(training, step)
                saving.save(training)
                saving.wait()
                told.append((step, str(saving.error or saving.elsewhere)))

    told = []
    monkeypatch.setattr(SharedSnapshot, "write_part", fail_at_first)
    on_ranks(2, work)
    assert sorted(told) == [(1, "no room"), (1, "rank 1: no room"), (2, "None"), (2, "None")]
    assert [path.name for path in (tmp_path / CHECKPOINTS).iterdir()] == ["step-000002"]


def two_of(folder, written):
    """A folder with checkpoints of steps 3 and 5, both of two ranks at stage 1."""
    shutil.copytree(written[2, 1], folder)
    write(folder, (2, 1), steps=5)
    return folder / CHECKPOINTS


PART = part_name("optimizer.safetensors", 1, 2)


def harm_missing(newer, older):
    (newer / PART).unlink()


def harm_of_another(newer, older):
    shutil.copy(older / PART, newer / PART)


def harm_a_bit(newer, older):
    data = bytearray((newer / PART).read_bytes())
    data[-5] ^= 4
    (newer / PART).write_bytes(data)


def test_what_could_not_be_written_is_forgotten_with_the_steps_it_was_of(tmp_path, monkeypatch):
    def fail(snapshot, folder):
        snapshot.unfinished(folder).mkdir(parents=True, exist_ok=True)
        raise OSError("no room")

    def work(ranks):
        training = a_training(ranks, 1)
        with checkpoints_of(tmp_path, ranks) as saving:
            saving.save(training)
            saving.wait()
            assert saving.error or saving.elsewhere
            saving.rewind(-1)
            assert (saving.error, saving.elsewhere, saving.pending, saving.unwritten) == (None, None, {}, {})

    monkeypatch.setattr(SharedSnapshot, "write_part", fail)
    on_ranks(2, work)
    assert not list((tmp_path / CHECKPOINTS).iterdir())


@pytest.mark.parametrize(
    ("harm", "fault"),
    [
        (harm_missing, "is missing"),
        (harm_of_another, "has another checksum"),
        (harm_a_bit, "has another checksum"),
    ],
)
def test_a_damaged_part_is_named_and_the_checkpoint_before_it_is_used(tmp_path, written, harm, fault):
    found = two_of(tmp_path / "run", written)
    harm(found / "step-000005", found / "step-000003")
    assert not is_whole(found / "step-000005")
    with pytest.warns(UserWarning, match=rf"step-000005 is damaged; using step-000003 \(step-000005: {PART} {fault}\)"):
        assert newest_checkpoint(tmp_path / "run").name == "step-000003"
    shutil.rmtree(found / "step-000003")
    with pytest.raises(UserError, match=rf"no whole checkpoint yet; 1 damaged: .*/step-000005 \({PART} {fault}\)"):
        on_ranks(4, lambda ranks: load_checkpoint(tmp_path / "run", a_training(ranks, 1)))


def test_a_checkpoint_of_another_model_changes_nothing_on_any_rank(tmp_path):
    write(tmp_path, (2, 1), hidden_size=32)

    def work(ranks):
        training = a_training(ranks, 1)
        before = training.store.values.copy()
        with pytest.raises(UserError, match=r"step-000003 does not fit this run: m has \d+ numbers, and this model's"):
            load_checkpoint(tmp_path, training)
        np.testing.assert_array_equal(training.store.values, before)
        return training.step

    assert on_ranks(2, work) == [0, 0]


def test_parts_of_other_sizes_are_refused(tmp_path, written):
    """Whole by its checksums, but somebody has put it together wrongly."""
    shutil.copytree(written[2, 1], tmp_path / "run")
    checkpoint = newest_checkpoint(tmp_path / "run")
    arrays = read_arrays(checkpoint / PART)
    cut = {name: array[:-64] for name, array in arrays.items()}
    state = json.loads((checkpoint / "state.json").read_text())
    state["sha256"][PART] = write_arrays(checkpoint / PART, cut)
    state["state_sha256"] = sha256_of_state(state)
    (checkpoint / "state.json").write_text(json.dumps(state))
    for size in (1, 4):
        with pytest.raises(UserError, match=r"does not fit this run: m has \d+ numbers, and this model's has \d+"):
            on_ranks(size, lambda ranks: load_checkpoint(tmp_path / "run", a_training(ranks, 1)))


def test_stretches_of_files(tmp_path):
    whole = np.arange(20.0)
    paths = [tmp_path / f"{i}.safetensors" for i in range(4)]
    for path, (start, stop) in zip(paths, [(0, 7), (7, 7), (7, 8), (8, 20)], strict=True):
        write_arrays(path, {"a": whole[start:stop], "b": -whole[start:stop]})
    assert sizes_in(paths) == {"a": 20, "b": 20}
    for start in range(0, 21, 3):
        for stop in range(start, 21):
            read = read_stretches(paths, {"a": (start, stop), "b": (0, stop)})
            np.testing.assert_array_equal(read["a"], whole[start:stop])
            np.testing.assert_array_equal(read["b"], -whole[:stop])
    with pytest.raises(UserError, match=r"missing.safetensors does not exist"):
        sizes_in([tmp_path / "missing.safetensors"])
    (tmp_path / "torn.safetensors").write_bytes(paths[0].read_bytes()[:50])
    with pytest.raises(UserError, match="is not a whole safetensors file"):
        read_stretches([tmp_path / "torn.safetensors"], {"a": (0, 1)})

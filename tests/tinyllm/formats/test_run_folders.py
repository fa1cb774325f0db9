"""Run folders: which checkpoint counts, which are deleted, and what is not one of ours."""

import json
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

import tinyllm
from tinyllm.errors import UserError
from tinyllm.formats.run_folders import checkpoints, is_separated, is_whole, newest_checkpoint, read_config
from tinyllm.models import Decoder, gpt2
from tinyllm.tokenizers import ByteTokenizer, CharacterTokenizer
from tinyllm.training.checkpoints import save_checkpoint


def save_at(folder, step, keep=2):
    """A checkpoint of a training that has nothing but a step."""
    training = SimpleNamespace(step=step, state=lambda: ({"m": np.zeros(3)}, {"step": step}))
    training.config = SimpleNamespace(optimizer="sgd", precision="fp32")
    training.store = SimpleNamespace(weights=lambda: {"w": np.full(3, float(step))})
    return save_checkpoint(folder, training, keep)


def damage(checkpoint):
    (checkpoint / "weights.safetensors").write_bytes(b"")


def steps(folder):
    return [int(path.name.removeprefix("step-")) for path in checkpoints(folder)]


def test_checkpoints_are_ordered_by_number_not_by_name(tmp_path):
    for step in (999_999, 1_000_000, 5):
        save_at(tmp_path, step, keep=9)
    (tmp_path / "checkpoints" / "step-by-step").mkdir()
    assert steps(tmp_path) == [5, 999_999, 1_000_000]
    assert newest_checkpoint(tmp_path).name == "step-1000000"


def test_the_newest_are_kept(tmp_path):
    for step in (10, 20, 30):
        save_at(tmp_path, step)
    assert steps(tmp_path) == [20, 30]
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"step-000020", "step-000030"}


def test_a_damaged_later_one_does_not_push_out_the_one_just_written(tmp_path):
    save_at(tmp_path, 10, keep=1)
    damage(save_at(tmp_path, 40, keep=2))
    with pytest.warns(UserWarning, match="step-000040 is damaged; using step-000010"):
        newest_checkpoint(tmp_path)
    save_at(tmp_path, 20, keep=1)
    assert steps(tmp_path) == [20, 40]
    save_at(tmp_path, 40, keep=1)
    assert steps(tmp_path) == [40]
    assert is_whole(newest_checkpoint(tmp_path))


def test_a_whole_one_of_this_step_is_left_alone(tmp_path):
    checkpoint = save_at(tmp_path, 10)
    before = {path: path.stat().st_mtime_ns for path in checkpoint.iterdir()}
    save_at(tmp_path, 10)
    assert {path: path.stat().st_mtime_ns for path in checkpoint.iterdir()} == before


def test_what_a_killed_save_leaves_is_no_checkpoint_and_goes_with_the_next(tmp_path):
    save_at(tmp_path, 10)
    unfinished = tmp_path / "checkpoints" / ".step-000020.unfinished"
    unfinished.mkdir()
    (unfinished / "weights.safetensors").write_bytes(b"half of it")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert newest_checkpoint(tmp_path).name == "step-000010"
    save_at(tmp_path, 20)
    assert not unfinished.exists()


@pytest.mark.parametrize(
    "state", ["", "{", "[]", "3", "{}", '{"sha256": {}}', '{"sha256": []}', '{"sha256": {"weights.safetensors": "00"}}']
)
def test_a_checkpoint_is_whole_only_by_its_checksums(tmp_path, state):
    checkpoint = save_at(tmp_path, 10)
    assert is_whole(checkpoint)
    (checkpoint / "state.json").write_text(state)
    assert not is_whole(checkpoint)


@pytest.mark.parametrize("content", ["[]", "{}", '{"model": {}}', '{"format_version": 1}', '{"format_version": "1"}'])
def test_a_config_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match="is not the config of a tinyllm run"):
        read_config(tmp_path)


@pytest.fixture
def saved(tmp_path):
    shape = gpt2.config(
        vocab_size=257, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=8
    )
    tinyllm.save(Decoder(shape, seed=1), ByteTokenizer(), tmp_path / "model")
    return tmp_path / "model"


def test_a_saved_model_comes_back(saved):
    model, tokenizer = tinyllm.load(saved)
    assert tokenizer.vocabulary_hash == ByteTokenizer().vocabulary_hash
    for name, p in Decoder(model.config, seed=1).parameters().items():
        np.testing.assert_array_equal(model.parameters()[name].data, p.data)


def test_a_folder_without_a_whole_checkpoint_names_the_damaged_one(saved):
    damage(saved / "checkpoints" / "step-000000")
    with pytest.raises(UserError, match="has no whole checkpoint yet; 1 damaged: "):
        tinyllm.load(saved)


def test_a_tokenizer_with_more_tokens_than_the_model(saved):
    CharacterTokenizer.train(["".join(map(chr, range(32, 400)))]).save(saved / "tokenizer")
    with pytest.raises(UserError, match="has 368 tokens, the model 257: it is not the tokenizer that this model was"):
        tinyllm.load(saved)


def test_a_model_larger_than_its_tokenizer_is_fine(saved):
    """Published models round their vocabulary up."""
    CharacterTokenizer.train(["abc"]).save(saved / "tokenizer")
    assert tinyllm.load(saved)[1].vocab_size == 3


def test_whether_texts_were_separated():
    assert is_separated({"corpus": {"num_documents": 2}})
    assert not is_separated({"corpus": {"num_documents": 1}})
    assert is_separated({})


def test_the_config_of_a_saved_model_keeps_its_fields(saved):
    """Other versions read it: names and format are a promise."""
    config = json.loads((saved / "config.json").read_text())
    assert config["format_version"] == 1
    assert set(config) == {"format_version", "model"}
    assert {"vocab_size", "hidden_size", "num_hidden_layers", "max_position_embeddings"} <= set(config["model"])

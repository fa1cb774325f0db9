"""Run folders: what one holds, that a resumed run is the same run, and that nothing is lost on the way."""

import json
import math
import re

import numpy as np
import pytest

import tinyllm
from tinyllm.data import load_corpus
from tinyllm.errors import UserError
from tinyllm.formats.arrays import read_arrays
from tinyllm.formats.run_folders import newest_checkpoint
from tinyllm.tokenizers import WordPieceTokenizer
from tinyllm.training import journal, runs
from tinyllm.training.metrics import read_metrics
from tinyllm.training.presets import PRESETS, preset
from tinyllm.training.runs import begin_run, complete, resume_run

MODEL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16}
TRAINING = {
    "steps": 6,
    "batch_size": 2,
    "warmup_steps": 2,
    "evaluate_every": 2,
    "sample_every": 3,
    "checkpoint_every": 2,
    "sample_tokens": 5,
}


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "texts of mine"
    folder.mkdir()
    for i in range(12):
        (folder / f"{i}.txt").write_text(f"Story {i}. " + "The old sailor sat by the sea and told it again. " * 4)
    return load_corpus(str(folder))


def begin(folder, corpus, **changes):
    options = {"tokenizer": "bytes", "model": MODEL, "training": TRAINING}
    return begin_run(folder, "textbook", corpus, **options | changes)


def files(folder):
    """dict relative path -> bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def losses(folder):
    return [(r["step"], r["split"], r["loss_nats"]) for r in read_metrics(folder)]


def test_a_run_folder_holds_what_the_design_says(tmp_path, corpus):
    folder = tmp_path / "run"
    result = complete(begin(folder, corpus))
    names = set(files(folder))
    assert {"config.json", "tokenizer/tokenizer.json", "metrics.jsonl", "samples.txt", "report.html"} <= names
    config = json.loads((folder / "config.json").read_text())
    assert config["format_version"] == 1
    assert config["corpus"]["sha256"] == corpus.sha256
    assert config["machine"]["numpy"] == np.__version__
    assert config["training"]["steps"] == 6
    metrics = read_metrics(folder)
    assert [m["step"] for m in metrics if m["split"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert [m["step"] for m in metrics if m["split"] == "validation"] == [2, 4, 6]
    assert metrics[-1]["bits_per_byte"] == result["bits_per_byte"] > 0
    assert {"loss_nats", "tokens_per_second", "learning_rate", "gradient_norm"} <= set(metrics[0])
    kept = sorted(p.name for p in (folder / "checkpoints").iterdir() if p.name.startswith("step"))
    assert kept == ["step-000004", "step-000006"]
    assert (folder / "samples.txt").read_text().count("=== step") == 3


def test_a_model_comes_back_from_its_run_folder(tmp_path, corpus):
    run = begin(tmp_path / "run", corpus)
    complete(run)
    model, tokenizer = tinyllm.load(tmp_path / "run")
    assert model.config == run.training.model.config
    assert tokenizer.vocabulary_hash == run.tokenizer.vocabulary_hash
    ids = np.array([tokenizer.encode("The old sa")])
    np.testing.assert_array_equal(model(ids).numpy(), run.training.model(ids).numpy())
    tinyllm.save(model, tokenizer, tmp_path / "copy")
    copy, _ = tinyllm.load(tmp_path / "copy")
    np.testing.assert_array_equal(copy(ids).numpy(), model(ids).numpy())
    with pytest.raises(UserError, match="holds a model already"):
        tinyllm.save(model, tokenizer, tmp_path / "copy")
    with pytest.raises(UserError, match="holds a model but no training run"):
        resume_run(tmp_path / "copy")


def test_bits_per_byte_count_the_bytes_of_the_text_and_not_of_its_tokens(tmp_path):
    """WordPiece writes any white space as one space, of which there is ever more towards the end of this text."""
    words = [f"{' ' * (1 + place // 40)}{'Tide' if place % 3 else 'sea'}" for place in range(2000)]
    (tmp_path / "text.txt").write_text("".join(words), encoding="utf-8")
    corpus = load_corpus(str(tmp_path / "text.txt"))
    tokenizer = WordPieceTokenizer(["[UNK]", "tide", "sea", "##e", "i", "t", "d", "e", "s", "a"], ["[UNK]"])
    training = TRAINING | {"evaluation_windows": 3}
    run = begin(tmp_path / "run", corpus, tokenizer=tokenizer, training=training)
    complete(run)
    held_out = corpus.split()[1][0]
    first, *scored = re.findall(r" *\w+", held_out)[: 3 * 16 + 1]  # three windows of 16 targets, one word each
    assert len(tokenizer.encode("".join([first, *scored]))) == 49
    expected = {48: len("".join(scored)), run.validation_tokens.count - 1: len(held_out)}
    evaluations = [record for record in read_metrics(tmp_path / "run") if record["split"] == "validation"]
    assert {record["targets"] for record in evaluations} == set(expected)
    for record in evaluations:
        nats = record["loss_nats"] * record["targets"]
        assert record["bits_per_byte"] == pytest.approx(nats / math.log(2) / expected[record["targets"]], rel=1e-12)
    # What the tokens come back as is shorter.
    assert len(tokenizer.decode(run.validation_tokens.tokens[1:49])) < expected[48] / 5
    resumed = resume_run(tmp_path / "run", steps=8)
    complete(resumed)
    assert read_metrics(tmp_path / "run")[-1]["targets"] == resumed.validation_tokens.count - 1


def test_samples_go_on_their_prompt(tmp_path, corpus, monkeypatch):
    run = begin(tmp_path / "run", corpus, tokenizer="wordpiece", vocab_size=50)
    ids = run.tokenizer.encode("sailor sat.")
    monkeypatch.setattr(journal, "generate", lambda *_, **__: ids)
    monkeypatch.setattr(journal, "sample_prompt", lambda _: "The old")
    complete(run)
    assert "=== step 6 ===\nThe old sailor sat.\n" in (tmp_path / "run" / "samples.txt").read_text()


def stop_after(monkeypatch, steps):
    """Make runs.pretrain stop as if Ctrl-C had come after so many steps."""
    full = runs.pretrain

    def interrupted(training, **options):
        full(training, **options | {"stop": lambda: training.step >= steps})

    monkeypatch.setattr(runs, "pretrain", interrupted)


@pytest.mark.parametrize("interrupted_at", [1, 3, 4])
def test_an_interrupted_run_goes_on_bit_identically(tmp_path, corpus, monkeypatch, interrupted_at):
    complete(begin(tmp_path / "through", corpus))
    with monkeypatch.context() as patch:
        stop_after(patch, interrupted_at)
        assert complete(begin(tmp_path / "stopped", corpus)) is None
    resumed = resume_run(tmp_path / "stopped")
    assert resumed.training.step == interrupted_at
    complete(resumed)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "through")
    one, two = (newest_checkpoint(tmp_path / name) for name in ("through", "stopped"))
    for file in ("weights.safetensors", "optimizer.safetensors"):
        a, b = read_arrays(one / file), read_arrays(two / file)
        assert all((a[name] == b[name]).all() for name in a), file


def test_a_run_killed_after_its_last_checkpoint_repeats_the_lost_steps(tmp_path, corpus, monkeypatch):
    complete(begin(tmp_path / "through", corpus))
    run = begin(tmp_path / "killed", corpus)

    def killed(training, **options):
        for _ in range(5):
            runs_pretrain(training, **options | {"stop": lambda start=training.step: training.step > start})
        raise SystemExit("killed")

    runs_pretrain = runs.pretrain
    with monkeypatch.context() as patch:
        patch.setattr(runs, "pretrain", killed)
        with pytest.raises(SystemExit):
            complete(run)
    resumed = resume_run(tmp_path / "killed")
    assert resumed.training.step == 4
    complete(resumed)
    assert losses(tmp_path / "killed") == losses(tmp_path / "through")


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, corpus):
    folder = tmp_path / "run"
    complete(begin(folder, corpus))
    weights = folder / "checkpoints" / "step-000006" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.warns(UserWarning, match="step-000006 is damaged; using step-000004"):
        assert resume_run(folder).training.step == 4
    (folder / "checkpoints" / "step-000004" / "state.json").write_text("{")
    with pytest.raises(UserError, match="has no whole checkpoint yet; 2 damaged"):
        resume_run(folder)


def test_a_shorter_run_has_a_shorter_warm_up(tmp_path, corpus):
    changes = {name: value for name, value in TRAINING.items() if name != "warmup_steps"}
    assert begin(tmp_path / "short", corpus, training=changes | {"steps": 50}).training.config.warmup_steps == 5
    assert begin(tmp_path / "given", corpus, training=changes | {"warmup_steps": 3}).training.config.warmup_steps == 3


def test_more_steps_may_be_asked_for(tmp_path, corpus):
    complete(begin(tmp_path / "run", corpus))
    run = resume_run(tmp_path / "run", steps=8)
    assert run.training.step == 6
    assert complete(run)["step"] == 8
    assert json.loads((tmp_path / "run" / "config.json").read_text())["training"]["steps"] == 8


def test_a_folder_in_use_is_refused_and_not_touched(tmp_path, corpus):
    folder = tmp_path / "run"
    complete(begin(folder, corpus))
    before = files(folder)
    with pytest.raises(UserError, match="holds a run already; go on with it: --resume"):
        begin(folder, corpus)
    assert files(folder) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UserError, match=r"is not empty \(it holds letter.txt\)"):
        begin(tmp_path / "mine", corpus)
    with pytest.raises(UserError, match="is a file"):
        begin(tmp_path / "mine" / "letter.txt", corpus)


def test_a_start_that_failed_does_not_block_the_next(tmp_path, corpus):
    with pytest.raises(UserError, match="a context of 4000 needs at least"):
        begin(tmp_path / "run", corpus, model=MODEL | {"max_position_embeddings": 4000})
    assert complete(begin(tmp_path / "run", corpus))["step"] == 6


def test_a_failed_start_takes_away_only_what_it_wrote(tmp_path, corpus):
    (tmp_path / "run" / "data").mkdir(parents=True)
    (tmp_path / "run" / "data" / ".keep").write_text("mine")
    with pytest.raises(UserError, match="a context of 4000"):
        begin(tmp_path / "run", corpus, model=MODEL | {"max_position_embeddings": 4000})
    assert files(tmp_path / "run") == {"data/.keep": b"mine"}


def test_a_run_that_overflows_leaves_its_report_and_its_last_good_checkpoint(tmp_path, corpus, monkeypatch):
    run = begin(tmp_path / "run", corpus)
    full = runs.pretrain

    def poisoned(training, **options):
        full(training, **options | {"stop": lambda: training.step >= 4})
        training.store.values[...] = np.nan
        full(training, **options)

    monkeypatch.setattr(runs, "pretrain", poisoned)
    with pytest.raises(UserError, match="step 5 came to no number"):
        complete(run)
    assert "4 of 6" in (tmp_path / "run" / "report.html").read_text()
    weights = read_arrays(newest_checkpoint(tmp_path / "run") / "weights.safetensors")
    assert all(np.isfinite(array).all() for array in weights.values())


def test_the_report_tells_what_other_seeds_reached(tmp_path, corpus):
    changed = begin(tmp_path / "run", corpus)
    assert changed.config["expected"] is None  # another model and other steps than the preset's
    changed.config["expected"] = {"low": 1.0, "high": 2.5, "unit": "bits_per_byte"}
    (tmp_path / "run" / "config.json").write_text(json.dumps(changed.config))
    complete(changed)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Expected of this preset on this text: 1.000 to 2.500 bits per byte" in page


def test_a_changed_learning_rate_moves_the_floor_alike(tmp_path, corpus):
    changes = TRAINING | {"learning_rate": 5e-5}
    config = begin(tmp_path / "run", corpus, training=changes).training.config
    assert config.min_learning_rate == pytest.approx(5e-6)


def test_an_unknown_preset_has_a_suggestion():
    with pytest.raises(UserError, match="no preset is called 'quikstart'; did you mean 'quickstart'"):
        preset("quikstart")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_makes_a_config(name):
    chosen = PRESETS[name]
    config = chosen.model_config(vocab_size=chosen.vocab_size)
    assert config.vocab_size == chosen.vocab_size
    assert chosen.training.warmup_steps < chosen.training.steps


def test_the_shakespeare_presets_are_nanogpts():
    config = preset("shakespeare-char-cpu").model_config(65)
    got = (config.num_hidden_layers, config.num_attention_heads, config.hidden_size, config.max_position_embeddings)
    assert got == (4, 4, 128, 64)
    assert (config.attention_bias, config.feed_forward_bias, config.norm_bias, config.dropout) == (False,) * 3 + (0.0,)
    training = preset("shakespeare-char-cpu").training
    assert (training.batch_size, training.steps, training.warmup_steps) == (12, 2000, 100)
    assert (training.learning_rate, training.min_learning_rate, training.beta2) == (1e-3, 1e-4, 0.99)
    config = preset("shakespeare-char").model_config(65)
    got = (config.num_hidden_layers, config.num_attention_heads, config.hidden_size, config.max_position_embeddings)
    assert (*got, config.dropout) == (6, 6, 384, 256, 0.2)
    assert preset("shakespeare-char").training.steps == 5000

"""What `tinyllm why` says: of runs in which something was wrong on purpose, and of records made up for a cause.

The planted runs were trained and recorded by planted_runs.py.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from tinyllm.errors import UserError
from tinyllm.training.bands import NEUTRAL, Band, all_bands, changed_options, find_band, trailing_means
from tinyllm.training.config import changed
from tinyllm.training.diagnosis import diagnose
from tinyllm.training.diagnosis.history import read_history
from tinyllm.training.diagnosis.verdict import Examined, compared
from tinyllm.training.metrics import MetricsLog
from tinyllm.training.presets import PRESETS

RECORDED = json.loads(Path(__file__).with_name("planted_runs.json").read_text())


def write_run(folder, config, records, summary=None):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    if summary:
        (folder / "summary.json").write_text(json.dumps(summary))
    with MetricsLog(folder) as log:
        for record in records:
            log.append(record)
    return folder


def records_of(losses, norms=None, held_out=(), scales=None, rate=1e-3, speeds=None):
    """Lines of metrics.jsonl. held_out: (step, loss) of characters."""
    held_out = dict(held_out)
    for i, loss in enumerate(losses):
        record = {"step": i + 1, "split": "train", "loss_nats": loss, "learning_rate": rate}
        record |= {"gradient_norm": norms[i] if norms else 0.5, "tokens_per_second": speeds[i] if speeds else 1e4}
        if scales:
            record["loss_scale"] = scales[i]
        yield record
        if i + 1 in held_out:
            loss = held_out[i + 1]
            bits = {"bits_per_byte": loss / math.log(2), "targets": 640}
            yield {"step": i + 1, "split": "validation", "loss_nats": loss, **bits}


def planted(folder, name, steps=None, unigram=True):
    """A recorded run as a folder, cut off after so many steps."""
    run = RECORDED[name]
    steps = steps or len(run["loss_nats"])
    rate = run["config"]["training"]["learning_rate"]
    columns = run["loss_nats"][:steps], run["gradient_norm"], run["held_out"], run["loss_scale"]
    summary = {"bits_per_byte": {"unigram": run["unigram_bits"]}} if unigram else None
    return write_run(folder / "run", run["config"], records_of(*columns, rate=rate), summary)


def falling(steps=300, start=4.0, end=1.5, seed=0, noise=0.05):
    curve = end + (start - end) * np.exp(-np.arange(steps) / (steps / 5))
    return (curve + noise * np.random.default_rng(seed).standard_normal(steps)).tolist()


CONFIG = {
    "format_version": 1,
    "preset": "quickstart",
    "model": PRESETS["quickstart"].model_config(64).as_dict(),
    "training": PRESETS["quickstart"].training.as_dict() | {"steps": 300},
    "tokenizer": {"kind": "character", "vocab_size": 64, "hash": "ab"},
    "corpus": {"name": "tales.txt", "sha256": "cd", "training_bytes": 900_000},
}


def made_up(folder, losses, config=CONFIG, extra=(), **columns):
    return write_run(folder / "run", config, [*records_of(losses, **columns), *extra])


# ------------------------------------------------------------------------------------------------------ planted runs


@pytest.mark.parametrize("unigram", [True, False], ids=["with token counts", "metrics and config alone"])
@pytest.mark.parametrize(
    ("name", "verdict", "cause"),
    [
        ("healthy", "nothing looks wrong", None),
        ("healthy, fp16", "nothing looks wrong", None),
        ("healthy, three times the rate", "nothing looks wrong", None),
        ("rate 30 times too large", "not normal", "learning rate too large"),
        ("rate 100 times too large", "not normal", "learning rate too large"),
        ("rate 3,000 times too large", "not normal", "learning rate too large"),
        ("rate 30 times too small", "not normal", "learning rate too small"),
        ("rate 100 times too small", "not normal", "learning rate too small"),
        ("rate 3,000 times too small", "not normal", "learning rate too small"),
        ("no rate", "not normal", "no learning"),
        ("few steps", "too early to say", None),
        ("shuffled letters", "not normal", "stuck at single tokens"),
        ("a page by heart", "not normal", "overfitting"),
        ("the same page again and again", "not normal", "held-out text in the training text"),
    ],
)
def test_what_was_planted_is_found(tmp_path, name, verdict, cause, unigram):
    found = diagnose(planted(tmp_path, name, unigram=unigram))
    assert (found.verdict, found.cause) == (verdict, cause)
    assert len(found.lines) <= 4
    assert not any("\n" in line for line in found.lines)


@pytest.mark.parametrize("name", RECORDED)
def test_only_healthy_runs_are_in_the_band_that_a_healthy_run_makes(tmp_path, name):
    healthy = RECORDED["healthy"]
    means = trailing_means(np.array(healthy["loss_nats"]))
    training = tuple((step, means[step - 1] - 0.02, means[step - 1] + 0.02) for step in range(20, 301, 20))
    held_out = tuple((step, loss - 0.02, loss + 0.02) for step, loss in healthy["held_out"])
    band = Band("quickstart", "", "", 300, (0, 1, 2), training, held_out)
    history = read_history(planted(tmp_path, name))
    run = Examined(tmp_path, history, band, compared(history, band))
    assert run.inside == (name in ("healthy", "healthy, fp16"))


def test_the_command_repeats_the_run_with_the_one_change(tmp_path):
    found = diagnose(planted(tmp_path, "rate 30 times too large"))
    words = " ".join(found.command)
    assert words.startswith(f"pretrain quickstart --data tales.txt --run {tmp_path / 'run-2'} --tokenizer character ")
    assert "--model.hidden-size 32 " in words
    assert "--steps 300 " in words
    assert words.endswith("--training.learning-rate 0.003")
    assert words.count("learning-rate") == 1
    assert "warmup" not in words
    assert "--training.learning-rate 0.003" in found.lines[-1]


# --------------------------------------------------------------------------------------------- one cause after another


def test_a_run_that_diverged_names_the_op(tmp_path):
    broke = {"first_nan": {"op": "softmax", "phase": "forward", "layer": "blocks.1.attention"}}
    event = {"step": 121, "split": "diverged", "loss_nats": math.nan, **broke}
    found = diagnose(made_up(tmp_path, falling()[:120], extra=[event]))
    assert (found.verdict, found.cause) == ("not normal", "diverged")
    assert (
        "At step 121 the loss or its gradient was no number; the forward of softmax in blocks.1.attention"
        in found.lines[1]
    )
    assert "--training.learning-rate 0.001" in found.lines[-1]


def test_a_run_that_ended_in_a_spike_did_not_come_to_no_number(tmp_path):
    event = {"step": 121, "split": "diverged", "loss_nats": 9.0, "spike": {"of": "loss_nats", "z": 40.0}}
    found = diagnose(made_up(tmp_path, falling()[:120], extra=[event]))
    assert found.cause == "diverged"
    assert "At step 121 there was one spike too many." in found.lines[1]


def test_a_divergence_that_the_run_has_left_behind_does_not_count(tmp_path):
    event = {"step": 121, "split": "diverged", "first_nan": {"op": "softmax"}}
    assert diagnose(made_up(tmp_path, falling(), extra=[event])).cause is None


def test_a_loss_of_an_older_run_that_is_no_number_is_divergence_too(tmp_path):
    assert diagnose(made_up(tmp_path, [*falling()[:120], math.nan])).cause == "diverged"


def test_a_run_that_diverged_at_once_is_told_too(tmp_path):
    event = {"step": 1, "split": "diverged", "first_nan": {"cause": "every op gave finite numbers"}}
    found = diagnose(made_up(tmp_path, [], extra=[event]))
    assert found.cause == "diverged"
    assert found.lines[0] == "Not normal: no step of 300 was finished."


def test_skipped_overflows_of_float16_are_normal_and_a_collapsing_scale_is_not(tmp_path):
    config = CONFIG | {"training": CONFIG["training"] | {"precision": "fp16"}}
    scales = [65536 / 2 ** min(i // 2, 3) for i in range(300)]
    fine = list(records_of(falling(), scales=scales))
    for i in (1, 3, 5):
        fine[i] |= {"skipped": "overflow", "gradient_norm": math.inf}
    assert diagnose(write_run(tmp_path / "fine", config, fine)).cause is None
    collapsing = list(records_of(falling(), scales=[65536 / 2 ** (i // 8) for i in range(300)]))
    for i in range(7, 300, 8):
        collapsing[i] |= {"skipped": "overflow", "gradient_norm": math.inf}
    found = diagnose(write_run(tmp_path / "collapsing", config, collapsing))
    assert found.cause == "float16 scale collapsing"
    assert "--precision bf16" in found.lines[-1]
    assert "--precision bf16" in " ".join(found.command)


def test_no_gradient_and_a_constant_loss(tmp_path):
    found = diagnose(made_up(tmp_path / "a", falling(noise=0.05, start=4, end=4), norms=[0.0] * 300))
    assert found.cause == "no learning"
    assert "The gradient is 0" in found.lines[1]
    found = diagnose(made_up(tmp_path / "b", [4.1] * 300))
    assert found.cause == "no learning"
    assert "at every step" in found.lines[1]
    found = diagnose(made_up(tmp_path / "c", falling(noise=0.05, start=4.16, end=4.16)))
    assert found.cause == "no learning"
    assert "The loss stays at 4.15, and guessing is 4.16: nothing was learned" in found.lines[1]


def test_a_jump_that_does_not_heal_and_one_batch_that_does(tmp_path):
    losses = falling()
    healed = [*losses[:150], 6.0, *losses[151:]]
    assert diagnose(made_up(tmp_path / "a", healed)).cause is None
    jumped = losses[:150] + [x + 1 for x in losses[150:]]
    found = diagnose(made_up(tmp_path / "b", jumped, norms=[0.5] * 150 + [6.0] * 150))
    assert found.cause == "learning rate too large"
    assert "the gradient norm grew 12 times" in found.lines[1]


def test_another_optimizer_has_other_rates(tmp_path):
    losses = falling(start=3.4, end=3.33)  # 0.8 ln V
    for optimizer, cause in (("adamw", "learning rate too large"), ("sgd", "stuck at single tokens")):
        training = CONFIG["training"] | {"optimizer": optimizer, "learning_rate": 0.1}
        found = diagnose(made_up(tmp_path / optimizer, losses, CONFIG | {"training": training}, rate=0.1))
        assert found.cause == cause


def test_spikes_and_what_was_done_about_them(tmp_path):
    records = list(records_of(falling()))
    records[99] |= {"spike": {"of": "loss_nats", "z": 12.0}, "skipped": "spike"}
    records[199] |= {"spike": {"of": "gradient_norm", "z": 30.5}}
    records.insert(
        150,
        {"step": 150, "split": "roll-back", "spike": {"of": "loss_nats", "z": 9.0}, "skipped": "spike", "to_step": 140},
    )
    found = diagnose(write_run(tmp_path / "run", CONFIG, records))
    assert found.verdict == "nothing looks wrong"
    expected = "3 loss spikes, the first at step 100: 1 skipped, 1 rolled back, 1 followed all the same."
    assert expected in found.lines[2]
    assert "--training.on-spike skip" in found.lines[3]


def test_clipping_hard_text_repeated_and_speed_are_noticed(tmp_path):
    found = diagnose(made_up(tmp_path / "a", falling(), norms=[30.0] * 300))
    assert "Every gradient is clipped: its norm is typically 30, 30 times the clip 1" in found.lines[2]
    assert "--training.clip 60" in found.lines[3]

    small = CONFIG | {"corpus": CONFIG["corpus"] | {"training_bytes": 30_000}}
    found = diagnose(made_up(tmp_path / "b", falling(), small, held_out=[(300, 1.6)]))
    assert "The text was read 20 times" in found.lines[2]

    found = diagnose(made_up(tmp_path / "c", falling(), speeds=[20_000] * 150 + [8_000] * 150))
    assert "Speed fell from 20,000 to 8,000 tokens/s" in found.lines[2]
    found = diagnose(made_up(tmp_path / "d", falling(), speeds=[20_000, 8_000] * 150))
    assert "Speed is unsteady, 8,000 to 20,000 tokens/s" in found.lines[2]
    assert len(diagnose(made_up(tmp_path / "e", falling())).lines) == 3


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("config", [{"format_version": 1, "model": {}}, CONFIG], ids=["no config", "config"])
@pytest.mark.parametrize("steps", [1, 2, 12, 60, 130, 300])
def test_losses_alone_are_enough(tmp_path, steps, config):
    for name, losses in {"falling": falling(), "still": falling(end=4.0), "rising": falling()[::-1]}.items():
        records = [{"step": i, "split": "train", "loss_nats": loss} for i, loss in enumerate(losses[:steps], 1)]
        found = diagnose(write_run(tmp_path / name, config, records))
        assert found.lines
        assert "nan" not in " ".join((*found.lines, *found.command))


def test_a_run_that_has_just_begun_or_was_stopped(tmp_path):
    found = diagnose(made_up(tmp_path / "a", []))
    assert (found.verdict, found.command[-1]) == ("too early to say", "--resume")
    found = diagnose(made_up(tmp_path / "b", falling()[:200]))
    assert found.verdict == "nothing looks wrong"
    assert "at step 200 of 300" in found.lines[0]
    assert found.command == ("pretrain", "--run", str(tmp_path / "b" / "run"), "--resume")


# --------------------------------------------------------------------------------------------------------- the bands

LEVELS = falling(noise=0)
MEANS = trailing_means(np.array(LEVELS))
BAND = Band(
    "quickstart",
    "cd",
    "ab",
    300,
    (0, 1, 2),
    tuple((step, MEANS[step - 1] - 0.02, MEANS[step - 1] + 0.02) for step in range(15, 301, 15)),
    ((100, 2.0, 2.1), (200, 1.7, 1.8), (300, 1.6, 1.7)),
)
IN_BAND = [(100, 2.05), (200, 1.75), (300, 1.65)]


def test_a_run_in_its_band_is_normal(tmp_path):
    found = diagnose(made_up(tmp_path, falling(seed=1), CONFIG, held_out=IN_BAND), [BAND])
    assert (found.verdict, found.cause) == ("normal", None)
    assert found.lines[0].startswith(
        "Normal: held-out loss 1.650 nats per token at step 300; runs of quickstart on this"
    )
    assert "at 23 places along the curve it lies where 3 seeds did" in found.lines[1]


def test_an_unfinished_run_in_its_band_is_normal_so_far(tmp_path):
    found = diagnose(made_up(tmp_path, falling(seed=1)[:160], CONFIG, held_out=IN_BAND), [BAND])
    assert found.verdict == "normal so far"


@pytest.mark.parametrize(("shift", "cause"), [(0.3, "above the band"), (-0.3, "below the band")])
def test_a_run_outside_its_band_is_not_normal_whatever_else(tmp_path, shift, cause):
    losses = [loss + shift for loss in falling(seed=1)]
    held_out = [(step, loss + shift) for step, loss in IN_BAND]
    found = diagnose(made_up(tmp_path, losses, CONFIG, held_out=held_out), [BAND])
    assert (found.verdict, found.cause) == ("not normal", cause)
    assert "steps 300 (preset 650)" in found.lines[1]


@pytest.mark.parametrize(("rate", "cause"), [(0.1, "too large"), (1e-4, "too small"), (5e-3, None)])
def test_a_run_above_its_band_at_another_rate_is_explained_by_it(tmp_path, rate, cause):
    config = CONFIG | {"training": CONFIG["training"] | {"learning_rate": rate}}
    losses = [loss + 0.3 for loss in falling(seed=1)]
    found = diagnose(made_up(tmp_path, losses, config, rate=rate), [BAND])
    assert found.cause == (f"learning rate {cause}" if cause else "above the band")
    if cause:
        assert found.command[-2:] == ("--training.learning-rate", "0.003")


def test_held_out_text_far_below_the_band_is_suspected(tmp_path):
    held_out = [(step, loss - 0.5) for step, loss in IN_BAND]
    config = CONFIG | {"training": PRESETS["quickstart"].training.as_dict()}
    band = Band(**{**vars(BAND), "steps": 650})
    found = diagnose(made_up(tmp_path, falling(seed=1), config, held_out=held_out), [band])
    assert found.cause == "below the band"
    assert "held-out text may have come into the training text" in found.lines[1]


def test_a_hard_clip_is_named_where_the_loss_is_outside(tmp_path):
    losses = [loss + 0.3 for loss in falling(seed=1)]
    assert diagnose(made_up(tmp_path, losses, CONFIG, norms=[50.0] * 300), [BAND]).cause == "clipping at every step"


def test_a_changed_training_option_is_said_and_a_changed_model_has_no_band(tmp_path):
    changed = CONFIG | {"training": CONFIG["training"] | {"batch_size": 8, "seed": 7}}
    found = diagnose(made_up(tmp_path / "a", falling(seed=1), changed, held_out=IN_BAND), [BAND])
    assert found.verdict == "normal"
    assert "batch_size 8 (preset 16)" in found.lines[2]
    assert "seed" not in found.lines[2]
    wider = CONFIG | {"model": CONFIG["model"] | {"hidden_size": 256}}
    found = diagnose(made_up(tmp_path / "b", falling(seed=1), wider), [BAND])
    assert found.verdict == "nothing looks wrong"
    assert "no band is known for steps 300 (preset 650), hidden_size 256 (preset 128)" in found.lines[1]


def test_a_band_belongs_to_preset_text_tokenizer_and_steps():
    assert find_band(CONFIG, [BAND]) is BAND
    for part, change in (("corpus", {"sha256": "x"}), ("tokenizer", {"hash": "x"}), ("training", {"steps": 301})):
        assert find_band(CONFIG | {part: CONFIG[part] | change}, [BAND]) is None
    assert find_band(CONFIG | {"preset": "textbook"}, [BAND]) is None
    assert find_band({"format_version": 1, "model": {}}, [BAND]) is None


def test_the_bands_of_this_version_can_be_read_and_belong_to_presets():
    bands = all_bands()
    assert {"quickstart", "shakespeare-char-cpu"} <= {band.preset for band in bands}
    for band in bands:
        preset = PRESETS[band.preset]
        assert band.corpus_sha256 in preset.expected
        assert band.steps == preset.training.steps
        assert len(band.seeds) == 3
        for curve in ("training", "held_out"):
            steps, low, high = band.within(curve).T
            assert (np.diff(steps) > 0).all()
            assert steps[-1] == band.steps
            assert (low < high).all()


def test_a_band_is_widened_by_the_range_of_its_seeds_and_by_a_share_of_the_loss():
    band = Band("p", "s", "t", 2, (0, 1, 2), ((1, 4.0, 4.0), (2, 3.0, 3.5)), ())
    np.testing.assert_allclose(band.within("training"), [[1, 3.92, 4.08], [2, 2.5, 4.0]])
    assert band.within("held_out").shape == (0, 3)


def test_what_pretrain_sets_by_itself_is_no_changed_option():
    training = PRESETS["quickstart"].training.as_dict()
    scaled = training | {"steps": 100, "warmup_steps": 10, "learning_rate": 0.03, "min_learning_rate": 0.001}
    assert changed_options(CONFIG | {"training": scaled})[1].keys() == {"steps", "learning_rate"}
    assert changed_options(CONFIG | {"training": scaled | {"warmup_steps": 20}})[1]["warmup_steps"] == (50, 20)
    assert training.keys() >= NEUTRAL
    assert changed_options(CONFIG | {"preset": "unheard of"}) == ({}, {})
    lion = changed(PRESETS["quickstart"].training, {"optimizer": "lion"}).as_dict()
    assert changed_options(CONFIG | {"training": lion})[1] == {"optimizer": ("adamw", "lion")}
    older = training | {"beta1": 0.9, "beta2": 0.99, "momentum": 0.9}
    del older["schedule"]
    assert changed_options(CONFIG | {"training": older})[1] == {}
    patient = training | {"precision": "fp16", "loss_scaling": "patient", "hysteresis": 3, "min_loss_scale": 2.0}
    assert changed_options(CONFIG | {"training": patient})[1] == {}


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"is not a run folder: it has no config\.json"):
        diagnose(tmp_path)
    (tmp_path / "config.json").write_text('{"format_version": 1, "model": {}}')
    with pytest.raises(UserError, match="holds a model but no training run"):
        diagnose(tmp_path)

"""DeepSpeed's configuration file: what each key becomes, and what is refused, by name and in one line."""

import contextlib
import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.errors import UserError
from tinyllm.training.config import TrainingConfig, changed
from tinyllm.training.parallel.config import ParallelConfig
from tinyllm.training.parallel.deepspeed import deepspeed_changes, read_deepspeed, with_deepspeed
from tinyllm.training.parallel.deepspeed_keys import WITHOUT_EFFECT
from tinyllm.training.precision import make_scaler

ISSUE = """{"train_batch_size": 32, "fp16": {"enabled": true}, "zero_optimization": {"stage": 2,
"allgather_partitions": true, "allgather_bucket_size": 5e7, "overlap_comm": true, "reduce_scatter": true,
"reduce_bucket_size": 5e7, "contiguous_gradients": true}}"""
DYNAMIC = {
    "precision": "fp16", "loss_scaling": "patient", "initial_scale_power": 16, "loss_scale_window": 1000,
    "hysteresis": 2, "consecutive_hysteresis": False, "min_loss_scale": 1.0,
}  # fmt: skip
ZERO = {
    "zero": 0, "reduce_bucket": 500_000_000, "gather_bucket": 500_000_000, "overlap": False, "reduce_scatter": True,
    "all_gather": True,
}  # fmt: skip
ADAMW = {
    "optimizer": "adamw", "learning_rate": 1e-3, "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8,
}  # fmt: skip


def training(content, ranks=2, learning_rate=3e-4):
    return deepspeed_changes(content, ranks, learning_rate)[0]


def parallel(content, ranks=2):
    return deepspeed_changes(content, ranks, 3e-4)[1]


def test_the_file_of_the_issue(tmp_path):
    path = tmp_path / "ds.json"
    path.write_text(ISSUE)
    ours, theirs = deepspeed_changes(read_deepspeed(path), 2, 1e-3)
    assert ours == {"batch_size": 32, "accumulation": 1} | DYNAMIC
    assert theirs == ZERO | {"zero": 2, "reduce_bucket": 50_000_000, "gather_bucket": 50_000_000, "overlap": True}
    changed(TrainingConfig(), ours)
    ParallelConfig(**theirs)


def test_a_file_that_says_nothing_changes_nothing():
    assert deepspeed_changes({}, 2, 1e-3) == ({}, {})


@pytest.mark.parametrize(
    ("content", "ranks", "batch", "pieces"),
    [
        ({"train_batch_size": 32}, 4, 32, 1),
        ({"train_micro_batch_size_per_gpu": 4}, 2, 8, 1),
        ({"train_batch_size": 32, "train_micro_batch_size_per_gpu": 4}, 2, 32, 4),
        ({"train_batch_size": 32, "gradient_accumulation_steps": 4}, 2, 32, 4),
        ({"train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 3}, 2, 24, 3),
        (
            {"train_batch_size": 32, "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 4},
            2,
            32,
            4,
        ),
    ],
)
def test_two_of_the_three_sizes_give_the_third_and_one_is_enough(content, ranks, batch, pieces):
    assert training(content, ranks) == {"batch_size": batch, "accumulation": pieces}


def test_pieces_alone_cut_the_presets_batch():
    assert training({"gradient_accumulation_steps": 3}) == {"accumulation": 3}


@pytest.mark.parametrize(
    ("content", "changes"),
    [
        ({"gradient_clipping": 0.5}, {"clip": 0.5}),
        ({"gradient_clipping": 0}, {"clip": 0.0}),
        ({"fp16": {"enabled": True}}, DYNAMIC),
        (
            {
                "fp16": {
                    "enabled": True,
                    "loss_scale": 0,
                    "initial_scale_power": 12,
                    "loss_scale_window": 50,
                    "hysteresis": 4,
                    "consecutive_hysteresis": True,
                    "min_loss_scale": 8,
                    "auto_cast": False,
                }
            },
            {
                "precision": "fp16",
                "loss_scaling": "patient",
                "initial_scale_power": 12,
                "loss_scale_window": 50,
                "hysteresis": 4,
                "consecutive_hysteresis": True,
                "min_loss_scale": 8.0,
            },
        ),
        (
            {"fp16": {"enabled": True, "loss_scale": 128}},
            {"precision": "fp16", "loss_scaling": "fixed", "loss_scale": 128.0},
        ),
        ({"bf16": {"enabled": True}, "fp16": {"enabled": False, "hysteresis": 2}}, {"precision": "bf16"}),
        ({"bf16": {"enabled": False}}, {"precision": "fp32"}),
        ({"optimizer": {"type": "AdamW"}}, ADAMW),
        (
            {
                "optimizer": {
                    "type": "Adam",
                    "params": {"lr": 2e-4, "betas": [0.8, 0.9], "eps": 1e-6, "weight_decay": 3e-7, "adam_w_mode": True},
                }
            },
            {"optimizer": "adamw", "learning_rate": 2e-4, "beta1": 0.8, "beta2": 0.9, "eps": 1e-6}
            | {"weight_decay": 3e-7},
        ),
        (
            {"optimizer": {"type": "Lion", "params": {"lr": 1e-4, "weight_decay": 1}}},
            {"optimizer": "lion", "learning_rate": 1e-4, "beta1": 0.9, "beta2": 0.999, "weight_decay": 1.0},
        ),
        (
            {"optimizer": {"type": "SGD", "params": {"lr": 0.1, "momentum": 0.9, "nesterov": True}}},
            {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.0},
        ),
        (
            {"optimizer": {"type": "Muon", "params": {"lr": 0.02, "momentum": 0.9, "muon_lr": 0.02}}},
            {"optimizer": "muon", "learning_rate": 0.02, "momentum": 0.9, "adjust_lr": "original", "weight_decay": 0.0},
        ),
        (
            {"scheduler": {"type": "WarmupLR"}},
            {"schedule": "warmup_lr", "warmup_min_lr": 0.0, "warmup_type": "log", "warmup_steps": 1000},
        ),
        (
            {
                "scheduler": {
                    "type": "WarmupDecayLR",
                    "params": {
                        "total_num_steps": 500,
                        "warmup_min_lr": 1e-5,
                        "warmup_max_lr": 2e-3,
                        "warmup_num_steps": 20,
                        "warmup_type": "linear",
                        "last_batch_iteration": -1,
                    },
                }
            },
            {
                "schedule": "warmup_decay_lr",
                "schedule_steps": 500,
                "warmup_min_lr": 1e-5,
                "learning_rate": 2e-3,
                "warmup_steps": 20,
                "warmup_type": "linear",
            },
        ),
        (
            {"scheduler": {"type": "WarmupDecayLR", "params": {"total_num_steps": 9}}},
            {"schedule": "warmup_decay_lr", "schedule_steps": 9, "warmup_min_lr": 0.0, "warmup_type": "log"}
            | {"warmup_steps": 1000, "learning_rate": 1e-3},
        ),
    ],
)
def test_each_key_becomes_an_option_and_the_rest_is_deepspeeds_default(content, changes):
    assert deepspeed_changes(content, 2, 3e-4) == (changes, {})
    config = changed(TrainingConfig(), changes)
    assert {name: getattr(config, name) for name in changes} == changes


def test_the_cosine_has_shares_of_the_optimizers_rate_or_the_presets():
    params = {"total_num_steps": 100, "warmup_min_ratio": 0.1, "cos_min_ratio": 0.01, "warmup_num_steps": 10}
    content = {"scheduler": {"type": "WarmupCosineLR", "params": params}}
    ours = training(content, learning_rate=4e-3)
    assert (ours["warmup_min_lr"], ours["min_learning_rate"]) == pytest.approx((4e-4, 4e-5))
    ours = training(content | {"optimizer": {"type": "SGD", "params": {"lr": 0.5}}}, learning_rate=4e-3)
    assert (ours["warmup_min_lr"], ours["min_learning_rate"]) == pytest.approx((0.05, 0.005))
    assert changed(TrainingConfig(), ours).schedule == "warmup_cosine_lr"


def test_a_schedule_takes_its_peak_from_the_optimizer():
    adam = {"type": "Adam", "params": {"lr": 0.01}}
    assert training({"optimizer": adam, "scheduler": {"type": "WarmupLR"}})["learning_rate"] == 0.01
    agreeing = {"type": "WarmupLR", "params": {"warmup_max_lr": 0.01}}
    assert training({"optimizer": adam, "scheduler": agreeing})["learning_rate"] == 0.01


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ({"stage": 0}, {}),
        ({"stage": 1, "reduce_bucket_size": 5e6}, {"zero": 1, "reduce_bucket": 5_000_000}),
        ({"stage": 2, "allgather_bucket_size": 1000}, {"zero": 2, "gather_bucket": 1000}),
        ({"stage": 3}, {"zero": 3, "overlap": True}),
        ({"stage": 3, "overlap_comm": False}, {"zero": 3}),
        ({"stage": 1, "overlap_comm": True}, {"zero": 1, "overlap": True}),
        ({"stage": 1, "reduce_scatter": False}, {"zero": 1, "reduce_scatter": False}),
        ({"stage": 1, "allgather_partitions": False}, {"zero": 1, "all_gather": False}),
        ({"stage": 2, "contiguous_gradients": True, "offload_optimizer": {"device": "none"}}, {"zero": 2}),
    ],
)
def test_zero_and_its_messages(section, changes):
    assert parallel({"zero_optimization": section}) == ZERO | changes


def test_the_log_of_messages_is_asked_for_by_its_name():
    assert parallel({"comms_logger": {"enabled": True, "verbose": False, "prof_all": True}}) == {"log_messages": True}


def stage(number, **others):
    return {"zero_optimization": {"stage": number} | others}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"fp61": {}}, "DeepSpeed's configuration has no key fp61; did you mean 'fp16'?"),
        (stage(2, stages=1), "DeepSpeed's configuration has no key zero_optimization.stages; did you mean 'stage'?"),
        ({"qqq": 1}, "DeepSpeed's configuration has no key qqq; there are train_batch_size, "),
        (
            {"train_batch_size": "auto"},
            'train_batch_size is "auto", which only Hugging Face\'s Trainer fills in; write',
        ),
        (stage(3, reduce_bucket_size="auto"), 'zero_optimization.reduce_bucket_size is "auto"'),
        ({"optimizer": {"type": "Adam", "params": {"betas": ["auto", 0.9]}}}, 'optimizer.params.betas.0 is "auto"'),
        (
            {"train_batch_size": 32, "train_micro_batch_size_per_gpu": 4, "gradient_accumulation_steps": 3},
            "train_batch_size 32 is not train_micro_batch_size_per_gpu 4 x gradient_accumulation_steps 3 x ranks 2",
        ),
        ({"train_batch_size": 33}, "train_batch_size 33 is no multiple of ranks 2; change the file or --devices"),
        (
            {"train_batch_size": 32, "gradient_accumulation_steps": 3},
            "train_batch_size 32 is no multiple of gradient_accumulation_steps 3 x ranks 2;",
        ),
        ({"train_batch_size": 2.5}, "train_batch_size must be a whole number from 1 on, not 2.5"),
        ({"train_batch_size": True}, "train_batch_size must be a whole number from 1 on, not true"),
        ({"train_batch_size": None}, "train_batch_size must be a whole number from 1 on, not null"),
        ({"gradient_clipping": -1}, "gradient_clipping must be a number that is not negative, not -1"),
        ({"fp16": True}, "fp16 must be an object, {...}, not true"),
        ({"fp16": {"enabled": 1}}, "fp16.enabled must be true or false, not 1"),
        ({"fp16": {"enabled": True, "hysteresis": 0}}, "fp16.hysteresis must be a whole number from 1 on, not 0"),
        ({"fp16": {"enabled": True, "auto_cast": True}}, "fp16.auto_cast true has no effect here: "),
        (
            {"fp16": {"enabled": True, "loss_scale": 128, "hysteresis": 2}},
            "fp16.hysteresis has no effect beside fp16.loss_scale 128, which fixes the scale; leave one of them out",
        ),
        ({"fp16": {"enabled": True}, "bf16": {"enabled": True}}, "fp16.enabled and bf16.enabled are both true; a run"),
        ({"optimizer": {"params": {}}}, "optimizer has no type; there are Adam, AdamW, Lion, Muon, SGD"),
        ({"optimizer": {"type": "Lamb"}}, "optimizer.type 'Lamb' is not here"),
        ({"optimizer": {"type": "AdamX"}}, "optimizer.type 'AdamX' is not here; did you mean 'Adam"),
        ({"optimizer": {"type": "Adam", "params": {"lr": [1]}}}, "optimizer.params.lr must be a number that is not"),
        (
            {"optimizer": {"type": "Adam", "params": {"betas": [0.9]}}},
            "optimizer.params.betas must be two numbers, not",
        ),
        (
            {"optimizer": {"type": "Adam", "params": {"lrr": 1}}},
            "DeepSpeed's configuration has no key optimizer.params",
        ),
        (
            {"optimizer": {"type": "Adam", "params": {"max_grad_norm": 1.0}}},
            "optimizer.params.max_grad_norm 1.0 has no effect here: it is gradient_clipping, outside of the optimizer;",
        ),
        (
            {"optimizer": {"type": "Muon", "params": {"muon_lr": 0.1}}},
            "optimizer.params.muon_lr is another than lr 0.001; give one rate",
        ),
        ({"scheduler": {"type": "OneCycle"}}, "scheduler.type 'OneCycle' is not here; there are WarmupLR, Warmup"),
        ({"scheduler": {"type": "WarmupDecayLR"}}, "scheduler.params needs total_num_steps"),
        (
            {
                "optimizer": {"type": "Adam", "params": {"lr": 0.01}},
                "scheduler": {"type": "WarmupLR", "params": {"warmup_max_lr": 0.02}},
            },
            "scheduler.params.warmup_max_lr 0.02 counts, and optimizer.params.lr 0.01 would not; give both one value",
        ),
        (
            {"scheduler": {"type": "WarmupLR", "params": {"total_num_steps": 5}}},
            "DeepSpeed's configuration has no key scheduler.params.total_num_steps; ",
        ),
        ({"zero_optimization": True}, "zero_optimization is an object, with a stage; true and false are DeepSpeed's"),
        (stage(4), "zero_optimization.stage must be 0, 1, 2 or 3, not 4"),
        (stage(2, contiguous_gradients=False), "zero_optimization.contiguous_gradients false is not here: gradients"),
        (stage(0, reduce_scatter=True), "zero_optimization.reduce_scatter has no effect at stage 0, where every rank"),
        (stage(0, allgather_bucket_size=5e8), "zero_optimization.allgather_bucket_size has no effect at stage 0"),
        (
            stage(2, reduce_bucket_size=0),
            "zero_optimization.reduce_bucket_size must be a whole number from 1 on, not 0",
        ),
        (stage(2, offload_optimizer={"device": "cpu"}), "zero_optimization.offload_optimizer has no effect here: noth"),
        (
            {"comms_logger": {"enabled": True, "prof_all": False}},
            "comms_logger.prof_all false has no effect here: mess",
        ),
        ({"bfloat16": {"enabled": True}}, "bfloat16 has no effect here: it is called bf16 now; leave it out"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_that_names_the_key(content, message):
    with pytest.raises(UserError) as caught:
        deepspeed_changes(content, 2, 1e-3)
    assert str(caught.value).startswith(message), caught.value
    assert "\n" not in str(caught.value)


def within(section, key, value):
    """A file with a key of a section of WITHOUT_EFFECT."""
    if section.startswith("optimizer.params of "):
        return {"optimizer": {"type": section.rpartition(" ")[2], "params": {key: value}}}
    if section == "scheduler.params":
        return {"scheduler": {"type": "WarmupLR", "params": {key: value}}}
    if section == "optimizer":
        return {"optimizer": {"type": "adam", key: value}}
    return {section: {key: value}} if section else {key: value}


@pytest.mark.parametrize(
    ("section", "key"), [(section, key) for section in WITHOUT_EFFECT for key in WITHOUT_EFFECT[section]]
)
def test_a_key_without_an_effect_is_refused_by_name_unless_it_is_off(section, key):
    off, why = WITHOUT_EFFECT[section][key]
    with pytest.raises(UserError) as caught:
        deepspeed_changes(within(section, key, "something"), 2, 1e-3)
    name = f"{section.partition(' of ')[0]}.{key}" if section else key
    assert str(caught.value).startswith(f'{name} "something" has no effect here: {why}; leave it out')
    for value in (*off, {"enabled": False}):
        deepspeed_changes(within(section, key, json.loads(json.dumps(value))), 2, 1e-3)


KEYS = {
    "": ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping"),
    "fp16": ("loss_scale", "initial_scale_power", "loss_scale_window", "hysteresis", "min_loss_scale"),
    "zero_optimization": ("stage", "reduce_bucket_size", "allgather_bucket_size", "overlap_comm"),
    "optimizer.params of adam": ("lr", "betas", "eps", "weight_decay"),
    "optimizer.params of sgd": ("lr", "momentum", "nesterov"),
    "scheduler.params": ("warmup_min_lr", "warmup_max_lr", "warmup_num_steps", "warmup_type"),
}
NUMBERS = st.integers() | st.floats() | st.integers(0, 100) | st.floats(0, 1) | st.just(10**400)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5), lambda inner: st.lists(inner, max_size=2), max_leaves=3
)


@given(place=st.sampled_from([(section, key) for section in KEYS for key in KEYS[section]]), value=VALUES)
def test_any_value_is_understood_or_refused(place, value):
    content = within(*place, value)
    if place[0] == "fp16":
        content["fp16"]["enabled"] = True
    with contextlib.suppress(UserError):
        ours, theirs = deepspeed_changes(content, 2, 1e-3)
        make_scaler(changed(TrainingConfig(), ours))
        ParallelConfig(**theirs)


def beside(training, parallel):
    content = {"train_batch_size": 8, "fp16": {"enabled": True}, "zero_optimization": {"stage": 2}}
    return with_deepspeed("ds.json", content, 2, TrainingConfig(), training, parallel)


def test_what_is_asked_for_beside_the_file_is_added_to_it():
    training, parallel = beside({"steps": 7, "precision": "fp16"}, {"zero": 2, "log_messages": True})
    assert training == {"batch_size": 8, "accumulation": 1, "steps": 7} | DYNAMIC
    assert parallel == ZERO | {"zero": 2, "log_messages": True}


@pytest.mark.parametrize(
    ("training", "parallel", "message"),
    [
        (
            {"precision": "bf16"},
            {},
            "--precision bf16 says something else than ds.json, which makes it fp16; leave one",
        ),
        (
            {"batch_size": 9},
            {},
            "--training.batch-size 9 says something else than ds.json, which makes it 8; leave one",
        ),
        ({}, {"zero": 1}, "--zero 1 says something else than ds.json, which makes it 2; leave one of them out"),
        (
            {},
            {"overlap": True},
            "--parallel.overlap True says something else than ds.json, which makes it False; leave",
        ),
    ],
)
def test_what_contradicts_the_file_is_refused(training, parallel, message):
    with pytest.raises(UserError) as caught:
        beside(training, parallel)
    assert str(caught.value).startswith(message)


def test_the_file_is_named_where_it_is_wrong():
    with pytest.raises(UserError, match=r"^my\.json: train_batch_size 7 is no multiple of ranks 2; change the file"):
        with_deepspeed("my.json", {"train_batch_size": 7}, 2, TrainingConfig(), {}, {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1, "a": 2}', "a is there twice; leave one out"),
        ('{"gradient_clipping": NaN}', "NaN is no number in JSON; write one"),
        ('{"a": ', "is not valid JSON: "),
        ("[1]", "holds no JSON object"),
        (b"\xff", "is not UTF-8; --deepspeed takes a JSON file"),
        (None, "cannot be read (No such file or directory); --deepspeed takes a JSON file"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "ds.json"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        read_deepspeed(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


def test_every_option_that_the_file_sets_is_one_of_ours():
    fields = {field.name for cls in (TrainingConfig, ParallelConfig) for field in dataclasses.fields(cls)}
    everything = {
        "train_batch_size": 32, "gradient_clipping": 1.0, "fp16": {"enabled": True},
        "optimizer": {"type": "SGD"}, "scheduler": {"type": "WarmupDecayLR", "params": {"total_num_steps": 3}},
        "comms_logger": {"enabled": True}, **stage(2),
    }  # fmt: skip
    everything["scheduler"]["params"]["warmup_max_lr"] = 1e-3
    ours, theirs = deepspeed_changes(everything, 2, 1e-3)
    assert {*ours, *theirs} <= fields

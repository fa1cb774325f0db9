"""DeepSpeed's configuration file, as changes to ours. docs/deepspeed.md has every key.

What the file does not mention stays as the preset has it. A section that is there has DeepSpeed's own defaults for what
it leaves out. A key without an effect here is refused by name, unless its value switches off what is not here.
"""

import json
import math
import sys
from pathlib import Path

from tinyllm.errors import UserError, did_you_mean
from tinyllm.training.parallel.config import STAGES
from tinyllm.training.parallel.deepspeed_keys import WITHOUT_EFFECT

OPTIMIZERS = {
    "adam": {"optimizer": "adamw", "lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8},
    "adamw": {"optimizer": "adamw", "lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8},
    "lion": {"optimizer": "lion", "lr": 1e-3, "betas": (0.9, 0.999)},
    "muon": {"optimizer": "muon", "lr": 1e-3, "momentum": 0.95},
    "sgd": {"optimizer": "sgd", "lr": 1e-3, "momentum": 0.0, "nesterov": False},
}
"""DeepSpeed's names of optimizers (it writes AdamW, SGD), ours, and the defaults of their parameters there."""


def read_deepspeed(path):
    """The content of DeepSpeed's configuration file, a dict of JSON's types; UserError where it is none."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); --deepspeed takes a JSON file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8; --deepspeed takes a JSON file") from None
    try:
        content = json.loads(text, object_pairs_hook=without_duplicates, parse_constant=no_number)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no JSON object; DeepSpeed's configuration is one: {{...}}")
    return content


def with_deepspeed(path, content, ranks, usual, training, parallel):
    """(changes to a TrainingConfig, changes to a ParallelConfig) of a file and of what was asked for beside it.

    path, content: of the file. ranks: how many share a batch. usual: the preset's TrainingConfig. training, parallel:
    the changes asked for; UserError where they say something else than the file.
    """
    try:
        changes = deepspeed_changes(content, ranks, training.get("learning_rate", usual.learning_rate))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    for ours, theirs, flag in zip((training, parallel), changes, (training_flag, parallel_flag), strict=True):
        for name in ours.keys() & theirs.keys():
            if ours[name] != theirs[name]:
                raise UserError(
                    f"{flag(name)} {ours[name]} says something else than {path}, which makes it {theirs[name]}; leave "
                    "one of them out"
                )
    return tuple(theirs | ours for ours, theirs in zip((training, parallel), changes, strict=True))


def training_flag(name):
    return f"--{name}" if name in ("steps", "seed", "precision") else f"--training.{name.replace('_', '-')}"


def parallel_flag(name):
    return "--zero" if name == "zero" else f"--parallel.{name.replace('_', '-')}"


def without_duplicates(pairs):
    values = {}
    for key, value in pairs:
        if key in values:
            raise UserError(f"{key} is there twice; leave one out")
        values[key] = value
    return values


def no_number(constant):
    raise UserError(f"{constant} is no number in JSON; write one")


def deepspeed_changes(content, ranks, learning_rate):
    """(changes to a TrainingConfig, changes to a ParallelConfig) of a file's content, two dicts.

    ranks: how many share a batch. learning_rate: the peak where the file names none, whose shares some schedules have.
    """
    refuse_auto(content)
    file = Section(content)
    training = batch_changes(file, ranks)
    clip = file.number("gradient_clipping", None)
    if clip is not None:
        training["clip"] = clip
    training |= precision_changes(file)
    training |= optimizer_changes(file)
    training |= scheduler_changes(file, training, learning_rate)
    parallel = zero_changes(file) | log_changes(file)
    file.close()
    return training, parallel


def refuse_auto(value, path=""):
    """ "auto" is what another program fills in."""
    if value == "auto":
        raise UserError(
            f'{path} is "auto", which only Hugging Face\'s Trainer fills in; write the value, or leave the key out for '
            "the preset's"
        )
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        refuse_auto(inner, f"{path}.{key}" if path else str(key))


class Section:
    """One object of the file, from which every key is taken as what it must be; `close` refuses what was not taken.

    path: where it stands, "" for the whole file. kind: its name in WITHOUT_EFFECT. given: the keys that it has.
    """

    def __init__(self, values, path="", kind=None):
        if not isinstance(values, dict):
            raise UserError(f"{path} must be an object, {{...}}, not {json.dumps(values)}")
        self.values, self.path, self.kind = dict(values), path, kind or path
        self.given, self.known = set(values), []

    def named(self, key):
        return f"{self.path}.{key}" if self.path else key

    def take(self, key, default, what, is_right):
        """The value of a key, or its default; UserError if it is not what it must be."""
        self.known.append(key)
        if key not in self.values:
            return default
        value = self.values.pop(key)
        if not is_right(value):
            raise UserError(f"{self.named(key)} must be {what}, not {json.dumps(value)}")
        return value

    def switch(self, key, default):
        return self.take(key, default, "true or false", lambda value: isinstance(value, bool))

    def word(self, key, default=None):
        return self.take(key, default, "a name", lambda value: isinstance(value, str))

    def number(self, key, default):
        """Not negative. As a float, but for None."""
        value = self.take(key, default, "a number that is not negative", is_number)
        return value if value is None else float(value)

    def whole(self, key, default, least=1):
        """A whole number, which JSON may write as a float: 5e8."""
        value = self.take(
            key, default, f"a whole number from {least} on", lambda value: is_whole(value) and value >= least
        )
        return value if value is None else int(value)

    def section(self, key, kind=None):
        """The object under a key, an empty one where there is none."""
        self.known.append(key)
        return Section(self.values.pop(key, {}), self.named(key), kind)

    def close(self):
        """Refuse what is left, by name."""
        without_effect = WITHOUT_EFFECT.get(self.kind, {})
        for key, value in self.values.items():
            if key not in without_effect:
                hint = did_you_mean(key, [*self.known, *without_effect]) or f"; there are {', '.join(self.known)}"
                raise UserError(f"DeepSpeed's configuration has no key {self.named(key)}{hint}")
            off, why = without_effect[key]
            if not is_off(value, off):
                shown = "" if isinstance(value, dict | list) else f" {json.dumps(value)}"
                hint = f" (only {' or '.join(map(json.dumps, off))} is accepted)" if off else ""
                raise UserError(f"{self.named(key)}{shown} has no effect here: {why}; leave it out{hint}")


def is_off(value, off):
    """One of the values that switch a key off, or a section that switches itself off."""
    return any(json.dumps(value) == json.dumps(other) for other in off) or (
        isinstance(value, dict) and value.get("enabled") is False
    )


def is_number(value):
    return type(value) in (int, float) and 0 <= value <= sys.float_info.max


def is_whole(value):
    return is_number(value) and value == int(value)


# ---------------------------------------------------------------------------------------------------------- the batch


def batch_changes(file, ranks):
    """train_batch_size = train_micro_batch_size_per_gpu x gradient_accumulation_steps x ranks; what is missing follows.

    Our batch is that of all ranks, our accumulation the number of pieces of one rank's share.
    """
    batch = file.whole("train_batch_size", None)
    micro = file.whole("train_micro_batch_size_per_gpu", None)
    pieces = file.whole("gradient_accumulation_steps", None)
    if batch is None and micro is None:
        return {} if pieces is None else {"accumulation": pieces}
    if batch is None:
        batch = micro * (pieces or 1) * ranks
    factors = {"train_micro_batch_size_per_gpu": micro, "gradient_accumulation_steps": pieces, "ranks": ranks}
    given = {name: value for name, value in factors.items() if value is not None}
    product = math.prod(given.values())
    if batch % product or (len(given) == 3 and batch != product):
        said = " x ".join(f"{name} {value}" for name, value in given.items())
        wrong = f"is not {said} = {product}" if len(given) == 3 else f"is no multiple of {said}"
        raise UserError(f"train_batch_size {batch} {wrong}; change the file or --devices")
    return {"batch_size": batch, "accumulation": pieces or (batch // product if micro else 1)}


# ------------------------------------------------------------------------------------------------------ the precision


def precision_changes(file):
    """fp16 and bf16. A section that switches itself off still says something: no half precision of this kind."""
    sections = {precision: file.section(precision) for precision in ("fp16", "bf16")}
    fp16 = fp16_changes(sections["fp16"])
    bf16 = sections["bf16"].switch("enabled", False)
    sections["bf16"].close()
    if fp16 and bf16:
        raise UserError("fp16.enabled and bf16.enabled are both true; a run has one precision, switch one off")
    if fp16 or bf16:
        return fp16 or {"precision": "bf16"}
    return {"precision": "fp32"} if any(section.given for section in sections.values()) else {}


def fp16_changes(section):
    """fp16 with DeepSpeed's loss scaling, dynamic unless `loss_scale` fixes it; empty where it is off."""
    enabled = section.switch("enabled", False)
    fixed = section.number("loss_scale", 0.0)
    dynamic = {
        "initial_scale_power": section.whole("initial_scale_power", 16, least=0),
        "loss_scale_window": section.whole("loss_scale_window", 1000),
        "hysteresis": section.whole("hysteresis", 2),
        "consecutive_hysteresis": section.switch("consecutive_hysteresis", False),
        "min_loss_scale": section.number("min_loss_scale", 1.0),
    }
    section.close()
    if not enabled:
        return {}
    if not fixed:
        return {"precision": "fp16", "loss_scaling": "patient"} | dynamic
    if unused := [key for key in dynamic if key in section.given]:
        raise UserError(
            f"fp16.{unused[0]} has no effect beside fp16.loss_scale {fixed:g}, which fixes the scale; leave one of "
            "them out"
        )
    return {"precision": "fp16", "loss_scaling": "fixed", "loss_scale": fixed}


# ----------------------------------------------------------------------------------------- the optimizer, the schedule


def optimizer_changes(file):
    """One of OPTIMIZERS with its parameters."""
    section = file.section("optimizer")
    if not section.given:
        return {}
    chosen = named_choice(section, OPTIMIZERS, ("Adam", "AdamW", "Lion", "Muon", "SGD"))
    own = OPTIMIZERS[chosen]
    params = section.section("params", f"optimizer.params of {chosen}")
    rate = params.number("lr", own["lr"])
    changes = {"optimizer": own["optimizer"], "learning_rate": rate}
    changes["weight_decay"] = params.number("weight_decay", 0.0)
    if "betas" in own:
        changes["beta1"], changes["beta2"] = params.take("betas", own["betas"], "two numbers", is_pair)
    if "eps" in own:
        changes["eps"] = params.number("eps", own["eps"])
    if "momentum" in own:
        changes["momentum"] = params.number("momentum", own["momentum"])
    if "nesterov" in own:
        changes["nesterov"] = params.switch("nesterov", own["nesterov"])
    if chosen == "muon":
        changes["adjust_lr"] = "original"
        for key in ("muon_lr", "adam_lr"):
            if params.number(key, rate) != rate:
                raise UserError(
                    f"optimizer.params.{key} is another than lr {rate:g}; give one rate, and factors for single "
                    "parameters by --training.learning-rate-factors"
                )
    params.close()
    section.close()
    return changes


def scheduler_changes(file, training, learning_rate):
    """One of DeepSpeed's warm-ups. training: the changes so far; learning_rate: the peak where neither names one."""
    section = file.section("scheduler")
    if not section.given:
        return {}
    chosen = named_choice(section, SCHEDULERS, ("WarmupLR", "WarmupDecayLR", "WarmupCosineLR"))
    params = section.section("params", "scheduler.params")
    changes = {"warmup_steps": params.whole("warmup_num_steps", 1000), "warmup_type": params.word("warmup_type", "log")}
    changes |= SCHEDULERS[chosen](params, training.get("learning_rate"), learning_rate)
    params.close()
    section.close()
    return changes


def named_choice(section, table, names):
    kind = section.word("type")
    if kind is None:
        raise UserError(f"{section.path} has no type; there are {', '.join(names)}")
    if kind.lower() not in table:
        hint = did_you_mean(kind, names) or f"; there are {', '.join(names)}"
        raise UserError(f"{section.path}.type {kind!r} is not here{hint}")
    return kind.lower()


def is_pair(value):
    return isinstance(value, list) and len(value) == 2 and all(is_number(number) for number in value)


def warmup_lr(params, rate, _):
    least = params.number("warmup_min_lr", 0.0)
    return {"schedule": "warmup_lr", "warmup_min_lr": least} | peak_of(params, rate, None)


def warmup_decay_lr(params, rate, _):
    least, end = params.number("warmup_min_lr", 0.0), total_of(params)
    options = {"schedule": "warmup_decay_lr", "warmup_min_lr": least, "schedule_steps": end}
    return options | peak_of(params, rate, 1e-3)


def warmup_cosine_lr(params, rate, learning_rate):
    """Its rates are shares of the optimizer's."""
    peak = learning_rate if rate is None else rate
    return {
        "schedule": "warmup_cosine_lr",
        "warmup_min_lr": params.number("warmup_min_ratio", 0.0) * peak,
        "min_learning_rate": params.number("cos_min_ratio", 1e-4) * peak,
        "schedule_steps": total_of(params),
    }


SCHEDULERS = {"warmuplr": warmup_lr, "warmupdecaylr": warmup_decay_lr, "warmupcosinelr": warmup_cosine_lr}


def total_of(params):
    total = params.whole("total_num_steps", None)
    if total is None:
        raise UserError(f"{params.path} needs total_num_steps")
    return total


def peak_of(params, rate, usual):
    """warmup_max_lr, which counts instead of the optimizer's lr: the two must not differ."""
    peak = params.number("warmup_max_lr", rate if usual is None else usual)
    if rate is not None and peak != rate:
        raise UserError(
            f"scheduler.params.warmup_max_lr {peak:g} counts, and optimizer.params.lr {rate:g} would not; give both "
            "one value"
        )
    return {} if peak is None else {"learning_rate": peak}


# ---------------------------------------------------------------------------------------------- ZeRO and its messages

AT_STAGE_0 = ("allgather_partitions", "allgather_bucket_size", "reduce_scatter")
"""Keys without an effect where every rank updates all weights."""


def zero_changes(file):
    """Bucket sizes are numbers of elements, there as here."""
    if isinstance(file.values.get("zero_optimization"), bool):
        raise UserError("zero_optimization is an object, with a stage; true and false are DeepSpeed's older format")
    section = file.section("zero_optimization")
    if not section.given:
        return {}
    stage = section.take("stage", 0, "0, 1, 2 or 3", lambda value: is_whole(value) and value in STAGES)
    changes = {
        "zero": int(stage),
        "reduce_bucket": section.whole("reduce_bucket_size", 500_000_000),
        "gather_bucket": section.whole("allgather_bucket_size", 500_000_000),
        "overlap": section.switch("overlap_comm", stage == 3),
        "reduce_scatter": section.switch("reduce_scatter", True),
        "all_gather": section.switch("allgather_partitions", True),
    }
    if not section.switch("contiguous_gradients", True):
        raise UserError(
            "zero_optimization.contiguous_gradients false is not here: gradients lie one after the other in one flat "
            "store, or in buckets cut from it; leave it out or write true"
        )
    section.close()
    if stage == 0 and (unused := [key for key in AT_STAGE_0 if key in section.given]):
        raise UserError(
            f"zero_optimization.{unused[0]} has no effect at stage 0, where every rank has all gradients and updates "
            "all weights; leave it out or choose stage 1, 2 or 3"
        )
    return changes


def log_changes(file):
    """comms_logger: our log of messages."""
    section = file.section("comms_logger")
    enabled = section.switch("enabled", False)
    section.close()
    return {"log_messages": enabled} if section.given else {}

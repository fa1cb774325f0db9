"""What a training run does, step by step: everything but the model and the text."""

import dataclasses
import math
from typing import Literal

from tinyllm.errors import UserError, did_you_mean

LEAST = {
    "steps": 1, "batch_size": 1, "accumulation": 1, "evaluate_every": 1, "evaluation_windows": 1, "sample_every": 1,
    "checkpoint_every": 1, "keep_checkpoints": 1, "sample_tokens": 0, "warmup_steps": 0, "seed": 0,
}  # fmt: skip
LEAST |= {"spike_window": 45, "most_skips": 1, "most_roll_backs": 1, "schedule_steps": 1}
LEAST |= {"loss_scale_window": 1, "hysteresis": 1, "initial_scale_power": 0}
CHOICES = {
    "precision": ("fp32", "fp16", "bf16"),
    "optimizer": ("adamw", "sgd", "lion", "muon", "adafactor"),
    "loss_scaling": ("dynamic", "patient", "fixed"),
    "schedule": (
        "cosine", "linear", "constant", "wsd", "inverse_sqrt", "warmup_lr", "warmup_decay_lr", "warmup_cosine_lr",
    ),
    "warmup_type": ("log", "linear"),
    "adjust_lr": ("match_rms_adamw", "original"),
    "on_spike": ("off", "warn", "skip", "roll-back"),
}  # fmt: skip
ENDLESS = ("constant", "inverse_sqrt", "warmup_lr", "warmup_decay_lr")
"""Schedules that fall to no least learning rate."""

SCHEDULE_OPTIONS = {
    "wsd": {"decay_share": 0.2},
    "warmup_lr": {"warmup_type": "log", "warmup_min_lr": 0.0},
    "warmup_decay_lr": {"warmup_type": "log", "warmup_min_lr": 0.0, "schedule_steps": None},
    "warmup_cosine_lr": {"warmup_type": "log", "warmup_min_lr": 0.0, "schedule_steps": None},
}
"""The options of schedules beside those that all have, and what they are unless given; None: as many as `steps`."""

LOSS_SCALING_OPTIONS = {
    "dynamic": {"initial_scale_power": 16, "loss_scale_window": 2000},
    "patient": {
        "initial_scale_power": 16, "loss_scale_window": 1000, "hysteresis": 2, "consecutive_hysteresis": False,
        "min_loss_scale": 1.0,
    },
    "fixed": {"loss_scale": 2.0**16},
}  # fmt: skip
"""The options of each kind of loss scaling, and what they are unless given."""

OPTIMIZER_OPTIONS = {
    "adamw": {"beta1": 0.9, "beta2": 0.99, "eps": 1e-8},
    "sgd": {"momentum": 0.9, "nesterov": False},
    "lion": {"beta1": 0.9, "beta2": 0.99},
    "muon": {"momentum": 0.95, "nesterov": True, "adjust_lr": "match_rms_adamw", "beta1": 0.9, "beta2": 0.99},
    "adafactor": {"beta2_decay": 0.8, "update_clip": 1.0, "relative_step": True},
}
"""The options of each optimizer beside those that all have, and what they are unless given."""

LARGEST_SCALE = 2.0**127
"""A loss scale beyond it is none that float32 has."""

BESIDE_ADAMW = {"sgd": 100, "lion": 0.25, "adafactor": 10}
"""What a preset's learning rate, AdamW's, is multiplied with for another optimizer, and its weight decay divided by."""


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Options of `pretrain`. Lengths are in steps (optimizer updates), losses in nats."""

    steps: int = 2000
    batch_size: int = 12
    """Samples a step; each is one context long."""
    accumulation: int = 1
    """In how many pieces a batch is computed, for batches that do not fit the memory; the result is the same."""
    recompute: int | Literal["none", "all"] = "none"
    """How many blocks, from the first, keep no activations and are computed once more in backward: none, all or a
    number. The result is the same to the bit; memory is saved, a forward pass added."""
    precision: str = "fp32"
    """fp32, fp16 (with loss scaling) or bf16: of activations and products; weights are kept in float32."""
    loss_scaling: str = "dynamic"
    """Of fp16: dynamic (halved by an overflow), patient (by several, down to a least scale; DeepSpeed's) or fixed."""
    loss_scale: float | None = None
    """Of fixed loss scaling: the scale; 65536 unless given."""
    initial_scale_power: int | None = None
    """Of dynamic and patient: the scale begins at 2 to this power; 16 unless given."""
    loss_scale_window: int | None = None
    """Of dynamic and patient: after so many good steps the scale is doubled; 2000 and 1000 unless given."""
    hysteresis: int | None = None
    """Of patient: how many overflows it takes to halve the scale; 2 unless given."""
    consecutive_hysteresis: bool | None = None
    """Of patient: whether those overflows must come in a row; False unless given."""
    min_loss_scale: float | None = None
    """Of patient: an overflow at this scale ends the run; 1 unless given."""
    optimizer: str = "adamw"
    """adamw, sgd, lion, muon (adamw for what is no matrix in a block) or adafactor"""
    schedule: str = "cosine"
    """Of the learning rate after the warm-up: cosine, linear, constant, wsd (stays, then falls) or inverse_sqrt; or
    DeepSpeed's, warm-up included: warmup_lr (stays), warmup_decay_lr (a line down) or warmup_cosine_lr."""
    learning_rate: float = 1e-3
    """The peak, after the warm-up."""
    min_learning_rate: float = 1e-4
    """Where cosine, linear, wsd and warmup_cosine_lr end."""
    warmup_steps: int = 100
    decay_share: float | None = None
    """Of wsd: in which share of the steps, the last ones, it falls; 0.2 unless given."""
    warmup_type: str | None = None
    """Of DeepSpeed's schedules: log (unless given) or linear."""
    warmup_min_lr: float | None = None
    """Of DeepSpeed's schedules: where the warm-up begins; 0 unless given."""
    schedule_steps: int | None = None
    """Of warmup_decay_lr and warmup_cosine_lr: where they end; with the run unless given."""
    beta1: float | None = None
    """Of adamw, lion, and muon's adamw; 0.9 unless given."""
    beta2: float | None = None
    """Of adamw, lion, and muon's adamw; 0.99 unless given."""
    eps: float | None = None
    """Of adamw: what is added to the root of the second moment; 1e-8 unless given."""
    momentum: float | None = None
    """Of sgd, 0.9 unless given, and muon, 0.95."""
    nesterov: bool | None = None
    """Whether the momentum of sgd (False unless given) and muon (True) looks ahead."""
    adjust_lr: str | None = None
    """Muon's scale: match_rms_adamw (adamw's learning rate and decay fit; unless given) or original."""
    beta2_decay: float | None = None
    """Of adafactor: 1 - beta2 of step n is n to the power of minus this; 0.8 unless given."""
    update_clip: float | None = None
    """Of adafactor: largest root mean square of an update before the learning rate; 1.0 unless given."""
    relative_step: bool | None = None
    """Of adafactor: whether the learning rate is a share of the weights' size; True unless given."""
    weight_decay: float = 0.1
    """On matrices only."""
    no_decay: tuple[str, ...] = ()
    """Matrices without weight decay, by patterns on names of parameters: 'embedding.*'."""
    learning_rate_factors: dict[str, float] = dataclasses.field(default_factory=dict)
    """Other learning rates: a pattern on names of parameters and a factor, and so on; the first that matches counts."""
    clip: float = 1.0
    """Largest norm of the gradient; 0 for no clipping."""
    on_spike: str = "warn"
    """When a loss or gradient norm jumps: off, warn (record it), skip (leave out its batch) or roll-back (go back to
    the newest checkpoint and leave out the data up to that batch)."""
    spike_threshold: float = 8.0
    """How many robust standard deviations above the steps before make a spike."""
    spike_window: int = 100
    """How many steps before are compared with."""
    most_skips: int = 10
    """After so many spikes in a row they are taken for a new level, and no longer skipped."""
    most_roll_backs: int = 5
    """The next spike after so many roll-backs ends the run."""
    evaluate_every: int = 250
    evaluation_windows: int = 100
    """How many windows of held-out text each evaluation on the way looks at; the last looks at all of it."""
    sample_every: int = 500
    sample_tokens: int = 100
    checkpoint_every: int = 500
    keep_checkpoints: int = 2
    seed: int = 0
    """Of the initial weights, the batches and dropout."""

    def __post_init__(self):
        if not isinstance(self.no_decay, tuple | list) or not isinstance(self.learning_rate_factors, dict):
            raise UserError("no_decay is a list of patterns, learning_rate_factors a dict from patterns to factors")
        object.__setattr__(self, "no_decay", tuple(self.no_decay))  # JSON knows lists only
        for name, least in LEAST.items():
            if self.given(name, least) < least:
                raise UserError(f"{name} must be at least {least}, not {getattr(self, name)}")
        rates = {f"learning_rate_factors of {name!r}": factor for name, factor in self.learning_rate_factors.items()}
        rates |= {name: getattr(self, name) for name in ("learning_rate", "min_learning_rate", "clip", "weight_decay")}
        rates |= {name: self.given(name, 0.0) for name in ("beta2_decay", "eps", "warmup_min_lr")}
        for name, value in rates.items():
            if not 0 <= value < math.inf:
                raise UserError(f"{name} must not be negative, infinite or NaN; it was {value}")
        if not 0 < self.spike_threshold < math.inf:
            raise UserError(f"spike_threshold must be a number above 0 (8 is usual), not {self.spike_threshold}")
        for name in ("beta1", "beta2", "momentum"):
            if not 0 <= self.given(name, 0.0) < 1:
                raise UserError(f"{name} must be in [0, 1), not {getattr(self, name)}")
        if not 0 < self.given("update_clip", 1.0) < math.inf:
            raise UserError(f"update_clip must be positive and finite, not {self.update_clip}")
        if not 0 < self.given("decay_share", 1.0) <= 1:
            raise UserError(f"decay_share must be in (0, 1], not {self.decay_share}")
        if self.batch_size % self.accumulation:
            raise UserError(f"batch_size {self.batch_size} is not divisible by accumulation {self.accumulation}")
        for name, choices in CHOICES.items():
            value = self.given(name, choices[0])
            if value not in choices:
                hint = did_you_mean(value, choices)
                raise UserError(f"{name} must be one of {', '.join(choices)}, not {value!r}{hint}")
        self.refuse_unused()
        self.check_loss_scaling()

        if self.recompute not in ("none", "all") and not (type(self.recompute) is int and self.recompute >= 0):
            raise UserError(f"recompute must be none, all or a number of blocks, not {self.recompute!r}")

    def given(self, name, default):
        """The value of a field, or the default where it was left to be None."""
        value = getattr(self, name)
        return default if value is None else value

    def refuse_unused(self):
        """UserError for an option that this optimizer, schedule or loss scaling would ignore."""
        for kind, table in (("optimizer", OPTIMIZER_OPTIONS), ("schedule", SCHEDULE_OPTIONS)):
            self.refuse_unused_of(kind, table)
        if self.precision == "fp16":
            self.refuse_unused_of("loss_scaling", LOSS_SCALING_OPTIONS)
            return
        names = ["loss_scaling"] * (self.loss_scaling != "dynamic")
        names += [name for name in unused_options(None, LOSS_SCALING_OPTIONS) if getattr(self, name) is not None]
        if names:
            raise UserError(f"{names[0]} is an option of fp16, and {self.precision} scales no loss; leave it out")

    def refuse_unused_of(self, kind, table):
        chosen, called = getattr(self, kind), kind.replace("_", " ")
        own = table.get(chosen, {})
        for name in unused_options(chosen, table):
            if getattr(self, name) is not None:
                users = ", ".join(user for user, options in table.items() if name in options)
                whose = users if kind == "optimizer" else f"the {called} {users}"
                has = f", which has {', '.join(own)}" if own else ""
                raise UserError(
                    f"{name} is an option of {whose}, not of {chosen}{has}; leave it out or choose another {called}"
                )

    def check_loss_scaling(self):
        for name in ("loss_scale", "min_loss_scale"):
            if not 1 <= self.given(name, 1.0) < LARGEST_SCALE:
                raise UserError(f"{name} must be from 1 to {LARGEST_SCALE:g}, not {getattr(self, name)}")
        power = self.given("initial_scale_power", 16)
        if power > 126 or 2.0**power < self.given("min_loss_scale", 1.0):
            raise UserError(
                f"the loss scale begins at 2^{power}: that must lie between min_loss_scale, "
                f"{self.given('min_loss_scale', 1.0):g}, and 2^126"
            )

    def optimizer_options(self):
        """dict of the options that this optimizer has beside those that all have, given or its own."""
        return self.options(OPTIMIZER_OPTIONS[self.optimizer])

    def schedule_options(self):
        """dict of the options that this schedule has beside those that all have, given or its own."""
        return self.options(SCHEDULE_OPTIONS.get(self.schedule, {}))

    def loss_scaling_options(self):
        """dict of the options of this kind of loss scaling, given or its own."""
        return self.options(LOSS_SCALING_OPTIONS[self.loss_scaling])

    def options(self, usual):
        return {name: self.given(name, value) for name, value in usual.items()}

    def recomputed_blocks(self, num_blocks):
        """How many of a model's blocks are recomputed; a number beyond them means all."""
        if self.recompute == "none":
            return 0
        return num_blocks if self.recompute == "all" else min(self.recompute, num_blocks)

    def as_dict(self):
        """For config.json."""
        return dataclasses.asdict(self) | {"no_decay": list(self.no_decay)}

    @classmethod
    def from_dict(cls, values):
        """The config that `as_dict` gave. Older files have a value for options that their optimizer does not use."""
        if "schedule" not in values:
            unused = unused_options(values.get("optimizer", "adamw"))
            values = {name: value for name, value in values.items() if name not in unused}
        return cls(**values)


def unused_options(chosen, table=OPTIMIZER_OPTIONS):
    """The options that something in a table has and this optimizer (or schedule) has not, in the order of the table."""
    own = table.get(chosen, {})
    every = dict.fromkeys(name for options in table.values() for name in options)
    return [name for name in every if name not in own]


def for_optimizer(config, optimizer):
    """The config, meant for AdamW, with another optimizer, its usual options, and the rates that suit it.

    Rate times decay, the share of itself that a weight loses in a step, stays.
    """
    factor = BESIDE_ADAMW.get(optimizer, 1)
    return dataclasses.replace(
        config,
        **dict.fromkeys(unused_options(None)),
        optimizer=optimizer,
        learning_rate=config.learning_rate * factor,
        min_learning_rate=config.min_learning_rate * factor,
        weight_decay=config.weight_decay / factor,
    )


def changed(config, changes):
    """A TrainingConfig with changes, and what goes with them unless it is given too.

    Fewer steps shorten the warm-up to a tenth of them; another learning rate moves the floor alike; another optimizer
    has its own options, rate and decay.
    """
    schedule = changes.get("schedule", config.schedule)
    if "min_learning_rate" in changes and schedule in ENDLESS:
        raise UserError(f"min_learning_rate is no option of the schedule {schedule}, which falls to none; leave it out")
    if changes.get("optimizer", config.optimizer) != config.optimizer:
        config = for_optimizer(config, changes["optimizer"])
    if "steps" in changes and "warmup_steps" not in changes:
        changes = changes | {"warmup_steps": min(config.warmup_steps, changes["steps"] // 10)}
    if "learning_rate" in changes and "min_learning_rate" not in changes:
        ratio = config.min_learning_rate / config.learning_rate
        changes = changes | {"min_learning_rate": changes["learning_rate"] * ratio}
    return dataclasses.replace(config, **changes)

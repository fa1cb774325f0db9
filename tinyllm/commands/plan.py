"""`tinyllm plan`: what a run will need, before it is begun."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from tinyllm.commands.pretrain import DecoderConfigChanges, ParallelConfigChanges, given
from tinyllm.errors import UserError
from tinyllm.training.presets import PRESETS, preset

CHARACTERS = {"shakespeare": 65}
"""How many different characters a corpus has, where a preset's vocabulary is its characters."""


@dataclass
class Options:
    preset: Positional[str] = ""
    """Which run: quickstart, textbook, shakespeare-char-cpu, shakespeare-char, gpt2-124m, llama-tiny."""

    model_folder: Path | None = None
    """In place of a preset, the folder of a run, whose model and training are taken."""

    vocab_size: int | None = None
    """Of the tokenizer; the preset's unless given."""

    context: int | None = None
    """How many tokens a sample has; the model's context unless given."""

    batch_size: int | None = None
    """How many samples a step has, those of all ranks together; the preset's unless given."""

    accumulation: int | None = None
    """In how many pieces each rank computes its samples."""

    precision: str | None = None
    """Of activations and products: fp32, fp16 or bf16."""

    optimizer: str | None = None
    """adamw, sgd, lion, muon or adafactor"""

    recompute: int | Literal["none", "all"] | None = None
    """How many blocks keep no activations and are computed once more in backward: none, all or a number."""

    kernels: Literal["auto", "reference", "numba"] = "auto"
    """They differ in what they keep. auto: numba on a laptop, the reference on GPUs."""

    zero: int = 0
    """What is parted among the ranks: 0 nothing, 1 the optimizer's state, 2 gradients too, 3 weights too."""

    ranks: int | None = None
    """How many processes; as many as there are devices unless given."""

    hardware: str = "laptop"
    """laptop, a100, h100 or h200; or a number of these: 8xh100, 1000xh100."""

    tokens: float | None = None
    """How many tokens the run is to see (1e9); 20 for each parameter unless given."""

    utilization: float | None = None
    """Which share of the hardware's peak training reaches, between 0 and 1."""

    price: float | None = None
    """Dollars a device and hour, in place of the table's assumption."""

    json: bool = False
    """One JSON object with the same numbers, in bytes, flops, seconds and dollars."""

    model: DecoderConfigChanges = field(default_factory=DecoderConfigChanges)
    parallel: ParallelConfigChanges = field(default_factory=ParallelConfigChanges)


def run(options: Options):
    """Say what a run will need, before it is begun: memory, arithmetic, messages, time, money.

    Nothing large is made for it: the plan of a model that no machine here could hold takes as long as any other.

    Example:
        tinyllm plan shakespeare-char --batch-size 8 --hardware laptop
        tinyllm plan gpt2-124m --precision bf16 --batch-size 8000 --hardware 1000xh100 --zero 2
        tinyllm plan gpt2-124m --model.hidden-size 4096 --model.num-hidden-layers 32 --model.num-attention-heads 32
    """
    from tinyllm.training.parallel.config import ParallelConfig
    from tinyllm.training.planning import hardware, make_plan, page

    shape, training = of_folder(options) if options.model_folder else of_preset(options)
    machine = hardware(options.hardware)
    parallel = ParallelConfig(zero=options.zero, **given(options.parallel))
    kernels = ("numba" if machine.shared else "reference") if options.kernels == "auto" else options.kernels
    plan = make_plan(
        shape, training, machine, parallel=parallel, ranks=options.ranks, kernels=kernels, tokens=options.tokens,
        utilization=options.utilization, price=options.price,
    )  # fmt: skip
    print(json.dumps(plan) if options.json else page(plan))


def of_preset(options):
    """(DecoderConfig, TrainingConfig) of a preset with the changes of the options."""
    if not options.preset:
        raise UserError(f"plan needs a preset, one of: {', '.join(PRESETS)}; or a run's folder, --model-folder FOLDER")
    chosen = preset(options.preset)
    size = options.vocab_size
    if size is None:
        size = CHARACTERS[chosen.data] if chosen.tokenizer == "character" else chosen.vocab_size
    return chosen.model_config(size, changes_to_model(options)), changed_training(chosen.training, options)


def of_folder(options):
    """Those of a run folder, likewise."""
    from tinyllm.formats.run_folders import decoder_config, read_config
    from tinyllm.training.config import TrainingConfig

    if options.preset:
        raise UserError("a plan is of a preset or of --model-folder; leave one of them out")
    settings = read_config(options.model_folder)
    shape = decoder_config(settings, options.model_folder)
    changes = changes_to_model(options) | ({"vocab_size": options.vocab_size} if options.vocab_size else {})
    training = TrainingConfig.from_dict(settings["training"]) if "training" in settings else TrainingConfig()
    return shape.replace(**changes), changed_training(training, options)


def changes_to_model(options):
    """dict of the changes under --model., and the context."""
    return given(options.model) | ({"max_position_embeddings": options.context} if options.context is not None else {})


def changed_training(training, options):
    """The training with the options that the memory and the time depend on."""
    from tinyllm.training.config import changed

    names = ("batch_size", "accumulation", "precision", "optimizer", "recompute")
    return changed(training, {name: getattr(options, name) for name in names if getattr(options, name) is not None})

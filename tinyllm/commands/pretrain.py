"""`tinyllm pretrain`: a model from nothing, on a text of yours."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from tinyllm.errors import UserError
from tinyllm.models import DecoderConfig
from tinyllm.training.config import TrainingConfig
from tinyllm.training.presets import PRESETS


def changes_to(cls, leave_out=()):
    """A dataclass with the fields of `cls`, each None for "as the preset has it"."""
    fields = [
        (f.name, Annotated[f.type | None, tyro.conf.arg(help_behavior_hint="(preset)")], field(default=None))
        for f in dataclasses.fields(cls)
        if f.name not in leave_out
    ]
    return dataclasses.make_dataclass(f"{cls.__name__}Changes", fields)


ModelChanges = changes_to(DecoderConfig, leave_out=("vocab_size",))
TrainingChanges = changes_to(TrainingConfig, leave_out=("steps", "seed"))


@dataclass
class Options:
    preset: Positional[str] = ""
    """Which run: quickstart, textbook, shakespeare-char-cpu, shakespeare-char, gpt2-124m, llama-tiny."""

    data: str = ""
    """A corpus by name (python-reference, python-stdlib, shakespeare, tinystories), a file, a folder or a glob."""

    run: Path | None = None
    """The folder of the run; runs/PRESET unless given."""

    resume: bool = False
    """Go on with the run in that folder from its newest checkpoint."""

    steps: int | None = None
    """How many optimizer steps."""

    seed: int | None = None
    """Of the initial weights, the batches and dropout."""

    tokenizer: str = ""
    """bpe, character, bytes, or the folder of a trained tokenizer."""

    vocab_size: int | None = None
    """Of a bpe tokenizer that is trained here; it counts bytes and special tokens."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Where the arrays live."""

    kernels: str = "auto"
    """auto (the fastest installed), reference, or a backend by name."""

    model: ModelChanges = field(default_factory=ModelChanges)
    training: TrainingChanges = field(default_factory=TrainingChanges)


def given(changes):
    """dict of the fields that are not None."""
    return {name: value for name, value in vars(changes).items() if value is not None}


def run(options: Options):
    """Train a language model from nothing on text.

    Example:
        tinyllm pretrain shakespeare-char-cpu --data shakespeare --run runs/shakespeare
        tinyllm pretrain textbook --data ~/books --run runs/books --steps 3000 --model.hidden-size 256
        tinyllm pretrain --run runs/books --resume
    """
    from tinyllm.training.progress import training_display
    from tinyllm.training.runs import complete

    with chosen_kernels(options.kernels):
        work = resumed(options) if options.resume else begun(options)
        result = complete(work, training_display())
    if result is None:
        print(f"Saved at step {work.training.step}. Go on with: tinyllm pretrain --run {work.folder} --resume")
        return
    print(f"Held-out loss {result['loss_nats']:.4f} nats per token, {result['bits_per_byte']:.4f} bits per byte.")
    print(f"Report: {work.folder / 'report.html'}")
    print(f"Try it: tinyllm generate --model {work.folder} --prompt TEXT")


def begun(options):
    from tinyllm.data import load_corpus
    from tinyllm.training.presets import preset
    from tinyllm.training.runs import begin_run, check_free

    if not options.preset:
        raise UserError(f"pretrain needs a preset, one of: {', '.join(PRESETS)}; or --resume with --run")
    folder = options.run or Path("runs") / options.preset
    chosen = preset(options.preset)
    check_free(folder)
    corpus = load_corpus(options.data or chosen.data)
    print(corpus.describe())
    training = given(options.training) | {
        name: getattr(options, name) for name in ("steps", "seed") if getattr(options, name) is not None
    }
    work = begin_run(
        folder,
        options.preset,
        corpus,
        tokenizer=options.tokenizer,
        vocab_size=options.vocab_size,
        model=given(options.model),
        training=training,
        device=options.device,
    )
    print(
        f"{work.config['num_parameters']:,} parameters, {work.training_tokens.count:,} training tokens, "
        f"{work.training.config.steps:,} steps; run folder {folder}"
    )
    return work


def resumed(options):
    from tinyllm.training.runs import resume_run

    if options.run is None:
        raise UserError("--resume needs the folder of the run: --run DIR")
    changed = [name for name in ("model", "training") if given(getattr(options, name))]
    changed += [name for name in ("data", "tokenizer", "vocab_size", "seed") if getattr(options, name)]
    if changed:
        raise UserError(f"--resume goes on as the run began; it cannot change {', '.join(changed)} (only --steps)")
    work = resume_run(options.run, steps=options.steps, device=options.device)
    print(f"{options.run}: going on at step {work.training.step} of {work.training.config.steps}")
    return work


def chosen_kernels(name):
    """The context manager for --kernels."""
    import autograd as ag
    from autograd.kernels import available

    try:
        return ag.use_kernels(*(available() if name == "auto" else [name]))
    except ValueError as error:
        raise UserError(f"--kernels {name}: {error}") from None

"""`tinyllm pretrain`: a model from nothing, on a text of yours."""

import ast
import dataclasses
import inspect
import itertools
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from tinyllm.commands.console import INTERRUPTED, command_line
from tinyllm.commands.hardware import check_device, chosen_kernels
from tinyllm.errors import UserError
from tinyllm.models import DecoderConfig
from tinyllm.training.config import TrainingConfig
from tinyllm.training.presets import PRESETS, preset


def changes_to(cls, leave_out=()):
    """A dataclass with the fields of `cls`, each None for "as the preset has it", and their help."""
    explained = field_help(cls)
    fields = []
    for f in dataclasses.fields(cls):
        if f.name not in leave_out:
            shown = tyro.conf.arg(help=explained.get(f.name, ""), help_behavior_hint="(preset)")
            # A preset may have switched it on, so it must be possible to say False.
            values = (shown, tyro.conf.FlagConversionOff) if f.type in (bool, bool | None) else (shown,)
            fields.append((f.name, Annotated[f.type | None, *values], field(default=None)))
    return dataclasses.make_dataclass(f"{cls.__name__}Changes", fields)


def field_help(cls):
    """dict field -> the string that stands below it in the source of a dataclass."""
    body = ast.parse(inspect.getsource(cls)).body[0].body
    return {
        above.target.id: inspect.cleandoc(below.value.value)
        for above, below in itertools.pairwise(body)
        if isinstance(above, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }


ModelChanges = changes_to(DecoderConfig, leave_out=("vocab_size",))
TrainingChanges = changes_to(TrainingConfig, leave_out=("steps", "seed", "precision"))


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
    """bpe, wordpiece, character or bytes; gpt2, gpt4 or gpt4o; or the folder or file of a trained tokenizer."""

    vocab_size: int | None = None
    """Of a bpe or wordpiece tokenizer that is trained here; it counts bytes or letters, and special tokens."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the arrays live. auto: the CPU, or for a resumed run where it began."""

    precision: str | None = None
    """Of activations and products: fp32, fp16 (with loss scaling) or bf16. Weights are kept in float32."""

    kernels: str = "auto"
    """auto (numba on the CPU), reference (the array code that you read), or numba."""

    debug: bool = False
    """Watch every op for the first NaN and for arrays overwritten before backward. A step takes half as long again."""

    inspect: bool = False
    """Before training, print where the memory and the time of one step go, op by op."""

    model: ModelChanges = field(default_factory=ModelChanges)
    training: TrainingChanges = field(default_factory=TrainingChanges)


def given(changes):
    """dict of the fields that are not None."""
    return {name: value for name, value in vars(changes).items() if value is not None}


def run(options: Options):
    """Train a language model from nothing on text.

    Ctrl-C saves a checkpoint, says how to go on, and ends with exit code 130.

    Example:
        tinyllm pretrain shakespeare-char-cpu --data shakespeare --run runs/shakespeare
        tinyllm pretrain textbook --data ~/books --run runs/books --steps 3000 --model.hidden-size 256
        tinyllm pretrain --run runs/books --resume
    """
    from tinyllm.training.inspection import inspection
    from tinyllm.training.progress import training_display
    from tinyllm.training.runs import complete

    check_device("cpu" if options.device == "auto" else options.device)
    try:
        with chosen_kernels(options.kernels, options.device):
            work = resumed(options) if options.resume else begun(options)
            if options.inspect:
                print(inspection(work.training), end="\n\n")
            result = complete(work, training_display(), options.debug)
    except MemoryError as error:
        raise UserError(f"not enough memory: {error}; choose a smaller model, batch or context") from None
    if result is None:
        again = command_line("pretrain", "--run", work.folder, "--resume")
        print(f"Saved at step {work.training.step:,}. Go on with: {again}")
        return INTERRUPTED
    print(f"Held-out loss {result['loss_nats']:.4f} nats per token, {result['bits_per_byte']:.4f} bits per byte.")
    print(f"Report: {work.folder / 'report.html'}")
    print(f"Try it: {command_line('generate', '--model', work.folder)}")


def begun(options):
    """A new run in a free folder."""
    from tinyllm.data import load_corpus
    from tinyllm.training.progress import track
    from tinyllm.training.runs import begin_run, check_free

    if not options.preset:
        raise UserError(f"pretrain needs a preset, one of: {', '.join(PRESETS)}; or --resume with --run")
    chosen, folder = preset(options.preset), folder_of(options)
    kind = options.tokenizer or chosen.tokenizer
    if options.vocab_size is not None and kind not in ("bpe", "wordpiece"):
        raise UserError(
            f"--vocab-size is for a bpe or wordpiece tokenizer that is trained here, and this run's is {kind}"
        )
    check_free(folder)
    with track(None, "downloading", "bytes") as progress:
        corpus = load_corpus(options.data or chosen.data, progress=progress)
    print(corpus.describe())
    training = given(options.training) | {
        name: getattr(options, name) for name in ("steps", "seed", "precision") if getattr(options, name) is not None
    }
    work = begin_run(
        folder,
        options.preset,
        corpus,
        tokenizer=options.tokenizer,
        vocab_size=options.vocab_size,
        model=given(options.model),
        training=training,
        device="cpu" if options.device == "auto" else options.device,
    )
    print(
        f"{work.config['num_parameters']:,} parameters, {work.training_tokens.count:,} training tokens, "
        f"{work.training.config.steps:,} steps; run folder {folder}"
    )
    if work.tokenizer.loses:
        print(f"Its {work.tokenizer.kind} tokenizer does not keep {work.tokenizer.loses}.")
    return work


def resumed(options):
    """The run in the folder, as it began; only its end may be moved."""
    from tinyllm.formats.run_folders import read_config
    from tinyllm.training.runs import resume_run

    folder = folder_of(options)
    changed = [f"--{name}.*" for name in ("model", "training") if given(getattr(options, name))]
    changed += [f"--{name}" for name in ("data", "tokenizer", "precision") if getattr(options, name)]
    changed += [f"--{name.replace('_', '-')}" for name in ("vocab_size", "seed") if getattr(options, name) is not None]
    if changed:
        raise UserError(f"--resume goes on as the run began; leave out {', '.join(changed)} (--steps may change)")
    began = read_config(folder).get("preset")
    if options.preset not in ("", began):
        raise UserError(f"{folder} holds a run of the preset {began}; leave {options.preset} out to go on with it")
    work = resume_run(folder, steps=options.steps, device=None if options.device == "auto" else options.device)
    step, steps = work.training.step, work.training.config.steps
    print(
        f"{folder}: going on at step {step:,} of {steps:,}"
        if step < steps
        else f"{folder}: all {steps:,} steps are done; --steps N goes on to N"
    )
    return work


def folder_of(options):
    """The run's folder: --run, or by the preset's name."""
    if options.run is None and not options.preset:
        raise UserError("--resume needs the folder of the run: --run DIR")
    return options.run or Path("runs") / options.preset

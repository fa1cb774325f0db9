"""`tinyllm pretrain`: a model from nothing, on a text of yours."""

import ast
import contextlib
import dataclasses
import inspect
import itertools
import os
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from tinyllm.commands.console import INTERRUPTED, command_line, fail, prepare_streams
from tinyllm.commands.hardware import check_device, chosen_kernels
from tinyllm.errors import UserError
from tinyllm.models import DecoderConfig
from tinyllm.training.config import TrainingConfig
from tinyllm.training.parallel import Ranks
from tinyllm.training.parallel.config import ParallelConfig
from tinyllm.training.parallel.launch import THREADS, launch, threads_each
from tinyllm.training.presets import PRESETS, preset


def changes_to(cls, leave_out=(), otherwise="(preset)"):
    """A dataclass with the fields of `cls`, each None for "as the preset has it", and their help.

    otherwise: what the help page says of a field that is left out. To be kept under the name of `cls` and "Changes".
    """
    explained = field_help(cls)
    fields = []
    for f in dataclasses.fields(cls):
        if f.name not in leave_out:
            shown = tyro.conf.arg(help=explained.get(f.name, ""), help_behavior_hint=otherwise)
            # A preset may have switched it on, so it must be possible to say False.
            values = (shown, tyro.conf.FlagConversionOff) if f.type in (bool, bool | None) else (shown,)
            fields.append((f.name, Annotated[f.type | None, *values], field(default=None)))
    made = dataclasses.make_dataclass(f"{cls.__name__}Changes", fields)
    made.__module__ = __name__  # where a rank's process looks for it
    return made


def field_help(cls):
    """dict field -> the string that stands below it in the source of a dataclass."""
    body = ast.parse(inspect.getsource(cls)).body[0].body
    return {
        above.target.id: inspect.cleandoc(below.value.value)
        for above, below in itertools.pairwise(body)
        if isinstance(above, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
    }


DecoderConfigChanges = changes_to(DecoderConfig, leave_out=("vocab_size",))
UNNESTED = ("steps", "seed", "precision")
"""Fields of a TrainingConfig that have an option of their own, without `--training.`."""

TrainingConfigChanges = changes_to(TrainingConfig, leave_out=UNNESTED)
ParallelConfigChanges = changes_to(ParallelConfig, leave_out=("zero",), otherwise="(usual, or as the run had it)")


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

    deepspeed: Path | None = None
    """A configuration file of DeepSpeed's, JSON: batch, precision, optimizer, schedule, ZeRO (docs/deepspeed.md)."""

    kernels: str = "auto"
    """auto (numba on the CPU), reference (the array code that you read), or numba."""

    debug: bool = False
    """Watch every op for the first NaN and for arrays overwritten before backward. A step takes half as long again."""

    inspect: bool = False
    """Before training, print where the memory and the time of one step go, op by op."""

    devices: int | None = None
    """How many processes train together, each with its share of a batch and of the cores, or with cuda a GPU; 1 unless
    given, under mpiexec those that it started, for a resumed run as many as it had."""

    zero: int | None = None
    """What they part among them: 0 nothing, 1 the optimizer's state, 2 gradients too, 3 weights too."""

    model: DecoderConfigChanges = field(default_factory=DecoderConfigChanges)
    training: TrainingConfigChanges = field(default_factory=TrainingConfigChanges)
    parallel: ParallelConfigChanges = field(default_factory=ParallelConfigChanges)


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
        tinyllm pretrain textbook --data ~/books --run runs/shared --devices 2 --zero 1
    """
    from tinyllm.training.parallel import mpi

    if mpi.expected() > 1:
        return mpi.run(on_rank, options)
    options = with_file(options, options.devices or 1)
    parallel, before = parallel_config_of(options)
    devices = before if options.devices is None else options.devices
    if devices < 1:
        raise UserError(f"--devices must be at least 1, not {devices}")
    if devices == 1:
        return trained(options, parallel, Ranks())
    print(f"{devices} ranks; {threads_of(threads_each(devices))}")
    sys.stdout.flush()  # before the first rank prints
    return launch(on_rank, devices, (options,), timeout=parallel.timeout)


def threads_of(each):
    """In words, with how many threads each rank computes: `each`, unless the environment says something."""
    said = [f"{name}={os.environ[name]}" for name in THREADS if name in os.environ]
    rest = f"each computes with {each} thread{'s' if each > 1 else ''}"
    return f"{rest}, but for {', '.join(said)}" if said else rest


def with_file(options, ranks):
    """The options as if what the file of --deepspeed says had been typed. ranks: how many share a batch."""
    from tinyllm.training.parallel.deepspeed import read_deepspeed, with_deepspeed

    if options.deepspeed is None:
        return options
    if options.resume or not options.preset:
        raise UserError(
            "--deepspeed is for a new run, with a preset; --resume goes on as the run began (--devices, --zero and "
            "--parallel.* may change)"
        )
    path, usual = options.deepspeed, preset(options.preset).training
    parallel = given(options.parallel) | ({} if options.zero is None else {"zero": options.zero})
    training, parallel = with_deepspeed(path, read_deepspeed(path), ranks, usual, training_changes(options), parallel)
    return dataclasses.replace(
        options,
        **{name: training.pop(name, None) for name in UNNESTED},
        zero=parallel.pop("zero", None),
        training=TrainingConfigChanges(**training),
        parallel=ParallelConfigChanges(**parallel),
    )


def training_changes(options):
    """dict of changes to the preset's TrainingConfig."""
    unnested = {name: getattr(options, name) for name in UNNESTED}
    return given(options.training) | {name: value for name, value in unnested.items() if value is not None}


def parallel_config_of(options):
    """(ParallelConfig, number of ranks unless --devices says another): of a resumed run those that it had last."""
    from tinyllm.formats.run_folders import read_config
    from tinyllm.training.runs import parallel_config

    parallel, ranks = ParallelConfig(), 1
    if options.resume:
        check_as_it_began(options)
        folder = folder_of(options)
        settings = read_config(folder)
        parallel, ranks = parallel_config(settings, folder), settings.get("parallel", {}).get("ranks", 1)
    stage = {} if options.zero is None else {"zero": options.zero}
    return dataclasses.replace(parallel, **given(options.parallel), **stage), ranks


def check_as_it_began(options):
    """UserError where --resume is to go on in another way than the run began."""
    changed = [f"--{name}.*" for name in ("model", "training") if given(getattr(options, name))]
    changed += [f"--{name}" for name in ("data", "tokenizer", "precision") if getattr(options, name)]
    changed += [f"--{name.replace('_', '-')}" for name in ("vocab_size", "seed") if getattr(options, name) is not None]
    if changed:
        raise UserError(f"--resume goes on as the run began; leave out {', '.join(changed)} (--steps may change)")


def on_rank(communicator, options):
    """What one rank of several does; returns its exit code. communicator: how it reaches the others."""
    from tinyllm.training.parallel import mpi, nccl

    prepare_streams()
    if mpi.expected() > 1:
        size = communicator.size
        if options.devices not in (None, size):
            raise UserError(f"mpiexec has started {size} ranks, and --devices says {options.devices}; leave it out")
        options = with_file(options, size)
    parallel = parallel_config_of(options)[0]
    if options.device == "cuda":
        communicator = nccl.connect(communicator)
    ranks = Ranks(communicator, parallel.overlap)
    with warnings.catch_warnings(), contextlib.closing(ranks):
        warnings.showwarning = lambda message, category, *where: fail(f"rank {ranks.rank}: {message}")
        return trained(options, parallel, ranks)


def trained(options, parallel, ranks):
    """Train, on this rank alone or with others, and say what came of it; returns the exit code."""
    from tinyllm.training.inspection import inspection
    from tinyllm.training.parallel import mpi
    from tinyllm.training.progress import training_display
    from tinyllm.training.runs import complete

    check_device("cpu" if options.device == "auto" else options.device)
    try:
        with chosen_kernels(options.kernels, options.device, silent=not ranks.first):
            work = (resumed if options.resume else begun)(options, parallel, ranks)
            # Not before: however long the first takes for the text, the others wait. Of local ranks the process that
            # has started them sees whether they move.
            ranks.timeout = parallel.timeout if mpi.expected() > 1 else None
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
    return 0


def begun(options, parallel, ranks):
    """A new run in a free folder. The first of several ranks reads the text, for all."""
    from tinyllm.data import load_corpus
    from tinyllm.training.parallel.deepspeed import read_deepspeed
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
    corpus = None
    if ranks.first:
        check_free(folder)
        with track(None, "downloading", "bytes") as progress:
            corpus = load_corpus(options.data or chosen.data, progress=progress)
        print(corpus.describe())
    work = begin_run(
        folder,
        options.preset,
        corpus,
        tokenizer=options.tokenizer,
        vocab_size=options.vocab_size,
        model=given(options.model),
        training=training_changes(options),
        device="cpu" if options.device == "auto" else options.device,
        parallel=parallel,
        ranks=ranks,
        deepspeed=options.deepspeed and read_deepspeed(options.deepspeed),
    )
    print(
        f"{work.config['num_parameters']:,} parameters, {work.training_tokens.count:,} training tokens, "
        f"{work.training.config.steps:,} steps; run folder {folder}"
    )
    if work.tokenizer.loses:
        print(f"Its {work.tokenizer.kind} tokenizer does not keep {work.tokenizer.loses}.")
    return work


def resumed(options, parallel, ranks):
    """The run in the folder, as it began; only its end may be moved, and on how many ranks it goes on."""
    from tinyllm.formats.run_folders import read_config
    from tinyllm.training.runs import resume_run

    folder = folder_of(options)
    began = read_config(folder).get("preset")
    if options.preset not in ("", began):
        raise UserError(f"{folder} holds a run of the preset {began}; leave {options.preset} out to go on with it")
    device = None if options.device == "auto" else options.device
    work = resume_run(folder, steps=options.steps, device=device, parallel=parallel, ranks=ranks)
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

"""A training run as a folder: begin one, go on with one, see it through to its report."""

import contextlib
import dataclasses
from pathlib import Path

import numpy as np

from tinyllm.data import RandomBatches, TokenFile, num_bytes_of_targets, prepare
from tinyllm.data.named_vocabularies import VOCABULARIES, find_tokenizer
from tinyllm.errors import UserError
from tinyllm.files import write_json
from tinyllm.formats.run_folders import FORMAT_VERSION, checkpoints, decoder_config, read_config
from tinyllm.models import Decoder
from tinyllm.tokenizers import BPETokenizer, CharacterTokenizer, WordPieceTokenizer, load_tokenizer
from tinyllm.training.checkpoints import Checkpoints, clear_leftovers, load_checkpoint
from tinyllm.training.config import TrainingConfig, changed
from tinyllm.training.divergence import Diverged, watched
from tinyllm.training.inspection import RECOMPUTATION, recomputation
from tinyllm.training.journal import Journal
from tinyllm.training.loop import Pretraining, pretrain
from tinyllm.training.machine import machine
from tinyllm.training.memory import keep_freed_memory
from tinyllm.training.metrics import METRICS, SAMPLES, MetricsLog, NoLog
from tinyllm.training.parallel import Ranks
from tinyllm.training.parallel.agreement import by_first, check_same, check_shared, check_shares, together
from tinyllm.training.parallel.config import ParallelConfig
from tinyllm.training.parallel.message_log import MESSAGES, message_summary
from tinyllm.training.parallel.shared_checkpoints import SharedCheckpoints
from tinyllm.training.parameter_groups import check_patterns
from tinyllm.training.precision import activation_dtype
from tinyllm.training.presets import preset as preset_named
from tinyllm.training.progress import Silent, track
from tinyllm.training.report import write_report
from tinyllm.training.run_lock import LOCK, RunLock
from tinyllm.training.signals import stop_on_signals

OURS = ("data/prepared.json", "data/training.tokens", "data/validation.tokens", "tokenizer/tokenizer.json")
"""What a start writes before config.json makes the folder a run."""


@dataclasses.dataclass
class Run:
    """A run folder with everything in it open. config: what config.json holds.

    lock: no other process writes to it; None on the ranks that leave writing to the first.
    """

    folder: Path
    config: dict
    tokenizer: object
    training_tokens: TokenFile
    validation_tokens: TokenFile
    training: Pretraining
    lock: RunLock | None

    @property
    def ranks(self):
        """The Ranks that train it together."""
        return self.training.ranks


def begin_run(
    folder, preset, corpus, *, tokenizer=None, vocab_size=None, model=None, training=None, device="cpu", parallel=None,
    ranks=None, deepspeed=None,
):  # fmt: skip
    """Make a run folder: train the tokenizer, encode the corpus, make the model.

    preset: its name. tokenizer: "bpe", "wordpiece", "character", "bytes", "gpt2", the folder or file of a trained one,
    or one itself; None for the preset's. model, training: dicts of changes to the preset. A folder that holds something
    already is refused and not touched; a start that fails leaves nothing behind.

    parallel, ranks: a ParallelConfig, and the Ranks of the processes that begin it together. They share the folder. The
    first makes everything, and the others, whose corpus may be None, open what it has made. deepspeed: the content of
    DeepSpeed's file from which the changes come; config.json keeps it for the record.
    """
    folder, ranks, parallel = Path(folder), ranks or Ranks(), parallel or ParallelConfig()
    asked = {"preset": preset, "tokenizer": getattr(tokenizer, "vocabulary_hash", tokenizer), "vocab_size": vocab_size}
    asked |= {"model": model, "training": training, "device": device, "parallel": parallel.as_dict()}
    check_same(ranks, asked)
    chosen = preset_named(preset)
    by_first(ranks, lambda: check_free(folder))
    config = changed(chosen.training, training or {})
    size = chosen.vocab_size if vocab_size is None else vocab_size
    # What does not fit together is refused before the long work begins.
    outline = chosen.model_config(max(size, 1), model)
    activation_dtype(config.precision)
    if config.no_decay or config.learning_rate_factors:
        check_patterns(Decoder(outline), config)
    check_shares(config, ranks)

    def make():
        made, data = make_data(folder, corpus, tokenizer or chosen.tokenizer, size)
        shape = chosen.model_config(made.vocab_size, model)
        make_batches(data.training, config, shape)  # refuses a text shorter than the context
        decoder = Decoder(shape, seed=config.seed).to(device)
        made.save(folder / "tokenizer")
        as_preset = not (tokenizer or vocab_size or model or set(training or {}) - {"seed"})
        expected = chosen.expected.get(corpus.sha256) if as_preset else None
        settings = settings_of(preset, corpus, made, data, decoder, config, expected)
        return made, data.training, data.validation, decoder, settings | {"device": device}

    with contextlib.ExitStack() as stack:
        lock = by_first(ranks, lambda: stack.enter_context(undone_on_failure(folder)))
        check_shared(ranks, folder, folder / LOCK)
        *contents, settings = by_first(ranks, make) or (None,)
        settings = ranks.exchange(settings)[0] | {"parallel": parallel.as_dict() | {"ranks": ranks.size}}
        settings |= {"deepspeed": deepspeed} if deepspeed else {}
        own, *tokens, decoder = together(ranks, lambda: contents or read_contents(folder, settings, device))
        by_first(ranks, lambda: write_json(folder / "config.json", settings))
    batches = make_batches(tokens[0], config, decoder.config)
    return Run(folder, settings, own, *tokens, Pretraining(decoder, batches, config, parallel, ranks), lock)


def make_data(folder, corpus, tokenizer, vocab_size):
    """(tokenizer, PreparedData): the corpus encoded, in the run folder. tokenizer: as `begin_run` takes it."""
    made = make_tokenizer(tokenizer, vocab_size, corpus, corpus.split()[0])
    with track(corpus.num_bytes, "encoding", "bytes") as progress:
        data = prepare(corpus, made, folder / "data", progress=progress)
    if data.validation.count < 2:
        raise UserError("the held-out tenth of the text is a single token, which leaves none to predict; give more")
    return made, data


def settings_of(preset, corpus, tokenizer, data, decoder, config, expected):
    """What config.json holds. expected: (low, high) bits per byte of other runs like this one, or None."""
    scored = config.evaluation_windows * decoder.config.max_position_embeddings
    return {
        "format_version": FORMAT_VERSION,
        "preset": preset,
        "model": decoder.config.as_dict(),
        "training": config.as_dict(),
        "num_parameters": decoder.num_parameters(),
        "tokenizer": {
            "kind": tokenizer.kind,
            "vocab_size": tokenizer.vocab_size,
            "hash": tokenizer.vocabulary_hash,
        },
        "corpus": {
            "name": corpus.name,
            "sha256": corpus.sha256,
            "num_bytes": corpus.num_bytes,
            "num_documents": corpus.num_documents,
            "training_bytes": data.training.num_bytes,
            "validation_bytes": data.validation.num_bytes,
            # What is scored on the way, where the tokens cannot tell.
            "evaluation_bytes": num_bytes_of_targets(corpus, tokenizer, scored) if tokenizer.loses else None,
        },
        "expected": {"low": expected[0], "high": expected[1], "unit": "bits_per_byte"} if expected else None,
        "machine": machine(),
    }


def resume_run(folder, *, steps=None, device=None, parallel=None, ranks=None):
    """Open a run folder at its newest whole checkpoint, or at its beginning if there is none yet.

    steps: a new end, None for the one it began with. device: None for the one it began on. The folder is not touched
    unless it could be opened. parallel, ranks: as `begin_run` takes them, and the same or others than before; None for
    the ParallelConfig that it had.
    """
    folder, ranks = Path(folder), ranks or Ranks()
    check_same(ranks, {"steps": steps, "device": device, "parallel": parallel and parallel.as_dict()})

    def locked():
        read_config(folder)  # refuses what is no run folder
        return RunLock(folder)

    lock = by_first(ranks, locked)
    try:
        check_shared(ranks, folder, folder / LOCK)
        return opened_run(folder, lock, steps, device, parallel, ranks)
    except BaseException:
        if lock:
            lock.release()
        raise


def opened_run(folder, lock, steps, device, parallel, ranks):
    settings = together(ranks, lambda: read_config(folder))
    if "training" not in settings:
        raise UserError(f"{folder} holds a model but no training run; it cannot be resumed")
    config, parallel = training_config(settings, folder, steps), parallel or parallel_config(settings, folder)
    check_shares(config, ranks)
    tokenizer, *tokens, decoder = together(ranks, lambda: read_contents(folder, settings, device))
    batches = make_batches(tokens[0], config, decoder.config)
    training = Pretraining(decoder, batches, config, parallel, ranks)
    has_checkpoints = ranks.exchange(bool(checkpoints(folder)))[0]
    if has_checkpoints:  # else it was killed before the first one; its seed repeats what it had
        load_checkpoint(folder, training)
    if config.steps < training.step:
        raise UserError(f"{folder} has come to step {training.step}; it cannot end at step {config.steps}")
    changes = {"training": config.as_dict(), "parallel": parallel.as_dict() | {"ranks": ranks.size}}
    if settings != settings | changes:
        settings |= changes
        by_first(ranks, lambda: write_json(folder / "config.json", settings))
    return Run(folder, settings, tokenizer, *tokens, training, lock)


def read_contents(folder, settings, device):
    """(tokenizer, training TokenFile, validation TokenFile, Decoder with its first weights) of a run folder.

    settings: what its config.json holds. device: None for the one that this says.
    """
    tokenizer = load_tokenizer(folder / "tokenizer")
    parts = [folder / "data" / f"{part}.tokens" for part in ("training", "validation")]
    tokens = [TokenFile.open(path, tokenizer.vocabulary_hash) for path in parts]
    decoder = Decoder(decoder_config(settings, folder), seed=training_config(settings, folder, None).seed)
    return tokenizer, *tokens, decoder.to(device or settings.get("device") or "cpu")


def training_config(settings, folder, steps):
    """The TrainingConfig of a run folder with a new end, unless `steps` is None."""
    try:
        config = TrainingConfig.from_dict(settings["training"])
    except (TypeError, UserError) as error:
        raise UserError(f"{folder / 'config.json'} describes no training ({error}); put it back as it was") from None
    return config if steps is None else dataclasses.replace(config, steps=steps)


def parallel_config(settings, folder):
    """The ParallelConfig that a run had last; the usual one where it is older than that."""
    values = {name: value for name, value in settings.get("parallel", {}).items() if name != "ranks"}
    try:
        return ParallelConfig(**values)
    except (TypeError, UserError) as error:
        raise UserError(f"{folder / 'config.json'}: parallel is none ({error}); put it back as it was") from None


def check_free(folder):
    """A new run starts in an empty place, or where an earlier start was killed before it wrote its config."""
    if (folder / "config.json").exists():
        raise UserError(f"{folder} holds a run already; go on with it: --resume, or choose another --run folder")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; a run needs a folder of its own")
    # A tokenizer without data is no leftover: somebody put it there.
    ours = OURS if (folder / "data" / "prepared.json").exists() else OURS[:-1]
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not path.name.startswith(".") and name not in ours:
            raise UserError(f"{folder} is not empty (it holds {name}); a run needs a folder of its own")


@contextlib.contextmanager
def undone_on_failure(folder):
    """Make the folder of a run and lock it; if what follows fails or is interrupted, take away what it wrote there.

    Yields the RunLock, which stays when all goes well.
    """
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    lock = RunLock(folder)
    try:
        check_free(folder)  # once more: another start may have been here a moment ago
    except BaseException:
        lock.release()
        raise
    try:
        yield lock
    except BaseException:
        for path in OURS:
            with contextlib.suppress(OSError):
                (folder / path).unlink()
        lock.release()
        for part in (folder / "data", folder / "tokenizer", *(() if existed else (folder,))):
            with contextlib.suppress(OSError):  # somebody else has something there, or it was never made
                part.rmdir()
        raise


def make_tokenizer(kind, vocab_size, corpus, training_text):
    """Trained on the training part only, but for characters, whose alphabet must cover the whole text.

    kind: as `begin_run` takes it.
    """
    if not isinstance(kind, (str, Path)):
        return kind
    if kind == "character":
        return CharacterTokenizer.train(corpus.documents)
    if kind == "bpe":
        with track(None, "training the tokenizer", "merges") as progress:
            return BPETokenizer.train(training_text, vocab_size=vocab_size, progress=progress)
    if kind == "wordpiece":
        with track(None, "training the tokenizer", "pieces") as progress:
            return WordPieceTokenizer.train(training_text, vocab_size=vocab_size, progress=progress)
    if kind not in ("bytes", *VOCABULARIES) and not Path(kind).exists():
        raise UserError(
            f"--tokenizer is bpe, wordpiece, character, bytes, {', '.join(VOCABULARIES)}, or the folder or file of a "
            f"trained tokenizer; {kind!r} is none of these"
        )
    with track(None, "downloading", "bytes") as progress:
        return find_tokenizer(kind, progress)


def make_batches(tokens, config, shape):
    return RandomBatches(
        tokens.tokens, batch_size=config.batch_size, context=shape.max_position_embeddings, seed=config.seed
    )


def measure_recomputation(run):
    """Write what recomputing blocks saves and costs into recomputation.json, once, where blocks are recomputed.

    All ranks measure, since they compute a gradient together; what the first has found is written. At stage 3, which
    recomputes every block, there is nothing to compare with.
    """
    path, ranks = run.folder / RECOMPUTATION, run.ranks
    compares = run.training.model.recomputed_blocks and (ranks.size == 1 or run.training.parallel.zero < 3)
    if compares and not ranks.exchange(path.exists())[0]:
        measured = recomputation(run.training)
        if ranks.first:
            write_json(path, {"format_version": FORMAT_VERSION, **measured})


def complete(run, display=None, debug=False):
    """Train to the last step, evaluating, sampling and saving on the way; write the report.

    debug: watch every op for the first NaN and for overwritten arrays. Returns the final validation metrics, or None if
    Ctrl-C stopped it (a checkpoint is then saved).

    Every rank of a run calls this. The first alone has a display and writes, but for the others' parts of checkpoints;
    a Ctrl-C that reaches any of them stops all after the same step.
    """
    training, config, ranks = run.training, run.training.config, run.ranks
    display = (display if ranks.first else None) or Silent()
    keep_freed_memory()
    with contextlib.ExitStack() as stack:
        if run.lock:
            stack.callback(run.lock.release)
        stack.enter_context(np.errstate(all="ignore"))  # what overflows is said once, by the loop
        by_first(ranks, lambda: clear_leftovers(run.folder))
        metrics, samples = (stack.enter_context(log_of(run, name)) for name in (METRICS, SAMPLES))
        messages = stack.enter_context(log_of(run, MESSAGES) if training.parallel.log_messages else NoLog())
        saving = stack.enter_context(checkpoints_of(run))
        stack.enter_context(display)
        stopping = stack.enter_context(stop_on_signals())
        metrics.rewind(training.step, training.spikes.roll_backs)
        for made_on_the_way in (samples, messages, saving):
            made_on_the_way.rewind(training.step)
        journal = Journal(run, metrics, samples, messages, saving, display)
        measure_recomputation(run)
        display.start(config.steps, training.step)
        if training.step == 0:
            journal.sample()
        journal.messages.taken()  # what was said before the first step is no part of it

        def stop():
            return ranks.sum(int(stopping.is_set())) > 0

        try:
            with watched(training) if debug else contextlib.nullcontext():
                pretrain(training, after_step=journal.after_step, roll_back=journal.roll_back, stop=stop)
        except Diverged as error:
            journal.diverged(error)
            saving.wait()
            if ranks.first:
                write_report(run.folder)  # there it is needed most
            raise
        if stop():
            display.note("stopping after this step: saving")
        journal.save()
        result = None if training.step < config.steps else journal.final()
        journal.settle()
        if messages.records():
            display.note(str(message_summary(run.folder)))
    if ranks.first:
        write_report(run.folder)
    return result


def log_of(run, name):
    return MetricsLog(run.folder, name) if run.ranks.first else NoLog()


def checkpoints_of(run):
    config = run.training.config
    options = (run.folder, config.keep_checkpoints, config.checkpoint_every)
    return Checkpoints(*options) if run.ranks.size == 1 else SharedCheckpoints(*options, run.ranks)

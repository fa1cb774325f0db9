"""A training run as a folder: begin one, go on with one, see it through to its report."""

import contextlib
import dataclasses
import signal
import threading
import time
from pathlib import Path

from tinyllm.data import RandomBatches, TokenFile, prepare
from tinyllm.errors import UserError
from tinyllm.evaluation import bits_per_byte
from tinyllm.evaluation.loss import held_out_loss, token_lengths
from tinyllm.files import atomic_write, write_json
from tinyllm.formats.run_folders import FORMAT_VERSION, read_config
from tinyllm.generation import generate
from tinyllm.models import Decoder, DecoderConfig
from tinyllm.tokenizers import BPETokenizer, ByteTokenizer, CharacterTokenizer, load_tokenizer
from tinyllm.training.checkpoints import load_checkpoint, save_checkpoint
from tinyllm.training.config import TrainingConfig
from tinyllm.training.loop import Pretraining, pretrain
from tinyllm.training.machine import machine
from tinyllm.training.metrics import SAMPLES, MetricsLog, read_metrics
from tinyllm.training.presets import preset as preset_named
from tinyllm.training.progress import Silent, track
from tinyllm.training.report import write_report


@dataclasses.dataclass
class Run:
    """A run folder with everything in it open. config: what config.json holds."""

    folder: Path
    config: dict
    tokenizer: object
    training_tokens: TokenFile
    validation_tokens: TokenFile
    training: Pretraining


def begin_run(folder, preset, corpus, *, tokenizer=None, vocab_size=None, model=None, training=None, device="cpu"):
    """Make a run folder: train the tokenizer, encode the corpus, make the model.

    preset: its name. tokenizer: "bpe", "character", "bytes", or the folder of a trained one; None for the preset's.
    model, training: dicts of changes to the preset. A folder that holds something already is refused and not touched.
    """
    folder, chosen = Path(folder), preset_named(preset)
    check_free(folder)
    config = dataclasses.replace(chosen.training, **(training or {}))
    training_text = corpus.split()[0]
    tokenizer = make_tokenizer(tokenizer or chosen.tokenizer, vocab_size or chosen.vocab_size, corpus, training_text)
    shape = chosen.model_config(tokenizer.vocab_size, model)
    with track(corpus.num_bytes, "encoding", "bytes") as progress:
        data = prepare(corpus, tokenizer, folder / "data", progress=progress)
    batches = make_batches(data.training, config, shape)
    decoder = Decoder(shape, seed=config.seed).to(device)
    tokenizer.save(folder / "tokenizer")
    as_preset = not model and not training and corpus.sha256 in chosen.expected
    low, high = chosen.expected[corpus.sha256] if as_preset else (None, None)
    settings = {
        "format_version": FORMAT_VERSION,
        "preset": preset,
        "model": shape.as_dict(),
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
        },
        "expected": {"low": low, "high": high, "unit": "bits_per_byte"} if as_preset else None,
        "machine": machine(),
    }
    write_json(folder / "config.json", settings)
    return Run(folder, settings, tokenizer, data.training, data.validation, Pretraining(decoder, batches, config))


def resume_run(folder, *, steps=None, device="cpu"):
    """Open a run folder at its newest whole checkpoint. steps: a new end, None for the one it began with."""
    folder = Path(folder)
    settings = read_config(folder)
    if "training" not in settings:
        raise UserError(f"{folder} holds a model but no training run; it cannot be resumed")
    config = TrainingConfig(**settings["training"])
    if steps is not None and steps != config.steps:
        config = dataclasses.replace(config, steps=steps)
        settings["training"] = config.as_dict()
        write_json(folder / "config.json", settings)
    tokenizer = load_tokenizer(folder / "tokenizer")
    files = [
        TokenFile.open(folder / "data" / f"{part}.tokens", tokenizer.vocabulary_hash)
        for part in ("training", "validation")
    ]
    shape = DecoderConfig.from_dict(settings["model"])
    decoder = Decoder(shape, seed=config.seed).to(device)
    training = Pretraining(decoder, make_batches(files[0], config, shape), config)
    load_checkpoint(folder, training)
    return Run(folder, settings, tokenizer, *files, training)


def check_free(folder):
    """A new run starts in an empty place, or where an earlier start did not come as far as a config."""
    if (folder / "config.json").exists():
        raise UserError(f"{folder} holds a run already; go on with it: --resume, or choose another --run folder")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; a run needs a folder of its own")
    foreign = (
        [path.name for path in folder.glob("*") if path.name not in ("data", "tokenizer")] if folder.exists() else []
    )
    if foreign:
        raise UserError(f"{folder} is not empty (it holds {foreign[0]}); a run needs a folder of its own")


def make_tokenizer(kind, vocab_size, corpus, training_text):
    """Trained on the training part only, but for characters, whose alphabet must cover the whole text."""
    if kind == "bytes":
        return ByteTokenizer()
    if kind == "character":
        return CharacterTokenizer.train(corpus.documents)
    if kind == "bpe":
        with track(None, "training the tokenizer", "merges") as progress:
            return BPETokenizer.train(training_text, vocab_size=vocab_size, progress=progress)
    if not Path(kind).is_dir():
        raise UserError(
            f"--tokenizer is bpe, character, bytes or the folder of a trained tokenizer; {kind!r} is neither"
        )
    return load_tokenizer(kind)


def make_batches(tokens, config, shape):
    return RandomBatches(
        tokens.tokens, batch_size=config.batch_size, context=shape.max_position_embeddings, seed=config.seed
    )


def complete(run, display=None):
    """Train to the last step, evaluating, sampling and saving on the way; write the report.

    Returns the final validation metrics, or None if Ctrl-C stopped it (a checkpoint is then saved).
    """
    display, training = display or Silent(), run.training
    with contextlib.ExitStack() as stack:
        metrics = stack.enter_context(MetricsLog(run.folder))
        samples = stack.enter_context(MetricsLog(run.folder, SAMPLES))
        stack.enter_context(display)
        stopping = stack.enter_context(stop_on_signals(display))
        for log in (metrics, samples):
            log.rewind(training.step)
        journal = Journal(run, metrics, samples, display)
        display.start(training.config.steps, training.step)
        if training.step == 0:
            journal.sample()
        pretrain(training, after_step=journal.after_step, stop=stopping.is_set)
        save_checkpoint(run.folder, training, training.config.keep_checkpoints)
        result = None if training.step < training.config.steps else journal.evaluate(whole=True)
        if result:
            journal.sample()
    write_report(run.folder)
    return result


class Journal:
    """What happens between steps: lines for metrics.jsonl, evaluations, samples, checkpoints."""

    def __init__(self, run, metrics, samples, display):
        self.run, self.metrics, self.samples, self.display = run, metrics, samples, display
        self.lengths = token_lengths(run.tokenizer)
        self.started = time.monotonic()

    def after_step(self, record):
        config, step = self.run.training.config, record["step"]
        seconds = time.monotonic() - self.started
        self.metrics.append({"step": step, "split": "train", **record, "seconds": round(seconds, 3)})
        self.display.update(step, record["loss_nats"], record["tokens_per_second"])
        if step == config.steps:
            return
        if step % config.evaluate_every == 0:
            self.evaluate()
        if step % config.sample_every == 0:
            self.sample()
        if step % config.checkpoint_every == 0:
            save_checkpoint(self.run.folder, self.run.training, config.keep_checkpoints)

    def evaluate(self, whole=False):
        """Loss on held-out text, on its first windows or on all of it."""
        training, tokens = self.run.training, self.run.validation_tokens
        first = None if whole else training.config.evaluation_windows
        context = training.model.config.max_position_embeddings
        nats, count = held_out_loss(training.model, tokens.tokens, first=first)
        num_bytes = tokens.num_bytes if whole else int(self.lengths[tokens.tokens[1 : count + 1]].sum())
        record = {
            "step": training.step,
            "split": "validation",
            "loss_nats": nats / count,
            "bits_per_byte": bits_per_byte(nats, max(num_bytes, 1)),
            "targets": count,
            "context": context,
        }
        self.metrics.append(record)
        self.display.validation(training.step, record["loss_nats"], record["bits_per_byte"])
        return record

    def sample(self):
        """What the model writes now, into samples.jsonl and samples.txt."""
        run, config = self.run, self.run.training.config
        prompt, ids = start_of_text(run)
        stop = () if run.tokenizer.end_of_text is None else (run.tokenizer.end_of_text,)
        new = generate(
            run.training.model, ids, max_new_tokens=config.sample_tokens, temperature=0.8, seed=config.seed, stop=stop
        )
        text = run.tokenizer.decode(new)
        self.samples.append({"step": run.training.step, "prompt": prompt, "text": text})
        with atomic_write(run.folder / "samples.txt", "w") as file:
            for sample in read_metrics(run.folder, SAMPLES):
                file.write(f"=== step {sample['step']} ===\n{sample['prompt']}{sample['text']}\n\n")
        self.display.sample(run.training.step, prompt, text)


def start_of_text(run):
    """(text, ids) that samples begin with: the preset's prompt, or how a text of this corpus begins."""
    prompt = preset_named(run.config["preset"]).prompt if run.config["corpus"]["name"] == "python-reference" else ""
    if prompt:
        end = run.tokenizer.end_of_text
        return prompt, ([] if end is None else [end]) + run.tokenizer.encode(prompt)
    if run.tokenizer.end_of_text is not None and run.config["corpus"]["num_documents"] > 1:
        return "", [run.tokenizer.end_of_text]
    first = [int(run.training_tokens.tokens[0])]
    return run.tokenizer.decode(first), first


@contextlib.contextmanager
def stop_on_signals(display):
    """An Event that the first Ctrl-C (or SIGTERM) sets: the step under way is finished and saved. The second stops."""
    event = threading.Event()

    def ask(number, frame):
        if event.is_set():
            raise KeyboardInterrupt
        event.set()
        display.note("stopping after this step (Ctrl-C again: at once, without saving)")

    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""`tinyllm quickstart`: the manual of a Python that does not exist, or a model of your own text."""

import contextlib
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tinyllm.errors import UserError

SAMPLES = 20
SAMPLE_TOKENS = 150
NAMES = (
    "dragon", "teapot.Teapot.boil", "umbrella", "time.travel", "cat.Cat.purr", "json.poem", "moon.phase", "os.dream",
    "sandwich", "math.guess", "piano.Piano.tune", "garden.water", "string.theory", "ghost.Ghost", "pickle.jar",
    "weather.forecast", "email.owl", "random.idea", "socket.puppet", "thread.needle",
)  # fmt: skip


@dataclass
class Options:
    data: str = ""
    """A folder or file of your own text; nothing: the manual that every Python brings along."""

    run: Path | None = None
    """The folder of the run; runs/quickstart unless given."""

    steps: int | None = None
    """Fewer steps for a quicker look, more for a better model."""

    seed: int = 0
    """Another seed, another model."""

    no_prompt: bool = False
    """End after the samples instead of asking for names."""


def run(options: Options):
    """Train a small language model in about three minutes and read what it writes.

    Without --data it learns from the manual that every Python brings along, and ends at a prompt where you type any
    name and read its page of the manual of a Python that does not exist.

    Example:
        tinyllm quickstart
        tinyllm quickstart --data ~/letters
    """
    from tinyllm.data import load_corpus
    from tinyllm.formats import load

    manual = not options.data
    folder = options.run or folder_for(options.data)
    if not (folder / "summary.json").exists():
        started = time.monotonic()
        corpus = load_corpus(options.data or "python-reference")
        print(corpus.describe())
        work, trained = train(folder, corpus, options)
        if trained is None:
            print(f"Saved. Go on with: {again(options)}")
            return
        summarize(work, corpus, trained, started, manual)
    else:
        print(f"{folder} is trained already; delete the folder to train again.")
    model, tokenizer = load(folder)
    what_next(folder, manual, options)
    if sys.stdin.isatty() and sys.stdout.isatty() and not options.no_prompt:
        converse(model, tokenizer, manual)


def folder_for(data):
    """runs/quickstart, and for one's own text a folder of its own."""
    if not data:
        return Path("runs/quickstart")
    name = re.sub(r"[^\w.-]+", "-", Path(data).expanduser().name).strip("-.") or "text"
    return Path(f"runs/quickstart-{name}")


def again(options):
    data = f' --data "{options.data}"' if options.data else ""
    run = f' --run "{options.run}"' if options.run else ""
    return f"tinyllm quickstart{data}{run}"


def train(folder, corpus, options):
    """(run, (final validation metrics, seconds)), going on where an interrupted quickstart stopped."""
    from tinyllm.training.progress import training_display
    from tinyllm.training.runs import begin_run, complete, resume_run

    if (folder / "config.json").exists():
        work = resume_run(folder, steps=options.steps)
        if work.config["corpus"]["sha256"] != corpus.sha256:
            raise UserError(f"{folder} holds a run on another text; choose another --run folder, or delete it")
        print(f"Going on at step {work.training.step}.")
    else:
        changes = {} if options.steps is None else {"steps": options.steps}
        kind, vocab_size = vocabulary_for(corpus)
        training = changes | ({"seed": options.seed} if options.seed else {})
        work = begin_run(folder, "quickstart", corpus, tokenizer=kind, vocab_size=vocab_size, training=training)
    tokens = work.training_tokens.count
    print(f"{work.config['num_parameters']:,} parameters learn from {tokens:,} tokens. Ctrl-C saves and stops.")
    started = time.monotonic()
    result = complete(work, training_display())
    return work, result and (result, time.monotonic() - started)


def vocabulary_for(corpus):
    """A vocabulary that the text supports: 2,048 tokens from half a megabyte on, 512 for less, bytes for little."""
    if corpus.num_bytes >= 500_000:
        return "bpe", 2048
    return ("bpe", 512) if corpus.num_bytes >= 50_000 else ("bytes", None)


def summarize(work, corpus, trained, started, manual):
    """Compare with simpler models of the same text, read samples, write summary.json and the report."""
    from tinyllm.evaluation import check_words, longest_copied_run
    from tinyllm.files import write_json
    from tinyllm.training.report import write_report

    result, seconds = trained
    training_text, held_out = corpus.split()
    bits = yardsticks(work, training_text, held_out) | {"model": result["bits_per_byte"]}
    texts = samples(work, manual)
    words, copied = check_words(texts, corpus.documents), longest_copied_run(texts, training_text)
    summary = {
        "bits_per_byte": bits,
        "known_words": {"share": words.share, "words": words.words},
        "longest_copy": {"words": copied.words, "text": copied.text},
        "expected": work.config["expected"],
        "training_seconds": round(seconds, 1),
        "total_seconds": round(time.monotonic() - started, 1),
    }
    print("\n" + "\n\n".join(texts[:4]) + "\n")
    print(table(bits))
    print(
        f"\nOf {words.words:,} whole words in {len(texts)} samples, {words.share:.1%} occur in the text. "
        f"The longest run copied word for word has {copied.words} words: {copied.text!r}"
    )
    with contextlib.suppress(KeyError, TypeError):
        low, high = work.config["expected"]["low"], work.config["expected"]["high"]
        inside = "as expected" if low <= bits["model"] <= high else "not as expected"
        print(f"On this text other seeds reached {low:.3f} to {high:.3f} bits per byte; this run is {inside}.")
    write_json(work.folder / "summary.json", summary)
    write_report(work.folder)
    print(f"Trained in {seconds:.0f} s. Everything about it: {work.folder / 'report.html'}")


def yardsticks(work, training_text, held_out):
    """Held-out bits per byte of counting and of a file compressor, on the same text."""
    from tinyllm.evaluation import lzma_bits_per_byte, trigram_bits_per_byte, unigram_bits_per_byte

    tokens = work.training_tokens.tokens, work.validation_tokens.tokens
    options = {"vocab_size": work.tokenizer.vocab_size, "num_bytes": work.validation_tokens.num_bytes}
    return {
        "unigram": unigram_bits_per_byte(*tokens, **options),
        "trigram": trigram_bits_per_byte(*tokens, **options),
        "lzma": lzma_bits_per_byte("".join(training_text), "".join(held_out)),
    }


def table(bits):
    """Bits per byte, the best last."""
    names = {
        "unigram": "unigram (counts tokens)",
        "trigram": "trigram (counts triples of tokens)",
        "lzma": "lzma (compressor given the training text)",
        "model": "this model",
    }
    rows = [f"  {names[key]:44}{bits[key]:6.3f}" for key in sorted(bits, key=bits.get, reverse=True)]
    return "\n".join(["Held-out text, bits per byte (fewer is better):", *rows])


def samples(work, manual):
    """SAMPLES texts at temperature 0.8: pages of invented names, or beginnings of the reader's kind of text."""
    from tinyllm.generation import generate

    tokenizer, end = work.tokenizer, work.tokenizer.end_of_text
    heads = [f"help({name})\n\n" for name in NAMES] if manual else [""] * SAMPLES
    options = {"max_new_tokens": SAMPLE_TOKENS, "temperature": 0.8, "seed": 1, "stop": (end,)}
    new = generate(work.training.model, [[end, *tokenizer.encode(head)] for head in heads], **options)
    return [head + tokenizer.decode(ids).strip() for head, ids in zip(heads, new, strict=True)]


def what_next(folder, manual, options):
    prompt = "help(cloud)" if manual else "Once"
    print(
        "\nThree things to try next:\n"
        f'  tinyllm generate --model {folder} --prompt "{prompt}" --seed 1\n'
        f"  tinyllm quickstart {'--data PATH_TO_YOUR_TEXT' if manual else ''}\n"
        "  tinyllm doctor\n"
    )


def converse(model, tokenizer, manual):
    """Ask for a name, write its page, again; an empty line or Ctrl-D ends."""
    from tinyllm.generation import stream

    print("Type any name and read its page. An empty line ends." if manual else "Begin a text. An empty line ends.")
    seed = 0
    while True:
        try:
            asked = input("\nhelp(…)> " if manual else "\n> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if not asked:
            return
        head = f"help({asked.removeprefix('help(').removesuffix(')')})\n\n" if manual else asked
        print("\n" + head, end="", flush=True)
        decoder, end, seed = tokenizer.stream_decoder(), tokenizer.end_of_text, seed + 1
        options = {"max_new_tokens": 200, "temperature": 0.8, "seed": seed, "stop": (end,)}
        try:
            for token in stream(model, [end, *tokenizer.encode(head)], **options):
                print(decoder.push(token), end="", flush=True)
            print(decoder.finish())
        except KeyboardInterrupt:
            print()

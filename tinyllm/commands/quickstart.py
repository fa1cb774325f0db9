"""`tinyllm quickstart`: the manual of a Python that does not exist, or a model of your own text."""

import contextlib
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tinyllm.commands.console import INTERRUPTED, command_line
from tinyllm.commands.hardware import chosen_kernels
from tinyllm.errors import UserError

MANUAL = "python-reference"
LZMA_BYTES = 50_000_000  # above, the compressor would take minutes and gigabytes
SAMPLES, SHOWN = 20, 4
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
    name and read its page of the manual of a Python that does not exist. Ctrl-C saves; the same command goes on.

    Example:
        tinyllm quickstart
        tinyllm quickstart --data ~/letters
    """
    from tinyllm.data import load_corpus
    from tinyllm.formats import load

    started = time.monotonic()
    manual = options.data in ("", MANUAL)
    folder = options.run or folder_for("" if manual else options.data)
    talks = sys.stdin.isatty() and sys.stdout.isatty() and not options.no_prompt
    with chosen_kernels("auto"):
        corpus = load_corpus(options.data or MANUAL)
        check_same_run(folder, corpus, manual, options)
        if (folder / "summary.json").exists():
            print(f"{folder} is trained already; to train again delete it, or choose another folder with --run.")
        else:
            print(corpus.describe())
            work = opened(folder, corpus, manual, options)
            if not trained(work, corpus, manual, started):
                print(f"Saved at step {work.training.step:,}. Go on with: {again(options)}")
                return INTERRUPTED
        model, tokenizer = load(folder)
        many = corpus.num_documents > 1
        show(samples(model, tokenizer, manual, many, SHOWN))
        what_next(folder, corpus, manual)
        if talks:
            converse(model, tokenizer, manual, many)


def folder_for(data):
    """runs/quickstart, and for one's own text a folder of its own."""
    if not data:
        return Path("runs/quickstart")
    name = re.sub(r"[^\w.-]+", "-", Path(data).expanduser().absolute().name).strip("-.") or "text"
    return Path(f"runs/quickstart-{name}")


def again(options):
    """This command, as one types it to go on."""
    words = ["--data", options.data] if options.data else []
    words += ["--run", options.run] if options.run else []
    return command_line("quickstart", *words)


def check_same_run(folder, corpus, manual, options):
    """UserError where the folder holds something else than a quickstart on this text."""
    from tinyllm.formats.run_folders import read_config

    if not (folder / "config.json").exists():
        return
    config = read_config(folder)
    if config.get("preset") != "quickstart":
        raise UserError(f"{folder} holds another run; choose another folder with --run")
    # The manual differs between versions of Python, and is still the manual.
    same = config["corpus"]["name"] == MANUAL if manual else config["corpus"]["sha256"] == corpus.sha256
    if not same:
        raise UserError(f"{folder} holds a run on another text; choose another folder with --run, or delete it")
    if options.seed and options.seed != config["training"]["seed"]:
        raise UserError(
            f"{folder} holds a run with seed {config['training']['seed']}; choose another folder with --run"
        )


def opened(folder, corpus, manual, options):
    """The run, new or where an interrupted quickstart stopped."""
    from tinyllm.training.runs import begin_run, resume_run

    if (folder / "config.json").exists():
        work = resume_run(folder, steps=options.steps)
        print(f"Going on at step {work.training.step:,} of {work.training.config.steps:,}.")
    else:
        changes = {"steps": options.steps, "seed": options.seed or None}
        training = {name: value for name, value in changes.items() if value is not None}
        tokenizer = None if manual else tokenizer_for(corpus)
        work = begin_run(folder, "quickstart", corpus, tokenizer=tokenizer, training=training)
    tokens = work.training_tokens.count
    print(f"{work.config['num_parameters']:,} parameters learn from {tokens:,} tokens. Ctrl-C saves and stops.")
    return work


def tokenizer_for(corpus):
    """A vocabulary that the text supports: 4,096 tokens from a megabyte on, fewer for less, bytes for little."""
    from tinyllm.training.runs import make_tokenizer

    training_text = corpus.split()[0]
    for vocab_size, least_bytes in ((4096, 1_000_000), (2048, 500_000), (512, 50_000)):
        if corpus.num_bytes >= least_bytes:
            with contextlib.suppress(UserError):  # repetitive text supports fewer tokens than its length promises
                return make_tokenizer("bpe", vocab_size, corpus, training_text)
    return make_tokenizer("bytes", None, corpus, training_text)


def trained(work, corpus, manual, started):
    """Train to the end, compare with simpler models, write summary.json and the report; False after Ctrl-C."""
    from tinyllm.evaluation import check_words, longest_copied_run
    from tinyllm.files import write_json
    from tinyllm.training.progress import training_display
    from tinyllm.training.report import write_report
    from tinyllm.training.runs import complete

    begun = time.monotonic()
    result = complete(work, training_display())
    if result is None:
        return False
    before = max(result["seconds"] - (time.monotonic() - begun), 0)  # of earlier starts of this run
    training_text, held_out = corpus.split()
    bits = yardsticks(work, training_text, held_out) | {"model": result["bits_per_byte"]}
    texts = samples(work.training.model, work.tokenizer, manual, corpus.num_documents > 1, SAMPLES)
    words, copied = check_words(texts, corpus.documents), longest_copied_run(texts, training_text)
    print(f"\n{table(bits)}\n")
    print(
        f"Of {words.words:,} whole words in {len(texts)} samples, {words.share:.1%} occur in the text. "
        f"The longest run copied word for word ({copied.words}): {copied.text!r}"
    )
    if expected := work.config["expected"]:
        low, high = expected["low"], expected["high"]
        inside = "as expected" if low <= bits["model"] <= high else "not as expected"
        print(f"This preset reaches {low:.3f} to {high:.3f} bits per byte on this text; this run is {inside}.")
    summary = {
        "bits_per_byte": bits,
        "known_words": {"share": words.share, "words": words.words},
        "longest_copy": {"words": copied.words, "text": copied.text},
        "expected": expected,
        "training_seconds": round(result["seconds"], 1),
        "total_seconds": round(time.monotonic() - started + before, 1),
    }
    write_json(work.folder / "summary.json", summary)
    write_report(work.folder)
    print(f"Trained in {result['seconds']:.0f} s. Everything about it: {work.folder / 'report.html'}")
    return True


def yardsticks(work, training_text, held_out):
    """Held-out bits per byte of counting and of a file compressor, on the same text."""
    from tinyllm.evaluation import lzma_bits_per_byte, trigram_bits_per_byte, unigram_bits_per_byte

    tokens = work.training_tokens.tokens, work.validation_tokens.tokens
    options = {"vocab_size": work.tokenizer.vocab_size, "num_bytes": work.validation_tokens.num_bytes}
    bits = {
        "unigram": unigram_bits_per_byte(*tokens, **options),
        "trigram": trigram_bits_per_byte(*tokens, **options),
    }
    if work.config["corpus"]["num_bytes"] <= LZMA_BYTES:
        bits["lzma"] = lzma_bits_per_byte("".join(training_text), "".join(held_out))
    return bits


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


def samples(model, tokenizer, manual, many, number):
    """That many texts at temperature 0.8: pages of invented names, or beginnings of the reader's kind of text.

    many: the model learned from many texts, so that it knows how one begins and ends.
    """
    from tinyllm.generation import generate, prompt_ids, stop_ids

    heads = [f"help({name})\n\n" for name in NAMES[:number]] if manual else [""] * number
    prompts = [prompt_ids(tokenizer, head, separated=many) for head in heads]
    options = {"max_new_tokens": SAMPLE_TOKENS, "temperature": 0.8, "seed": 1, "stop": stop_ids(tokenizer)}
    new = generate(model, prompts, **options)
    return [head + tokenizer.decode(ids).strip() for head, ids in zip(heads, new, strict=True)]


def show(texts):
    """Print samples, parted by lines."""
    from tinyllm.training.progress import printable

    rule = "-" * 72
    print()
    for text in texts:
        print(f"{rule}\n{printable(text, sys.stdout.encoding)}")
    print(rule)


def what_next(folder, corpus, manual):
    """Three commands to try."""
    prompt = "help(cloud)" if manual else " ".join(corpus.documents[0][:200].split()[:2])
    print("\nThree things to try next:")
    print(" ", command_line("generate", "--model", folder, "--prompt", prompt, "--seed", 1))
    print(" ", command_line("quickstart", *(["--data", "PATH_TO_YOUR_TEXT"] if manual else [])))
    print(" ", command_line("doctor"))


def converse(model, tokenizer, manual, many):
    """Ask for a name, write its page, again; an empty line or Ctrl-D ends."""
    print("\nType any name and read its page." if manual else "\nBegin a text, and the model goes on.", end=" ")
    print("Ctrl-C stops the writing, an empty line ends.")
    seed = 0
    while True:
        try:
            asked = input("\nhelp(…)> " if manual else "\n> ").strip()
        except (EOFError, KeyboardInterrupt):
            print()
            return
        except UnicodeDecodeError as error:
            print(f"This console sent what is no {error.encoding} text; type something else.")
            continue
        if not asked:
            return
        seed += 1
        head = f"help({name_in(asked)})\n\n" if manual else asked
        try:
            write(model, tokenizer, head, many, seed)
        except KeyboardInterrupt:
            print()
        except UserError as error:  # what was typed is no text, or the model has diverged
            print(error)


def name_in(asked):
    """`dragon` of dragon, help(dragon), help('dragon') or dragon()."""
    call = re.fullmatch(r"help\s*\((.*?)\)?", asked)
    return (call[1] if call else asked).strip(" '\"").removesuffix("()")


def write(model, tokenizer, head, many, seed):
    """Print a text that begins with `head`, token by token."""
    from tinyllm.generation import prompt_ids, stop_ids, stream
    from tinyllm.training.progress import printable

    ids = prompt_ids(tokenizer, head, separated=many)
    options = {"max_new_tokens": 200, "temperature": 0.8, "seed": seed, "stop": stop_ids(tokenizer)}
    print("\n" + printable(head, sys.stdout.encoding), end="", flush=True)
    decoder = tokenizer.stream_decoder()
    for token in stream(model, ids, **options):
        print(printable(decoder.push(token), sys.stdout.encoding), end="", flush=True)
    print(printable(decoder.finish(), sys.stdout.encoding))

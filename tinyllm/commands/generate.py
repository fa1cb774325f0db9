"""`tinyllm generate`: let a model go on with a text."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tinyllm.commands.hardware import check_device, chosen_kernels
from tinyllm.errors import UserError


@dataclass
class Options:
    model: Path
    """A run folder, or any folder that `tinyllm.save` wrote."""

    checkpoint: str = "newest"
    """Of a run folder: newest, best (by held-out loss), or the number of a step whose checkpoint is still there."""

    prompt: str = ""
    """What the text begins with; nothing: the start of a new text."""

    max_new_tokens: int = 200
    """At most so many tokens."""

    temperature: float = 0.8
    """0: always the likeliest token; 1: as the model has learned; higher: wilder."""

    top_k: int | None = None
    """Only among the k likeliest tokens."""

    top_p: float | None = None
    """Only among the likeliest tokens that together have this probability."""

    seed: int = 0
    """Another seed, another text."""

    stop: str = ""
    """End where this text appears; it is not printed."""

    samples: int = 1
    """How many texts; several are made in one batch and printed one after another."""

    device: Literal["cpu", "cuda"] = "cpu"
    """Where the arrays live."""

    kernels: str = "auto"
    """auto (numba on the CPU), reference (the array code that you read), or numba."""


def run(options: Options):
    """Let a model go on with a text, token by token.

    Example:
        tinyllm generate --model runs/shakespeare --prompt "ROMEO:" --temperature 0.8 --seed 1
    """
    from tinyllm.formats import load
    from tinyllm.formats.run_folders import is_separated, read_config
    from tinyllm.generation import prompt_ids

    for name in ("max_new_tokens", "samples"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(options, name)}")
    check_device(options.device)
    model, tokenizer = load(options.model, options.checkpoint)
    model.to(options.device)
    ids = prompt_ids(tokenizer, options.prompt, separated=is_separated(read_config(options.model)))
    with chosen_kernels(options.kernels, options.device):
        if options.samples == 1:
            one(model, tokenizer, ids, options)
        else:
            several(model, tokenizer, ids, options)


def one(model, tokenizer, ids, options):
    """Print the prompt and, as it is made, what follows."""
    print(safe(options.prompt), end="", flush=True)
    try:
        for text in pieces(model, tokenizer, ids, options):
            print(safe(text), end="", flush=True)
    finally:
        print()  # also after Ctrl-C: what is said then is not part of the text


def several(model, tokenizer, ids, options):
    """Print some texts, each below its number."""
    from tinyllm.generation import generate, stop_ids

    texts = generate(model, [ids] * options.samples, stop=stop_ids(tokenizer), **sampling(options))
    for number, new in enumerate(texts, 1):
        text = tokenizer.decode(new, continuing=options.prompt != "")
        text = text.split(options.stop)[0] if options.stop else text
        print(f"--- {number} ---\n{safe(options.prompt + text)}")


def sampling(options):
    """The options of `generate` and `stream` that the command hands on."""
    return {
        "max_new_tokens": options.max_new_tokens,
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "seed": options.seed,
    }


def pieces(model, tokenizer, ids, options):
    """Yield text as it is made, holding back what may be the beginning of --stop."""
    from tinyllm.generation import stop_ids, stream

    decoder = tokenizer.stream_decoder(continuing=options.prompt != "")
    stop, held = options.stop, ""
    for token in stream(model, ids, stop=stop_ids(tokenizer), **sampling(options)):
        held += decoder.push(token)
        if stop and stop in held:
            yield held.split(stop)[0]
            return
        keep = next((n for n in range(len(stop) - 1, 0, -1) if held.endswith(stop[:n])), 0)
        yield held[: len(held) - keep]
        held = held[len(held) - keep :]
    held += decoder.finish()
    yield held.split(stop)[0] if stop else held


def safe(text):
    """A model's text for a terminal, which must not obey the escape sequences in it; for a file or pipe as it is."""
    from tinyllm.training.progress import printable

    return printable(text, sys.stdout.encoding) if sys.stdout.isatty() else text

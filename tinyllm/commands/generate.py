"""`tinyllm generate`: let a model go on with a text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tinyllm.errors import UserError


@dataclass
class Options:
    model: Path
    """A run folder, or any folder that `tinyllm.save` wrote."""

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
    """auto (the fastest installed), reference, or a backend by name."""


def run(options: Options):
    """Let a model go on with a text, token by token.

    Example:
        tinyllm generate --model runs/shakespeare --prompt "ROMEO:" --temperature 0.8 --seed 1
    """
    from tinyllm.commands.pretrain import chosen_kernels
    from tinyllm.formats import load

    if options.max_new_tokens < 1 or options.samples < 1:
        raise UserError("--max-new-tokens and --samples must be at least 1")
    model, tokenizer = load(options.model)
    model.to(options.device)
    ids = prompt_ids(tokenizer, options.prompt)
    with chosen_kernels(options.kernels):
        if options.samples == 1:
            print(options.prompt, end="", flush=True)
            for text in pieces(model, tokenizer, ids, options):
                print(text, end="", flush=True)
            print()
        else:
            several(model, tokenizer, ids, options)


def prompt_ids(tokenizer, prompt):
    """A prompt as the model saw texts begin: after an end of text, where it knows one."""
    ids = tokenizer.encode(prompt)
    if tokenizer.end_of_text is not None:
        return [tokenizer.end_of_text, *ids]
    if not ids:
        raise UserError("this model's tokenizer has no end-of-text token to begin after; give a --prompt")
    return ids


def sampling(options):
    return {
        "max_new_tokens": options.max_new_tokens,
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "seed": options.seed,
    }


def stop_ids(tokenizer):
    return () if tokenizer.end_of_text is None else (tokenizer.end_of_text,)


def pieces(model, tokenizer, ids, options):
    """Yield text as it is made, holding back what may be the beginning of --stop."""
    from tinyllm.generation import stream

    decoder, held = tokenizer.stream_decoder(), ""
    for token in stream(model, ids, stop=stop_ids(tokenizer), **sampling(options)):
        held += decoder.push(token)
        if options.stop and options.stop in held:
            yield held.split(options.stop)[0]
            return
        keep = next((n for n in range(len(options.stop) - 1, 0, -1) if held.endswith(options.stop[:n])), 0)
        yield held[: len(held) - keep]
        held = held[len(held) - keep :]
    yield held + decoder.finish()


def several(model, tokenizer, ids, options):
    from tinyllm.generation import generate

    texts = generate(model, [ids] * options.samples, stop=stop_ids(tokenizer), **sampling(options))
    for number, new in enumerate(texts, 1):
        text = tokenizer.decode(new)
        text = text.split(options.stop)[0] if options.stop else text
        print(f"--- {number} ---\n{options.prompt}{text}")

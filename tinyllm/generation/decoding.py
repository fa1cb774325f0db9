"""Text generation: predict a token, append it, again."""

import numpy as np

import autograd as ag
from autograd.arrays import xp_of
from tinyllm.errors import UserError
from tinyllm.generation.sampling import check, draw

PADDING = -1


def generate(model, ids, *, max_new_tokens, temperature=1.0, top_k=None, top_p=None, seed=0, stop=()):
    """New token ids after a prompt, or after each of several prompts of different lengths.

    ids: a list of ids (returns a list of ids), or a list of such lists (returns a list of lists). temperature 0 is
    greedy. stop: an id that ends a text, or several; it is not part of it. What a prompt becomes depends on its place
    in the list and on `seed`, not on the other prompts.
    """
    single = len(ids) == 0 or not hasattr(ids[0], "__len__")
    prompts = [ids] if single else ids
    options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed, "stop": stop}
    texts = [[] for _ in prompts]
    for tokens in stream_batch(model, prompts, max_new_tokens=max_new_tokens, **options):
        for text, token in zip(texts, tokens, strict=True):
            if token is not None:
                text.append(token)
    return texts[0] if single else texts


def stream(model, ids, **options):
    """Yield the new ids after one prompt as they are made; options as for `generate`."""
    for (token,) in stream_batch(model, [ids], **options):
        yield token


def stream_batch(model, prompts, *, max_new_tokens, temperature=1.0, top_k=None, top_p=None, seed=0, stop=()):
    """Yield for every step a list with one new id a prompt, None for those that have ended.

    The model reads each prompt once and then each new token, past the context the whole context each time.
    """
    check(max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    check_prompts(prompts, model.config.vocab_size)
    stop = {stop} if hasattr(stop, "__index__") else set(stop)
    texts = [list(prompt) for prompt in prompts]
    generators = [np.random.default_rng([seed, row]) for row in range(len(prompts))]
    living = list(range(len(prompts)))
    longest = max(map(len, texts)) + max_new_tokens
    cache = model.new_cache(len(texts), min(longest, model.config.max_position_embeddings))
    for _ in range(max_new_tokens):
        logits = next_logits(model, [texts[row] for row in living], cache)
        uniform = np.array([generators[row].random() for row in living])
        drawn = draw(logits, uniform, temperature=temperature, top_k=top_k, top_p=top_p)
        tokens = {row: int(token) for row, token in zip(living, drawn, strict=True) if token not in stop}
        if not tokens:
            return
        for row, token in tokens.items():
            texts[row].append(token)
        yield [tokens.get(row) for row in range(len(prompts))]
        cache.keep([place for place, row in enumerate(living) if row in tokens])
        living = list(tokens)


def check_prompts(prompts, vocab_size):
    for prompt in prompts:
        if len(prompt) == 0:
            raise UserError("an empty prompt gives the model nothing to continue; start with at least one token")
        if not all(hasattr(token, "__index__") for token in prompt):
            raise UserError("a prompt is a list of token ids, whole numbers; encode text first: tokenizer.encode(text)")
        if min(prompt) < 0 or max(prompt) >= vocab_size:
            raise UserError(
                f"prompt ids must be in 0 … {vocab_size - 1}, but range from {min(prompt)} to {max(prompt)}"
            )


def next_logits(model, texts, cache):
    """Logits (B, V) of the token after each text. Texts longer than the cache, which is the context, are cropped.

    cache: holds all of the texts but their last tokens, or nothing. A full one is filled anew. That makes room where
    the longest text has ended. Where a text is past the context, each step crops another token, and everything kept
    was computed with that token and from other positions: each step computes the whole context of the batch.
    """
    if cache.filled == cache.length:
        cache.clear()
    if cache.filled == 0:
        ids, options = side_by_side([text[-cache.length :] for text in texts])
    else:
        ids = np.array([text[-1:] for text in texts])
        options = {"positions": np.array([[len(text) - 1] for text in texts])}
    xp = xp_of(model.embedding.weight.data)
    options = {name: xp.asarray(value) for name, value in options.items()}
    with ag.no_grad():
        last = model.hidden(xp.asarray(ids), cache=cache, **options)[:, -1]
        return model.head(last).numpy()


def side_by_side(texts):
    """Texts as one array of ids (B, T), and where they differ in length their segments and positions (B, T).

    Shorter texts are filled up on the left with padding that nothing attends to (segment -1), and positions count from
    each text's own first token.
    """
    T = max(map(len, texts))
    ids = np.zeros((len(texts), T), np.int64)
    segments = np.full((len(texts), T), PADDING)
    positions = np.zeros((len(texts), T), np.int64)
    for row, text in enumerate(texts):
        ids[row, T - len(text) :] = text
        segments[row, T - len(text) :] = 0
        positions[row, T - len(text) :] = np.arange(len(text))
    return ids, {} if (segments == 0).all() else {"segments": segments, "positions": positions}

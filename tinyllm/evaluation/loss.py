"""The loss on held-out text, every token predicted once."""

import numpy as np

import autograd as ag
from autograd.arrays import xp_of
from tinyllm.data.batches import IGNORED, windows


def held_out_loss(model, tokens, *, context=None, batch_size=32, first=None):
    """(nats, targets): the summed loss over consecutive windows that do not overlap, and how many tokens that were.

    tokens (N,): every one but the first is predicted once, from what precedes it in its window. context: window length,
    the model's own by default. first: only so many windows, for a quick look.
    """
    context = context or model.config.max_position_embeddings
    xp = xp_of(model.embedding.weight.data)
    tokens = np.asarray(tokens if first is None else tokens[: first * context + 1])
    nats, count = 0.0, 0
    with ag.no_grad():
        for inputs, targets in windows(tokens, context, batch_size):
            nats += model.loss(xp.asarray(inputs), xp.asarray(targets), reduction="sum").item()
            count += int((targets != IGNORED).sum())
    return nats, count


def token_lengths(tokenizer):
    """How many bytes of text each id stands for, (V,); special tokens stand for none.

    For tokenizers that lose nothing: of another one's ids, `Tokenizer.num_bytes_of_tokens` must be asked with the text.
    """
    special = set(tokenizer.special_tokens.values())
    return np.array([0 if i in special else len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)])

"""The loss on held-out text, every token predicted once."""

import functools
import itertools
import operator

import numpy as np

import autograd as ag
from autograd.arrays import xp_of
from tinyllm.data.batches import IGNORED, windows


def held_out_loss(model, tokens, *, context=None, batch_size=32, first=None, ranks=None):
    """(nats, targets): the summed loss over consecutive windows that do not overlap, and how many tokens that were.

    tokens (N,): every one but the first is predicted once, from what precedes it in its window. context: window length,
    the model's own by default. first: only so many windows, for a quick look.

    ranks: those who call this together and share the batches. Each computes as many as the others, since the model may
    lie on all of them. Every rank has the same result, to the last bit that of one alone.
    """
    context = context or model.config.max_position_embeddings
    rank, size = (ranks.rank, ranks.size) if ranks else (0, 1)
    xp = xp_of(model.embedding.weight.data)
    tokens = np.asarray(tokens if first is None else tokens[: first * context + 1])
    batches, count, losses = windows(tokens, context, batch_size), 0, []
    with ag.no_grad():
        while shared := list(itertools.islice(batches, size)):
            inputs, targets = shared[min(rank, len(shared) - 1)]
            loss = model.loss(xp.asarray(inputs), xp.asarray(targets), reduction="sum").item()
            losses += [loss if place == rank else 0.0 for place in range(len(shared))]
            count += sum(int((targets != IGNORED).sum()) for _, targets in shared)
    losses = np.array(losses, np.float64)
    if size > 1:
        ranks.all_reduce(losses)
    return functools.reduce(operator.add, losses.tolist()), count


def token_lengths(tokenizer):
    """How many bytes of text each id stands for, (V,); special tokens stand for none.

    For tokenizers that lose nothing: of another one's ids, `Tokenizer.num_bytes_of_tokens` must be asked with the text.
    """
    special = set(tokenizer.special_tokens.values())
    return np.array([0 if i in special else len(tokenizer.token_bytes(i)) for i in range(tokenizer.vocab_size)])

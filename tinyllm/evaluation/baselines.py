"""What a model must beat: bits per byte of counting (unigram, trigram) and of a file compressor, on the same text.

All three are held out in earnest: nothing is fitted on the text that is scored. Conversion, here as everywhere:

    bits per byte = (sum of nats over the predicted tokens) / (ln 2 * UTF-8 bytes of the text)

As in `tinyllm.data.windows`, every token but the first is predicted. End-of-text tokens are predicted too and stand for
no bytes of text.
"""

import lzma

import numpy as np

from tinyllm.errors import UserError

FITTED_SHARE = 0.1
"""The share of the training tokens, at their end, on which the interpolation weights are fitted."""


def bits_per_byte(nats, num_bytes):
    """Bits per byte of text whose tokens cost `nats` in sum."""
    if num_bytes <= 0:
        raise UserError(f"bits per byte needs a text of at least one byte; num_bytes was {num_bytes}")
    return float(nats) / (np.log(2) * num_bytes)


def unigram_bits_per_byte(training, held_out, *, vocab_size, num_bytes):
    """Bits per byte of `held_out` under the frequencies of single tokens in `training`.

    Equation: p1(w) = (1 - a) c(w) / N + a / V, with the share a fitted as in `trigram_bits_per_byte`.
    Shapes: training (N,), held_out (M,), integers below vocab_size; num_bytes: of the held-out text.
    """
    return bits_per_byte(ngram_nats(training, held_out, vocab_size=vocab_size, order=1).sum(), num_bytes)


def trigram_bits_per_byte(training, held_out, *, vocab_size, num_bytes):
    """Bits per byte of `held_out` under an interpolated trigram counted in `training`.

    Equation: p3(w | u v) = a3 c(u v w) / c(u v) + (1 - a3) p2(w | v), p2 and p1 alike, p0 = 1 / V. The weight a_n of an
    order depends on how often its context occurred, in powers of two (0, 1, 2-3, 4-7, …), and is 0 for an unseen one.
    It is fitted by EM on the last tenth of the training tokens with the counts of the rest; then all are counted.
    Shapes and units as in `unigram_bits_per_byte`. Source: Jelinek and Mercer (1980).
    """
    return bits_per_byte(ngram_nats(training, held_out, vocab_size=vocab_size, order=3).sum(), num_bytes)


def ngram_nats(training, held_out, *, vocab_size, order):
    """Nats that each token of `held_out` but the first costs under an interpolated n-gram: (M - 1,) float64."""
    training, held_out = (np.asarray(tokens).astype(np.int64) for tokens in (training, held_out))
    if len(training) < 20 or len(held_out) < 2:
        raise UserError(
            f"an n-gram baseline needs at least 20 training and 2 held-out tokens; there are {len(training)} and "
            f"{len(held_out)}"
        )
    cut = int((1 - FITTED_SHARE) * len(training))
    weights = fit_weights(training[:cut], training[cut:], vocab_size, order)
    p = np.full(len(held_out) - 1, 1 / vocab_size)
    for n, weight in enumerate(weights, 1):
        frequency, bucket = evidence(training, held_out, vocab_size, n)
        p = weight[bucket] * frequency + (1 - weight[bucket]) * p
    return -np.log(p)


def fit_weights(training, held_out, vocab_size, order):
    """Interpolation weights of orders 1 .. order, each an array over buckets of context counts."""
    weights = []
    p = np.full(len(held_out) - 1, 1 / vocab_size)
    for n in range(1, order + 1):
        frequency, bucket = evidence(training, held_out, vocab_size, n)
        weight = expectation_maximization(frequency, p, bucket)
        p = weight[bucket] * frequency + (1 - weight[bucket]) * p
        weights.append(weight)
    return weights


def expectation_maximization(frequency, lower, bucket, buckets=64, iterations=30):
    """The weight a of each bucket that makes the mixture a frequency + (1 - a) lower likeliest: (buckets,).

    A bucket starts with one imagined token half explained by each part, so that no weight reaches 0 or 1; bucket 0,
    the unseen contexts, has weight 0.
    """
    weight = np.full(buckets, 0.5)
    tokens = np.bincount(bucket, minlength=buckets)
    for _ in range(iterations):
        explained = weight[bucket] * frequency
        share = explained / (explained + (1 - weight[bucket]) * lower)
        weight = (np.bincount(bucket, share, minlength=buckets) + 0.5) / (tokens + 1)
    weight[0] = 0
    return weight


def evidence(training, held_out, vocab_size, n):
    """For each token of `held_out` but the first: its frequency after its n - 1 predecessors in `training`, and the
    bucket of their count: 0 if they never occurred (or do not exist, at the start), else 1 + floor(log2(count)).
    """
    context, following = np.zeros(len(held_out), np.int64), np.zeros(len(held_out), np.int64)
    if len(held_out) >= n:
        grams = gram_keys(held_out, vocab_size, n)
        following[n - 1 :] = count_of(gram_keys(training, vocab_size, n), grams)
        if n == 1:
            context[:] = len(training)
        else:
            contexts = gram_keys(training, vocab_size, n - 1)[:-1]  # the last one has no successor
            context[n - 1 :] = count_of(contexts, grams // vocab_size)
    bucket = np.where(context > 0, np.log2(np.maximum(context, 1)).astype(np.int64) + 1, 0)
    return (following / np.maximum(context, 1))[1:], bucket[1:]


def gram_keys(tokens, vocab_size, n):
    """Each run of n tokens as one integer in base vocab_size: (N - n + 1,) int64."""
    assert vocab_size**n < 1 << 63, f"{n}-grams of {vocab_size} tokens do not fit 64 bits"
    keys = tokens[: len(tokens) - n + 1]
    for i in range(1, n):
        keys = keys * vocab_size + tokens[i : len(tokens) - n + 1 + i]
    return keys


def count_of(keys, queries):
    """How often each of `queries` occurs among `keys`."""
    known, counts = np.unique(keys, return_counts=True)
    place = np.minimum(np.searchsorted(known, queries), len(known) - 1)
    return np.where(known[place] == queries, counts[place], 0)


def lzma_bits_per_byte(training, held_out):
    """Bits per byte of `held_out` for LZMA that has just read `training`, both bytes or text.

    Equation: 8 (size(training + held_out) - size(training)) / bytes(held_out), size being that of the raw LZMA2 stream
    at preset 9 extreme, with a dictionary that reaches back over everything. Takes about a second a megabyte.
    """
    training, held_out = (text.encode("utf-8") if isinstance(text, str) else text for text in (training, held_out))
    if not held_out:
        raise UserError("the held-out text is empty; bits per byte needs at least one byte")
    reach = min(max(len(training) + len(held_out), 1 << 16), 3 << 29)  # 1.5 GiB is LZMA's largest
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": reach}]

    def size(data):
        return len(lzma.compress(data, lzma.FORMAT_RAW, filters=filters))

    return 8 * (size(training + held_out) - size(training)) / len(held_out)

"""Batches of tokens: random ones for training, all of them once for evaluation."""

import numpy as np

from tinyllm.errors import UserError

IGNORED = -100
"""The target that `cross_entropy` leaves out of the loss."""

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


class RandomBatches:
    """An endless iterator of (inputs, targets), int64 arrays (batch_size, context), cut at random offsets.

    The targets are the inputs one token further. Sample number n is a function of `seed` and n alone, however the
    samples are cut into batches, steps or ranks; so the whole state is `position`, the number of samples drawn so far:
    save it, set it, and the run goes on as if it had never stopped.

    tokens: (N,) integers, also a memory map. Raises UserError if N < context + 1.
    """

    def __init__(self, tokens, *, batch_size, context, seed=0):
        if len(tokens) < context + 1:
            raise UserError(
                f"the text has {len(tokens):,} tokens, and a context of {context} needs at least {context + 1:,}; "
                "give more text or a shorter context"
            )
        self.tokens, self.batch_size, self.context, self.seed = tokens, batch_size, context, seed
        self.position = 0

    def __iter__(self):
        return self

    def __next__(self):
        batch = self.batch(self.position, self.batch_size)
        self.position += self.batch_size
        return batch

    def batch(self, start, count):
        """Samples number start .. start + count - 1 as (inputs, targets), int64 arrays (count, context)."""
        offsets = self.offsets(start, count)
        samples = self.tokens[offsets[:, None] + np.arange(self.context + 1)].astype(np.int64)
        return np.ascontiguousarray(samples[:, :-1]), np.ascontiguousarray(samples[:, 1:])

    def offsets(self, start, count):
        """Where samples start .. start + count - 1 begin in the text: (count,) int64, uniform over all places."""
        numbers = np.arange(start, start + count, dtype=np.uint64)
        random = splitmix64(splitmix64(np.array([self.seed & _MASK], np.uint64)) + numbers)
        return (random % np.uint64(len(self.tokens) - self.context)).astype(np.int64)


def splitmix64(numbers):
    """A well-mixed 64-bit hash of uint64 numbers, the same on every machine; products and sums wrap around.

    Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014), figure 15.
    """
    z = (numbers + np.uint64(1)) * np.uint64(_GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def windows(tokens, context, batch_size=1):
    """Yield (inputs, targets), int64 arrays (up to batch_size, context), that cover `tokens` without overlap.

    Every token but the first is a target exactly once. The last window is filled up: inputs with 0, targets with
    IGNORED (-100). Raises UserError if there are fewer than 2 tokens.
    """
    if len(tokens) < 2:
        raise UserError(f"evaluation needs at least 2 tokens, and the text has {len(tokens)}; give more text")
    starts = np.arange(0, len(tokens) - 1, context)
    for first in range(0, len(starts), batch_size):
        begin = starts[first]
        rows = len(starts[first : first + batch_size])
        chunk = np.asarray(tokens[begin : begin + rows * context + 1], dtype=np.int64)
        inputs = np.zeros(rows * context, np.int64)
        targets = np.full(rows * context, IGNORED, np.int64)
        inputs[: len(chunk) - 1] = chunk[:-1]
        targets[: len(chunk) - 1] = chunk[1:]
        yield inputs.reshape(rows, context), targets.reshape(rows, context)

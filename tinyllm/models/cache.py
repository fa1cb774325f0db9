"""A key/value cache: what each layer has computed of earlier tokens, kept, so that only new tokens are computed.

A token's keys and values depend on no later token, so they can be kept; its queries are asked once and forgotten. All
memory is taken at the start. Shapes: B samples, G key/value heads, D head width, S tokens so far, T of them new.
"""

import numpy as np

import autograd as ag


class KeyValueCache:
    """Room for `length` tokens of `batch` samples, made by `model.new_cache(batch, length)`.

    filled: how many tokens each sample has so far, padding included. Keys are kept as attention reads them: normed and
    turned. Give it to calls under `no_grad`, first with the whole prompt, then with each new token:

        cache = model.new_cache(1, 64)
        with ag.no_grad():
            logits = model(ids, cache=cache)                    # (1, T, V)
            logits = model(following[None], cache=cache)        # (1, 1, V)

    Takes 2 L B G length D numbers.
    """

    def __init__(self, config, batch, length, *, dtype, xp):
        if not 1 <= length <= config.max_position_embeddings:
            raise ValueError(f"a cache of {length} tokens; it holds 1 … {config.max_position_embeddings}, the context")
        if batch < 1:
            raise ValueError(f"a cache is for at least 1 sample, not {batch}")
        shape = (batch, config.key_value_heads, length, config.head_width)
        self.keys = [xp.empty(shape, dtype) for _ in range(config.num_hidden_layers)]
        self.values = [xp.empty(shape, dtype) for _ in range(config.num_hidden_layers)]
        self.positions = xp.zeros((batch, length), np.int64)
        self.segments = xp.zeros((batch, length), np.int64)
        self.kind = kind(config, dtype)
        self.batch, self.length, self.xp = batch, length, xp
        self.clear()

    @property
    def nbytes(self):
        """Bytes of the keys and values."""
        return sum(array.nbytes for array in (*self.keys, *self.values))

    def clear(self):
        """Forget all tokens. The memory stays."""
        self.filled, self.one_segment = 0, True

    def keep(self, rows):
        """Drop all samples but `rows`, ascending numbers of those it has. The memory stays."""
        rows = list(rows)
        if rows != sorted(set(rows) & set(range(self.batch))):
            raise ValueError(f"keep takes ascending numbers in 0 … {self.batch - 1}, not {rows}")
        if len(rows) < self.batch:
            index = self.xp.asarray(rows, np.int64)
            for array in (*self.keys, *self.values):
                array[: len(rows), :, : self.filled] = array[index, :, : self.filled]
            for array in (self.positions, self.segments):
                array[: len(rows), : self.filled] = array[index, : self.filled]
            self.batch = len(rows)

    def place(self, shape, positions, segments):
        """Write down where the tokens of a call stand; they count as read once `filled` is set.

        shape: (B, T). positions: (T,) or (B, T); None: they follow the tokens before. segments (B, T), None for 0.
        Returns positions as the call's own tokens have them, and segments (B, S) of all tokens, None if there is one.
        """
        B, T = shape
        if self.batch != B:
            raise ValueError(f"ids of {B} samples, but the cache is for {self.batch}: new_cache({B}, …) makes one")
        if self.length < self.filled + T:
            raise ValueError(f"{T} more tokens do not fit a cache of {self.length} that holds {self.filled}")
        if segments is not None and segments.shape != shape:
            raise ValueError(f"segments of a call with a cache are those of its ids, {[B, T]}, not {[*segments.shape]}")
        new = slice(self.filled, self.filled + T)
        if positions is None:
            positions = self.xp.arange(new.start, new.stop)
        self.positions[:B, new] = positions
        self.segments[:B, new] = 0 if segments is None else segments
        self.one_segment = self.one_segment and segments is None
        return positions, None if self.one_segment else self.segments[:B, : new.stop]

    def layer(self, number, T):
        """What layer `number` reads and writes in a call of T tokens: a LayerCache."""
        B, S = self.batch, self.filled + T
        return LayerCache(self.keys[number][:B, :, :S], self.values[number][:B, :, :S], self.positions[:B, :S], T)

    def check_model(self, config, dtype):
        """ValueError if keys and values of that model do not fit in here."""
        if self.kind != (theirs := kind(config, dtype)):
            raise ValueError(f"this cache is for a model of {self.kind}; this one has {theirs}: model.new_cache(…)")


class LayerCache:
    """One layer's keys and values (B, G, S, D), views of the cache, of which the last T are to be written.

    positions: (B, S), those of the keys.
    """

    def __init__(self, keys, values, positions, T):
        self.keys, self.values, self.positions = keys, values, positions
        self.start = keys.shape[2] - T

    def extend(self, q, k, v):
        """Write k and v (B, G, T, D); return Tensors of all keys and values, in which nothing was copied.

        RuntimeError where a gradient is wanted of q, k or v: it would not reach the tokens before, and backward would
        read memory that has been overwritten.
        """
        if q.requires_grad or k.requires_grad or v.requires_grad:
            raise RuntimeError("a cache is for generation: use it under no_grad()")
        self.keys[:, :, self.start :] = k.data
        self.values[:, :, self.start :] = v.data
        return ag.Tensor(self.keys), ag.Tensor(self.values)


def kind(config, dtype):
    """What a model and its cache have in common, in words."""
    heads = f"{config.key_value_heads} key/value heads of width {config.head_width}"
    return f"{config.num_hidden_layers} layers, {heads}, {np.dtype(dtype).name}"

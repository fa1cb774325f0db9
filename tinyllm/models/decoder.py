"""The one decoder: token ids in, the logits of each next token out. What varies is in its config."""

import math

import numpy as np

import autograd as ag
from autograd.arrays import xp_of
from tinyllm.models.cache import KeyValueCache
from tinyllm.models.layers import Block, Embedding, LayerNorm, Linear, RMSNorm, in_dtype_of
from tinyllm.models.module import Module, name_layers

CHUNK = 2**23  # logits held at a time while the loss is computed: 32 MB in float32


class Decoder(Module):
    """A decoder-only transformer.

    config: a DecoderConfig, from a family (`gpt2.config(...)`) or its own. seed: of the initial weights. dtype:
    "float32", or "float64" for proofs.

    activation_dtype: what is computed between the embedding and the loss; None for the weights' own. In half precision
    each layer casts its weights, and softmax, norms and the loss are computed in float32 inside.

    recomputed_blocks: how many of the blocks, from the first, keep nothing for backward but their input and run again
    there. The first, because backward comes to them last, when the others have let go of what they kept.
    """

    activation_dtype = None
    recomputed_blocks = 0

    def __init__(self, config, *, seed=0, dtype="float32"):
        make = Make(config, seed, dtype)
        self.config = config
        self.embedding = Embedding(make.matrix(config.vocab_size, config.hidden_size))
        if config.position == "learned":
            self.position = Embedding(make.matrix(config.max_position_embeddings, config.hidden_size))
        self.blocks = [Block(config, make) for _ in range(config.num_hidden_layers)]
        if config.norm_place == "pre":
            self.final_norm = make.norm()
        self.head = (
            Linear(self.embedding.weight)
            if config.tie_word_embeddings
            else make.linear(config.vocab_size, config.hidden_size, bias=False)
        )
        name_layers(self)

    def hidden(self, ids, *, cache=None, positions=None, segments=None, dropout_seed=None):
        """What the head reads. ids (B, T) -> (B, T, C).

        cache: a KeyValueCache of what was read before, which ids continue and are added to; under `no_grad` only.
        positions: (T,) or (B, T) whole numbers; None for 0 … T-1, or on from what the cache holds. segments (B, T):
        tokens see only their own document, -1 is padding. dropout_seed: None for no dropout, a whole number, or (B,)
        one for each sample.
        """
        if getattr(ids, "ndim", None) != 2:
            raise ValueError("a model takes ids as an array (B, T) of whole numbers; for one text ids[None]")
        T = ids.shape[1]
        if self.config.max_position_embeddings < T:
            raise ValueError(f"{T} tokens do not fit the context of {self.config.max_position_embeddings}")
        if cache is not None:
            cache.check_model(self.config, self.activation_dtype or self.embedding.weight.dtype)
            positions, segments = cache.place(ids.shape, positions, segments)
        elif positions is None:
            positions = xp_of(ids).arange(T)
        drop = Dropout(self.config.dropout, dropout_seed)
        x = self.embedding(ids)
        if self.config.position == "learned":
            x = x + self.position(positions)
        x = drop(x if self.activation_dtype in (None, x.dtype) else ag.cast(x, dtype=self.activation_dtype), place=1)
        for i, block in enumerate(self.blocks):
            run = again_in_backward if i < self.recomputed_blocks else Block.__call__
            x = run(block, x, positions, segments, drop.of_block(i), None if cache is None else cache.layer(i, T))
        if cache is not None:
            cache.filled += T  # only now, so that a call that failed has added nothing
        return self.final_norm(x) if self.config.norm_place == "pre" else x

    def new_cache(self, batch, length):
        """An empty KeyValueCache for `batch` samples of up to `length` tokens, on this model's device."""
        weight = self.embedding.weight
        dtype = self.activation_dtype or weight.dtype
        return KeyValueCache(self.config, batch, length, dtype=dtype, xp=xp_of(weight.data))

    def forward(self, ids, **options):
        """Logits (B, T, V) of the token after each of ids (B, T); options as for `hidden`."""
        return self.head(self.hidden(ids, **options))

    def loss(self, ids, targets, *, reduction="mean", label_smoothing=0.0, ignore_index=-100, **options):
        """Cross-entropy in nats of targets (B, T).

        reduction: "mean" over the targets that are not ignored, "sum", or "none" (then (B, T)). Up to CHUNK logits are
        made by the head, as a reader expects, and the loss from them. Where there are more they are never held whole:
        `linear_cross_entropy` makes some at a time, and at once their part of the gradients.
        """
        x = self.hidden(ids, **options)
        rows, flat = x.reshape(-1, x.shape[-1]), targets.reshape(-1)
        options = {"reduction": reduction, "label_smoothing": label_smoothing, "ignore_index": ignore_index}
        if len(rows) * self.config.vocab_size > CHUNK:
            with ag.scope(self.head.name):
                weight = in_dtype_of(rows, self.head.weight)
                loss = ag.linear_cross_entropy(rows, weight, flat, chunk=CHUNK, **options)
        else:
            loss = ag.cross_entropy(self.head(rows), flat, **options)
        return loss.reshape(targets.shape) if reduction == "none" else loss


def again_in_backward(block, x, *others):
    """block(x, *others), keeping only x: backward computes the block once more."""
    with ag.scope(block.name):
        return ag.recompute(block.forward, x, *others)


class Dropout:
    """Hands every place in the model its own seeds, derived from those of the samples.

    A place has its number by where it stands: 1 is the embedding, and each block has the next two. So the same model
    drops the same elements every time it runs, and so does a block that runs a second time.
    """

    def __init__(self, rate, seed, before=0):
        self.rate, self.seed = rate, seed
        self.before = before
        """How many places come before the first of these."""

    def of_block(self, i):
        return Dropout(self.rate, self.seed, before=1 + 2 * i)

    def __call__(self, x, *, place):
        if self.seed is None or self.rate == 0:
            return x
        place = np.uint64(self.before + place)
        seeds = np.atleast_1d(np.asarray(self.seed)).astype(np.uint64) * np.uint64(65536) + place
        return ag.dropout(x, rate=self.rate, seed=seeds)


class Make:
    """Makes parameters with their initial values, all drawn from one generator in model order.

    Matrices are normal with deviation `initializer_range` (0.02 in GPT-2); with initialization "gpt2" those that write
    into the residual stream are smaller by sqrt(2 L), so that the sum of 2 L contributions keeps its size (Radford et
    al. 2019, section 2.3). Biases start at 0, norms at 1.
    """

    def __init__(self, config, seed, dtype):
        self.config, self.dtype = config, dtype
        self.rng = np.random.default_rng(seed)

    def matrix(self, *shape, scale=1.0):
        values = self.rng.standard_normal(shape, dtype=np.float32) * np.float32(self.config.initializer_range * scale)
        return ag.Tensor(values.astype(self.dtype), requires_grad=True)

    def constant(self, n, value):
        return ag.Tensor(np.full(n, value, self.dtype), requires_grad=True)

    def linear(self, n_out, n_in, bias, residual=False):
        shrink = residual and self.config.initialization == "gpt2"
        scale = 1 / math.sqrt(2 * self.config.num_hidden_layers) if shrink else 1.0
        return Linear(self.matrix(n_out, n_in, scale=scale), self.constant(n_out, 0) if bias else None)

    def rms_norm(self, n):
        return RMSNorm(self.constant(n, 1), self.config.rms_norm_eps)

    def norm(self):
        C = self.config.hidden_size
        if self.config.norm == "rmsnorm":
            return self.rms_norm(C)
        bias = self.constant(C, 0) if self.config.norm_bias else None
        return LayerNorm(self.constant(C, 1), bias, self.config.layer_norm_epsilon)

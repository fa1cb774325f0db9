"""The layers of a decoder. Shapes: B batch, T queries, C width, H heads, G key/value heads, D head width, F hidden."""

import numpy as np

import autograd as ag
from autograd.arrays import xp_of
from tinyllm.models.module import Module


def in_dtype_of(x, weight):
    """A weight in the dtype of the activations; its gradient comes back in its own."""
    return weight if weight is None or weight.dtype == x.dtype else ag.cast(weight, dtype=x.dtype)


class Linear(Module):
    """y = x Wᵀ + b, weight (out, in). Weights stay in their own precision; the product is in that of x."""

    def __init__(self, weight, bias=None):
        self.weight = weight
        self.bias = bias

    def forward(self, x, *, add_bias=True):
        """add_bias: False where what comes next adds it, in the same pass."""
        return ag.linear(x, in_dtype_of(x, self.weight), in_dtype_of(x, self.bias) if add_bias else None)


class Embedding(Module):
    """A row of the table for each id. weight (V, C)."""

    def __init__(self, weight):
        self.weight = weight

    def forward(self, ids):
        return ag.embedding(self.weight, ids)


class LayerNorm(Module):
    def __init__(self, weight, bias, eps):
        self.weight, self.bias, self.eps = weight, bias, eps

    def forward(self, x):
        return ag.layer_norm(x, self.weight, self.bias, eps=self.eps)


class RMSNorm(Module):
    def __init__(self, weight, eps):
        self.weight, self.eps = weight, eps

    def forward(self, x):
        return ag.rms_norm(x, self.weight, eps=self.eps)


class Attention(Module):
    """Causal self-attention with grouped heads."""

    def __init__(self, config, make):
        C, D = config.hidden_size, config.head_width
        self.query = make.linear(config.num_attention_heads * D, C, config.attention_bias)
        self.key = make.linear(config.key_value_heads * D, C, config.attention_bias)
        self.value = make.linear(config.key_value_heads * D, C, config.attention_bias)
        self.output = make.linear(C, config.num_attention_heads * D, config.attention_bias, residual=True)
        if config.query_key_norm:
            self.query_norm, self.key_norm = make.rms_norm(D), make.rms_norm(D)
        self.config = config

    def heads(self, x):
        """(B, T, H D) -> (B, H, T, D)"""
        B, T, _ = x.shape
        return x.reshape(B, T, -1, self.config.head_width).transpose(0, 2, 1, 3)

    def forward(self, x, positions, segments, cache=None):
        """x (B, T, C) -> (B, T, C). cache: the LayerCache with the keys and values of earlier tokens; then the queries
        stand at the end of S keys, and segments are (B, S).
        """
        config, key_positions = self.config, positions
        q, k, v = self.heads(self.query(x)), self.heads(self.key(x)), self.heads(self.value(x))
        if config.query_key_norm:
            q, k = self.query_norm(q), self.key_norm(k)
        if config.position == "rope":
            turn = {"positions": positions, "theta": config.rope_theta, "layout": config.rope_layout}
            q, k = ag.rope(q, **turn), ag.rope(k, **turn)
        if cache is not None:
            k, v = cache.extend(q, k, v)
            key_positions = cache.positions
        bias = alibi(config.num_attention_heads, positions, key_positions) if config.position == "alibi" else None
        y = ag.attention(q, k, v, window=config.sliding_window, segments=segments, bias=bias)
        B, H, T, D = y.shape
        return self.output(y.transpose(0, 2, 1, 3).reshape(B, T, H * D))


def alibi(H, positions, key_positions):
    """Attention with linear biases: a penalty per step of distance, steeper for some heads (Press et al. 2021).

    positions (T,) or (B, T) of the queries, (S,) or (B, S) of the keys; returns (H, T, S) or (B, H, T, S). Slopes are
    2^(-8 h / H), h = 1 … H.
    """
    xp = xp_of(positions)
    slopes = 2.0 ** (-8.0 * xp.arange(1, H + 1) / H)
    distance = positions[..., None, :, None] - key_positions[..., None, None, :]
    return (-slopes[:, None, None] * distance).astype(np.float32)


class FeedForward(Module):
    """down(activation(up(x))), or with a gate down(silu(gate(x)) * up(x))."""

    def __init__(self, config, make):
        C, F, bias = config.hidden_size, config.feed_forward_width, config.feed_forward_bias
        self.up = make.linear(F, C, bias)
        if config.feed_forward == "swiglu":
            self.gate = make.linear(F, C, bias)
        self.down = make.linear(C, F, bias, residual=True)
        self.kind = config.feed_forward

    def forward(self, x):
        if self.kind == "swiglu":
            hidden = ag.swiglu(self.gate(x), self.up(x))
        elif self.kind == "relu2":
            hidden = ag.squared_relu(self.up(x))
        else:
            bias, approximate = in_dtype_of(x, self.up.bias), "tanh" if self.kind == "gelu_tanh" else "none"
            hidden = ag.gelu(self.up(x, add_bias=False), bias, approximate=approximate)
        return self.down(hidden)


class Block(Module):
    """Attention and feed-forward, each added to what came in, each with its norm before it or after the sum."""

    def __init__(self, config, make):
        self.attention_norm = make.norm()
        self.attention = Attention(config, make)
        self.feed_forward_norm = make.norm()
        self.feed_forward = FeedForward(config, make)
        self.post = config.norm_place == "post"

    def forward(self, x, positions, segments, drop, cache=None):
        if self.post:
            x = self.attention_norm(x + drop(self.attention(x, positions, segments, cache), place=1))
            return self.feed_forward_norm(x + drop(self.feed_forward(x), place=2))
        x = x + drop(self.attention(self.attention_norm(x), positions, segments, cache), place=1)
        return x + drop(self.feed_forward(self.feed_forward_norm(x)), place=2)

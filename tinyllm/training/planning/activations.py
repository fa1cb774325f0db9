"""What a step keeps until backward, op by op, and how far above that the memory rises.

The tables restate what the closures of each op name ("Saves" in its docstring) and what its pullback allocates, for the
reference's array code and for the kernels of Numba. docs/plan.md derives them; tests hold them against
`ag.debug.ledger()`. Letters: B samples, T context, N = B T rows, C width, H heads, G key/value heads, D head width, F
hidden width, V vocabulary. Biases, norms' weights and positions are left out: vectors beside matrices.
"""

import dataclasses
import math

from tinyllm.models import DecoderConfig
from tinyllm.models.decoder import CHUNK

FLOAT = 4
"""Bytes of a float32."""


@dataclasses.dataclass(frozen=True)
class Workload:
    """What one process computes at a time: so many samples of so many tokens, with these kernels.

    recomputed: how many blocks, from the first, keep their input only.
    """

    config: DecoderConfig
    samples: int
    context: int
    precision: str = "fp32"
    kernels: str = "numba"
    recomputed: int = 0

    @property
    def rows(self):
        """N"""
        return self.samples * self.context

    @property
    def half(self):
        return self.precision != "fp32"

    @property
    def itemsize(self):
        """Bytes of an activation."""
        return 2 if self.half else FLOAT

    @property
    def fused(self):
        """Whether kernels run that save their inputs, and not the reference, which saves what its mathematics names."""
        return self.kernels != "reference"


@dataclasses.dataclass(frozen=True)
class Array:
    """One array that an op keeps: its name in the table, its shape, the bytes of an element."""

    name: str
    shape: tuple
    itemsize: int

    @property
    def num_bytes(self):
        return math.prod(self.shape) * self.itemsize


@dataclasses.dataclass(frozen=True)
class Op:
    """One op, or several alike that read the same rows.

    keeps: the Arrays that its pullback names; an array of the same name in the same block is the same memory.
    needs: bytes that are in use at the most while its pullback runs, beyond what is kept and the gradient that came.
    leaves: bytes of the gradients that it hands on.
    """

    layer: str
    name: str
    keeps: tuple
    needs: int = 0
    leaves: int = 0


OPS = {
    "layernorm": "layer_norm", "rmsnorm": "rms_norm", "gelu": "gelu", "gelu_tanh": "gelu", "swiglu": "swiglu",
    "relu2": "squared_relu",
}  # fmt: skip
"""Which op is meant by a setting of the model."""


def block_ops(work):
    """(ops of the attention, ops of the feed-forward layer) of one block, each in the order in which they run."""
    config, N, itemsize = work.config, work.rows, work.itemsize
    C, D, F = config.hidden_size, config.head_width, config.feed_forward_width
    queries, keys = config.num_attention_heads * D, config.key_value_heads * D
    attention = [linear(work, "attention.query, key, value", "attended", C, (queries, keys, keys))]
    if config.query_key_norm:
        attention += [
            norm(work, "attention.query_norm", "query", queries),
            norm(work, "attention.key_norm", "key", keys),
        ]
    if config.position == "rope" and not work.fused:
        attention.append(Op("attention", "rope", (Array("cos, sin", (2, work.context, D), FLOAT),)))
    attention += [attention_op(work), linear(work, "attention.output", "y" if work.fused else "joined", queries, (C,))]
    maps = (F, F) if config.feed_forward == "swiglu" else (F,)
    names = "feed_forward.gate, up" if len(maps) == 2 else "feed_forward.up"
    feed_forward = [
        linear(work, names, "fed", C, maps),
        activation(work),
        linear(work, "feed_forward.down", "activated", F, (C,)),
    ]
    for number, ops in enumerate((attention, feed_forward), 1):
        if config.dropout and not work.fused:
            ops.append(Op("", "dropout", (Array(f"factor {number}", (N, C), itemsize),), N * C * itemsize))
    norms = [norm(work, f"{layer}_norm", f"{layer} x", C) for layer in ("attention", "feed_forward")]
    if config.norm_place == "post":
        return [*attention, norms[0]], [*feed_forward, norms[1]]
    return [norms[0], *attention], [norms[1], *feed_forward]


def norm(work, layer, name, width):
    """Layer norm or RMS norm of rows: the kernel keeps x and computes x̂ again, the reference keeps x̂ in float32."""
    N, size = work.rows, work.rows * width
    per_element = {(True, False): 4, (True, True): 16, (False, False): 12, (False, True): 16}[work.fused, work.half]
    if not work.fused:
        keeps = (Array(f"{name}: normal", (N, width), FLOAT), Array(f"{name}: rstd", (N,), FLOAT))
    elif work.half:
        keeps = (Array(name, (N, width), work.itemsize),)
    else:
        keeps = (Array(name, (N, width), FLOAT), Array(f"{name}: means, rstds", (2, N), FLOAT))
    return Op(layer, OPS[work.config.norm], keeps, per_element * size, size * work.itemsize)


def linear(work, layer, rows, n_in, outputs):
    """Maps of the same rows: the rows once and, in half precision, each weight as it was cast.

    Backward of several maps adds up their gradients: two of them and the sum are there at once. In half precision a
    product's operands are laid out anew, or widened.
    """
    N, itemsize, widest = work.rows, work.itemsize, max(outputs)
    keeps = [Array(rows, (N, n_in), itemsize)]
    needs = N * n_in * itemsize * (3 if len(outputs) > 1 else 1)
    if work.half:
        keeps.append(Array(f"{rows}: weight", (sum(outputs), n_in), itemsize))
        copies = 2 if work.fused and work.precision == "bf16" else FLOAT
        needs += (N * (n_in + widest)) * copies + n_in * widest * 6
    return Op(layer, "linear", tuple(keeps), needs, N * n_in * itemsize)


def attention_op(work):
    """The kernel keeps what it read, its result and a number a row; the reference keeps every probability."""
    config, N, itemsize = work.config, work.rows, work.itemsize
    H, D = config.num_attention_heads, config.head_width
    queries, keys = N * H * D, N * config.key_value_heads * D
    scores = N * H * work.context
    keeps = [Array("q", (N, H * D), itemsize)]
    keeps += [Array(name, (N, config.key_value_heads * D), itemsize) for name in ("k", "v")]
    leaves = (queries + 2 * keys) * itemsize
    if work.fused:
        keeps += [Array("y", (N, H * D), itemsize), Array("lse", (N, H), FLOAT)]
        if config.position == "alibi":
            keeps.append(Array("bias", (H, work.context, work.context), FLOAT))
        widened = (2 * queries + 2 * keys + queries + 2 * keys) * FLOAT if work.half else 0
        return Op("attention", "attention", tuple(keeps), leaves + widened, leaves)
    keeps.append(Array("p", (N, H, work.context), itemsize))
    needs = scores * 14 + queries * 8 + keys * 6 if work.half else scores * 12 + (queries + keys) * 8
    return Op("attention", "attention", tuple(keeps), needs, leaves)


ACTIVATIONS = {
    # Of each element of the hidden layer: bytes that backward needs beyond what is kept; (fused, half) in turn
    # (kernel, float32), (kernel, half), (reference, float32), (reference, half).
    "gelu": (4, 16, 8, 14),
    "gelu_tanh": (4, 16, 12, 14),
    "swiglu": (8, 24, 16, 18),
    "relu2": (4, 16, 4, 2),
}


def activation(work):
    """The kernel keeps its inputs; the reference also Φ, tanh or σ in float32, or in place of x what it made of it."""
    config, itemsize = work.config, work.itemsize
    shape, kind = (work.rows, config.feed_forward_width), config.feed_forward
    inputs = ("gate", "up") if kind == "swiglu" else ("z",)
    keeps = [Array(name, shape, itemsize) for name in inputs]
    if not work.fused and kind != "relu2":
        keeps.append(Array("s" if kind == "swiglu" else "t" if kind == "gelu_tanh" else "cdf", shape, FLOAT))
    needs = ACTIVATIONS[kind][2 * (not work.fused) + work.half] * math.prod(shape)
    return Op("feed_forward", OPS[kind], tuple(keeps), needs, len(inputs) * math.prod(shape) * itemsize)


def num_bytes(ops):
    """What ops of one block keep together, each array once."""
    return sum({array.name: array.num_bytes for op in ops for array in op.keeps}.values())


def kept_by_block(work):
    """[(layer, op, Array)] of all that one block keeps, each array once: the table of docs/plan.md."""
    seen = {}
    for op in (*block_ops(work)[0], *block_ops(work)[1]):
        for array in op.keeps:
            seen.setdefault(array.name, (op.layer, op.name, array))
    return list(seen.values())


def kept_between(work):
    """Bytes that all blocks, and what is around them but the loss, keep until backward."""
    config, N = work.config, work.rows
    row = N * config.hidden_size * work.itemsize
    attention, feed_forward = block_ops(work)
    whole = num_bytes([*attention, *feed_forward])
    final = num_bytes([norm(work, "final_norm", "x", config.hidden_size)]) if config.norm_place == "pre" else 0
    first = row if config.dropout and not work.fused else 0
    return first + work.recomputed * row + (config.num_hidden_layers - work.recomputed) * whole + final


@dataclasses.dataclass(frozen=True)
class Loss:
    """Bytes around the loss. kept: until backward; forward, backward: at most in use beyond what all ops keep, while it
    is computed and while its gradient is."""

    kept: int
    forward: int
    backward: int


def loss_of(work):
    """The head and the loss: all logits where there are at most CHUNK, else some at a time and at once their gradients.

    Then the gradient of the whole head's weight waits for backward, V C numbers.
    """
    config, N, itemsize = work.config, work.rows, work.itemsize
    V, C = config.vocab_size, config.hidden_size
    logits, table, row = N * V, V * C, N * C
    cast = table * 2 if work.half else 0
    if logits <= CHUNK:
        kept = row * itemsize + cast
        if work.fused:
            forward, backward = (4 * logits, 10 * logits) if work.half else (0, 4 * logits)
            return Loss(kept + logits * itemsize, forward, backward)
        forward, backward = (6 * logits, 6 * logits) if work.half else (4 * logits, 4 * logits)
        return Loss(kept + logits * FLOAT, forward, backward)
    rows = rows_at_once(N, V)
    again = min(rows, N - rows)  # while the second piece is made, the first one's gradient is there
    pieces = rows if work.fused else max(2 * rows, rows + 2 * again)
    kept = (row + table) * FLOAT
    copies = (row + table) * FLOAT + cast if work.half else 0
    hidden = row * itemsize
    beside = 0 if work.fused else rows * V + table  # the reference adds up dW from one piece's, a kernel in place
    forward = hidden + copies + max(pieces * V, beside) * FLOAT
    backward = row * itemsize + (max(row * FLOAT, table * (6 if work.fused else 10)) if work.half else 0)
    return Loss(kept, forward, backward)


def rows_at_once(N, V):
    """How many rows' logits `linear_cross_entropy` makes at a time."""
    rows = max(CHUNK // V, 1)
    return min(N, rows - rows % 64 if rows > 64 else rows)


def kept_until_backward(work):
    """Bytes of all that is kept when the forward pass ends."""
    return kept_between(work) + loss_of(work).kept


def peak_of_step(work):
    """(bytes of activations in use at the most during forward and backward of one piece of a batch, when that is)."""
    loss, between, config = loss_of(work), kept_between(work), work.config
    row = work.rows * config.hidden_size * work.itemsize
    attention, feed_forward = block_ops(work)
    whole, recomputed = num_bytes([*attention, *feed_forward]), work.recomputed
    moments = {
        "in forward of the loss": between + loss.kept + loss.forward,
        "in backward of the loss": between + loss.kept + loss.backward,
        "in backward of the embedding": embedding_needs(work) + row,
    }
    if config.norm_place == "pre":
        moments["in backward of the final norm"] = between + norm(work, "", "", config.hidden_size).needs + row
        between -= num_bytes([norm(work, "final_norm", "x", config.hidden_size)])
    if recomputed < config.num_hidden_layers:
        moments["in backward of the last block"] = between + backward_of_block(work, attention, feed_forward)
    if recomputed:
        # All later blocks have let go; this one's input is among what it keeps.
        inputs = recomputed * row
        moments["in backward of a recomputed block"] = (
            inputs + whole + backward_of_block(work, attention, feed_forward, held=row)
        )
    when = max(moments, key=moments.get)
    return moments[when], when


def backward_of_block(work, attention, feed_forward, held=0):
    """The most in use during backward of one block beyond what was kept when it began.

    The gradient of what is added goes around both layers; `held` is one that somebody holds meanwhile.
    """
    row = work.rows * work.config.hidden_size * work.itemsize
    kept = whole = num_bytes([*attention, *feed_forward])
    most = row
    for ops in (feed_forward, attention):
        came = 0  # the first op's gradient is the one that goes around
        for i, op in reversed(list(enumerate(ops))):
            most = max(most, kept - whole + row + came + op.needs + (held if ops is attention else 0))
            before = num_bytes(ops[:i]) + (num_bytes(attention) if ops is feed_forward else 0)
            kept, came = before, op.leaves
    return most


def embedding_needs(work):
    """Backward of looking tokens up: into the store's own buffer, or, where the head wrote there first, beside it."""
    config = work.config
    row = work.rows * config.hidden_size
    beside = config.vocab_size * config.hidden_size * FLOAT if config.tie_word_embeddings else 0
    return beside + row * FLOAT * (1 if work.fused else 2) + (row * FLOAT if work.half else 0)

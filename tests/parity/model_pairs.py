"""The same small model on both sides: a config of ours, PyTorch's function for it, and weights of order one."""

import math
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch_models
from torch_models import torch

from tinyllm.models import Decoder, gpt2, llama, textbook

SHAPE = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 24,
}


@dataclass
class Pair:
    """zero_by_symmetry: the end of the names of parameters that change nothing, so that their gradient is zero."""

    config: Any
    function: Any
    zero_by_symmetry: str | None = None

    def is_zero_by_symmetry(self, parameter):
        return self.zero_by_symmetry is not None and parameter.endswith(self.zero_by_symmetry)


PAIRS = {
    "gpt2": Pair(
        gpt2.config(**SHAPE),
        torch_models.gpt2,
        # q·(k + b) = q·k + q·b: the same number is added to every score of a query, and softmax does not see it
        zero_by_symmetry="attention.key.bias",
    ),
    "llama": Pair(llama.config(**SHAPE, num_key_value_heads=2), torch_models.llama),
    "llama, tied head": Pair(
        llama.config(**SHAPE, num_key_value_heads=1, tie_word_embeddings=True), torch_models.llama
    ),
    "textbook": Pair(textbook.config(**SHAPE), torch_models.textbook),
}


def weights_of_order_one(name, parameter, spread):
    """Normal values that show every error: biases and the weights of norms too, none near its usual 0 or 1.

    The matrices of blocks have deviation spread / √in, everything else 0.5.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    deviation = spread / math.sqrt(parameter.shape[1]) if name.startswith("blocks.") and parameter.ndim == 2 else 0.5
    values = rng.standard_normal(parameter.shape) * deviation
    return (values + (1 if name.endswith("norm.weight") else 0)).astype("float32")


def our_model(config, dtype, spread=1):
    model = Decoder(config, dtype=dtype)
    model.load_weights({name: weights_of_order_one(name, p, spread) for name, p in model.parameters().items()})
    return model


def their_weights(model):
    """Copies of our weights as leaves of PyTorch."""
    return {name: torch.tensor(p.data, requires_grad=True) for name, p in model.parameters().items()}


def their_loss(pair, weights, inputs, targets):
    logits = pair.function(weights, torch.tensor(inputs), head_width=pair.config.head_width)
    return torch_models.mean_loss(logits, torch.tensor(targets))


def token_batches(count, batch_size=4):
    """Random (inputs, targets) that fill the context."""
    rng = np.random.default_rng(11)
    for _ in range(count):
        tokens = rng.integers(0, SHAPE["vocab_size"], (batch_size, SHAPE["max_position_embeddings"] + 1))
        yield np.ascontiguousarray(tokens[:, :-1]), np.ascontiguousarray(tokens[:, 1:])

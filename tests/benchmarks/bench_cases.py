"""What `bench.py` measures: sizes of models, lengths of attention, and the data both sides compute with."""

import dataclasses

import numpy as np

BETAS, EPS, WEIGHT_DECAY, CLIP = (0.9, 0.99), 1e-8, 0.1, 1.0
WARM_UP = 3  # steps that nobody times: memory is touched, kernels and torch.compile are made
PROOF = 20  # steps whose losses must be equal
BAR = 1e-4  # within this, in nats


@dataclasses.dataclass(frozen=True)
class Training:
    """A training step of GPT-2's architecture: V, T, L, H, C, B as the papers name them.

    Weights are normal with deviation 0.02: bigger tied embeddings give subnormal gradients, which slow every matrix
    product more than a hundred times. Adam's first steps have full size however small a gradient is, and so enlarge
    rounding: at 124M and 1e-3, float32 PyTorch is 2e-4 nats from its own float64 after six. Hence the smaller learning
    rate there, which changes no time. turn: steps a side does before the other's turn. rounds: unless told otherwise.
    """

    vocab_size: int
    context: int
    layers: int
    heads: int
    width: int
    batch: int
    biases: bool
    feed_forward: str
    turn: int
    rounds: int
    learning_rate: float = 1e-3

    def config(self):
        from tinyllm.models import gpt2

        return gpt2.config(
            vocab_size=self.vocab_size,
            hidden_size=self.width,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            max_position_embeddings=self.context,
            feed_forward=self.feed_forward,
            attention_bias=self.biases,
            feed_forward_bias=self.biases,
            norm_bias=self.biases,
        )

    def batch_of_step(self, seed, step):
        """(inputs, targets), each (B, T): fresh random ids that depend on the seed and the step's number only."""
        random = np.random.default_rng([seed, step])
        inputs, targets = random.integers(0, self.vocab_size, (2, self.batch, self.context))
        return inputs, targets


@dataclasses.dataclass(frozen=True)
class Attention:
    """Causal attention alone, forward and backward: q, k, v (B, H, T, D)."""

    context: int
    batch: int = 1
    heads: int = 6
    head_width: int = 64

    def arrays(self, seed):
        """q, k, v, the gradient of y, and a direction that results are projected on: (5, B, H, T, D)."""
        shape = (5, self.batch, self.heads, self.context, self.head_width)
        return np.random.default_rng([seed, self.context]).standard_normal(shape, dtype=np.float32)


@dataclasses.dataclass(frozen=True)
class Decoding:
    """Greedy decoding with the 124M model, one text, until the context is full."""

    context: int = 512
    turn: int = 16
    rounds: int = 5

    def config(self):
        from tinyllm.models import gpt2

        return gpt2.config()

    def prompt(self, seed, new_tokens):
        """The ids before the new ones."""
        return np.random.default_rng(seed).integers(0, self.config().vocab_size, self.context - new_tokens).tolist()


SIZES = {
    "0.8M": Training(65, 64, 4, 4, 128, 12, biases=False, feed_forward="gelu", turn=10, rounds=30),
    "10.9M": Training(512, 256, 6, 6, 384, 8, biases=False, feed_forward="gelu", turn=2, rounds=15),
    "124M": Training(
        50304, 256, 12, 12, 768, 2, biases=True, feed_forward="gelu_tanh", turn=1, rounds=20, learning_rate=1e-4
    ),
}
LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192)
ATTENTION_ROUNDS = 7
CASES = {kind.__name__: kind for kind in (Training, Attention, Decoding)}


def project(arrays, direction):
    """Numbers that are equal only if the arrays are: of each the log of its norm, and its place on `direction`."""
    numbers = []
    for array in arrays:
        array = np.asarray(array, np.float64)
        norm = np.linalg.norm(array)
        numbers += [float(np.log(norm)), float((array * direction).sum() / norm)]
    return numbers

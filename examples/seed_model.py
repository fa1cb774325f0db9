"""A GPT-2-shaped model as a plain class: layers, `forward(idx, targets)`, parameters under GPT-2's names.

No base class and no registration: a layer is an object whose attributes are arrays with gradients or other layers.
Run as a script it learns one paragraph by heart and prints the loss on the way. Needs only NumPy. A few seconds.
"""

from dataclasses import dataclass

import numpy as np

import autograd as ag


@dataclass
class LLMConfig:
    """The defaults are those of the smallest GPT-2."""

    vocab_size: int = 50257
    hidden_size: int = 768
    num_hidden_layers: int = 12
    max_position_embeddings: int = 1024
    layer_norm_epsilon: float = 1e-5
    num_attention_heads: int | None = None  # one for every 64 components, as in every GPT-2

    def __post_init__(self):
        if self.num_attention_heads is None:
            self.num_attention_heads = max(self.hidden_size // 64, 1)
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(f"{self.num_attention_heads} heads cannot share {self.hidden_size} components evenly")


def parameter(array, dtype):
    return ag.Tensor(array.astype(dtype), requires_grad=True)


class Embedding:
    """A row for every id."""

    def __init__(self, n, width, rng, dtype):
        self.weight = parameter(rng.normal(0, 0.02, (n, width)), dtype)

    def __call__(self, ids):
        return ag.embedding(self.weight, ids)


class Linear:
    """y = x Wᵀ + b. The weight is (out, in)."""

    def __init__(self, n_in, n_out, rng, dtype, std=0.02):
        self.weight = parameter(rng.normal(0, std, (n_out, n_in)), dtype)
        self.bias = parameter(np.zeros(n_out), dtype)

    def __call__(self, x):
        return ag.linear(x, self.weight, self.bias)


class LayerNorm:
    def __init__(self, width, eps, dtype):
        self.weight = parameter(np.ones(width), dtype)
        self.bias = parameter(np.zeros(width), dtype)
        self.eps = eps

    def __call__(self, x):
        return ag.layer_norm(x, self.weight, self.bias, eps=self.eps)


class Attention:
    """Tokens exchange information: each reads from itself and those before it."""

    def __init__(self, config, rng, dtype):
        C = config.hidden_size
        self.heads = config.num_attention_heads
        self.c_attn = Linear(C, 3 * C, rng, dtype)  # query, key and value in one product
        self.c_proj = Linear(C, C, rng, dtype, std=residual_std(config))

    def __call__(self, x):
        B, T, C = x.shape
        H, D = self.heads, C // self.heads
        qkv = self.c_attn(x).reshape(B, T, 3, H, D).transpose(2, 0, 3, 1, 4)  # (3, B, H, T, D)
        y = ag.attention(*qkv, causal=True)
        return self.c_proj(y.transpose(0, 2, 1, 3).reshape(B, T, C))


class MLP:
    """Each token works on what it has read."""

    def __init__(self, config, rng, dtype):
        C = config.hidden_size
        self.c_fc = Linear(C, 4 * C, rng, dtype)
        self.c_proj = Linear(4 * C, C, rng, dtype, std=residual_std(config))

    def __call__(self, x):
        return self.c_proj(ag.gelu(self.c_fc(x), approximate="tanh"))


class Block:
    """Both, each behind a norm, each added to what was there."""

    def __init__(self, config, rng, dtype):
        self.ln_1 = LayerNorm(config.hidden_size, config.layer_norm_epsilon, dtype)
        self.attn = Attention(config, rng, dtype)
        self.ln_2 = LayerNorm(config.hidden_size, config.layer_norm_epsilon, dtype)
        self.mlp = MLP(config, rng, dtype)

    def __call__(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Head:
    """A score for every id: how well its row of the embedding fits. The weight is the embedding's own."""

    def __init__(self, embedding):
        self.weight = embedding.weight

    def __call__(self, x):
        return ag.linear(x, self.weight)


def residual_std(config):
    """GPT-2's rule: 2 L branches add up, so each starts smaller by √(2 L)."""
    return 0.02 / (2 * config.num_hidden_layers) ** 0.5


class LLM:
    """The model. dtype: "float32", or "float64" to prove gradients."""

    def __init__(self, config, seed=0, dtype="float32"):
        rng = np.random.default_rng(seed)
        self.config = config
        self.wte = Embedding(config.vocab_size, config.hidden_size, rng, dtype)
        self.wpe = Embedding(config.max_position_embeddings, config.hidden_size, rng, dtype)
        self.h = [Block(config, rng, dtype) for _ in range(config.num_hidden_layers)]
        self.ln_f = LayerNorm(config.hidden_size, config.layer_norm_epsilon, dtype)
        self.lm_head = Head(self.wte)

    def forward(self, idx, targets=None):
        """idx and targets: whole numbers (B, T). Returns logits (B, T, V) and the mean loss in nats, or None."""
        T, limit = idx.shape[1], self.config.max_position_embeddings
        if limit < T:
            raise ValueError(f"{T} tokens, but the model has only {limit} positions")
        x = self.wte(idx) + self.wpe(np.arange(T))  # (B, T, C) + (T, C)
        for block in self.h:
            x = block(x)
        logits = self.lm_head(self.ln_f(x))
        loss = None if targets is None else ag.cross_entropy(logits, targets)
        return logits, loss

    def parameters(self):
        """dict: path -> Tensor, in the order of the attributes; a tied one once, under its first name."""
        found = {}
        collect(self, "", found)
        return found


def collect(part, path, found):
    """Walk attributes and lists; note every Tensor that is met for the first time."""
    if isinstance(part, ag.Tensor):
        if part not in found.values():
            found[path] = part
    elif isinstance(part, list) or hasattr(part, "__dict__"):
        children = enumerate(part) if isinstance(part, list) else vars(part).items()
        for name, child in children:
            collect(child, f"{path}.{name}" if path else str(name), found)


TEXT = """The gradient of a number that is used twice is the sum of two gradients. Everything else is the chain rule,
one small step at a time, from the last line of the program to the first."""


def main(steps=60, learning_rate=0.003):
    letters = sorted(set(TEXT))
    ids = np.array([[letters.index(c) for c in TEXT]])
    idx, targets = ids[:, :-1], ids[:, 1:]

    config = LLMConfig(
        vocab_size=len(letters),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=len(TEXT),
    )
    model = LLM(config)
    parameters = model.parameters()
    print(f"{sum(p.size for p in parameters.values()):,} parameters in {len(parameters)} tensors, for example")
    for name in list(parameters)[:6]:
        print(f"  {name:24}{parameters[name].shape}")

    # Adam, both running means starting at the first gradient
    mean, square = {}, {}
    for step in range(steps + 1):
        logits, loss = model.forward(idx, targets)
        if step % 10 == 0:
            print(f"step {step:3}   loss {loss.item():.3f}")
        loss.backward()
        for name, p in parameters.items():
            mean[name] = 0.9 * mean.get(name, p.grad) + 0.1 * p.grad
            square[name] = 0.99 * square.get(name, p.grad**2) + 0.01 * p.grad**2
            p.data -= learning_rate * mean[name] / (np.sqrt(square[name]) + 1e-8)
            p.grad = None

    guess = logits.data[0].argmax(-1)
    print("\nthe likeliest next letter, all along the text:")
    print(TEXT[0] + "".join(letters[i] for i in guess))


if __name__ == "__main__":
    main()

"""A whole GPT in one file: model, optimizer, training, sampling; on autograd alone.

It learns to write Python's own documentation, letter by letter, from the text that `help()` prints and that is on
every machine with Python. You see the loss fall below what letter frequencies alone can reach, then a sample: not
sense, but words, markup and layout. Needs only NumPy. About half a minute.
"""

import math
import time
from pydoc_data.topics import topics

import numpy as np

import autograd as ag

C, H, L = 64, 4, 3  # width, heads, layers
B, T = 16, 64  # sequences in a batch, letters in a sequence
rng = np.random.default_rng(0)

##### Text: every letter is a token

text = "\n\n".join(topics.values())
letters = sorted(set(text))
ids = np.array([letters.index(c) for c in text])
V = len(letters)
train, validation = ids[: -len(ids) // 10], ids[-len(ids) // 10 :]


def batch(ids):
    """B random windows of T letters, and for each letter the one that follows."""
    starts = rng.integers(len(ids) - T, size=(B, 1))
    windows = ids[starts + np.arange(T + 1)]
    return windows[:, :-1], windows[:, 1:]


##### Model: parameters by name, and a function


def init():
    """Weights so that every layer keeps the size of what passes through it; each layer starts as almost nothing."""

    def normal(*shape, std):
        return ag.Tensor(rng.normal(0, std, shape).astype(np.float32), requires_grad=True)

    def ones(n):
        return ag.Tensor(np.ones(n, np.float32), requires_grad=True)

    w = {"embedding": normal(V, C, std=0.1), "position": normal(T, C, std=0.1), "final_norm": ones(C)}
    for i in range(L):
        w[f"{i}.norm_1"], w[f"{i}.norm_2"] = ones(C), ones(C)
        w[f"{i}.qkv"] = normal(3 * C, C, std=C**-0.5)  # a weight is (out, in)
        w[f"{i}.out"] = normal(C, C, std=0.1 * C**-0.5)
        w[f"{i}.up"] = normal(4 * C, C, std=C**-0.5)
        w[f"{i}.down"] = normal(C, 4 * C, std=0.1 * C**-0.5)
    w["head"] = normal(V, C, std=0.1 * C**-0.5)
    return w


def gpt(w, ids):
    """ids (B, T) -> logits (B, T, V): at every position, a score for each letter that may come next."""
    T = ids.shape[1]
    x = ag.embedding(w["embedding"], ids) + w["position"][:T]  # (B, T, C)
    for i in range(L):
        x = x + attention(w, i, ag.layer_norm(x, w[f"{i}.norm_1"]))  # letters talk to each other
        x = x + mlp(w, i, ag.layer_norm(x, w[f"{i}.norm_2"]))  # each thinks for itself
    return ag.linear(ag.layer_norm(x, w["final_norm"]), w["head"])


def attention(w, i, x):
    B, T, C = x.shape

    def heads(x):
        return x.reshape(B, T, H, C // H).transpose(0, 2, 1, 3)  # (B, T, C) -> (B, H, T, D)

    q, k, v = ag.split(ag.linear(x, w[f"{i}.qkv"]), 3)
    y = ag.attention(heads(q), heads(k), heads(v), causal=True)
    return ag.linear(y.transpose(0, 2, 1, 3).reshape(B, T, C), w[f"{i}.out"])


def mlp(w, i, x):
    return ag.linear(ag.gelu(ag.linear(x, w[f"{i}.up"]), approximate="tanh"), w[f"{i}.down"])


##### Optimizer: AdamW


def adamw(w, m, v, step, lr, beta1=0.9, beta2=0.98, eps=1e-8, decay=0.1):
    """One step. m and v: running means of each gradient and of its square; both start at 0, hence the corrections."""
    for name, p in w.items():
        g = p.grad
        m[name] = beta1 * m[name] + (1 - beta1) * g
        v[name] = beta2 * v[name] + (1 - beta2) * g * g
        m_hat = m[name] / (1 - beta1**step)
        v_hat = v[name] / (1 - beta2**step)
        p.data -= lr * m_hat / (np.sqrt(v_hat) + eps)
        if p.ndim == 2:  # matrices shrink a little; scales do not
            p.data -= lr * decay * p.data
        p.grad = None


##### Training and sampling


def evaluate(w, batches=10):
    """Mean loss on text that was not trained on, in nats a letter."""
    with ag.no_grad():
        pairs = [batch(validation) for _ in range(batches)]
        return np.mean([ag.cross_entropy(gpt(w, x), y).item() for x, y in pairs])


def sample(w, n, prompt="The ", temperature=0.8):
    """n letters, each drawn from what the model makes of the T before it; a low temperature prefers the likely ones."""
    written = [letters.index(c) for c in prompt]
    with ag.no_grad():
        for _ in range(n):
            scores = gpt(w, np.array([written[-T:]])).data[0, -1].astype(np.float64) / temperature
            p = np.exp(scores - scores.max())
            written.append(rng.choice(V, p=p / p.sum()))
    return "".join(letters[i] for i in written)


def main(steps=600):
    frequency = np.bincount(train, minlength=V) / len(train)
    seen = frequency[frequency > 0]
    unigram = -(seen * np.log(seen)).sum()
    w = init()
    m, v = ({name: np.zeros_like(p.data) for name, p in w.items()} for _ in range(2))
    print(f"{len(text):,} letters, {V} different; {sum(p.size for p in w.values()):,} parameters")
    print(f"knowing nothing {math.log(V):.2f} nats a letter, knowing how often each letter comes {unigram:.2f}\n")
    start, losses = time.perf_counter(), []
    for step in range(1, steps + 1):
        x, y = batch(train)
        loss = ag.cross_entropy(gpt(w, x), y)
        loss.backward()
        lr = 3e-3 * min(step / 50, 1) * (1.05 - step / steps)  # up, then slowly down
        adamw(w, m, v, step, lr)
        losses.append(loss.item())
        if step % 50 == 0 or step == steps:
            print(f"step {step:4}   loss {np.mean(losses[-50:]):.2f}   after {time.perf_counter() - start:3.0f} s")
    print(f"\nunseen text: {evaluate(w):.2f} nats a letter (letter frequencies: {unigram:.2f})\n\nsample:")
    print(sample(w, 400))


if __name__ == "__main__":
    main()

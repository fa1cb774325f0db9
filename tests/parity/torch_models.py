"""GPT-2, Llama and the textbook pipeline in plain PyTorch functions: weights in, logits out.

weights: dict of our parameter names -> tensors; a layer without a bias has no entry for it. Nothing of ours is called,
and where PyTorch has a function for a part, it is that function.
"""

import pytest

torch = pytest.importorskip("torch")
F = torch.nn.functional


def linear(weights, name, x):
    return F.linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))


def layer_norm(weights, name, x, eps=1e-5):
    return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights.get(f"{name}.bias"), eps)


def rms_norm(weights, name, x, eps=1e-5):
    return F.rms_norm(x, x.shape[-1:], weights[f"{name}.weight"], eps)


def rotate(x, theta=10000.0):
    """Rotary positions on x (B, T, H, D), features i and i + D/2 a pair: the product of complex numbers."""
    T, D = x.shape[1], x.shape[3]
    angle = torch.arange(T, dtype=torch.float64)[:, None, None] * theta ** (-torch.arange(0, D, 2).double() / D)
    turned = torch.complex(*x.chunk(2, -1)) * torch.polar(torch.ones_like(angle), angle).to(x.dtype.to_complex())
    return torch.cat([turned.real, turned.imag], -1)


def attention(weights, name, x, head_width, position=lambda heads: heads):
    """Causal self-attention; how many query and key heads there are, the weights tell."""
    B, T, _ = x.shape
    q, k, v = (linear(weights, f"{name}.{part}", x).view(B, T, -1, head_width) for part in ("query", "key", "value"))
    q, k, v = position(q).transpose(1, 2), position(k).transpose(1, 2), v.transpose(1, 2)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    return linear(weights, f"{name}.output", y.transpose(1, 2).reshape(B, T, -1))


def swiglu(weights, name, x):
    gated = F.silu(linear(weights, f"{name}.gate", x)) * linear(weights, f"{name}.up", x)
    return linear(weights, f"{name}.down", gated)


def blocks(weights):
    """`blocks.0`, `blocks.1`, …"""
    return [f"blocks.{i}" for i in sorted({int(name.split(".")[1]) for name in weights if name.startswith("blocks.")})]


def gpt2(weights, ids, *, head_width, approximate="tanh"):
    """Radford et al. 2019: learned positions, norms before each part, head tied to the embedding."""
    x = F.embedding(ids, weights["embedding.weight"]) + weights["position.weight"][: ids.shape[1]]
    for block in blocks(weights):
        h = layer_norm(weights, f"{block}.attention_norm", x)
        x = x + attention(weights, f"{block}.attention", h, head_width)
        h = layer_norm(weights, f"{block}.feed_forward_norm", x)
        h = F.gelu(linear(weights, f"{block}.feed_forward.up", h), approximate=approximate)
        x = x + linear(weights, f"{block}.feed_forward.down", h)
    return F.linear(layer_norm(weights, "final_norm", x), weights["embedding.weight"])


def llama(weights, ids, *, head_width):
    """Touvron et al. 2023: rotary positions, RMS norms before each part, SwiGLU; a head of its own or a tied one."""
    x = F.embedding(ids, weights["embedding.weight"])
    for block in blocks(weights):
        h = rms_norm(weights, f"{block}.attention_norm", x)
        x = x + attention(weights, f"{block}.attention", h, head_width, rotate)
        x = x + swiglu(weights, f"{block}.feed_forward", rms_norm(weights, f"{block}.feed_forward_norm", x))
    return F.linear(rms_norm(weights, "final_norm", x), weights.get("head.weight", weights["embedding.weight"]))


def textbook(weights, ids, *, head_width):
    """Vaswani et al. 2017 with rotary positions and SwiGLU: layer norms after each sum, none before the head."""
    x = F.embedding(ids, weights["embedding.weight"])
    for block in blocks(weights):
        h = attention(weights, f"{block}.attention", x, head_width, rotate)
        x = layer_norm(weights, f"{block}.attention_norm", x + h)
        x = layer_norm(weights, f"{block}.feed_forward_norm", x + swiglu(weights, f"{block}.feed_forward", x))
    return linear(weights, "head", x)


def mean_loss(logits, targets):
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

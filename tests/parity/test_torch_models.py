"""Whole models against PyTorch on the same weights of order one: the loss and the gradient of every parameter.

Small weights (0.02, as models begin with) would hide most errors: what a layer adds would be lost beside the residual.
With matrices of deviation 1 / √in every activation is of order one. Larger ones make softmax nearly one-hot and
rounding grows: at 3 / √in PyTorch's own float32 gradients are 1e-5 to 2e-4 away from its float64 ones, so there only
float64 is compared.

The error of a gradient is max|a - b| / max(max|b|, 1e-6 of the model's largest gradient).
"""

import numpy as np
import pytest
from measurements import record
from model_pairs import PAIRS, our_model, their_loss, their_weights, token_batches

BARS = {"float32": 1e-5, "float64": 1e-12}
ZERO = {"float32": 1e-6, "float64": 1e-9}
"""A gradient that is zero by symmetry, relative to the model's largest: what is left of it is rounding."""


def gradients(pair, config, dtype, spread):
    """(our loss, our gradients, PyTorch's loss, PyTorch's gradients): of one batch, gradients by name."""
    model = our_model(config, dtype, spread)
    weights = their_weights(model)
    inputs, targets = next(token_batches(1))
    loss = model.loss(inputs, targets)
    loss.backward()
    their = their_loss(pair, weights, inputs, targets)
    their.backward()
    ours = {name: p.grad for name, p in model.parameters().items()}
    return loss.item(), ours, their.item(), {name: weight.grad.numpy() for name, weight in weights.items()}


def errors_of(ours, theirs):
    largest = max(np.abs(b).max() for b in theirs.values())
    return {name: np.abs(ours[name] - b).max() / max(np.abs(b).max(), 1e-6 * largest) for name, b in theirs.items()}


@pytest.mark.parametrize(("dtype", "spread"), [("float32", 1), ("float64", 1), ("float64", 3)])
@pytest.mark.parametrize("name", PAIRS)
def test_loss_and_every_gradient_agree(name, dtype, spread):
    pair = PAIRS[name]
    loss, ours, their_loss_, theirs = gradients(pair, pair.config, dtype, spread)
    assert abs(loss - their_loss_) <= BARS[dtype] * abs(their_loss_)
    assert list(ours) == list(theirs)
    largest = max(np.abs(b).max() for b in theirs.values())
    symmetric = [parameter for parameter in ours if pair.is_zero_by_symmetry(parameter)]
    assert bool(symmetric) == (pair.zero_by_symmetry is not None)
    for parameter in symmetric:
        assert np.abs(ours.pop(parameter)).max() <= ZERO[dtype] * largest
        assert np.abs(theirs.pop(parameter)).max() <= ZERO[dtype] * largest
    errors = errors_of(ours, theirs)
    record(
        "models against PyTorch: worst error of a parameter's gradient",
        name,
        **{"parameters": len(errors), f"{dtype}, matrices {spread}/√in": float(max(errors.values()))},
    )
    assert {parameter: error for parameter, error in errors.items() if not error <= BARS[dtype]} == {}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("gpt2", {"layer_norm_epsilon": 1.1e-5}),
        ("gpt2", {"feed_forward": "gelu"}),
        ("llama", {"rms_norm_eps": 1.1e-5}),
        ("llama", {"rope_theta": 10001.0}),
        ("textbook", {"layer_norm_epsilon": 1.1e-5}),
    ],
    ids=str,
)
def test_a_slightly_different_model_is_noticed(name, change):
    pair = PAIRS[name]
    _, ours, _, theirs = gradients(pair, pair.config.replace(**change), "float64", 1)
    assert max(errors_of(ours, theirs).values()) > 1000 * BARS["float64"]

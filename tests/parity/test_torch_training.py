"""100 training steps against PyTorch's optimizers: the same model, batches, clipping; then every parameter is compared.

The bar, relative to the largest entry of each parameter, is 1e-4 in float32 and 1e-9 in float64. Two planted mistakes
that leave a run looking healthy must exceed it: weight decay of the norms, and Adam's eps inside the square root.
"""

import functools
import sys

import numpy as np
import pytest
from measurements import record
from model_pairs import PAIRS, our_model, their_loss, their_weights, token_batches
from torch_optimizers import BETAS, DECAY, groups_of_store, keep_dtype, ours, theirs
from torch_training import TorchTraining, torch

import autograd as ag
from tinyllm.training import AdamW, ParameterStore

STEPS = 100
BARS = {"float32": 1e-4, "float64": 1e-9}
CLIP, EPS = 1.0, 1e-8
RATE = {"adamw": 1e-3, "sgd": 1e-2}
RATE_OF_OTHERS = {"sgd, nesterov": 1e-2, "lion": 1e-4, "muon": 1e-3, "adafactor": 1e-2}
TABLE = f"{STEPS} training steps against PyTorch: worst error of a parameter"


def train_ours(model, optimizer, groups, eps):
    """dict name -> parameter after the steps, and at how many of them the gradient was clipped."""
    store = ParameterStore(model, groups or groups_of_store(optimizer))
    rule = AdamW(store, betas=BETAS, eps=eps, weight_decay=DECAY) if optimizer == "adamw" else ours(optimizer, store)
    rule.learning_rate = (RATE | RATE_OF_OTHERS)[optimizer]
    clipped = 0
    for inputs, targets in token_batches(STEPS):
        model.loss(inputs, targets).backward()
        clipped += store.clip(CLIP) > CLIP
        rule.step()
    return store.weights(), clipped


@functools.cache
def train_theirs(name, optimizer, dtype, eps):
    """dict name -> parameter after the steps."""
    pair = PAIRS[name]
    weights = their_weights(our_model(pair.config, dtype))
    adamw = functools.partial(torch.optim.AdamW, betas=BETAS, eps=eps)
    make = adamw if optimizer == "adamw" else theirs(optimizer)
    training = TorchTraining(weights, lambda *batch: their_loss(pair, *batch), make, weight_decay=DECAY, clip=CLIP)
    for inputs, targets in token_batches(STEPS):
        training.step(inputs, targets, (RATE | RATE_OF_OTHERS)[optimizer])
    return {name: weight.detach().numpy() for name, weight in weights.items()}


def errors_after_training(name, optimizer, dtype, *, groups=None, eps=EPS):
    """(dict parameter -> error relative to its largest entry, at how many steps the gradient was clipped).

    Without parameters whose gradient is zero by symmetry: theirs is rounding alone, and Adam makes full steps of it.
    """
    pair = PAIRS[name]
    theirs = train_theirs(name, optimizer, dtype, eps)
    ours, clipped = train_ours(our_model(pair.config, dtype), optimizer, groups, eps)
    compared = {parameter: b for parameter, b in theirs.items() if not pair.is_zero_by_symmetry(parameter)}
    errors = {parameter: float(abs(ours[parameter] - b).max() / abs(b).max()) for parameter, b in compared.items()}
    return errors, clipped


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("optimizer", RATE)
@pytest.mark.parametrize("name", PAIRS)
def test_every_parameter_agrees_after_100_steps(name, optimizer, dtype):
    errors, clipped = errors_after_training(name, optimizer, dtype)
    record(TABLE, f"{name}, {optimizer}", parameters=len(errors), clipped=clipped, **{dtype: max(errors.values())})
    assert clipped > 0
    assert {parameter: error for parameter, error in errors.items() if not error <= BARS[dtype]} == {}


@pytest.mark.parametrize(
    ("name", "optimizer", "dtype"),
    [
        ("gpt2", "sgd, nesterov", "float32"),
        ("gpt2", "sgd, nesterov", "float64"),
        # In float32 the sign of a number that rounding decides is a whole step: only float64 can be compared.
        ("gpt2", "lion", "float64"),
        ("gpt2", "muon", "float32"),
        ("gpt2", "muon", "float64"),
        ("llama, tied head", "muon", "float64"),
        ("gpt2", "adafactor", "float32"),
        ("gpt2", "adafactor", "float64"),
    ],
)
def test_every_parameter_agrees_after_100_steps_of_other_optimizers(name, optimizer, dtype, monkeypatch):
    keep_dtype(monkeypatch)
    errors, _ = errors_after_training(name, optimizer, dtype)
    record(TABLE, f"{name}, {optimizer}", parameters=len(errors), **{dtype: max(errors.values())})
    assert {parameter: error for parameter, error in errors.items() if not error <= BARS[dtype]} == {}


@pytest.mark.parametrize("optimizer", RATE)
@pytest.mark.parametrize("name", PAIRS)
def test_every_parameter_agrees_after_100_steps_with_kernels(name, optimizer):
    pytest.importorskip("numba")
    ag.kernels_used(reset=True)
    with ag.use_kernels("numba"):
        errors, _ = errors_after_training(name, optimizer, "float32")
    assert {optimizer, "sum_of_squares", "scale"} <= {rule for rule, n in ag.kernels_used().items() if n["numba"]}
    record(TABLE, f"{name}, {optimizer}, kernels", parameters=len(errors), float32=max(errors.values()))
    assert {parameter: error for parameter, error in errors.items() if not error <= BARS["float32"]} == {}


def decays_norms(name, parameter):
    return parameter.ndim >= 2 or name.endswith("norm.weight")


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("optimizer", RATE)
def test_planted_weight_decay_of_the_norms_is_noticed(optimizer, dtype):
    groups = {"decay": decays_norms, "no_decay": lambda name, parameter: True}
    errors, _ = errors_after_training("gpt2", optimizer, dtype, groups=groups)
    norms = [error for parameter, error in errors.items() if parameter.endswith("norm.weight")]
    assert min(norms) > BARS[dtype]
    record(TABLE, f"planted: norms decay, gpt2, {optimizer}", **{dtype: max(norms)})


def adamw_with_eps_inside(p, g, m, v, *, step, learning_rate, betas, eps, weight_decay):
    """p <- p - lr m̂ / √(v̂ + eps)"""
    p *= 1 - learning_rate * weight_decay
    m += (1 - betas[0]) * (g - m)
    v += (1 - betas[1]) * (g * g - v)
    p -= learning_rate * (m / (1 - betas[0] ** step)) / np.sqrt(v / (1 - betas[1] ** step) + eps)


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("name", ["gpt2", "textbook"])
def test_planted_eps_inside_the_root_is_noticed(name, dtype, monkeypatch):
    monkeypatch.setattr(sys.modules[AdamW.__module__], "adamw", adamw_with_eps_inside)
    errors, _ = errors_after_training(name, "adamw", dtype)
    assert max(errors.values()) > BARS[dtype]
    record(TABLE, f"planted: eps inside the root, {name}, adamw", **{dtype: max(errors.values())})


@pytest.mark.parametrize("dtype", BARS)
def test_the_mistake_of_the_planted_rule_is_its_eps_alone(dtype, monkeypatch):
    """With a vanishing eps it is AdamW in another order of rounding, and agrees."""
    monkeypatch.setattr(sys.modules[AdamW.__module__], "adamw", adamw_with_eps_inside)
    errors, _ = errors_after_training("llama", "adamw", dtype, eps=1e-30)
    assert max(errors.values()) <= BARS[dtype]

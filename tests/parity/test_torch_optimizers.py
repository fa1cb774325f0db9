"""200 steps of each optimizer and of PyTorch's on the same recorded gradients; then every parameter is compared.

Lion, which PyTorch does not have, is compared with its paper's listing. The bar, relative to the largest entry of each
parameter, is 1e-13 in float64 and 1e-5 in float32. Each rule is then broken, one sign, order or place at a time, and
must miss the bar of float64.
"""

import functools
import inspect
import sys
import types

import numpy as np
import pytest
from measurements import record
from torch_optimizers import DECAY, PAIRS, groups_of_store, keep_dtype, ours, theirs
from torch_training import TorchTraining, torch

import autograd as ag
from tinyllm.training import ParameterStore, optimizers
from tinyllm.training.schedules import warmup_cosine

STEPS = 200
BARS = {"float32": 1e-5, "float64": 1e-13}
RATES = {"adamw": 1e-2, "sgd": 1e-2, "lion": 1e-3, "muon": 1e-2, "adafactor": 3e-2}
SHAPES = {
    "embedding.weight": (13, 8), "blocks.0.wide.weight": (8, 24), "blocks.0.wide.bias": (24,),
    "blocks.0.tall.weight": (24, 8), "blocks.1.square.weight": (16, 16), "final_norm.weight": (8,),
    "head.weight": (13, 8),
}  # fmt: skip
TABLE = f"{STEPS} recorded gradients, against PyTorch: worst error of a parameter"


def beginning(dtype):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}


def recorded(dtype):
    """(learning rate as a share of the peak, dict parameter -> gradient) of each step.

    Of order one with a slow drift, so that momenta are neither zero nor settled; now and then one of 0.
    """
    rng = np.random.default_rng(1)
    drift = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    for step in range(STEPS):
        gradients = {}
        for name, shape in SHAPES.items():
            g = np.cos(step / 20) * drift[name] + rng.normal(size=shape)
            gradients[name] = np.where(rng.random(shape) < 0.05, 0, g).astype(dtype)
        yield warmup_cosine(step, peak=1.0, floor=0.1, warmup_steps=20, steps=STEPS), gradients


def follow_ours(name, dtype, classes=optimizers):
    tensors = {name: ag.Tensor(array, requires_grad=True) for name, array in beginning(dtype).items()}
    store = ParameterStore(tensors, groups_of_store(name))
    optimizer = ours(name, store, classes)
    for share, gradients in recorded(dtype):
        optimizer.learning_rate = RATES[name.partition(",")[0]] * share
        for parameter, gradient in gradients.items():
            tensors[parameter].grad = gradient
        optimizer.step()
    return store.weights()


@functools.cache
def follow_theirs(name, dtype):
    weights = {name: torch.tensor(array, requires_grad=True) for name, array in beginning(dtype).items()}
    training = TorchTraining(weights, None, theirs(name), weight_decay=DECAY, clip=None)
    for share, gradients in recorded(dtype):
        for parameter, gradient in gradients.items():
            weights[parameter].grad = torch.tensor(gradient)
        training.follow(RATES[name.partition(",")[0]] * share)
    return {name: p.detach().numpy() for name, p in weights.items()}


def errors(mine, other):
    return {name: float(abs(mine[name] - b).max() / abs(b).max()) for name, b in other.items()}


@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize("name", PAIRS)
def test_every_parameter_agrees_after_200_recorded_gradients(name, dtype, monkeypatch):
    keep_dtype(monkeypatch)
    found = errors(follow_ours(name, dtype), follow_theirs(name, dtype))
    record(TABLE, name, **{dtype: max(found.values())})
    assert {parameter: error for parameter, error in found.items() if not error <= BARS[dtype]} == {}


@pytest.mark.parametrize("name", ["adamw", "sgd", "sgd, nesterov", "lion"])
def test_every_parameter_agrees_with_kernels(name):
    pytest.importorskip("numba")
    ag.kernels_used(reset=True)
    with ag.use_kernels("numba"):
        mine = follow_ours(name, "float32")
    assert ag.kernels_used()[name.partition(",")[0]] == {"numba": STEPS * len(groups_of_store(name))}
    found = errors(mine, follow_theirs(name, "float32"))
    record(TABLE, f"{name}, kernels", float32=max(found.values()))
    assert {parameter: error for parameter, error in found.items() if not error <= BARS["float32"]} == {}


# optimizer -> (what its file says, what a mistake would say)
MISTAKES = {
    "adamw": [
        ("p *= 1 - learning_rate * weight_decay", "p *= 1 - weight_decay"),
        ("math.sqrt(1 - beta2**step)", "math.sqrt(1 - beta1**step)"),
    ],
    "sgd": [
        ("d = g + weight_decay * p if weight_decay else g", "d = g"),
        ("velocity += d", "velocity += (1 - momentum) * d"),
    ],
    "sgd, nesterov": [
        ("(d + momentum * velocity if", "(g + momentum * velocity if"),
        ("(d + momentum * velocity if", "(d + velocity if"),
    ],
    "lion": [
        ("beta1, beta2 = betas", "beta2, beta1 = betas"),
        ("c += (1 - beta1) * g", "c += g"),
        ("p *= 1 - learning_rate * weight_decay", "p -= weight_decay * xp_of(p).sign(p) * learning_rate"),
    ],
    "muon": [
        ("d = momentum * m + (1 - momentum) * g if nesterov else m", "d = m"),
        ("m += (1 - momentum) * g", "m += g"),
        ("steps=5", "steps=6"),
        ("0.2 * math.sqrt(max(rows, columns))", "0.2 * math.sqrt(min(rows, columns))"),
        (
            "p *= 1 - learning_rate * weight_decay",
            "p *= 1 - learning_rate * weight_decay * SCALES[adjust_lr](*p.shape)",
        ),
    ],
    "muon, original": [("math.sqrt(max(1, rows / columns))", "math.sqrt(max(1, columns / rows))")],
    "adafactor": [
        ("rest = step**-beta2_decay", "rest = (step + 1) ** -beta2_decay"),
        ("v = r * c / xp.maximum(r.mean(-2, keepdims=True), eps1)", "v = r * c"),
        ("alpha = xp.maximum(root_mean_square(p), eps2) * min", "alpha = min"),
        ("min(learning_rate, 1 / math.sqrt(step))", "min(learning_rate, 1 / step)"),
        ("xp.maximum(root_mean_square(u) / clip, 1.0)", "1.0"),
    ],
    "adafactor, decay 0.5": [
        ("xp.maximum(v, eps1 * eps1)", "xp.maximum(v, eps1)"),
        ("xp.maximum(root_mean_square(p), eps2)", "root_mean_square(p)"),
    ],
}


def mistaken(name, right, wrong):
    """The classes of our optimizer's file with one mistake in it."""
    module = sys.modules[getattr(optimizers, PAIRS[name][0]).__module__]
    source = inspect.getsource(module)
    assert source.count(right) == 1, f"{module.__name__} says {right!r} {source.count(right)} times"
    copy = types.ModuleType(module.__name__)
    exec(compile(source.replace(right, wrong), module.__file__, "exec"), vars(copy))
    return copy


@pytest.mark.parametrize(
    ("name", "right", "wrong"), [(name, *mistake) for name, mistakes in MISTAKES.items() for mistake in mistakes]
)
def test_a_mistake_in_a_rule_is_noticed(name, right, wrong, monkeypatch):
    keep_dtype(monkeypatch)
    broken = follow_ours(name, "float64", mistaken(name, right, wrong))
    assert max(errors(broken, follow_theirs(name, "float64")).values()) > 100 * BARS["float64"]

"""The flat store and the optimizers over it: one step equals the formula, in every mode."""

import math
from functools import partial

import numpy as np
import pytest

import autograd as ag
from tinyllm.models import Decoder, gpt2
from tinyllm.training.optimizers import PIECE, SGD, Adafactor, AdamW, Lion
from tinyllm.training.parameter_store import ALIGNMENT, ParameterStore
from tinyllm.training.schedules import warmup_cosine

CONFIG = gpt2.config(
    vocab_size=13, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=6
)


def tensors(dtype="float64", seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"matrix": (3, 5), "bias": (7,), "table": (9, 4)}
    return {name: ag.Tensor(rng.normal(size=shape).astype(dtype), requires_grad=True) for name, shape in shapes.items()}


def loss_of(parameters, target=2.0):
    total = 0
    for p in parameters.values():
        total = total + ((p - target) ** 2).sum()
    return total


def test_parameters_lie_by_group_in_model_order_and_aligned():
    store = ParameterStore(tensors())
    assert list(store.places) == ["matrix", "table", "bias"]
    assert [place.group for place in store.places.values()] == ["decay", "decay", "no_decay"]
    assert all(place.start % ALIGNMENT == 0 for place in store.places.values())
    assert store.groups == {"decay": slice(0, 128), "no_decay": slice(128, 192)}
    assert store.size == len(store.values) == len(store.gradients) == 192


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_every_parameter_and_state_begins_at_a_cache_line(dtype):
    for _ in range(20):  # memory that happens to lie well would not do so each time
        store = ParameterStore(tensors(dtype))
        arrays = [store.values, store.gradients, *AdamW(store).arrays.values()]
        arrays += [array for p in store.parameters.values() for array in (p.data, p.buffer)]
        assert [array.ctypes.data % 64 for array in arrays] == [0] * len(arrays)
        assert {array.dtype for array in arrays} == {np.dtype(dtype)}
        assert len(store.values) == store.size


def test_parameters_keep_their_values_and_become_views():
    before, parameters = tensors(), tensors()
    store = ParameterStore(parameters)
    for name, p in parameters.items():
        np.testing.assert_array_equal(p.data, before[name].data)
        assert np.shares_memory(p.data, store.values)
    store.values += 1
    np.testing.assert_array_equal(parameters["bias"].data, before["bias"].data + 1)


def test_backward_writes_into_the_store_and_padding_stays_zero():
    parameters = tensors()
    store = ParameterStore(parameters)
    store.gradients[...] = np.nan
    store.gradients[np.concatenate([np.arange(p.stop, -(-p.stop // 64) * 64) for p in store.places.values()])] = 0
    loss_of(parameters).backward()
    store.collect()
    for name, p in parameters.items():
        assert np.shares_memory(p.grad, store.gradients)
        np.testing.assert_allclose(p.grad, 2 * (p.data - 2), err_msg=name)
    optimizer = AdamW(store, lr=0.1)
    optimizer.step()
    used = np.zeros(store.size, bool)
    for place in store.places.values():
        used[place.start : place.stop] = True
    assert (store.values[~used] == 0).all()


def test_a_parameter_without_a_gradient_has_gradient_zero_not_the_last_one():
    parameters = tensors()
    store = ParameterStore(parameters)
    loss_of(parameters).backward()
    store.collect()
    store.zero()
    (parameters["bias"] * 3.0).sum().backward()
    assert store.norm() == pytest.approx(math.sqrt(7 * 9))
    assert (parameters["matrix"].grad == 0).all()


def test_the_norm_and_clipping():
    parameters = tensors()
    store = ParameterStore(parameters)
    loss_of(parameters).backward()
    every = np.concatenate([2 * (p.data - 2).ravel() for p in parameters.values()])
    norm = np.linalg.norm(every)
    assert store.clip(1e9) == pytest.approx(norm, rel=1e-14)
    np.testing.assert_allclose(parameters["table"].grad, 2 * (parameters["table"].data - 2))
    assert store.clip(1.5) == pytest.approx(norm, rel=1e-14)
    assert store.norm() == pytest.approx(1.5 * norm / (norm + 1e-6), rel=1e-12)


def test_a_rebound_parameter_is_noticed():
    parameters = tensors()
    store = ParameterStore(parameters)
    loss_of(parameters).backward()
    parameters["bias"].data = np.zeros(7)
    with pytest.raises(RuntimeError, match=r"bias\.data was rebound .* fill it in place instead"):
        AdamW(store).step()


def test_what_cannot_be_laid_out_is_refused():
    with pytest.raises(ValueError, match="nothing to train"):
        ParameterStore({"frozen": ag.Tensor(np.zeros(3))})
    with pytest.raises(ValueError, match="share one dtype, not float32, float64"):
        ParameterStore({"a": tensors()["bias"], "b": tensors("float32")["bias"]})
    with pytest.raises(ValueError, match="no group takes bias; add one"):
        ParameterStore({"bias": tensors()["bias"]}, groups={"matrices": lambda name, p: p.ndim == 2})


def test_frozen_parameters_stay_outside():
    parameters = tensors()
    parameters["table"].requires_grad = False
    store = ParameterStore(parameters)
    assert list(store.places) == ["matrix", "bias"]
    assert parameters["table"].buffer is None


def test_a_model_in_a_store_cannot_be_moved():
    model = Decoder(CONFIG)
    ParameterStore(model)
    with pytest.raises(ValueError, match="lies in a ParameterStore already; move the model first"):
        model.to("cpu")


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_adamw_steps_equal_the_formula(decay, clip, dtype):
    parameters = tensors(dtype)
    expected = {name: p.data.astype("float64") for name, p in parameters.items()}
    store = ParameterStore(parameters)
    optimizer = AdamW(store, lr=0.05, betas=(0.8, 0.95), eps=1e-7, weight_decay=decay)
    m = dict.fromkeys(expected, 0)
    v = dict.fromkeys(expected, 0)
    for step in (1, 2, 3):
        optimizer.learning_rate = 0.05 / step
        loss_of(parameters).backward()
        gradients = {name: 2 * (p - 2) for name, p in expected.items()}
        if clip:
            store.clip(clip)
            norm = math.sqrt(sum((g**2).sum() for g in gradients.values()))
            gradients = {name: g * min(1, clip / (norm + 1e-6)) for name, g in gradients.items()}
        optimizer.step()
        for name, g in gradients.items():
            m[name] = 0.8 * m[name] + 0.2 * g
            v[name] = 0.95 * v[name] + 0.05 * g * g
            shrink = 1 - 0.05 / step * (decay if expected[name].ndim == 2 else 0)
            update = (m[name] / (1 - 0.8**step)) / (np.sqrt(v[name] / (1 - 0.95**step)) + 1e-7)
            expected[name] = expected[name] * shrink - 0.05 / step * update
    for name, p in parameters.items():
        np.testing.assert_allclose(p.data, expected[name], rtol=1e-12 if dtype == "float64" else 1e-5, err_msg=name)
        assert p.grad is None


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_steps_equal_the_formula(decay, momentum):
    parameters = tensors()
    expected = {name: p.data.copy() for name, p in parameters.items()}
    optimizer = SGD(ParameterStore(parameters), lr=0.05, momentum=momentum, weight_decay=decay)
    velocity = dict.fromkeys(expected, 0)
    for _ in range(3):
        loss_of(parameters).backward()
        optimizer.step()
        for name, p in expected.items():
            g = 2 * (p - 2) + (decay if p.ndim == 2 else 0) * p
            velocity[name] = momentum * velocity[name] + g
            expected[name] = p - 0.05 * velocity[name]
    for name, p in parameters.items():
        np.testing.assert_allclose(p.data, expected[name], rtol=1e-12, err_msg=name)


def paper_nesterov(p, g, state, step, decay):
    d = g + decay * p
    state["u"] = 0.9 * state.get("u", 0) + d
    return p - 0.05 * (d + 0.9 * state["u"])


def paper_lion(p, g, state, step, decay):
    m = state.get("m", 0)
    state["m"] = 0.99 * m + 0.01 * g
    return p - 0.05 * (np.sign(0.9 * m + 0.1 * g) + decay * p)


def paper_adafactor(p, g, state, step, decay):
    beta = 1 - step**-0.8
    if p.ndim == 2:
        state["r"] = beta * state.get("r", 0) + (1 - beta) * (g * g).mean(1)
        state["c"] = beta * state.get("c", 0) + (1 - beta) * (g * g).mean(0)
        v = np.outer(state["r"], state["c"]) / state["r"].mean()
    else:
        v = state["v"] = beta * state.get("v", 0) + (1 - beta) * g * g
    u = g / np.sqrt(v)
    share = max(1e-3, np.sqrt((p * p).mean())) * min(0.05, step**-0.5)
    return p * (1 - 0.05 * decay) - share * u / max(1, np.sqrt((u * u).mean()))


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize(
    ("make", "paper"),
    [(partial(SGD, nesterov=True), paper_nesterov), (Lion, paper_lion), (Adafactor, paper_adafactor)],
)
def test_other_steps_equal_their_formulas_on_every_parameter(make, paper, decay):
    parameters = tensors()
    expected = {name: p.data.copy() for name, p in parameters.items()}
    states = {name: {} for name in parameters}
    optimizer = make(ParameterStore(parameters), lr=0.05, weight_decay=decay)
    for step in (1, 2, 3):
        loss_of(parameters).backward()
        optimizer.step()
        for name, p in expected.items():
            expected[name] = paper(p, 2 * (p - 2), states[name], step, decay if p.ndim == 2 else 0.0)
    for name, p in parameters.items():
        np.testing.assert_allclose(p.data, expected[name], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("make", [AdamW, SGD, Lion])
def test_a_store_longer_than_a_piece_is_updated_to_its_end(make):
    long = {"long": ag.Tensor(np.full(PIECE + 70, 5.0), requires_grad=True)}
    optimizer = make(ParameterStore(long), lr=0.1)
    loss_of(long).backward()
    optimizer.step()
    assert len(set(long["long"].data)) == 1
    assert long["long"].data[0] < 5


@pytest.mark.parametrize("make", [AdamW, SGD])
def test_a_saved_optimizer_takes_the_same_next_step(make):
    one, two = tensors(), tensors()
    first = make(ParameterStore(one))
    second = make(ParameterStore(two))
    loss_of(one).backward()
    first.step()
    arrays, numbers = first.state()
    second.load_state({name: array.copy() for name, array in arrays.items()}, numbers)
    for name, p in two.items():
        p.data[...] = one[name].data
    for parameters, optimizer in ((one, first), (two, second)):
        loss_of(parameters).backward()
        optimizer.step()
    assert all((p.data == two[name].data).all() for name, p in one.items())


def test_an_update_moves_the_weights_of_a_whole_model():
    model = Decoder(CONFIG)
    before = {name: p.data.copy() for name, p in model.parameters().items()}
    store = ParameterStore(model)
    ids = np.random.default_rng(0).integers(0, 13, (4, 7))
    model.loss(ids[:, :-1], ids[:, 1:]).backward()
    AdamW(store, lr=0.01, weight_decay=0).step()
    for name, p in model.parameters().items():
        if not name.endswith("key.bias"):
            # The first Adam step moves every weight that has a gradient by the learning rate.
            moved = abs(p.data - before[name]).max()
            assert moved == pytest.approx(0.01, rel=1e-2), name


def test_the_schedule_rises_falls_and_stays():
    options = {"peak": 1.0, "floor": 0.1, "warmup_steps": 4, "steps": 10}
    rates = [warmup_cosine(step, **options) for step in range(13)]
    np.testing.assert_allclose(rates[:5], [0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[7] == pytest.approx(0.55)
    assert (np.diff(rates[4:11]) < 0).all()
    assert rates[10:] == [0.1, 0.1, 0.1]
    assert warmup_cosine(0, peak=1.0, floor=0.0, warmup_steps=0, steps=1) == 1.0

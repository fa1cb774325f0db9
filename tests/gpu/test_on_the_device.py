"""Every op, every family of models, a training step and generation on device arrays, equal to NumPy.

Each test runs on CuPy where there is a GPU (`make test-gpu`), and everywhere on a strict stand-in that raises as soon
as a host and a device array meet.
"""

import numpy as np
import pytest
import strict_device
from primitive_cases import CASES

import autograd as ag
from autograd import arrays
from autograd.engine import PRIMITIVES
from tinyllm.evaluation.loss import held_out_loss
from tinyllm.formats.arrays import read_arrays, write_arrays
from tinyllm.generation import generate
from tinyllm.models import Decoder, gpt2, llama, textbook
from tinyllm.training.optimizers import SGD, AdamW
from tinyllm.training.parameter_store import ParameterStore

DEVICES = ["stand-in", pytest.param("cuda", marks=pytest.mark.gpu)]
on_each_device = pytest.mark.parametrize("device", DEVICES)
TINY = {
    "vocab_size": 19,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 8,
}
MODELS = {
    "gpt2": gpt2.config(**TINY, dropout=0.1),
    "llama": llama.config(**TINY, num_key_value_heads=2),
    "textbook": textbook.config(**TINY),
    "alibi": gpt2.config(**TINY, position="alibi", feed_forward="relu2"),
    "normed queries": llama.config(**TINY, query_key_norm=True, sliding_window=3, rope_layout="interleaved"),
    "exact gelu": gpt2.config(**TINY, feed_forward="gelu"),
}
every_model = pytest.mark.parametrize("config", MODELS.values(), ids=MODELS)


def to(device, x):
    """A NumPy array on the device; everything else as it is."""
    if not isinstance(x, np.ndarray):
        return x
    return strict_device.asarray(x) if device == "stand-in" else arrays.to_device(x, device)


def back(x):
    return x.get()


def move(model, device):
    for p in model.parameters().values():
        p.data = to(device, p.data)
    return model


def as_tensor(x, wanted):
    return ag.Tensor(x, requires_grad=wanted) if hasattr(x, "dtype") else x


@on_each_device
@pytest.mark.parametrize("name", sorted(CASES))
def test_every_op_forward_and_backward(name, device):
    for case in CASES[name]:
        options = case.options | ({"dtype": np.float64} if name == "cast" else {})
        options |= {"seed": 3} if name == "dropout" else {}
        results = []
        for put in (lambda x: x, lambda x: to(device, x)):
            wanted = case.floats()
            inputs = [put(x) for x in case.inputs]
            tensors = [
                ag.Tensor(x, requires_grad=i in wanted) if hasattr(x, "dtype") else x for i, x in enumerate(inputs)
            ]
            y = PRIMITIVES[name](*tensors, **{key: put(value) for key, value in options.items()})
            y.backward(put(np.linspace(-1, 2, y.size).reshape(y.shape)))
            results.append([y.numpy(), *(t.grad for t in tensors if isinstance(t, ag.Tensor) and t.requires_grad)])
        host, moved = results
        for a, b in zip(host, moved, strict=True):
            b = b if isinstance(b, np.ndarray) else back(b)
            np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-11, err_msg=case.label)


@on_each_device
@every_model
@pytest.mark.parametrize("make", [AdamW, SGD])
def test_three_training_steps(config, make, device):
    ids = np.random.default_rng(0).integers(0, 19, (3, 4, 9))
    ids[:, 0, 5:] = 3
    ended = []
    for put in (None, device):
        model = Decoder(config, dtype="float64")
        if put:
            move(model, put)
        store = ParameterStore(model)
        optimizer, losses = make(store, lr=1e-2), []
        for batch in ids:
            inputs, targets = batch[:, :-1].copy(), batch[:, 1:].copy()
            targets[0, 4:] = -100
            if put:
                inputs, targets = to(put, inputs), to(put, targets)
            loss = model.loss(inputs, targets, dropout_seed=np.arange(4, dtype=np.uint64))
            loss.backward()
            store.clip(1.0)
            optimizer.step()
            losses.append(loss.item())
        ended.append((losses, {name: p.data for name, p in model.parameters().items()}))
    (losses, weights), (device_losses, device_weights) = ended
    assert device_losses == pytest.approx(losses, rel=1e-9)
    for name, value in weights.items():
        if not name.endswith("key.bias"):  # gradient zero by symmetry: Adam divides noise by noise
            np.testing.assert_allclose(back(device_weights[name]), value, rtol=1e-6, atol=1e-9, err_msg=name)


@on_each_device
@pytest.mark.parametrize("make", [AdamW, SGD])
def test_a_checkpoint_goes_to_disk_and_back(make, device, tmp_path):
    ids = np.random.default_rng(0).integers(0, 19, (4, 9))

    def step(model, optimizer):
        model.loss(to(device, ids[:, :-1].copy()), to(device, ids[:, 1:].copy())).backward()
        optimizer.step()

    first = move(Decoder(MODELS["llama"]), device)
    optimizer = make(ParameterStore(first))
    step(first, optimizer)
    arrays_, numbers = optimizer.state()
    write_arrays(tmp_path / "weights", {name: p.data for name, p in first.parameters().items()})
    write_arrays(tmp_path / "optimizer", arrays_)
    second = move(Decoder(MODELS["llama"], seed=1), device)
    again = make(ParameterStore(second))
    second.load_weights(read_arrays(tmp_path / "weights"))
    again.load_state(read_arrays(tmp_path / "optimizer"), numbers)
    step(first, optimizer)
    step(second, again)
    for name, p in first.parameters().items():
        np.testing.assert_array_equal(back(p.data), back(second.parameters()[name].data), err_msg=name)


@on_each_device
@every_model
def test_generation_and_evaluation(config, device):
    host, moved = Decoder(config, dtype="float64"), move(Decoder(config, dtype="float64"), device)
    options = {"max_new_tokens": 6, "temperature": 0.7, "top_k": 9, "seed": 2}
    for prompts in ([[1, 2, 3], [4], list(range(12))], [[1, 2, 3], [4], [5, 6]]):  # past the context; with a cache
        free = generate(host, prompts, **options)
        assert generate(moved, prompts, **options) == free
        stop = free[1][2]
        assert generate(moved, prompts, stop=stop, **options) == generate(host, prompts, stop=stop, **options)
    tokens = np.random.default_rng(1).integers(0, 19, 50)
    assert held_out_loss(moved, tokens) == pytest.approx(held_out_loss(host, tokens), rel=1e-9)


@on_each_device
def test_segments_and_positions_on_the_device(device):
    config = MODELS["llama"]
    host, moved = Decoder(config, dtype="float64"), move(Decoder(config, dtype="float64"), device)
    ids = np.array([[1, 2, 3, 4, 5, 6]])
    options = {"segments": np.array([[-1, 0, 0, 1, 1, 1]]), "positions": np.array([[0, 0, 1, 0, 1, 2]])}
    there = moved(to(device, ids), **{name: to(device, value) for name, value in options.items()})
    np.testing.assert_allclose(there.numpy(), host(ids, **options).numpy(), rtol=1e-9, atol=1e-12)

"""Every optimizer over arrays on a device: it never mixes them with the host's, and comes to the same numbers."""

import numpy as np
import pytest
import strict_device

import autograd as ag
from tinyllm.training import optimizers
from tinyllm.training.parameter_store import DEFAULT_GROUPS, HIDDEN_GROUPS, ParameterStore

SHAPES = {"embedding.weight": (9, 4), "blocks.0.weight": (5, 3), "blocks.0.bias": (7,)}
DTYPES = ("float32", "float64")


def steps_of(make, array, dtype):
    """(parameters, state) after three steps, with arrays made by `array`."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(dtype) for name, shape in SHAPES.items()}
    tensors = {name: ag.Tensor(array(values), requires_grad=True) for name, values in arrays.items()}
    store = ParameterStore(tensors, HIDDEN_GROUPS if make is optimizers.Muon else DEFAULT_GROUPS)
    optimizer = make(store, lr=0.01, weight_decay=0.1)
    for _ in range(3):
        for p in tensors.values():
            p.grad = array(rng.normal(size=p.shape).astype(dtype))
        store.clip(1.0)
        optimizer.step()
    return store.weights(), optimizer.state()[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["AdamW", "SGD", "Lion", "Muon", "Adafactor"])
def test_an_optimizer_stays_on_the_device(name, dtype):
    make = getattr(optimizers, name)
    for on_device, on_host in zip(
        steps_of(make, strict_device.asarray, dtype), steps_of(make, np.asarray, dtype), strict=True
    ):
        for key, expected in on_host.items():
            assert isinstance(on_device[key], strict_device.Array)
            assert on_device[key].get().dtype == expected.dtype == dtype
            np.testing.assert_allclose(on_device[key].get(), expected, rtol=1e-6, err_msg=key)

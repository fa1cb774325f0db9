"""Every op on arrays of another module, which refuses to mix with NumPy's: what CuPy would meet, without a GPU."""

import numpy as np
import pytest
import strict_device
from primitive_cases import CASES
from test_primitives import every_case

import autograd as ag
from autograd import arrays
from autograd.engine import PRIMITIVES


def to_device(x):
    """Arrays move to the device, everything else stays."""
    return strict_device.asarray(x) if isinstance(x, np.ndarray) else x


def forward_and_backward(name, inputs, options):
    """Result and gradients, on whatever device the inputs are."""
    tensors = [
        ag.Tensor(x, requires_grad=i in options["wanted"]) if hasattr(x, "dtype") else x for i, x in enumerate(inputs)
    ]
    y = PRIMITIVES[name](*tensors, **options["options"])
    dy = np.linspace(-1, 2, y.size).reshape(y.shape)
    y.backward(arrays.xp_of(y.data).asarray(dy))
    return y.data, [x.grad for x in tensors if isinstance(x, ag.Tensor)]


@every_case
def test_every_primitive_stays_on_the_device(name, case):
    options = case.options | ({"dtype": np.float64} if name == "cast" else {})
    options |= {"seed": 3} if name == "dropout" else {}
    wanted = case.floats()
    y, gradients = forward_and_backward(name, case.inputs, {"options": options, "wanted": wanted})
    on_device = {key: to_device(value) for key, value in options.items()}
    inputs = [to_device(x) for x in case.inputs]
    device_y, device_gradients = forward_and_backward(name, inputs, {"options": on_device, "wanted": wanted})
    assert isinstance(device_y, strict_device.Array)
    np.testing.assert_allclose(device_y.get(), y, rtol=1e-12, atol=1e-12)
    for device_dx, dx in zip(device_gradients, gradients, strict=True):
        if dx is None:
            assert device_dx is None
        else:
            assert isinstance(device_dx, strict_device.Array)
            np.testing.assert_allclose(device_dx.get(), dx, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("name", sorted(CASES))
def test_narrow_dtypes_stay_on_the_device(name, dtype):
    case = CASES[name][0]
    options = case.options | ({"dtype": np.float32} if name == "cast" else {})
    options |= {"seed": np.array([3])} if name == "dropout" else {}
    inputs = [to_device(x) for x in case.cast(dtype)]
    on_device = {key: to_device(value) for key, value in options.items()}
    y, _ = forward_and_backward(name, inputs, {"options": on_device, "wanted": case.floats()})
    assert isinstance(y, strict_device.Array)


def test_a_model_of_many_ops_stays_on_the_device():
    rng = np.random.default_rng(0)
    table = ag.Tensor(strict_device.asarray(rng.standard_normal((7, 4))), requires_grad=True)
    table.buffer = strict_device.asarray(np.zeros((7, 4)))
    ids = strict_device.asarray(np.array([[1, 5, 1], [0, 6, 6]]))

    def block(x):
        return x + 2 * ag.gelu(x) / 3 - ag.dropout(x, rate=0.2, seed=5)

    x = ag.recompute(block, ag.embedding(table, ids))
    logits = ag.linear(ag.rms_norm(x, strict_device.asarray(np.ones(4))), table)
    arrived = []
    ag.cross_entropy(logits, ids).backward(on_leaf=arrived.append)
    assert arrived == [table]
    assert table.grad is table.buffer
    assert isinstance(table.grad, strict_device.Array)
    assert isinstance(x.numpy(), np.ndarray)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_erf_and_scatter_add_stay_on_the_device(dtype):
    x = np.linspace(-8, 8, 101).astype(dtype)
    np.testing.assert_array_equal(arrays.erf(strict_device.asarray(x)).get(), arrays.erf(x))
    target = strict_device.asarray(np.zeros((3, 2), dtype))
    arrays.scatter_add(
        target, strict_device.asarray(np.array([2, 0, 2])), strict_device.asarray(np.ones((3, 2), dtype))
    )
    np.testing.assert_array_equal(target.get(), [[1, 1], [0, 0], [2, 2]])


def test_the_stand_in_refuses_to_mix():
    device, host = strict_device.asarray(np.ones(3)), np.ones(3)
    for mix in (
        lambda: device + host,
        lambda: host + device,
        lambda: device.__iadd__(host),
        lambda: np.exp(device),
        lambda: np.concatenate([host, device]),
        lambda: np.asarray(device),
        lambda: strict_device.where(device > 0, device, host),
        lambda: strict_device.concatenate([device, host]),
        lambda: device[np.array([0])],
        lambda: device.__setitem__(0, host[:1]),
        lambda: ag.Tensor(device) + host,
        lambda: ag.Tensor(host) * device,
    ):
        with pytest.raises(TypeError):
            mix()

"""Run by `make test-minimal` where NumPy is the only package: the engine imports, and a gradient is right."""

import importlib.util
import sys
from importlib.metadata import distributions

import numpy as np

import autograd as ag

installed = {distribution.name.lower() for distribution in distributions()} - {"pip", "setuptools"}
assert installed == {"numpy"}, f"the proof needs an environment with NumPy alone, not {sorted(installed)}"
assert not importlib.util.find_spec("tinyllm"), "tinyllm can be imported here, so this proves nothing"

x = ag.Tensor(np.array([[0.5, -1.0, 2.0]]), requires_grad=True)
weight = ag.Tensor(np.array([[1.0, 2.0, -1.0], [0.0, 1.0, 3.0]]), requires_grad=True)
loss = ag.cross_entropy(ag.linear(x, weight), np.array([1]))
loss.backward()

logits = x.data @ weight.data.T
p = np.exp(logits) / np.exp(logits).sum()
np.testing.assert_allclose(x.grad, (p - [[0.0, 1.0]]) @ weight.data, rtol=1e-12)
np.testing.assert_allclose(weight.grad, (p - [[0.0, 1.0]]).T @ x.data, rtol=1e-12)
assert "numba" not in sys.modules
print(f"autograd works with numpy {np.__version__} alone")

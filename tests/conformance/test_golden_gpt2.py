"""A GPT-2 computed elsewhere (nanoGPT's model and PyTorch): logits, loss, every gradient, forty steps, sixty ids.

The error of a parameter's gradient is max|a - b| / max(max|b|, 1e-6 of the model's largest gradient). A key bias has
gradient zero by symmetry (softmax ignores a number added to all scores of a query): it is asserted small and left out
of comparisons after optimizer steps, where Adam divides noise by noise.
"""

import numpy as np
import pytest

from tinyllm.generation import generate
from tinyllm.models import Decoder, gpt2
from tinyllm.training.optimizers import SGD, AdamW
from tinyllm.training.parameter_store import ParameterStore

pytestmark = pytest.mark.reference
CONFIG = gpt2.config(
    vocab_size=65, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32
)


@pytest.fixture(scope="module")
def golden(reference):
    with np.load(reference / "golden" / "gpt2_tanh.npz", allow_pickle=False) as file:
        return dict(file)


def under(golden, prefix):
    """The arrays stored as `prefix/name`, under our names."""
    published = {name.split("/", 1)[1]: array for name, array in golden.items() if name.startswith(prefix + "/")}
    return gpt2.NANOGPT.to_ours(published, CONFIG)


def make(golden, dtype):
    model = Decoder(CONFIG, dtype=dtype)
    model.load_weights(under(golden, "param"))
    return model


def errors(ours, theirs):
    """dict name -> error, without key biases."""
    largest = max(abs(array).max() for array in theirs.values())
    return {
        name: abs(ours[name] - array).max() / max(abs(array).max(), 1e-6 * largest)
        for name, array in theirs.items()
        if not name.endswith("key.bias")
    }


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
def test_logits_loss_and_every_gradient(golden, dtype, tolerance):
    # Both precisions are held against the float64 values: PyTorch's own float32 gradients are up to 1.7e-5 off them.
    model = make(golden, dtype)
    inputs, targets = golden["x"][0], golden["y"][0]
    logits = model(inputs).numpy()
    assert abs(logits - golden["logits_f64"]).max() <= tolerance
    loss = model.loss(inputs, targets)
    assert abs(loss.item() - golden["loss_f64"]) <= tolerance
    assert golden["loss_f64"] == pytest.approx(4.193759224614, abs=1e-12)
    loss.backward()
    gradients = {name: p.grad for name, p in model.parameters().items()}
    theirs = under(golden, "grad_f64")
    assert set(theirs) == set(gradients)
    for name, error in errors(gradients, theirs).items():
        assert error <= tolerance, name
    largest = max(abs(array).max() for array in theirs.values())
    for name, gradient in gradients.items():
        if name.endswith("key.bias"):
            assert abs(gradient).max() < {"float64": 1e-9, "float32": 1e-6}[dtype] * largest


# Adam divides each gradient by its own size, so float32 rounding of a tiny gradient (the queries') becomes a step of
# full length: PyTorch's own float32 run ends 6.9e-4 off its float64 run there.
@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance", "parameter_tolerance"),
    [
        ("adamw", "float64", 1e-10, 1e-10),
        ("sgd", "float64", 1e-10, 1e-10),
        ("adamw", "float32", 1e-5, 6.9e-4),
        ("sgd", "float32", 1e-5, 1e-5),
    ],
)
def test_twenty_steps(golden, kind, dtype, tolerance, parameter_tolerance):
    model = make(golden, dtype)
    store = ParameterStore(model, groups={"decay": lambda name, tensor: True})
    if kind == "adamw":
        optimizer = AdamW(store, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)
    else:
        optimizer = SGD(store, lr=0.1, momentum=0.9)
    for step in range(20):
        loss = model.loss(golden["x"][step], golden["y"][step])
        loss.backward()
        norm = store.clip(1.0)
        assert loss.item() == pytest.approx(golden[f"{kind}20_loss_f64"][step], rel=tolerance), step
        assert norm == pytest.approx(golden[f"{kind}20_gradnorm_f64"][step], rel=tolerance), step
        optimizer.step()
    ours = {name: p.data for name, p in model.parameters().items()}
    for name, error in errors(ours, under(golden, f"{kind}20_param")).items():
        assert error <= parameter_tolerance, name


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_sixty_greedy_ids_past_the_context(golden, dtype):
    ids = golden["greedy60_f64" if dtype == "float64" else "greedy60_f32"].tolist()
    assert generate(make(golden, dtype), ids[:1], max_new_tokens=60, temperature=0) == ids[1:]

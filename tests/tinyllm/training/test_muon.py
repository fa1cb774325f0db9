"""Muon's orthogonalization measured by singular values, and which parameters it takes."""

import numpy as np
import pytest

import autograd as ag
from tinyllm.models import Decoder, gpt2, llama
from tinyllm.training.config import CHOICES
from tinyllm.training.optimizers import Muon, orthogonalized
from tinyllm.training.optimizers.muon import SCALES
from tinyllm.training.parameter_store import HIDDEN_GROUPS, ParameterStore

SHAPE = {
    "vocab_size": 13, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 6,
}  # fmt: skip


def with_singular_values(values, rows, columns):
    """U S Vᵀ with random orthogonal U and V."""
    rng = np.random.default_rng(len(values))
    u, v = (np.linalg.qr(rng.normal(size=(n, len(values))))[0] for n in (rows, columns))
    return (u * values) @ v.T


def normal(rows, columns):
    return np.random.default_rng(rows).normal(size=(rows, columns))


MATRICES = {
    "random": normal(64, 64),
    "random, large": normal(300, 300),
    "tall": normal(256, 64),
    "wide": normal(64, 256),
    "one row": normal(1, 50),
    "orthogonal": with_singular_values(np.ones(64), 64, 64),
    "rank 1": with_singular_values(np.ones(1), 64, 64),
    "rank 4": with_singular_values(np.ones(4), 64, 32),
    "condition 100": with_singular_values(np.logspace(0, -2, 64), 64, 64),
    "condition 1e6": with_singular_values(np.logspace(3, -3, 64), 96, 64),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MATRICES)
def test_singular_values_come_out_near_one(name, dtype):
    """Those above 1/500 of the norm between 0.68 and 1.21; a smaller one neither above nor beyond 485 times itself."""
    matrix = MATRICES[name]
    u, before, v = np.linalg.svd(matrix, full_matrices=False)
    result = orthogonalized(matrix.astype(dtype))
    assert result.dtype == dtype
    after = u.T @ result.astype("float64") @ v.T  # diagonal: the singular vectors stay
    np.testing.assert_allclose(after, np.diag(np.diag(after)), atol=1e-12 if dtype == "float64" else 2e-4)
    after, share = np.diag(after), before / np.linalg.norm(matrix)
    rounding = 1e-12 if dtype == "float64" else 2e-4
    assert after.max() < 1.21
    assert after[share > 1 / 500].min() > 0.68
    assert (after <= 3.4445**5 * share + rounding).all()
    assert (after >= -rounding).all()


def test_four_steps_are_not_enough():
    """The bounds of the test above fail with one step fewer."""
    matrix = MATRICES["condition 100"]
    after = np.linalg.svd(orthogonalized(matrix, steps=4), compute_uv=False)
    assert after.min() < 0.68


def test_the_size_of_the_gradient_and_its_transpose_do_not_matter():
    matrix = MATRICES["tall"]
    np.testing.assert_allclose(orthogonalized(1e-3 * matrix), orthogonalized(matrix), atol=1e-12)
    np.testing.assert_allclose(orthogonalized(matrix.T), orthogonalized(matrix).T, atol=1e-12)
    assert not orthogonalized(np.zeros((3, 5))).any()


@pytest.mark.parametrize(("family", "tied"), [(gpt2, False), (gpt2, True), (llama, True)])
def test_hidden_matrices_are_those_in_blocks(family, tied):
    model = Decoder(family.config(**SHAPE, tie_word_embeddings=tied))
    store = ParameterStore(model, HIDDEN_GROUPS)
    hidden = {name for name, place in store.places.items() if place.group == "hidden"}
    assert hidden == {name for name, p in model.parameters().items() if name.startswith("blocks.") and p.ndim == 2}
    assert "embedding.weight" not in hidden
    assert len(hidden) == 2 * (6 if family is gpt2 else 7)


@pytest.mark.parametrize(("adjust_lr", "size"), [("match_rms_adamw", 0.2), ("original", 1 / 8)])
def test_a_step_moves_matrices_as_scaled_and_the_rest_as_adam_does(adjust_lr, size):
    rng = np.random.default_rng(0)
    shapes = {"embedding.weight": (20, 64), "blocks.0.weight": (64, 64), "bias": (7,)}
    tensors = {name: ag.Tensor(np.zeros(shape), requires_grad=True) for name, shape in shapes.items()}
    optimizer = Muon(ParameterStore(tensors, HIDDEN_GROUPS), lr=0.01, adjust_lr=adjust_lr)
    for p in tensors.values():
        p.grad = rng.normal(size=p.shape)
    optimizer.step()
    moved = {name: np.sqrt((p.data**2).mean()) for name, p in tensors.items()}
    assert moved["blocks.0.weight"] == pytest.approx(0.01 * size, rel=0.15)  # singular values are near 1, not 1
    assert moved["embedding.weight"] == pytest.approx(0.01, rel=1e-6)
    assert moved["bias"] == pytest.approx(0.01, rel=1e-6)


def test_what_cannot_be_orthogonalized_is_refused():
    tensors = {"blocks.0.weight": ag.Tensor(np.ones((2, 3)), requires_grad=True)}
    with pytest.raises(ValueError, match=r"no group hidden; make it as ParameterStore\(model, HIDDEN_GROUPS\)"):
        Muon(ParameterStore(tensors))
    tensors["blocks.0.bias"] = ag.Tensor(np.ones(3), requires_grad=True)
    store = ParameterStore(tensors, {"hidden": lambda name, p: True})
    with pytest.raises(ValueError, match=r"only matrices can be orthogonalized, not blocks\.0\.bias"):
        Muon(store)
    with pytest.raises(ValueError, match="adjust_lr is match_rms_adamw or original, not 'adamw'"):
        Muon(ParameterStore({"blocks.0.weight": tensors["blocks.0.weight"]}, HIDDEN_GROUPS), adjust_lr="adamw")


def test_the_config_knows_the_scales_that_there_are():
    assert CHOICES["adjust_lr"] == tuple(SCALES)

"""The limit that `make bench` reports: its products have the flops that the formulas promise."""

import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

import limits
from bench_cases import Attention, Training

TOY = Training(11, 8, 2, 2, 12, 3, biases=True, feed_forward="gelu", turn=1, rounds=2)


def test_products_of_a_step_are_6_p_d_and_the_attention():
    """P: the numbers in matrices that take part in a product; D: tokens. Attention: 12 B H T² (C / H) a layer."""
    tokens, C = TOY.batch * TOY.context, TOY.width
    matrices = TOY.layers * (4 * C * C + 8 * C * C) + TOY.vocab_size * C
    attention = TOY.layers * 12 * TOY.batch * TOY.context**2 * C
    assert sum(p.flops for p in limits.training_products(TOY)) == 6 * matrices * tokens + attention


def test_matrices_of_the_formula_are_those_of_the_model():
    from tinyllm.models import Decoder

    matrices = {n: p.size for n, p in Decoder(TOY.config()).parameters().items() if p.ndim == 2}
    del matrices["position.weight"]  # added, not multiplied
    forward = [p for p in limits.training_products(TOY) if p.batch == 1 and p.rows == TOY.batch * TOY.context]
    # Of each linear layer two products have a row for every token: y = x Wᵀ and dx = dy W.
    assert sum(p.inner * p.columns for p in forward) == 2 * sum(matrices.values())


def test_attention_alone():
    case = Attention(context=16, batch=2, heads=3, head_width=4)
    assert sum(p.flops for p in limits.attention_products(case)) == 12 * 2 * 3 * 16 * 16 * 4


def test_every_product_is_computed_and_reported():
    products = limits.Products(limits.training_products(TOY))
    answer = products.turn(1)
    for left, right, result in products.factors.values():
        assert np.allclose(result, left @ right, atol=1e-5)
        assert all(array.flags.c_contiguous and array.dtype == np.float32 for array in (left, right, result))
    assert sum(shape["flops"] for shape in answer["shapes"]) == sum(p.flops for p in limits.training_products(TOY))
    assert sum(shape["count"] for shape in answer["shapes"]) == len(limits.training_products(TOY))

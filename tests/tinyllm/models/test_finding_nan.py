"""A NaN planted anywhere in one layer of a model is named: op, phase and layer."""

import numpy as np
import pytest

import autograd as ag
from autograd.context import context
from tinyllm.models import Decoder, gpt2, llama

LAYER = ("blocks.1", "attention")
CONFIGS = {
    "gpt2": gpt2.config(vocab_size=11, hidden_size=8, num_hidden_layers=4, num_attention_heads=2),
    "llama": llama.config(
        vocab_size=11, hidden_size=8, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=1
    ),
}


class Planted:
    """Breaks one element of one op's result, or of one gradient of its pullback, in the chosen layer.

    number: which of the layer's ops. op, path: filled when it happens.
    """

    def __init__(self, phase, number, rng):
        self.phase, self.number, self.rng = phase, number, rng
        self.op = self.path = None
        self.seen = 0

    def breaks(self, path, op):
        if path[:2] != LAYER:
            return False
        self.seen += 1
        if self.seen != self.number + 1:
            return False
        self.op, self.path = op, ".".join(path)
        return True

    def spoil(self, array):
        array = array.copy()
        array.reshape(-1)[self.rng.integers(array.size)] = self.rng.choice([np.nan, np.inf, -np.inf])
        return array

    def __enter__(self):
        run, pull = context.run, context.pull

        def breaking_run(op, arrays, options):
            y, vjp = run(op, arrays, options)
            if self.phase == "forward" and self.breaks(context.path, op.name):
                y = self.spoil(y)
            return y, vjp

        def breaking_pull(node, dy):
            dxs = list(pull(node, dy))
            if self.phase == "backward" and self.breaks(node.path, node.name):
                i = self.rng.choice([i for i, dx in enumerate(dxs) if dx is not None])
                dxs[i] = self.spoil(dxs[i])
            return dxs

        self.mode = context.set(run=breaking_run, pull=breaking_pull)
        return self.mode.__enter__() or self

    def __exit__(self, *error):
        return self.mode.__exit__(*error)


@pytest.mark.parametrize("placement", range(10))
@pytest.mark.parametrize("phase", ["forward", "backward"])
@pytest.mark.parametrize("family", CONFIGS)
def test_a_nan_in_blocks_1_attention_is_named(family, phase, placement):
    model = Decoder(CONFIGS[family], seed=placement)
    rng = np.random.default_rng(placement)
    ids = rng.integers(11, size=(2, 7))
    number = int(rng.integers(ops_of_the_layer(model, ids)))
    with Planted(phase, number, rng) as planted, ag.debug.first_nan(), pytest.raises(ag.debug.NonFinite) as caught:
        model.loss(ids[:, :-1], ids[:, 1:]).backward()
    error = caught.value
    assert (error.op, error.phase, error.path) == (planted.op, phase, planted.path)
    assert error.path.startswith("blocks.1.attention")
    assert error.at[0].endswith("layers.py")


def ops_of_the_layer(model, ids):
    """How many ops the layer runs."""
    with Planted("forward", -1, None) as count:
        model.loss(ids[:, :-1], ids[:, 1:])
    return count.seen

"""examples/seed_model.py and the GPT-2 preset on the same weights: logits, loss and every gradient equal to 1e-10."""

import importlib.util
from pathlib import Path

import numpy as np

from tinyllm.models import Decoder, gpt2

EXAMPLE = Path(__file__).parents[3] / "examples" / "seed_model.py"


def load_example():
    spec = importlib.util.spec_from_file_location("seed_model", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_preset_equals_the_seed_model():
    example = load_example()
    shape = {"vocab_size": 31, "hidden_size": 24, "num_hidden_layers": 3, "max_position_embeddings": 10}
    seed = example.LLM(example.LLMConfig(**shape, num_attention_heads=4, layer_norm_epsilon=1e-5), dtype="float64")
    rng = np.random.default_rng(0)
    for name, p in seed.parameters().items():
        p.data[...] = rng.normal(size=p.shape) * 0.5 + ("ln_" in name and name.endswith("weight"))
    config = gpt2.config(**shape, num_attention_heads=4, attention_bias=False, feed_forward_bias=False, norm_bias=True)
    published = {f"transformer.{name}": p.data for name, p in seed.parameters().items()}
    biases = any("attn.c_attn.bias" in name for name in published)
    config = config.replace(attention_bias=biases, feed_forward_bias=biases)
    model = Decoder(config, dtype="float64")
    model.load_weights(gpt2.NANOGPT.to_ours(published, config))

    ids = rng.integers(0, 31, (2, 11))
    logits, loss = seed.forward(ids[:, :-1], ids[:, 1:])
    loss.backward()
    ours = model.loss(ids[:, :-1], ids[:, 1:])
    ours.backward()
    assert abs(model(ids[:, :-1]).numpy() - logits.numpy()).max() < 1e-10
    assert abs(ours.item() - loss.item()) < 1e-10
    gradients = {f"transformer.{name}": p.grad for name, p in seed.parameters().items()}
    theirs = gpt2.NANOGPT.to_ours(gradients, config)
    largest = max(abs(g).max() for g in theirs.values())
    assert set(theirs) == set(model.parameters())
    for name, p in model.parameters().items():
        error = abs(p.grad - theirs[name]).max() / max(abs(theirs[name]).max(), 1e-6 * largest)
        assert error < 1e-10, name
    logits_alone, no_loss = seed.forward(ids[:, :-1])
    assert no_loss is None
    np.testing.assert_array_equal(logits_alone.numpy(), logits.numpy())

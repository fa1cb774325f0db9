"""The decoder: every parameter's gradient, causality, documents, padding, ties, pieces of the loss, dropout."""

import dataclasses

import numpy as np
import pytest

import autograd as ag
from tinyllm.errors import UserError
from tinyllm.models import Decoder, DecoderConfig, decoder, gpt2, llama, textbook

TINY = {
    "vocab_size": 11,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 7,
}
CONFIGS = {
    "gpt2": gpt2.config(**TINY),
    "llama": llama.config(**TINY | {"num_attention_heads": 3, "num_key_value_heads": 1, "intermediate_size": 20}),
    "textbook": textbook.config(**TINY),
    "nanogpt": gpt2.config(**TINY, feed_forward="gelu", attention_bias=False, feed_forward_bias=False, norm_bias=False),
    "alibi, squared relu": gpt2.config(**TINY, position="alibi", feed_forward="relu2", tie_word_embeddings=False),
    "window, normed queries": llama.config(**TINY, sliding_window=3, query_key_norm=True, rope_layout="interleaved"),
    "no positions, rms after": textbook.config(**TINY, position="none", norm="rmsnorm"),
}
EVERY_CONFIG = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


def make(config, seed=0):
    """A float64 decoder whose weights are of order one, biases and norms too, so that no gradient hides."""
    model = Decoder(config, dtype="float64")
    rng = np.random.default_rng(seed)
    for name, p in model.parameters().items():
        p.data[...] = rng.normal(size=p.shape) * (0.5 if p.ndim == 2 else 0.3)
        if "norm" in name and name.endswith("weight"):
            p.data += 1
    return model


def batch(config, B=2, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, config.vocab_size, (B, config.max_position_embeddings + 1))
    return ids[:, :-1], ids[:, 1:]


@EVERY_CONFIG
def test_the_gradient_of_every_parameter_equals_a_central_difference(config):
    model, (ids, targets) = make(config), batch(config)
    targets = targets.copy()
    targets[0, 2] = -100
    model.loss(ids, targets).backward()
    largest = max(abs(p.grad).max() for p in model.parameters().values())
    rng = np.random.default_rng(1)
    for name, p in model.parameters().items():
        direction, h, kept = rng.normal(size=p.shape), 1e-5, p.data.copy()
        p.data[...] = kept + h * direction
        above = model.loss(ids, targets).item()
        p.data[...] = kept - h * direction
        below = model.loss(ids, targets).item()
        p.data[...] = kept
        numeric, ours = (above - below) / (2 * h), (p.grad * direction).sum()
        if name.endswith("key.bias") and config.position in ("learned", "none", "alibi"):
            # Adding the same vector to every key adds the same number to all scores of a query: softmax ignores it.
            assert abs(p.grad).max() < 1e-9 * largest
        else:
            assert ours == pytest.approx(numeric, rel=1e-5, abs=1e-9 * largest), name


@EVERY_CONFIG
def test_a_token_changes_nothing_before_it(config):
    model, (ids, _) = make(config), batch(config)
    before = model(ids).numpy()
    changed = ids.copy()
    changed[:, 4] = (changed[:, 4] + 1) % config.vocab_size
    after = model(changed).numpy()
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert (before[:, 4:] != after[:, 4:]).any()


@EVERY_CONFIG
def test_two_documents_in_one_row_equal_two_rows(config):
    model, (ids, _) = make(config), batch(config, B=1)
    positions = np.array([[0, 1, 2, 0, 1, 2, 3]])
    joined = model(ids, segments=np.array([[0, 0, 0, 1, 1, 1, 1]]), positions=positions).numpy()
    np.testing.assert_allclose(joined[:, :3], model(ids[:, :3]).numpy(), atol=1e-12)
    np.testing.assert_allclose(joined[:, 3:], model(ids[:, 3:]).numpy(), atol=1e-12)


@EVERY_CONFIG
def test_padding_on_the_left_changes_nothing(config):
    model, (ids, _) = make(config), batch(config, B=1)
    segments = np.array([[-1, -1, 0, 0, 0, 0, 0]])
    positions = np.array([[0, 0, 0, 1, 2, 3, 4]])
    padded = model(ids, segments=segments, positions=positions).numpy()
    np.testing.assert_allclose(padded[:, 2:], model(ids[:, 2:]).numpy(), atol=1e-12)
    assert np.isfinite(padded).all()


@EVERY_CONFIG
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_a_loss_computed_in_pieces_is_the_same_with_the_same_gradients(config, reduction, monkeypatch):
    whole, pieces, (ids, targets) = make(config), make(config), batch(config)
    targets = targets.copy()
    targets[1, 3:] = -100
    seed = np.ones(targets.shape) if reduction == "none" else None
    options = {"reduction": reduction, "label_smoothing": 0.1}
    one = whole.loss(ids, targets, **options)
    one.backward(seed)
    monkeypatch.setattr(decoder, "CHUNK", 3 * config.vocab_size)
    many = pieces.loss(ids, targets, **options)
    many.backward(seed)
    np.testing.assert_allclose(many.numpy(), one.numpy(), rtol=1e-12)
    for name, p in pieces.parameters().items():
        np.testing.assert_allclose(p.grad, whole.parameters()[name].grad, rtol=1e-9, atol=1e-14, err_msg=name)


def test_a_batch_without_targets_has_loss_and_gradient_zero():
    model = make(CONFIGS["gpt2"])
    ids, targets = batch(model.config)
    loss = model.loss(ids, np.full_like(targets, -100))
    loss.backward()
    assert loss.item() == 0
    assert all((p.grad == 0).all() for p in model.parameters().values())


def test_a_tied_head_is_one_parameter_under_its_first_name():
    model = make(CONFIGS["gpt2"])
    assert model.head.weight is model.embedding.weight
    assert model.tied() == {"head.weight": "embedding.weight"}
    assert "head.weight" not in model.parameters()
    assert "head.weight" in make(CONFIGS["llama"]).parameters()


def test_canonical_paths():
    names = list(make(CONFIGS["gpt2"]).parameters())
    assert names[:2] == ["embedding.weight", "position.weight"]
    block = [name.removeprefix("blocks.0.") for name in names if name.startswith("blocks.0.")]
    parts = ["attention_norm", *(f"attention.{part}" for part in ("query", "key", "value", "output"))]
    parts += ["feed_forward_norm", "feed_forward.up", "feed_forward.down"]
    assert block == [f"{part}.{kind}" for part in parts for kind in ("weight", "bias")]
    assert names[-2:] == ["final_norm.weight", "final_norm.bias"]
    assert "blocks.1.feed_forward.gate.weight" in make(CONFIGS["llama"]).parameters()


def test_the_published_sizes():
    assert Decoder(gpt2.config()).num_parameters() == 124_439_808
    small = gpt2.config(**TINY)
    C, V, T, L = small.hidden_size, small.vocab_size, small.max_position_embeddings, small.num_hidden_layers
    assert Decoder(small).num_parameters() == V * C + T * C + L * (12 * C * C + 13 * C) + 2 * C


def test_initial_weights_follow_the_papers_and_the_seed():
    config = gpt2.config(vocab_size=500, hidden_size=128, num_hidden_layers=8, num_attention_heads=4)
    weights = {name: p.data for name, p in Decoder(config, seed=3).parameters().items()}
    assert weights["embedding.weight"].std() == pytest.approx(0.02, rel=0.02)
    assert weights["blocks.0.attention.query.weight"].std() == pytest.approx(0.02, rel=0.03)
    assert weights["blocks.5.attention.output.weight"].std() == pytest.approx(0.02 / 4, rel=0.03)
    assert weights["blocks.5.feed_forward.down.weight"].std() == pytest.approx(0.02 / 4, rel=0.03)
    assert (weights["blocks.0.attention.query.bias"] == 0).all()
    assert (weights["final_norm.weight"] == 1).all()
    again = Decoder(config, seed=3).parameters()
    other = Decoder(config, seed=4).parameters()
    assert all((again[name].data == value).all() for name, value in weights.items())
    assert (other["embedding.weight"].data != weights["embedding.weight"]).any()


def test_dropout_acts_only_with_a_seed_and_belongs_to_the_sample():
    model = make(dataclasses.replace(CONFIGS["gpt2"], dropout=0.3))
    ids, targets = batch(model.config, B=4)
    seeds = np.array([7, 8, 9, 10], np.uint64)
    quiet = model.loss(ids, targets).item()
    together = model.loss(ids, targets, reduction="none", dropout_seed=seeds).numpy()
    assert quiet == make(CONFIGS["gpt2"]).loss(ids, targets).item()
    assert together.mean() != pytest.approx(quiet)
    halves = [
        model.loss(ids[half], targets[half], reduction="none", dropout_seed=seeds[half]).numpy()
        for half in (slice(0, 2), slice(2, 4))
    ]
    np.testing.assert_allclose(np.concatenate(halves), together, rtol=1e-12)


def test_activations_may_be_half_precision_over_float32_weights():
    layer = Decoder(gpt2.config(**TINY)).blocks[0].feed_forward
    x = ag.Tensor(np.ones((2, 12), np.float16), requires_grad=True)
    y = layer(x)
    assert y.dtype == np.float16
    y.sum().backward()
    assert layer.up.weight.grad.dtype == np.float32
    assert x.grad.dtype == np.float16


def test_an_error_names_the_layer():
    model = make(CONFIGS["gpt2"])
    model.blocks[1].attention.query.weight.data = np.zeros((12, 5))
    with pytest.raises(ValueError, match="core dimension") as failure:
        model(batch(model.config)[0])
    assert ", layer blocks.1.attention.query" in failure.value.__notes__[0]


def test_more_tokens_than_the_context_are_refused():
    with pytest.raises(ValueError, match="8 tokens do not fit the context of 7"):
        make(CONFIGS["gpt2"])(np.zeros((1, 8), int))


def test_an_id_outside_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match="ids must be in 0 … 10"):
        make(CONFIGS["gpt2"])(np.array([[11]]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 10, "num_attention_heads": 4}, "hidden_size 10 is not divisible by num_attention_heads 4"),
        ({"num_attention_heads": 4, "num_key_value_heads": 3}, "not divisible by num_key_value_heads 3"),
        ({"position": "rope", "hidden_size": 6, "num_attention_heads": 2}, "the head width must be even, not 3"),
        ({"norm": "layernrom"}, "did you mean 'layernorm'"),
        ({"position": "learnt"}, "position must be one of learned, rope, alibi, none, not 'learnt'"),
        ({"vocab_size": 0}, "vocab_size must be at least 1, not 0"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\)"),
        ({"hiden_size": 8}, "no option 'hiden_size'; did you mean 'hidden_size'"),
    ],
)
def test_a_wrong_config_is_refused_in_one_line(changes, message):
    with pytest.raises(UserError, match=message):
        DecoderConfig.from_dict(TINY | changes)


def test_weights_that_do_not_fit_are_refused_together_and_change_nothing():
    model = make(CONFIGS["gpt2"])
    before = {name: p.data.copy() for name, p in model.parameters().items()}
    weights = dict(before)
    del weights["final_norm.bias"]
    weights["position.weight"] = np.zeros((3, 12))
    weights["blocks.9.attention.query.weight"] = np.zeros((2, 2))
    with pytest.raises(UserError) as failure:
        model.load_weights(weights)
    for part in (
        "missing final_norm.bias [12]",
        "unexpected blocks.9.attention.query.weight [2, 2]",
        "position.weight is [3, 12], the model's is [7, 12]",
    ):
        assert part in str(failure.value)
    assert all((p.data == before[name]).all() for name, p in model.parameters().items())


def test_published_names_there_and_back():
    for family, config, names in (
        (gpt2, CONFIGS["gpt2"], gpt2.HUGGING_FACE),
        (gpt2, CONFIGS["gpt2"], gpt2.NANOGPT),
        (llama, CONFIGS["llama"], llama.HUGGING_FACE),
    ):
        ours = {name: p.data for name, p in make(config).parameters().items()}
        published = names.to_published(ours, config)
        back = names.to_ours(published, config)
        assert sorted(back) == sorted(ours), family
        assert all((back[name] == array).all() for name, array in ours.items())
    ours = {name: p.data for name, p in make(CONFIGS["gpt2"]).parameters().items()}
    fused = gpt2.HUGGING_FACE.to_published(ours, CONFIGS["gpt2"])
    assert fused["transformer.h.1.attn.c_attn.weight"].shape == (12, 36)
    np.testing.assert_array_equal(
        fused["transformer.h.1.attn.c_attn.weight"][:, 12:24], ours["blocks.1.attention.key.weight"].T
    )
    assert fused["transformer.h.0.mlp.c_fc.weight"].shape == (12, 48)

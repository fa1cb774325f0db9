"""Generation with its cache: the logits of every step equal a plain forward pass, and only new tokens are computed."""

import numpy as np
import pytest

import autograd as ag
from tinyllm.generation import decoding, generate
from tinyllm.models import Decoder, gpt2, llama, textbook

TINY = {
    "vocab_size": 23,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 16,
}
CONFIGS = {
    "gpt2": gpt2.config(**TINY, dropout=0.1),
    "llama": llama.config(**TINY, num_key_value_heads=2),
    "textbook": textbook.config(**TINY),
    "alibi": gpt2.config(**TINY, position="alibi", feed_forward="relu2"),
    "normed queries": llama.config(**TINY, query_key_norm=True, sliding_window=3, rope_layout="interleaved"),
    "exact gelu": gpt2.config(**TINY, feed_forward="gelu"),
}
EVERY_CONFIG = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
SHORT = [[3, 1, 4, 1, 5], [9], [2, 6, 5, 3, 5, 8, 9], [22, 0]]
LONG = list(range(20))


def make(config, dtype="float64"):
    """A decoder with weights of order one, so that its choices depend on everything before."""
    model = Decoder(config, dtype=dtype)
    rng = np.random.default_rng(0)
    for p in model.parameters().values():
        p.data[...] = rng.normal(size=p.shape) * 0.7
    return model


@pytest.fixture
def errors(monkeypatch):
    """The relative error of each step's logits against a forward pass over each text alone, without a cache."""
    found, cached = [], decoding.next_logits

    def compared(model, texts, cache):
        logits = cached(model, texts, cache)
        context = model.config.max_position_embeddings
        with ag.use_kernels("reference"):
            plain = np.array([model(np.array([text[-context:]])).numpy()[0, -1] for text in texts])
        found.append(abs(logits - plain).max() / abs(plain).max())
        return logits

    monkeypatch.setattr(decoding, "next_logits", compared)
    return found


def calls_of(model, monkeypatch):
    """A list that grows by the shape of the ids of each call of the model."""
    shapes, hidden = [], model.hidden
    monkeypatch.setattr(model, "hidden", lambda ids, **options: shapes.append(ids.shape) or hidden(ids, **options))
    return shapes


@EVERY_CONFIG
@pytest.mark.parametrize("prompts", [SHORT, [*SHORT, LONG], [LONG], [[1, 2], [3, 4]]], ids=["short", "long", "1", "2"])
@pytest.mark.parametrize(
    ("dtype", "tolerance", "kernels"),
    [("float64", 1e-12, "reference"), ("float32", 1e-5, "reference"), ("float32", 1e-5, "numba")],
)
def test_the_logits_of_every_step_equal_no_cache(config, prompts, dtype, tolerance, kernels, errors):
    """20 steps in a context of 16: unequal prompts, the last step before the context is full, the first after it."""
    with ag.use_kernels(kernels):
        generate(make(config, dtype), prompts, max_new_tokens=20, temperature=2.0, seed=1)
    assert len(errors) == 20
    assert max(errors) < tolerance


@EVERY_CONFIG
def test_also_after_texts_have_ended(config, errors):
    model, options = make(config), {"max_new_tokens": 20, "temperature": 2.0, "seed": 1}
    prompts = [*SHORT, LONG[:14]]
    free = generate(model, prompts, **options)
    stop = max(range(23), key=lambda token: len({text.index(token) for text in free if token in text}))
    errors.clear()
    ended = generate(model, prompts, stop=stop, **options)
    assert len({len(text) for text in ended}) > 2
    assert len(errors) > min(map(len, ended)) + 2
    for text, whole in zip(ended, free, strict=True):
        assert text == whole[: len(text)]
    assert max(errors) < 1e-12


def test_only_new_tokens_are_computed(monkeypatch):
    model = make(CONFIGS["llama"])
    shapes = calls_of(model, monkeypatch)
    generate(model, SHORT, max_new_tokens=5, temperature=0)
    assert shapes == [(4, 7), (4, 1), (4, 1), (4, 1), (4, 1)]


def test_past_the_context_the_whole_context_is_computed(monkeypatch):
    model = make(CONFIGS["gpt2"])
    shapes = calls_of(model, monkeypatch)
    generate(model, [LONG[:13], [1]], max_new_tokens=6, temperature=0)
    assert shapes == [(2, 13), (2, 1), (2, 1), (2, 1), (2, 16), (2, 16)]


def test_when_the_longest_text_has_ended_there_is_room_again(monkeypatch):
    """Filled anew once the cache is full, with what the shorter text has; then token by token again."""
    model = make(CONFIGS["gpt2"])
    prompts, options = [LONG[:13], [1]], {"max_new_tokens": 9, "temperature": 5.0, "seed": 7}
    long, short = generate(model, prompts, **options)
    stop = long[1]
    assert stop not in {long[0], *short}
    shapes = calls_of(model, monkeypatch)
    assert generate(model, prompts, stop=stop, **options) == [long[:1], short]
    assert shapes == [(2, 13), (2, 1), (1, 1), (1, 1), (1, 5), (1, 1), (1, 1), (1, 1), (1, 1)]


def test_the_cache_is_no_longer_than_the_texts_can_get(monkeypatch):
    model = make(CONFIGS["gpt2"])
    made, new_cache = [], model.new_cache
    monkeypatch.setattr(model, "new_cache", lambda *sizes: made.append(sizes) or new_cache(*sizes))
    generate(model, SHORT, max_new_tokens=4)
    generate(model, SHORT, max_new_tokens=10**9, stop=range(23))
    assert made == [(4, 11), (4, 16)]

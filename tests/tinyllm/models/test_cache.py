"""The key/value cache: at every position equal to no cache, in memory taken once; refused where wrong."""

import numpy as np
import pytest

import autograd as ag
from tinyllm.models import Decoder, gpt2, llama, textbook

TINY = {
    "vocab_size": 19,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 12,
}
CONFIGS = {
    "gpt2": gpt2.config(**TINY, dropout=0.1),
    "llama": llama.config(**TINY, num_key_value_heads=2),
    "textbook": textbook.config(**TINY),
    "alibi": gpt2.config(**TINY, position="alibi", feed_forward="relu2"),
    "normed queries": llama.config(**TINY, query_key_norm=True, sliding_window=3, rope_layout="interleaved"),
    "exact gelu": gpt2.config(**TINY, feed_forward="gelu"),
    "alibi, window, one key head": gpt2.config(**TINY, position="alibi", sliding_window=4, num_key_value_heads=1),
    "no positions, wide heads": textbook.config(**TINY, position="none", norm="rmsnorm", head_dim=6),
}
EVERY_CONFIG = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
PRECISIONS = [("float64", 1e-12, "reference"), ("float32", 1e-5, "reference"), ("float32", 1e-5, "numba")]
EVERY_PRECISION = pytest.mark.parametrize(("dtype", "tolerance", "kernels"), PRECISIONS)
IDS = np.random.default_rng(0).integers(0, 19, (3, 12))
PADDING = np.array([0, 7, 3])  # what stands on the left of each sample
SEGMENTS = np.where(np.arange(12) < PADDING[:, None], -1, 0)
POSITIONS = np.maximum(np.arange(12) - PADDING[:, None], 0)


def make(config, dtype="float64", seed=0):
    """A decoder with weights of order one, so that every logit depends on everything before."""
    model = Decoder(config, dtype=dtype)
    rng = np.random.default_rng(seed)
    for p in model.parameters().values():
        p.data[...] = rng.normal(size=p.shape) * 0.7
    return model


def in_pieces(model, cache, ids, sizes, **options):
    """Logits (B, T, V) of calls with some columns each, and the same columns of the options."""
    pieces, start = [], 0
    with ag.no_grad():
        for stop in np.cumsum(sizes):
            some = {name: value[:, start:stop] for name, value in options.items()}
            pieces.append(model(ids[:, start:stop], cache=cache, **some).numpy())
            start = stop
    assert start == ids.shape[1]
    return np.concatenate(pieces, 1)


def largest_error(a, b):
    return abs(a - b).max() / abs(b).max()


@EVERY_PRECISION
@EVERY_CONFIG
@pytest.mark.parametrize("sizes", [[1] * 12, [7, 1, 1, 1, 1, 1], [12], [2, 5, 4, 1]], ids=str)
def test_every_position_equals_no_cache(config, dtype, tolerance, kernels, sizes):
    model = make(config, dtype)
    with ag.use_kernels(kernels):
        pieces = in_pieces(model, model.new_cache(3, 12), IDS, sizes)
    assert pieces.dtype == dtype
    assert largest_error(pieces, model(IDS).numpy()) < tolerance


@EVERY_PRECISION
@EVERY_CONFIG
def test_padding_on_the_left_and_positions_of_each_text(config, dtype, tolerance, kernels):
    model = make(config, dtype)
    options = {"segments": SEGMENTS, "positions": POSITIONS}
    with ag.use_kernels(kernels):
        first = in_pieces(model, cache := model.new_cache(3, 12), IDS[:, :8], [8], segments=SEGMENTS[:, :8],
                          positions=POSITIONS[:, :8])  # fmt: skip
        then = in_pieces(model, cache, IDS[:, 8:], [1] * 4, positions=POSITIONS[:, 8:])
    pieces, whole = np.concatenate([first, then], 1), model(IDS, **options).numpy()
    for row, padding in enumerate(PADDING):
        assert largest_error(pieces[row, padding:], whole[row, padding:]) < tolerance
        alone = model(IDS[row : row + 1, padding:]).numpy()[0]
        assert largest_error(pieces[row, padding:], alone) < tolerance


@EVERY_CONFIG
def test_documents_that_do_not_see_each_other(config):
    model = make(config)
    segments = np.array([[0] * 5 + [1] * 7, [0] * 12, [0, 0] + [1] * 8 + [2] * 2])
    pieces = in_pieces(model, model.new_cache(3, 12), IDS, [3, 4, 1, 3, 1], segments=segments)
    assert largest_error(pieces, model(IDS, segments=segments).numpy()) < 1e-12


def test_segments_may_begin_after_calls_without():
    model = make(CONFIGS["llama"])
    cache, segments = model.new_cache(3, 12), np.repeat([[0, 1]], 6, 1).repeat(3, 0)
    in_pieces(model, cache, IDS[:, :4], [2, 2])
    rest = in_pieces(model, cache, IDS[:, 4:], [3, 5], segments=segments[:, 4:])
    assert largest_error(rest, model(IDS, segments=segments).numpy()[:, 4:]) < 1e-12


@EVERY_CONFIG
@pytest.mark.parametrize("rows", [[0, 2], [1], [0, 1, 2], [1, 2]], ids=str)
def test_samples_that_have_ended_are_dropped(config, rows):
    model = make(config)
    cache = model.new_cache(3, 12)
    in_pieces(model, cache, IDS[:, :8], [8], segments=SEGMENTS[:, :8], positions=POSITIONS[:, :8])
    cache.keep(rows)
    rest = in_pieces(model, cache, IDS[rows, 8:], [1] * 4, positions=POSITIONS[rows, 8:])
    whole = model(IDS, segments=SEGMENTS, positions=POSITIONS).numpy()[rows, 8:]
    assert largest_error(rest, whole) < 1e-12


def test_samples_are_dropped_one_after_another():
    model = make(CONFIGS["llama"])
    cache, whole = model.new_cache(3, 12), model(IDS).numpy()
    in_pieces(model, cache, IDS[:, :5], [5])
    cache.keep([1, 2])
    assert largest_error(in_pieces(model, cache, IDS[[1, 2], 5:7], [1, 1]), whole[[1, 2], 5:7]) < 1e-12
    cache.keep([1])
    assert largest_error(in_pieces(model, cache, IDS[[2], 7:], [5]), whole[[2], 7:]) < 1e-12


@EVERY_CONFIG
def test_a_cleared_cache_is_as_new(config):
    model = make(config)
    cache = model.new_cache(3, 12)
    in_pieces(model, cache, IDS, [12], segments=SEGMENTS, positions=POSITIONS)
    cache.clear()
    other = IDS[:, ::-1]
    assert largest_error(in_pieces(model, cache, other, [6, 1, 5]), model(other).numpy()) < 1e-12


def test_memory_is_taken_once():
    model = make(CONFIGS["llama"], "float32")
    cache = model.new_cache(3, 12)
    before = [*cache.keys, *cache.values]
    assert [array.shape for array in before] == [(3, 2, 12, 4)] * 4
    assert cache.nbytes == 2 * 2 * 3 * 2 * 12 * 4 * 4  # 2 L B G length D numbers of 4 bytes
    in_pieces(model, cache, IDS[:, :9], [4, 1, 1, 1, 1, 1])
    cache.keep([0, 2])
    in_pieces(model, cache, IDS[[0, 2], 9:], [1, 1, 1])
    cache.clear()
    in_pieces(model, cache, IDS[[0, 2]], [11, 1])
    assert all(old is new for old, new in zip(before, [*cache.keys, *cache.values], strict=True))


def test_attention_reads_the_memory_itself():
    model = make(CONFIGS["llama"])
    cache = model.new_cache(3, 12)
    in_pieces(model, cache, IDS[:, :4], [4])
    q, k, v = (ag.Tensor(np.ones((3, G, 1, 4))) for G in (4, 2, 2))
    keys, values = cache.layer(1, 1).extend(q, k, v)
    assert keys.shape == values.shape == (3, 2, 5, 4)
    assert np.shares_memory(keys.data, cache.keys[1])
    assert np.shares_memory(values.data, cache.values[1])
    assert (cache.keys[1][:, :, 4] == 1).all()


@pytest.mark.parametrize("trained", ["embedding.weight", "blocks.1.attention.query.weight"])
def test_recording_gradients_is_an_error_that_adds_nothing(trained):
    model = make(CONFIGS["gpt2"])
    for name, p in model.parameters().items():
        p.requires_grad = name == trained
    cache, whole = model.new_cache(3, 12), model(IDS).numpy()
    in_pieces(model, cache, IDS[:, :5], [5])
    with pytest.raises(RuntimeError, match=r"^a cache is for generation: use it under no_grad\(\)$"):
        model(IDS[:, 5:6], cache=cache)
    assert cache.filled == 5
    assert largest_error(in_pieces(model, cache, IDS[:, 5:], [7]), whole[:, 5:]) < 1e-12


def test_a_frozen_model_records_nothing():
    model = make(CONFIGS["gpt2"])
    for p in model.parameters().values():
        p.requires_grad = False
    assert largest_error(model(IDS, cache=model.new_cache(3, 12)).numpy(), model(IDS).numpy()) < 1e-12


def other_model(**changes):
    return make(CONFIGS["llama"].replace(**changes))


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda m, c: m(IDS[:2], cache=c), r"ids of 2 samples, but the cache is for 3: new_cache\(2, …\) makes one"),
        (lambda m, c: m(IDS[:, :5], cache=c), "5 more tokens do not fit a cache of 8 that holds 4"),
        (lambda m, c: m(IDS[:, :1], cache=c, segments=SEGMENTS), r"segments .* of its ids, \[3, 1\], not \[3, 12\]"),
        (
            lambda m, c: other_model(num_hidden_layers=3)(IDS[:, :1], cache=c),
            r"a model of 2 layers, 2 key/value heads of width 4, float64; this one has 3 layers, .*new_cache\(…\)$",
        ),
        (lambda m, c: other_model(num_key_value_heads=4)(IDS[:, :1], cache=c), "this one has 2 layers, 4 key/value"),
        (lambda m, c: other_model(head_dim=8)(IDS[:, :1], cache=c), "this one has .* heads of width 8"),
        (lambda m, c: make(CONFIGS["llama"], "float32")(IDS[:, :1], cache=c), "this one has .*, float32"),
        (lambda m, c: m.new_cache(1, 13), "a cache of 13 tokens; it holds 1 … 12, the context"),
        (lambda m, c: m.new_cache(1, 0), "a cache of 0 tokens; it holds 1 … 12"),
        (lambda m, c: m.new_cache(0, 5), "a cache is for at least 1 sample, not 0"),
        (lambda m, c: c.keep([0, 3]), r"keep takes ascending numbers in 0 … 2, not \[0, 3\]"),
        (lambda m, c: c.keep([2, 0]), r"keep takes ascending numbers in 0 … 2, not \[2, 0\]"),
        (lambda m, c: c.keep([1, 1]), r"keep takes ascending numbers in 0 … 2, not \[1, 1\]"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_line(use, message):
    model = make(CONFIGS["llama"])
    cache = model.new_cache(3, 8)
    in_pieces(model, cache, IDS[:, :4], [4])
    with pytest.raises(ValueError, match=message) as error, ag.no_grad():
        use(model, cache)
    assert "\n" not in str(error.value)
    assert (cache.filled, cache.batch) == (4, 3)

import lzma
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.errors import UserError
from tinyllm.evaluation import bits_per_byte, lzma_bits_per_byte, trigram_bits_per_byte, unigram_bits_per_byte
from tinyllm.evaluation.baselines import fit_weights, ngram_nats

TRAINING = np.random.default_rng(0).choice(5, 300, p=[0.5, 0.2, 0.2, 0.05, 0.05])
HELD_OUT = np.random.default_rng(1).choice(7, 40)  # 5 and 6 were never seen


def conditional(history, token, weights, vocab_size, training):
    """p(token | history) of the interpolated model, straight from its definition."""
    p = 1 / vocab_size
    for n, weight in enumerate(weights, 1):
        if len(history) < n - 1:
            continue
        context = tuple(history[len(history) - n + 1 :])
        grams = [tuple(training[i : i + n]) for i in range(len(training) - n + 1)]
        following = Counter(gram[-1] for gram in grams if gram[:-1] == context)
        count = sum(following.values())
        if count:
            a = weight[int(math.log2(count)) + 1]
            p = a * following[token] / count + (1 - a) * p
    return p


@pytest.mark.parametrize("order", [1, 2, 3])
def test_ngram_nats_equal_counting_by_hand(order):
    training, held_out = TRAINING.tolist(), HELD_OUT.tolist()
    weights = fit_weights(TRAINING[:270], TRAINING[270:], 7, order)
    expected = [-math.log(conditional(held_out[:i], held_out[i], weights, 7, training)) for i in range(1, 40)]
    np.testing.assert_allclose(ngram_nats(TRAINING, HELD_OUT, vocab_size=7, order=order), expected, rtol=1e-12)


@given(st.lists(st.integers(0, 6), min_size=2, max_size=5))
def test_probabilities_sum_to_one_after_any_history(history):
    total = sum(np.exp(-ngram_nats(TRAINING, [*history, token], vocab_size=7, order=3)[-1]) for token in range(7))
    assert total == pytest.approx(1)


def test_the_weights_are_the_likeliest_ones():
    """Against every weight on a fine grid, where the fitted slice is half like the training text, half noise."""
    rng = np.random.default_rng(2)
    training = rng.choice(5, 5000, p=[0.8, 0.1, 0.05, 0.03, 0.02])
    slice_ = np.where(rng.random(2000) < 0.5, rng.choice(training, 2000), rng.integers(5, size=2000))
    (weights,) = fit_weights(training, slice_, 5, order=1)
    frequency = np.bincount(training, minlength=5)[slice_[1:]] / len(training)
    best = min(np.linspace(0.001, 0.999, 999), key=lambda a: -np.log(a * frequency + (1 - a) / 5).sum())
    assert 0.4 < best < 0.6
    assert weights[13] == pytest.approx(best, abs=0.005)  # bucket 13: 2^12 <= 5000 < 2^13


def test_fair_dice_cost_their_entropy():
    rng = np.random.default_rng(3)
    training, held_out = rng.integers(256, size=100_000), rng.integers(256, size=20_000)
    for measure in (unigram_bits_per_byte, trigram_bits_per_byte):
        assert measure(training, held_out, vocab_size=256, num_bytes=20_000) == pytest.approx(8, abs=0.02)
    assert lzma_bits_per_byte(bytes(training.tolist()), bytes(held_out.tolist())) == pytest.approx(8, abs=0.05)


def test_a_repeated_phrase_costs_the_trigram_next_to_nothing():
    text = np.tile(np.arange(50), 100)
    assert trigram_bits_per_byte(text, text[:1000], vocab_size=50, num_bytes=1000) < 0.1
    assert unigram_bits_per_byte(text, text[:1000], vocab_size=50, num_bytes=1000) == pytest.approx(
        math.log2(50), rel=0.01
    )


def test_lzma_is_the_difference_of_two_sizes():
    training, held_out = "the cat sat on the mat. " * 50, "the mat sat on the cat. "
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 1 << 16}]
    sizes = [
        len(lzma.compress(text.encode(), lzma.FORMAT_RAW, filters=filters)) for text in (training, training + held_out)
    ]
    assert lzma_bits_per_byte(training, held_out) == 8 * (sizes[1] - sizes[0]) / len(held_out)


def test_the_dictionary_reaches_back_over_all_of_the_training_text():
    letters = np.array(list("abcdefghijklmnop"))  # 4 bits each, unless they are found again
    page, filler = (
        "".join(np.random.default_rng(seed).choice(letters, size)) for seed, size in [(4, 2000), (5, 300_000)]
    )
    assert lzma_bits_per_byte(page + filler, page) < 0.5
    assert lzma_bits_per_byte(filler, page) > 3.9


def test_bits_per_byte_is_nats_over_ln_2_and_bytes():
    assert bits_per_byte(math.log(2) * 24, 12) == pytest.approx(2)


def test_too_little_text_is_an_error():
    with pytest.raises(UserError, match="at least 20 training and 2 held-out tokens; there are 5 and 1"):
        unigram_bits_per_byte([1] * 5, [1], vocab_size=2, num_bytes=1)
    with pytest.raises(UserError, match="num_bytes was 0"):
        bits_per_byte(1.0, 0)
    with pytest.raises(UserError, match="the held-out text is empty"):
        lzma_bits_per_byte("text", "")

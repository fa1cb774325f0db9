"""From logits to a token: the formula, the knobs and their edges, and that draws have the frequencies they should."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.generation.sampling import choose, probabilities

LOGITS = np.log(np.array([[0.1, 0.4, 0.2, 0.3]]))


def support(p):
    return np.flatnonzero(p[0]).tolist()


def test_plain_sampling_is_softmax():
    np.testing.assert_allclose(probabilities(LOGITS), [[0.1, 0.4, 0.2, 0.3]], rtol=1e-12)


def test_temperature_divides_the_logits():
    expected = np.array([[0.1, 0.4, 0.2, 0.3]]) ** 2
    np.testing.assert_allclose(probabilities(LOGITS, temperature=0.5), expected / expected.sum(), rtol=1e-12)


def test_temperature_0_takes_the_first_of_the_largest():
    assert probabilities(np.array([[1.0, 3.0, 3.0, 2.0]]), temperature=0, top_k=3, top_p=0.9).tolist() == [[0, 1, 0, 0]]


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-4])
def test_a_tiny_temperature_is_greedy_without_a_warning(temperature):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert probabilities(LOGITS, temperature=temperature).tolist() == [[0, 1, 0, 0]]


@pytest.mark.parametrize(("k", "kept"), [(1, [1]), (2, [1, 3]), (3, [1, 2, 3]), (4, [0, 1, 2, 3]), (99, [0, 1, 2, 3])])
def test_top_k_keeps_the_k_likeliest(k, kept):
    p = probabilities(LOGITS, top_k=k)
    assert support(p) == kept
    np.testing.assert_allclose(p[0, kept], np.exp(LOGITS[0, kept]) / np.exp(LOGITS[0, kept]).sum(), rtol=1e-12)


def test_top_k_keeps_all_that_are_tied_with_the_kth():
    assert support(probabilities(np.array([[1.0, 2.0, 1.0, 0.0]]), top_k=2)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("top_p", "kept"), [(1e-9, [1]), (0.39, [1]), (0.5, [1, 3]), (0.69, [1, 3]), (0.8, [1, 2, 3]), (1, [0, 1, 2, 3])]
)
def test_top_p_keeps_the_fewest_that_reach_p(top_p, kept):
    p = probabilities(LOGITS, top_p=top_p)
    assert support(p) == kept
    assert p.sum() == pytest.approx(1)


def test_top_p_counts_what_top_k_left():
    """Of 0.4 and 0.3, made 4/7 and 3/7, the first alone reaches 0.55."""
    assert support(probabilities(LOGITS, top_k=2, top_p=0.55)) == [1]


def test_rows_do_not_know_each_other():
    logits = np.random.default_rng(0).normal(size=(5, 9))
    options = {"temperature": 0.7, "top_k": 6, "top_p": 0.8}
    rows = np.concatenate([probabilities(row[None], **options) for row in logits])
    np.testing.assert_array_equal(probabilities(logits, **options), rows)


def test_draws_have_the_frequencies_of_the_distribution():
    p = probabilities(LOGITS, top_k=3)
    uniform = (np.arange(9000) + 0.5) / 9000
    counts = np.bincount(choose(np.repeat(p, 9000, 0), uniform), minlength=4)
    np.testing.assert_allclose(counts / 9000, p[0], atol=2e-4)


@given(
    st.lists(st.floats(-50, 50), min_size=1, max_size=8),
    st.sampled_from([0.0, np.nextafter(1, 0), 0.5, 1 / 3]),
    st.sampled_from([{}, {"top_k": 1}, {"top_k": 3}, {"top_p": 0.3}, {"temperature": 0}, {"temperature": 0.01}]),
)
def test_only_tokens_that_may_come_are_ever_drawn(logits, uniform, options):
    p = probabilities(np.array([logits]), **options)
    (token,) = choose(p, np.array([uniform]))
    assert p[0, token] > 0

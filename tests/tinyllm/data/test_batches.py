import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.data import IGNORED, RandomBatches, windows, write_tokens
from tinyllm.errors import UserError

TOKENS = np.arange(1000, dtype=np.uint16)


def batches(**options):
    return RandomBatches(TOKENS, **{"batch_size": 4, "context": 8, "seed": 1} | options)


def test_targets_are_the_inputs_one_token_further():
    inputs, targets = next(batches())
    assert inputs.shape == targets.shape == (4, 8)
    assert inputs.dtype == targets.dtype == np.int64
    assert np.array_equal(targets, inputs + 1)  # in these tokens
    assert np.array_equal(inputs, inputs[:, :1] + np.arange(8))
    assert inputs.flags.c_contiguous
    assert targets.flags.c_contiguous


@given(st.integers(0, 2**64 - 1), st.integers(0, 10**12), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_samples_do_not_depend_on_how_they_are_cut(seed, start, counts):
    stream = batches(seed=seed)
    whole = stream.batch(start, sum(counts))
    starts = itertools.accumulate(counts, initial=start)
    parts = [stream.batch(first, count) for first, count in zip(starts, counts, strict=False)]
    for i in range(2):
        assert np.array_equal(np.concatenate([part[i] for part in parts]), whole[i])


@given(st.integers(0, 20), st.integers(1, 7))
def test_the_position_resumes_exactly(steps, batch_size):
    unbroken = batches(batch_size=batch_size)
    for _ in range(steps):
        next(unbroken)
    resumed = batches(batch_size=batch_size)
    resumed.position = unbroken.position
    assert unbroken.position == steps * batch_size
    for _ in range(3):
        assert np.array_equal(next(resumed)[0], next(unbroken)[0])


def test_two_ranks_draw_what_one_draws():
    one = batches(batch_size=8)
    rank0, rank1 = one.batch(0, 4), one.batch(4, 4)
    assert np.array_equal(np.concatenate([rank0[0], rank1[0]]), next(one)[0])


def test_seeds_draw_different_samples():
    assert not np.array_equal(next(batches(seed=1))[0], next(batches(seed=2))[0])
    # nor is one seed's stream the other's, shifted by one
    assert not np.array_equal(batches(seed=1).offsets(1, 50), batches(seed=2).offsets(0, 50))


def test_the_samples_stay_the_same_over_versions():
    """Against splitmix64 in Python's own integers; 0xe220… is its published first value for the seed 0."""

    def mix(n):
        z = (n + 1) * 0x9E3779B97F4A7C15 % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        return z ^ z >> 31

    assert mix(0) == 0xE220A8397B1DCDAF
    for seed in (0, 1, 2**64 - 1):
        expected = [mix((mix(seed) + n) % 2**64) % 992 for n in range(5, 9)]
        assert batches(seed=seed).offsets(5, 4).tolist() == expected


def test_every_place_is_equally_likely():
    places = 1000 - 8
    counts = np.bincount(batches().offsets(0, 200 * places), minlength=places)
    assert len(counts) == places  # offsets 0 .. 991: the last sample ends with the last token
    chi_squared = ((counts - 200) ** 2 / 200).sum()
    assert abs(chi_squared - places) < 5 * np.sqrt(2 * places)


def test_the_shortest_text_that_will_do():
    assert RandomBatches(TOKENS[:9], batch_size=2, context=8).batch(0, 2)[1].tolist() == [list(range(1, 9))] * 2
    with pytest.raises(UserError, match="has 8 tokens, and a context of 8 needs at least 9"):
        RandomBatches(TOKENS[:8], batch_size=2, context=8)


def test_a_token_file_will_do(tmp_path):
    file = write_tokens(tmp_path / "x", TOKENS, vocabulary_hash="", vocab_size=1000, num_bytes=1)
    stream = RandomBatches(file.tokens, batch_size=4, context=8, seed=1)
    assert np.array_equal(next(stream)[0], next(batches())[0])
    assert sum((targets != IGNORED).sum() for _, targets in windows(file.tokens, 64)) == 999


@given(st.integers(2, 60), st.integers(1, 20), st.integers(1, 5))
def test_windows_count_every_target_once(count, context, batch_size):
    tokens = np.arange(100, 100 + count, dtype=np.uint16)
    found, rows = [], 0
    for inputs, targets in windows(tokens, context, batch_size):
        assert inputs.shape == targets.shape
        assert inputs.shape[1] == context
        assert len(inputs) <= batch_size
        real = targets != IGNORED
        assert np.array_equal(targets[real], inputs[real] + 1)
        assert not inputs[~real].any()
        found += targets[real].tolist()
        rows += len(inputs)
    assert found == tokens[1:].tolist()
    assert rows == -(-(count - 1) // context)


def test_windows_need_two_tokens():
    with pytest.raises(UserError, match="at least 2 tokens, and the text has 1"):
        next(windows(TOKENS[:1], 8))

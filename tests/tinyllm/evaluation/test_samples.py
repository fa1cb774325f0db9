import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tinyllm.evaluation import check_words, longest_copied_run
from tinyllm.evaluation.samples import WORD, run_hashes

little_texts = st.lists(st.sampled_from(["a", "b", "c", "d", ".", "!", "D"]), max_size=25).map(" ".join)


def test_invented_words_are_found_and_cut_ones_left_out():
    check = check_words(["thon doesn't Return a flumbit; don’t zorp"], ["Python doesn't return a. Don’t."])
    assert check.words == 5  # doesn't Return a flumbit don’t
    assert check.invented == ["flumbit"]
    assert check.share == 0.8


def test_digits_and_underscores_part_words():
    assert check_words([" x_y 2nd (z) "], ["x y nd z"]).invented == []
    assert check_words([" x_y 2nd (z) "], ["x"]).invented == ["y", "nd", "z"]


def test_no_words_are_no_invented_words():
    assert check_words(["", "cut"], ["text"]).share == 1
    assert check_words([], ["text"]).words == 0


def brute_force(samples, documents):
    """Length of the longest run of words that a sample shares with a document."""
    best = 0
    originals = [[word.casefold() for word in WORD.findall(document)] for document in documents]
    for sample in samples:
        words = [word.casefold() for word in WORD.findall(sample)]
        for i in range(len(words)):
            for j in range(i + best + 1, len(words) + 1):
                if any(words[i:j] == original[k : k + j - i] for original in originals for k in range(len(original))):
                    best = j - i
    return best


@given(st.lists(little_texts, max_size=4), st.lists(little_texts, max_size=4))
def test_the_longest_copied_run_equals_brute_force(samples, documents):
    run = longest_copied_run(samples, documents)
    assert run.words == brute_force(samples, documents)
    if run.words:
        assert run.text in samples[run.sample]
        assert len(WORD.findall(run.text)) == run.words
        assert brute_force([run.text], documents) == run.words


def test_a_run_ends_with_its_document_and_its_sample():
    assert longest_copied_run(["one two three four"], ["zero one two", "three four five"]).text == "one two"
    assert longest_copied_run(["one two", "three four"], ["one two three four"]).words == 2


def test_case_and_punctuation_do_not_hide_a_copy():
    run = longest_copied_run(["nothing", "It said: To be, or\nNOT to be!"], ["to be or not to be, that is"])
    assert (run.words, run.text, run.sample) == (6, "To be, or\nNOT to be", 1)


def test_equal_hashes_are_equal_runs():
    numbers = np.random.default_rng(0).integers(0, 4, 400)
    for length in (1, 2, 5):
        starts, hashes = run_hashes(numbers, length)
        runs = [tuple(numbers[i : i + length]) for i in starts]
        assert all(0 not in run for run in runs)
        assert len(set(runs)) == len(set(hashes.tolist())) == len(set(zip(runs, hashes.tolist(), strict=True)))


def test_it_is_quick_enough_for_a_report():
    rng = np.random.default_rng(0)
    words = np.array(["".join(letters) for letters in rng.choice(list("abcdefgh"), (5000, 6))])
    document = " ".join(words[rng.zipf(1.3, 300_000) % 5000])
    samples = [" ".join(words[rng.zipf(1.3, 300) % 5000]) for _ in range(20)]
    start = time.perf_counter()
    longest_copied_run([*samples, document[700_000:701_000]], [document])
    assert time.perf_counter() - start < 5  # about 0.2 s on an idle machine

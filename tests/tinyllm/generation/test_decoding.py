"""Generation: equal to a loop written out here, whatever shares the batch; the context's edge; where texts end."""

import numpy as np
import pytest

from tinyllm.errors import UserError
from tinyllm.generation import generate, prompt_ids, stop_ids, stream
from tinyllm.models import Decoder, gpt2, llama, textbook
from tinyllm.tokenizers import ByteTokenizer, CharacterTokenizer, WordPieceTokenizer

TINY = {
    "vocab_size": 23,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 8,
}
CONFIGS = {
    "learned": gpt2.config(**TINY),
    "rope": llama.config(**TINY),
    "norm after": textbook.config(**TINY),
    "alibi": gpt2.config(**TINY, position="alibi"),
    "window": llama.config(**TINY, sliding_window=3),
}
EVERY_CONFIG = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2], [22, 0], [7, 7, 7, 7, 7, 7, 7, 7]]
SAMPLED = {"temperature": 0.9, "top_k": 15, "top_p": 0.95, "seed": 3}


def make(config):
    """A float64 decoder with weights of order one, so that its choices depend on everything before."""
    model = Decoder(config, dtype="float64")
    rng = np.random.default_rng(0)
    for p in model.parameters().values():
        p.data[...] = rng.normal(size=p.shape) * 0.7
    return model


def last_logits(model, ids):
    """Logits after `ids`, of a plain forward pass over the last context of them."""
    return model(np.array([ids[-model.config.max_position_embeddings :]])).numpy()[0, -1]


def greedy(model, prompt, number):
    """The loop that everybody writes first."""
    ids = list(prompt)
    for _ in range(number):
        ids.append(int(last_logits(model, ids).argmax()))
    return ids[len(prompt) :]


@EVERY_CONFIG
def test_greedy_ids_equal_a_plain_loop_also_past_the_context(config):
    model = make(config)
    expected = [greedy(model, prompt, 20) for prompt in PROMPTS]
    assert [generate(model, prompt, max_new_tokens=20, temperature=0) for prompt in PROMPTS] == expected
    assert len({tuple(ids) for ids in expected}) > 1


@EVERY_CONFIG
@pytest.mark.parametrize("options", [{"temperature": 0}, SAMPLED], ids=["greedy", "sampled"])
def test_prompts_of_different_lengths_in_one_batch_are_as_if_alone(config, options):
    model = make(config)
    together = generate(model, PROMPTS, max_new_tokens=12, **options)
    for row, prompt in enumerate(PROMPTS):
        # The place in the list decides the random numbers, so the prompt stays where it is and its companions change.
        others = [[1]] * row + [prompt]
        assert generate(model, others, max_new_tokens=12, **options)[row] == together[row]
    if options["temperature"] == 0:
        assert [generate(model, prompt, max_new_tokens=12, **options) for prompt in PROMPTS] == together


@EVERY_CONFIG
@pytest.mark.parametrize("prompt", PROMPTS[:3], ids=len)
def test_sampled_ids_equal_a_plain_loop_also_past_the_context(config, prompt):
    model, ids, rng = make(config), list(prompt), np.random.default_rng([11, 0])
    for _ in range(20):
        logits = last_logits(model, ids) / 3
        p = np.exp(logits - logits.max())
        ids.append(int(np.searchsorted(np.cumsum(p / p.sum()), rng.random(), side="right")))
    assert generate(model, prompt, max_new_tokens=20, temperature=3.0, seed=11) == ids[len(prompt) :]
    assert len(set(ids)) > 4


def test_the_seed_decides_and_the_place_in_the_list():
    model = make(CONFIGS["learned"])
    one, again, other = (generate(model, [5], max_new_tokens=15, temperature=2.0, seed=seed) for seed in (1, 1, 2))
    assert one == again != other
    first, second = generate(model, [[5], [5]], max_new_tokens=15, temperature=2.0, seed=1)
    assert first == one != second


def test_streaming_gives_the_same_ids_one_by_one():
    model = make(CONFIGS["rope"])
    steps = stream(model, [1, 2], max_new_tokens=6, **SAMPLED)
    first = next(steps)
    assert [first, *steps] == generate(model, [1, 2], max_new_tokens=6, **SAMPLED)


def test_texts_of_a_batch_end_at_different_times():
    model, options = make(CONFIGS["learned"]), {"max_new_tokens": 20, "temperature": 3.0, "seed": 1}
    free = generate(model, PROMPTS, **options)
    stop = {free[0][3], free[1][0]}
    expected = [ids[: min([i for i, token in enumerate(ids) if token in stop] + [20])] for ids in free]
    lengths = [len(ids) for ids in expected]
    assert lengths[1] == 0 < lengths[0] <= 3 < max(lengths)
    assert generate(model, PROMPTS, stop=stop, **options) == expected


def test_an_ended_text_costs_nothing_more(monkeypatch):
    from tinyllm.generation import decoding

    model, rows = make(CONFIGS["learned"]), []
    free = generate(model, PROMPTS[:2], max_new_tokens=4, temperature=0)
    full = decoding.next_logits
    counted = lambda model, texts, cache: rows.append(len(texts)) or full(model, texts, cache)  # noqa: E731
    monkeypatch.setattr(decoding, "next_logits", counted)
    stop = (free[1][0],)
    assert free[0][0] not in stop
    generate(model, PROMPTS[:2], max_new_tokens=2, temperature=0, stop=stop)
    assert rows == [2, 1]


def test_nothing_wanted_is_nothing_done():
    assert generate(make(CONFIGS["rope"]), [1], max_new_tokens=0) == []


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        ([], {}, "an empty prompt"),
        ([[1], []], {}, "an empty prompt"),
        ([23], {}, r"must be in 0 … 22, but range from 23 to 23"),
        ([1, -1], {}, "range from -1 to 1"),
        ([1], {"max_new_tokens": -1}, "max_new_tokens must not be negative; it was -1"),
        ([1], {"seed": -1}, "seed must not be negative; it was -1"),
        ([1], {"temperature": -0.1}, "temperature must be 0 .* or positive, not -0.1"),
        ([1], {"temperature": float("nan")}, "temperature must be 0"),
        ([1], {"temperature": float("inf")}, "temperature must be 0"),
        ([1], {"top_k": 0}, "top_k must be at least 1, not 0"),
        ([1], {"top_p": 0.0}, r"top_p must be in \(0, 1\], not 0.0"),
        ([1], {"top_p": 1.1}, r"top_p must be in \(0, 1\], not 1.1"),
    ],
)
def test_what_cannot_be_generated_is_refused_in_one_line(ids, options, message):
    with pytest.raises(UserError, match=message):
        generate(make(CONFIGS["rope"]), ids, **{"max_new_tokens": 1} | options)


def test_a_diverged_model_is_named_instead_of_sampled():
    model = make(CONFIGS["learned"])
    model.final_norm.weight.data[...] = np.nan
    for temperature in (0, 1):
        with pytest.raises(UserError, match="logits are not finite: its training diverged"):
            generate(model, [1], max_new_tokens=1, temperature=temperature)


def test_a_prompt_stands_as_the_model_saw_texts_begin():
    characters = CharacterTokenizer.train(["ab\n"])
    end = ByteTokenizer().end_of_text
    assert prompt_ids(ByteTokenizer(), "A") == [end, 65]
    assert prompt_ids(ByteTokenizer(), "") == [end]
    assert prompt_ids(ByteTokenizer(), "A", separated=False) == [65]
    assert prompt_ids(ByteTokenizer(), "", separated=False) == [10]
    assert prompt_ids(characters, "a") == characters.encode("a")
    assert prompt_ids(characters, "") == characters.encode("\n")
    assert prompt_ids(CharacterTokenizer.train(["a b"]), "") == CharacterTokenizer.train(["a b"]).encode(" ")
    assert prompt_ids(CharacterTokenizer.train(["ab"]), "") == [0]
    words = WordPieceTokenizer(["[PAD]", "[UNK]", "."], ["[PAD]", "[UNK]"])
    assert prompt_ids(words, "", separated=False) == [2]
    assert (stop_ids(ByteTokenizer()), stop_ids(characters)) == ((end,), ())

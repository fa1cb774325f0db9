"""`tinyllm generate`: pieces of characters, pieces of --stop, where a text ends, and what a terminal must not obey."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import autograd as ag
from tinyllm.commands.generate import Options, pieces
from tinyllm.commands.main import main
from tinyllm.tokenizers import BPETokenizer, ByteTokenizer, WordPieceTokenizer, load_tokenizer

TOKENIZER = ByteTokenizer()
PROMPT = [TOKENIZER.end_of_text]


class Parrot:
    """A model that says its lesson, whatever it is told; one id after the other, by the length of what stands there."""

    def __init__(self, lesson, vocab_size=257):
        self.lesson, self.config = lesson, SimpleNamespace(vocab_size=vocab_size, max_position_embeddings=10_000)
        self.embedding = SimpleNamespace(weight=SimpleNamespace(data=np.zeros(1)))

    def new_cache(self, batch, length):
        return SimpleNamespace(filled=0, length=length, keep=lambda rows: None)

    def hidden(self, ids, *, cache, positions=None):
        cache.filled += ids.shape[1]
        return np.full((*ids.shape, 1), cache.filled - len(PROMPT))

    def head(self, last):
        logits = np.full((len(last), self.config.vocab_size), -100.0)
        logits[:, self.lesson[int(last[0, 0]) % len(self.lesson)]] = 100.0
        return ag.Tensor(logits)


def said(text, stop="", max_new_tokens=None, tokenizer=TOKENIZER, prompt=""):
    """The pieces in which a parrot's text is printed."""
    ids = [*tokenizer.encode(text), tokenizer.end_of_text]
    options = Options(model=None, prompt=prompt, stop=stop, max_new_tokens=max_new_tokens or len(ids))
    return list(pieces(Parrot(ids, tokenizer.vocab_size), tokenizer, [tokenizer.end_of_text], options))


def test_characters_of_several_bytes_are_printed_whole():
    text = "Grüße 🙂 字, fin"
    printed = said(text)
    assert "".join(printed) == text
    assert len([piece for piece in printed if piece]) == len(text)


def test_words_that_bring_their_spaces_go_on_a_prompt():
    tokenizer = WordPieceTokenizer.train(["one two three four five"], vocab_size=35)
    assert "".join(said("One two three", tokenizer=tokenizer)) == "one two three"
    assert "".join(said("One two three", tokenizer=tokenizer, prompt="zero")) == " one two three"


def test_each_of_several_texts_goes_on_the_prompt(here, tiny_run, monkeypatch, capsys):
    assert main([*tiny_run, "--steps", "2", "--tokenizer", "wordpiece", "--vocab-size", "45"]) == 0
    ids = load_tokenizer("my run/tokenizer").encode("sailor sat.")
    monkeypatch.setattr("tinyllm.generation.generate", lambda model, prompts, **options: [ids] * len(prompts))
    capsys.readouterr()
    assert main(["generate", "--model", "my run", "--prompt", "The old", "--samples", "2"]) == 0
    assert capsys.readouterr().out == "--- 1 ---\nThe old sailor sat.\n--- 2 ---\nThe old sailor sat.\n"


def test_a_text_cut_inside_a_character_ends_with_the_sign_for_it():
    assert "".join(said("a🙂", max_new_tokens=3)) == "a\ufffd"


@pytest.mark.parametrize(
    ("text", "stop", "expected"),
    [
        ("one STOP two", "STOP", "one "),
        ("one STO two", "STOP", "one STO two"),
        ("one SSTOP", "STOP", "one S"),
        ("SSTSTSTOPP", "STOP", "SSTST"),
        ("STOP", "STOP", ""),
        ("ends with ST", "STOP", "ends with ST"),
        ("aaab", "aab", "a"),
        ("grü🙂ße", "🙂", "grü"),
        ("line\n\nline", "\n\n", "line"),
        ("one\none", "\n", "one"),
    ],
)
def test_stop_ends_the_text_also_across_tokens(text, stop, expected):
    assert "".join(said(text, stop)) == expected


def test_stop_inside_and_across_tokens_of_several_characters():
    tokenizer = BPETokenizer.train(["one two three four STOP five"] * 9, vocab_size=270)
    ids = tokenizer.encode("one two STOP five")
    assert any(tokenizer.decode([token]) not in "STOP" and "S" in tokenizer.decode([token]) for token in ids)
    assert "".join(said("one two STOP five", "STOP", tokenizer=tokenizer)) == "one two "


def test_nothing_of_a_stop_is_printed_before_it_is_known_to_be_none():
    """While S, T, O come, nothing is printed; the X that breaks it off releases all four."""
    assert [piece for piece in said("aSTOXb", "STOP") if piece] == ["a", "STOX", "b"]


@pytest.fixture
def parrot(monkeypatch):
    """Call it with a text: `tinyllm generate` then finds a parrot in every folder."""

    def teach(text):
        model = Parrot([*TOKENIZER.encode(text), TOKENIZER.end_of_text])
        model.to = lambda device: model
        monkeypatch.setattr("tinyllm.formats.load", lambda folder, checkpoint: (model, TOKENIZER))
        monkeypatch.setattr("tinyllm.formats.run_folders.read_config", lambda folder: {})

    return teach


def test_a_terminal_does_not_obey_the_model_and_a_file_gets_it_as_it_is(parrot, capsys, monkeypatch):
    parrot("red \x1b[31m")
    assert main(["generate", "--model", "x"]) == 0
    assert capsys.readouterr().out == "red \x1b[31m\n"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    for samples in ("1", "2"):
        assert main(["generate", "--model", "x", "--samples", samples]) == 0
        printed = capsys.readouterr().out
        assert "red ␛[31m\n" in printed
        assert "\x1b" not in printed


def test_ctrl_c_ends_the_line(parrot, capsys, monkeypatch):
    def interrupted(*parts, **options):
        yield TOKENIZER.encode("a")[0]
        raise KeyboardInterrupt

    parrot("")
    monkeypatch.setattr("tinyllm.generation.stream", interrupted)
    assert main(["generate", "--model", "x"]) == 130
    assert capsys.readouterr() == ("a\n", "tinyllm: interrupted\n")


@pytest.fixture
def generated(here, tiny_run, capsys):
    """Call it with words: what `tinyllm generate` prints of a tiny trained model."""
    assert main([*tiny_run, "--steps", "2"]) == 0

    def run(*words):
        capsys.readouterr()
        assert main(["generate", "--model", "my run", "--max-new-tokens", "40", *words]) == 0
        return capsys.readouterr().out

    return run


def test_the_seed_decides(generated):
    assert generated("--seed", "1") == generated("--seed", "1") != generated("--seed", "2")
    assert generated("--temperature", "0", "--seed", "1") == generated("--temperature", "0", "--seed", "2")


def test_the_knobs_reach_the_sampling(generated):
    greedy = generated("--temperature", "0")
    assert generated("--top-k", "1") == generated("--top-p", "1e-9") == greedy != generated()


def test_the_first_of_several_samples_is_the_single_one(generated):
    one = generated("--prompt", "The old", "--seed", "5")
    several = generated("--prompt", "The old", "--seed", "5", "--samples", "3")
    assert one.startswith("The old")
    first, second = several.removeprefix("--- 1 ---\n").split("--- 2 ---\n")
    assert first == one
    assert second.startswith("The old")
    assert second.split("--- 3 ---\n")[0] != one


def test_stop_is_the_same_for_one_and_for_several(generated):
    text = generated("--seed", "3")
    stop = text[5:7]
    one = generated("--seed", "3", "--stop", stop)
    assert one == text.split(stop)[0] + "\n"
    assert generated("--seed", "3", "--stop", stop, "--samples", "2").startswith(f"--- 1 ---\n{one}--- 2 ---\n")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--max-new-tokens 0", "--max-new-tokens must be at least 1, not 0"),
        ("--samples 0", "--samples must be at least 1, not 0"),
        ("--seed -1", "seed must not be negative; it was -1"),
        ("--temperature -1", "temperature must be 0 (always the likeliest token) or positive, not -1.0"),
        ("--temperature nan", "temperature must be 0 (always the likeliest token) or positive, not nan"),
        ("--temperature hot", "--temperature takes a number, not 'hot'"),
        ("--top-k 0", "top_k must be at least 1, not 0"),
        ("--top-k 1.5", "--top-k takes a whole number, not '1.5'"),
        ("--top-p 2", "top_p must be in (0, 1], not 2.0"),
        ("--kernels cupyy", "--kernels cupyy: no kernels named 'cupyy' in this version; there are: reference"),
        ("--promt x", "there is no option --promt; did you mean --prompt?"),
        ("--prompt \udcff", "the text has a lone surrogate"),
    ],
)
def test_wrong_options_of_generate(generated, capsys, words, line):
    capsys.readouterr()
    assert main(["generate", "--model", "my run", *words.split(" ")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"tinyllm: {line}"), error
    assert error.count("\n") == 1


def test_a_character_that_the_model_does_not_know(here, tiny_run, refused):
    assert main([*tiny_run, "--tokenizer", "character", "--steps", "2"]) == 0
    refused(["generate", "--model", "my run", "--prompt", "€"], "the character '€' (U+20AC) is not among the ")


def started_with(monkeypatch, words):
    """The ids that `tinyllm generate` hands to the model."""
    seen = []
    monkeypatch.setattr("tinyllm.generation.stream", lambda model, ids, **options: seen.extend(ids) or iter(()))
    assert main(["generate", "--model", "my run", *words]) == 0
    return seen


def test_end_of_text_stands_before_a_prompt_only_where_the_model_learned_it(here, tiny_run, monkeypatch):
    assert main([*tiny_run, "--steps", "2"]) == 0
    assert started_with(monkeypatch, ["--prompt", "A"]) == [65]
    assert started_with(monkeypatch, []) == [10]
    (here / "my run").rename(here / "one text")
    (here / "more.txt").write_text("Another text, about nothing. " * 9)
    assert main([*tiny_run, "--data", "*.txt", "--steps", "2"]) == 0
    assert started_with(monkeypatch, ["--prompt", "A"]) == [256, 65]
    assert started_with(monkeypatch, []) == [256]

"""A small Llama that others trained (llama2.c's stories260K): its greedy text to the last character, and its loss."""

import json
import struct

import numpy as np
import pytest

from tinyllm.evaluation.loss import held_out_loss
from tinyllm.generation import generate
from tinyllm.models import Decoder, llama
from tinyllm.tokenizers import SentencePieceBPETokenizer

pytestmark = pytest.mark.reference
MATRICES = {
    "attention_norm": "attention_norm",
    "wq": "attention.query",
    "wk": "attention.key",
    "wv": "attention.value",
    "wo": "attention.output",
    "ffn_norm": "feed_forward_norm",
    "w1": "feed_forward.gate",
    "w2": "feed_forward.down",
    "w3": "feed_forward.up",
}


def read_model(path):
    """llama2.c's format: seven int32, then float32 arrays, each kind for all layers before the next kind."""
    data = path.read_bytes()
    dim, hidden, layers, heads, kv_heads, vocabulary, context = struct.unpack("<7i", data[:28])
    numbers = np.frombuffer(data, "<f4", offset=28)
    config = llama.config(
        vocab_size=abs(vocabulary),
        hidden_size=dim,
        intermediate_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=context,
        rope_layout="interleaved",
        tie_word_embeddings=vocabulary > 0,
    )
    at = 0

    def take(*shape):
        nonlocal at
        n = int(np.prod(shape))
        at += n
        return numbers[at - n : at].reshape(shape)

    kv = dim * kv_heads // heads
    shapes = {"wq": (dim, dim), "wk": (kv, dim), "wv": (kv, dim), "wo": (dim, dim)}
    shapes |= {"w1": (hidden, dim), "w2": (dim, hidden), "w3": (hidden, dim)}
    weights = {"embedding.weight": take(abs(vocabulary), dim)}
    for theirs, ours in MATRICES.items():
        for i, array in enumerate(take(layers, *shapes.get(theirs, (dim,)))):
            weights[f"blocks.{i}.{ours}.weight"] = array
    weights["final_norm.weight"] = take(dim)
    return config, weights


@pytest.fixture(scope="module")
def folder(reference):
    return reference / "weights" / "stories260K"


@pytest.fixture(scope="module")
def tokenizer(folder):
    return SentencePieceBPETokenizer.from_llama2c(folder / "tok512.bin")


@pytest.fixture(scope="module")
def model(folder):
    config, weights = read_model(folder / "stories260K.bin")
    model = Decoder(config)
    model.load_weights(weights)
    return model


def test_greedy_texts_are_equal_to_the_last_character(folder, model, tokenizer):
    begin = tokenizer.special_tokens["<s>"]
    golden = json.loads((folder / "golden_generations.json").read_text(encoding="utf-8"))
    greedy = [g for g in golden["generations"] if g["t"] == "0.0"]
    assert len(greedy) >= 3
    for g in greedy:
        ids = [begin, *tokenizer.encode(g["prompt"])]
        assert ids == g["prompt_tokens"]
        new = generate(model, ids, max_new_tokens=g["steps"] - len(ids) + 1, temperature=0, stop=(begin,))
        text = tokenizer.decode([*ids[1:], *new])
        assert text[: len(g["stdout"]) - 1] == g["stdout"].removesuffix("\n")
        assert len(text) <= len(g["stdout"]) + 8


def test_the_tokenizer_is_written_back_byte_for_byte(folder, tokenizer, tmp_path):
    tokenizer.to_llama2c(tmp_path / "tokenizer.bin")
    assert (tmp_path / "tokenizer.bin").read_bytes() == (folder / "tok512.bin").read_bytes()


def test_the_loss_on_a_hundred_stories(folder, reference, model, tokenizer):
    golden = json.loads((folder / "golden_generations.json").read_text(encoding="utf-8"))["eval"]
    stories = (reference / "text" / "tinystories_2MB.txt").read_text(encoding="utf-8").split("<|endoftext|>")
    nats = count = 0
    for story in stories[:100]:
        ids = [tokenizer.special_tokens["<s>"], *tokenizer.encode(story.strip())]
        n, c = held_out_loss(model, ids[:513])  # one context, as the figure was made
        nats, count = nats + n, count + c
    assert count == golden["tokens"]
    assert nats / count == pytest.approx(golden["mean_nll"], abs=1e-6)
    assert golden["mean_nll"] == pytest.approx(1.4078631, abs=1e-7)

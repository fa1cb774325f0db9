"""Run by `make test-minimal` in an environment that has tinyllm's base install and nothing else.

Each step that the base install promises is one function; a new one is added to the loop at the end.
"""

import re
import tempfile
from importlib.metadata import distributions
from pathlib import Path

import numpy as np

import tinyllm
from tinyllm.data import load_corpus
from tinyllm.generation import generate
from tinyllm.models import Decoder, gpt2
from tinyllm.tokenizers import BPETokenizer, load_tokenizer
from tinyllm.training.optimizers import AdamW
from tinyllm.training.parameter_store import ParameterStore
from tinyllm.training.runs import begin_run, complete

PACKAGES = {"numpy", "numba", "llvmlite", "regex", "safetensors"}
WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CHECKOUT = Path(__file__).resolve().parents[2]
TEXT = "The quick brown fox jumps over the lazy dog. " * 40


def only_these_packages(folder):
    """Exactly these are installed, tinyllm was not found in the checkout, and README.md prints their number."""
    installed = {distribution.name.lower() for distribution in distributions()} - {"pip", "setuptools", "tinyllm"}
    assert installed == PACKAGES, f"the base install is {sorted(installed)}, expected {sorted(PACKAGES)}"
    assert CHECKOUT / "tinyllm" not in Path(tinyllm.__file__).parents, f"this is the checkout: {tinyllm.__file__}"
    readme = (CHECKOUT / "README.md").read_text(encoding="utf-8")
    for number in re.findall(rf"\b(\d+|{'|'.join(WORDS)}) packages", readme, re.IGNORECASE):
        assert number.lower() in (WORDS[len(PACKAGES)], str(len(PACKAGES))), f"README.md says {number} packages"


def tokenizing(folder):
    """Train a tokenizer, save it, load it, and get the text back."""
    BPETokenizer.train([TEXT], vocab_size=280).save(folder / "tokenizer")
    tokenizer = load_tokenizer(folder / "tokenizer")
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


def training(folder):
    """A small decoder learns a repeating text with our optimizer."""
    ids = np.array([load_tokenizer(folder / "tokenizer").encode(TEXT)[:65]])
    config = gpt2.config(
        vocab_size=280, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=64
    )
    model = Decoder(config, seed=0)
    store = ParameterStore(model)
    optimizer = AdamW(store, lr=1e-2)
    losses = []
    for _ in range(20):
        loss = model.loss(ids[:, :-1], ids[:, 1:])
        store.zero()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2, f"the loss went from {losses[0]:.3f} to {losses[-1]:.3f} only"


def a_run_loading_and_generating(folder):
    """A whole run on a file of text, with checkpoints and its report; then its model goes on with a text."""
    (folder / "text.txt").write_text(TEXT * 10, encoding="utf-8")
    run = begin_run(
        folder / "run",
        "textbook",
        load_corpus(folder / "text.txt"),
        tokenizer="bytes",
        model={"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32},
        training={"steps": 5, "batch_size": 4, "sample_tokens": 5},
    )
    assert complete(run)["step"] == 5
    assert (folder / "run" / "report.html").exists()
    model, tokenizer = tinyllm.load(folder / "run")
    assert len(generate(model, tokenizer.encode("The quick"), max_new_tokens=8)) == 8


with tempfile.TemporaryDirectory() as name:
    for step in (only_these_packages, tokenizing, training, a_run_loading_and_generating):
        step(Path(name))
        print(f"base install: {step.__name__.replace('_', ' ')}: works")

"""Runs by name: a model, how it is trained, and what loss to expect."""

import dataclasses

from tinyllm.errors import UserError, did_you_mean
from tinyllm.models import FAMILIES
from tinyllm.training.config import TrainingConfig


@dataclasses.dataclass(frozen=True)
class Preset:
    """A named run. model: changes to the family's defaults; tokenizer: bpe, wordpiece, character or bytes.

    expected: dict corpus sha256 -> (low, high): held-out bits per byte that a finished run should have, which is what
    three seeds reached, give or take 0.02. docs/benchmarks.md has the seeds.
    """

    summary: str
    family: str
    model: dict
    training: TrainingConfig
    data: str
    tokenizer: str = "bpe"
    vocab_size: int = 8192
    prompt: str = ""
    """What samples on the way begin with; nothing: the start of a text."""
    expected: dict = dataclasses.field(default_factory=dict)

    def model_config(self, vocab_size, changes=None):
        """The DecoderConfig of this preset for a vocabulary, with changes by field name."""
        return FAMILIES[self.family].config(**self.model | {"vocab_size": vocab_size} | (changes or {}))


# Texts that were measured, by their sha256.
MANUAL_OF_PYTHON_3_11_7 = "b65e894bc8d136740662aaff2d78bfd8005683a05d429a5a2f17901404cfcd8b"
SHAKESPEARE = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"

PRESETS = {
    "quickstart": Preset(
        summary="the textbook pipeline at a size for three minutes on two cores",
        family="textbook",
        model={
            "hidden_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
        },
        training=TrainingConfig(
            steps=650,
            batch_size=16,
            learning_rate=3e-3,
            min_learning_rate=1e-4,
            warmup_steps=50,
            evaluate_every=100,
            sample_every=200,
            checkpoint_every=250,
        ),
        data="python-reference",
        vocab_size=4096,
        prompt="help(dragon)\n\n",
        expected={MANUAL_OF_PYTHON_3_11_7: (1.40, 1.445)},
    ),
    "textbook": Preset(
        summary="the textbook pipeline (RoPE, attention, LayerNorm after the residual, SwiGLU), 14M parameters",
        family="textbook",
        model={
            "hidden_size": 384,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "max_position_embeddings": 256,
        },
        training=TrainingConfig(steps=5000, batch_size=32, learning_rate=1e-3, min_learning_rate=1e-4),
        data="python-reference",
        vocab_size=4096,
    ),
    "shakespeare-char-cpu": Preset(
        summary="nanoGPT's CPU preset: 0.8M parameters on Shakespeare's characters",
        family="gpt2",
        model={
            "hidden_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "max_position_embeddings": 64,
            "feed_forward": "gelu",
            "attention_bias": False,
            "feed_forward_bias": False,
            "norm_bias": False,
        },
        training=TrainingConfig(
            steps=2000,
            batch_size=12,
            learning_rate=1e-3,
            min_learning_rate=1e-4,
            warmup_steps=100,
            beta1=0.9,
            beta2=0.99,
            weight_decay=0.1,
            clip=1.0,
            evaluate_every=250,
            sample_every=500,
            checkpoint_every=500,
        ),
        data="shakespeare",
        tokenizer="character",
        expected={SHAKESPEARE: (2.71, 2.776)},
    ),
    "shakespeare-char": Preset(
        summary="nanoGPT's GPU preset: 10.7M parameters on Shakespeare's characters, for a GPU or a patient CPU",
        family="gpt2",
        model={
            "hidden_size": 384,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "max_position_embeddings": 256,
            "feed_forward": "gelu",
            "attention_bias": False,
            "feed_forward_bias": False,
            "norm_bias": False,
            "dropout": 0.2,
        },
        training=TrainingConfig(
            steps=5000,
            batch_size=64,
            learning_rate=1e-3,
            min_learning_rate=1e-4,
            warmup_steps=100,
            beta1=0.9,
            beta2=0.99,
            weight_decay=0.1,
            clip=1.0,
        ),
        data="shakespeare",
        tokenizer="character",
    ),
    "gpt2-124m": Preset(
        summary="GPT-2 small, 124M parameters, for a GPU",
        family="gpt2",
        model={},
        training=TrainingConfig(
            steps=20000,
            batch_size=16,
            learning_rate=6e-4,
            min_learning_rate=6e-5,
            warmup_steps=700,
            beta2=0.95,
            weight_decay=0.1,
            evaluate_every=250,
            sample_every=1000,
            checkpoint_every=1000,
        ),
        data="tinystories",
        vocab_size=50257,
    ),
    "llama-tiny": Preset(
        summary="a small Llama (RMSNorm, RoPE, SwiGLU, grouped heads) on short stories",
        family="llama",
        model={
            "hidden_size": 192,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "num_key_value_heads": 3,
            "max_position_embeddings": 256,
            "tie_word_embeddings": True,
        },
        training=TrainingConfig(
            steps=3000,
            batch_size=16,
            learning_rate=2e-3,
            min_learning_rate=2e-4,
            warmup_steps=100,
            beta2=0.95,
        ),
        data="tinystories",
        vocab_size=2048,
    ),
}


def preset(name):
    """The preset of that name; an unknown one is an error with a suggestion."""
    if name in PRESETS:
        return PRESETS[name]
    hint = did_you_mean(name, PRESETS)
    listed = f"{' There' if hint else '; there'} are: {', '.join(PRESETS)}"
    raise UserError(f"no preset is called {name!r}{hint}{listed}")

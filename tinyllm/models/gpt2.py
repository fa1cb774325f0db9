"""GPT-2 (Radford et al. 2019): learned positions, pre-norm blocks, GELU (tanh), head tied to the embedding."""

from tinyllm.models.config import DecoderConfig
from tinyllm.models.weight_names import WeightNames

DEFAULTS = {
    "vocab_size": 50257,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 1024,
    "position": "learned",
    "norm": "layernorm",
    "norm_place": "pre",
    "feed_forward": "gelu_tanh",
    "attention_bias": True,
    "feed_forward_bias": True,
    "norm_bias": True,
    "tie_word_embeddings": True,
    "layer_norm_epsilon": 1e-5,
    "initialization": "gpt2",
}


def config(**changes):
    """A DecoderConfig with GPT-2's defaults (the 124M model) and these changes."""
    return DecoderConfig.from_dict(DEFAULTS | changes)


BLOCK = "transformer.h.{i}."
QUERY_KEY_VALUE = tuple(f"blocks.{{i}}.attention.{part}" for part in ("query", "key", "value"))

# Hugging Face stores the four matrices of a block (in, out); nanoGPT stores them (out, in) under the same names.
TABLE = {
    "transformer.wte.weight": "embedding.weight",
    "transformer.wpe.weight": "position.weight",
    "transformer.ln_f.weight": "final_norm.weight",
    "transformer.ln_f.bias": "final_norm.bias",
    **{BLOCK + f"ln_1.{p}": f"blocks.{{i}}.attention_norm.{p}" for p in ("weight", "bias")},
    **{BLOCK + f"ln_2.{p}": f"blocks.{{i}}.feed_forward_norm.{p}" for p in ("weight", "bias")},
    **{BLOCK + f"attn.c_attn.{p}": tuple(f"{part}.{p}" for part in QUERY_KEY_VALUE) for p in ("weight", "bias")},
    **{BLOCK + f"attn.c_proj.{p}": f"blocks.{{i}}.attention.output.{p}" for p in ("weight", "bias")},
    **{BLOCK + f"mlp.c_fc.{p}": f"blocks.{{i}}.feed_forward.up.{p}" for p in ("weight", "bias")},
    **{BLOCK + f"mlp.c_proj.{p}": f"blocks.{{i}}.feed_forward.down.{p}" for p in ("weight", "bias")},
    "lm_head.weight": "head.weight",
}

HUGGING_FACE = WeightNames(TABLE, transposed=("c_attn.weight", "c_proj.weight", "c_fc.weight"))
NANOGPT = WeightNames(TABLE)

"""Llama (Touvron et al. 2023): RMS norm, rotary positions, SwiGLU, grouped heads, no biases, a head of its own."""

from tinyllm.models.config import DecoderConfig
from tinyllm.models.weight_names import WeightNames

DEFAULTS = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "intermediate_size": None,
    "max_position_embeddings": 4096,
    "position": "rope",
    "norm": "rmsnorm",
    "norm_place": "pre",
    "feed_forward": "swiglu",
    "attention_bias": False,
    "feed_forward_bias": False,
    "norm_bias": False,
    "tie_word_embeddings": False,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_layout": "half",
    "initialization": "normal",
}


def config(**changes):
    """A DecoderConfig with Llama 2's defaults (the 7B shape) and these changes."""
    return DecoderConfig.from_dict(DEFAULTS | changes)


LAYER = "model.layers.{i}."
PARTS = {
    "self_attn.q_proj": "attention.query",
    "self_attn.k_proj": "attention.key",
    "self_attn.v_proj": "attention.value",
    "self_attn.o_proj": "attention.output",
    "mlp.gate_proj": "feed_forward.gate",
    "mlp.up_proj": "feed_forward.up",
    "mlp.down_proj": "feed_forward.down",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "feed_forward_norm",
}

HUGGING_FACE = WeightNames(
    {
        "model.embed_tokens.weight": "embedding.weight",
        "model.norm.weight": "final_norm.weight",
        "lm_head.weight": "head.weight",
        **{f"{LAYER}{theirs}.weight": f"blocks.{{i}}.{ours}.weight" for theirs, ours in PARTS.items()},
    }
)

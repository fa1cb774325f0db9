"""The pipeline of the textbooks (Vaswani et al. 2017, with two later parts):

BPE ids, embedding + RoPE, then L times [masked multi-head attention, residual and LayerNorm, SwiGLU feed-forward,
residual and LayerNorm], linear head, softmax. Norms come after each sum, so no final norm is needed.
"""

from tinyllm.models.config import DecoderConfig

DEFAULTS = {
    "hidden_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "max_position_embeddings": 512,
    "position": "rope",
    "norm": "layernorm",
    "norm_place": "post",
    "feed_forward": "swiglu",
    "attention_bias": True,
    "feed_forward_bias": False,
    "norm_bias": True,
    "tie_word_embeddings": False,
    "initialization": "normal",
}


def config(**changes):
    """A DecoderConfig of the textbook pipeline with these changes; vocab_size must be given."""
    return DecoderConfig.from_dict(DEFAULTS | changes)

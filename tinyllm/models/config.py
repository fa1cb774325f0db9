"""What varies between decoders, chosen by name. Field names are those of Hugging Face's config.json."""

import dataclasses
import math

from tinyllm.errors import UserError, did_you_mean

CHOICES = {
    "position": ("learned", "rope", "alibi", "none"),
    "norm": ("layernorm", "rmsnorm"),
    "norm_place": ("pre", "post"),
    "feed_forward": ("gelu", "gelu_tanh", "swiglu", "relu2"),
    "rope_layout": ("half", "interleaved"),
    "initialization": ("gpt2", "normal"),
}
COUNTS = (
    "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings",
    "num_key_value_heads", "head_dim", "intermediate_size", "sliding_window",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
    """The shape of a decoder. Every family file (gpt2, llama, textbook) is a set of defaults for it."""

    vocab_size: int
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_key_value_heads: int | None = None
    """None: as many as query heads."""
    head_dim: int | None = None
    """None: hidden_size / num_attention_heads."""
    intermediate_size: int | None = None
    """Width of the feed-forward layer. None: 4 hidden_size, or 8/3 of it (same cost) rounded up to 8 for swiglu."""
    max_position_embeddings: int = 1024
    """The context: how many tokens the model sees at once."""
    position: str = "learned"
    """learned, rope, alibi or none"""
    norm: str = "layernorm"
    """layernorm or rmsnorm"""
    norm_place: str = "pre"
    """pre: x + f(norm(x));  post: norm(x + f(x))"""
    feed_forward: str = "gelu"
    """gelu, gelu_tanh, swiglu or relu2"""
    attention_bias: bool = True
    feed_forward_bias: bool = True
    norm_bias: bool = True
    query_key_norm: bool = False
    """RMS norm of every query and key head before their product."""
    sliding_window: int | None = None
    tie_word_embeddings: bool = True
    layer_norm_epsilon: float = 1e-5
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_layout: str = "half"
    dropout: float = 0.0
    """Of the embedding and of what each layer adds; acts only when a dropout seed is given."""
    initializer_range: float = 0.02
    initialization: str = "gpt2"
    """gpt2: residual outputs smaller by sqrt(2 num_hidden_layers);  normal: all matrices alike"""

    def __post_init__(self):
        for field, choices in CHOICES.items():
            value = getattr(self, field)
            if value not in choices:
                raise UserError(
                    f"{field} must be one of {', '.join(choices)}, not {value!r}{did_you_mean(value, choices)}"
                )
        for field in COUNTS:
            value = getattr(self, field)
            if value is not None and not 1 <= value < 2**31:
                limit = "at least 1" if value < 1 else "below 2^31"
                raise UserError(f"{field} must be {limit}, not {value}")
        for field in ("layer_norm_epsilon", "rms_norm_eps", "initializer_range"):
            if not 0 <= getattr(self, field) < math.inf:
                raise UserError(f"{field} must not be negative, infinite or NaN; it was {getattr(self, field)}")
        if not 0 < self.rope_theta < math.inf:
            raise UserError(f"rope_theta must be positive and finite, not {self.rope_theta}")
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} is not divisible by num_attention_heads {self.num_attention_heads}; "
                "change one of them or set head_dim"
            )
        if self.num_attention_heads % self.key_value_heads:
            raise UserError(
                f"num_attention_heads {self.num_attention_heads} is not divisible by "
                f"num_key_value_heads {self.key_value_heads}"
            )
        if self.position == "rope" and self.head_width % 2:
            raise UserError(f"rope turns pairs of features, so the head width must be even, not {self.head_width}")
        if not 0 <= self.dropout < 1:
            raise UserError(f"dropout must be in [0, 1), not {self.dropout}")

    @property
    def head_width(self):
        """D, the width of one head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def key_value_heads(self):
        """G, the number of key/value heads."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def feed_forward_width(self):
        """F, the width inside the feed-forward layer."""
        if self.intermediate_size:
            return self.intermediate_size
        return -(-8 * self.hidden_size // 3 // 8) * 8 if self.feed_forward == "swiglu" else 4 * self.hidden_size

    def replace(self, **changes):
        """A copy with some fields changed."""
        return dataclasses.replace(self, **known_fields(changes))

    def as_dict(self):
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values):
        """The config of a `config.json`; an unknown key is an error."""
        return cls(**known_fields(values))


def known_fields(values):
    names = [field.name for field in dataclasses.fields(DecoderConfig)]
    for key in values:
        if key not in names:
            raise UserError(f"a decoder has no option {key!r}{did_you_mean(key, names)}")
    return values

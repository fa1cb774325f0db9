"""One configurable decoder and the families of it: `Decoder(gpt2.config(hidden_size=128), seed=0)`."""

from tinyllm.models import gpt2, llama, textbook
from tinyllm.models.config import DecoderConfig
from tinyllm.models.decoder import Decoder
from tinyllm.models.module import Module

FAMILIES = {"gpt2": gpt2, "llama": llama, "textbook": textbook}

__all__ = ["FAMILIES", "Decoder", "DecoderConfig", "Module", "gpt2", "llama", "textbook"]

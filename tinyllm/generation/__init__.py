"""Generation: sampling, decoding, streaming."""

from tinyllm.generation.decoding import generate, stream

__all__ = ["generate", "stream"]

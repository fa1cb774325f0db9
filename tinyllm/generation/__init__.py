"""Generation: sampling, decoding, streaming."""

from tinyllm.generation.decoding import generate, stream
from tinyllm.generation.prompts import prompt_ids, stop_ids

__all__ = ["generate", "prompt_ids", "stop_ids", "stream"]

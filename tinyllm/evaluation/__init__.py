"""How good is it? Measures of models and of what they write."""

from tinyllm.evaluation.baselines import bits_per_byte, lzma_bits_per_byte, trigram_bits_per_byte, unigram_bits_per_byte
from tinyllm.evaluation.samples import CopiedRun, WordCheck, check_words, longest_copied_run

__all__ = [
    "CopiedRun",
    "WordCheck",
    "bits_per_byte",
    "check_words",
    "longest_copied_run",
    "lzma_bits_per_byte",
    "trigram_bits_per_byte",
    "unigram_bits_per_byte",
]

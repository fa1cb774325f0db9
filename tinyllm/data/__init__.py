"""Text and tokens: corpora, token files, batches. Needs NumPy only."""

from tinyllm.data.batches import IGNORED, RandomBatches, windows
from tinyllm.data.corpora import NAMES, Corpus, load_corpus
from tinyllm.data.held_out import Divided
from tinyllm.data.preparation import PreparedData, num_bytes_of_targets, prepare
from tinyllm.data.streamed_text import StreamedCorpus
from tinyllm.data.token_files import TokenFile, write_tokens

__all__ = [
    "IGNORED",
    "NAMES",
    "Corpus",
    "Divided",
    "PreparedData",
    "RandomBatches",
    "StreamedCorpus",
    "TokenFile",
    "load_corpus",
    "num_bytes_of_targets",
    "prepare",
    "windows",
    "write_tokens",
]

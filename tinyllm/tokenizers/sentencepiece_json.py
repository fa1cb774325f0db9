"""Hugging Face's tokenizer.json of Llama 2's kind: what ours say in it, and what is understood of others'.

"▁" is put in front and for spaces by a normalizer (Prepend, Replace) or by the pre-tokenizer Metaspace; the decoder
undoes it. The format has no scores: merges stand in it in all ways two pieces make a third, the best first. Ours keep
the scores beside them.
"""

import functools

from tinyllm.tokenizers.huggingface import expect, pairs_of, special_tokens_of, tokenizer_json, vocabulary_of
from tinyllm.tokenizers.sentencepiece_pieces import SPACE, byte_of

PREPEND = {"type": "Prepend", "prepend": SPACE}
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
NORMALIZERS = {"always": {"type": "Sequence", "normalizers": [PREPEND, REPLACE]}, "never": REPLACE}
METASPACES = {"unless_spaced": "always", "first_unless_spaced": "first"}
DECODERS = [
    {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
]
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
check = functools.partial(expect, kind="Llama 2's kind of BPE")


def sentencepiece_json(pieces, scores, pairs, special_tokens, unknown, prefix, byte_fallback):
    """tokenizer.json of a SentencePieceBPETokenizer; the arguments are those of its constructor.

    pairs: list of (left id, right id) in the order of joining; scores: dict id -> float, or None.
    """
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": byte_fallback,
        "ignore_merges": False,
        "vocab": special_tokens | {piece: token for token, piece in pieces.items()},
        "merges": [f"{pieces[left]} {pieces[right]}" for left, right in pairs],
    }
    if scores is not None:
        model["scores"] = [[token, score] for token, score in scores.items()]
    pre_tokenizer = None
    if prefix in METASPACES:
        scheme = METASPACES[prefix]
        pre_tokenizer = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": False}
    decoder = {"type": "Sequence", "decoders": DECODERS if prefix == "never" else [*DECODERS, STRIP]}
    content = tokenizer_json(model, special_tokens, pre_tokenizer, decoder)
    return content | {"normalizer": NORMALIZERS.get(prefix)}


def sentencepiece_from_json(content):
    """The arguments of SentencePieceBPETokenizer, as a dict, that a tokenizer.json describes."""
    model = content["model"]
    check(model.get("type", "BPE"), ["BPE"], "model type")
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "ignore_merges"):
        check(model.get(option), [None, "", 0, False], option)
    special_tokens = special_tokens_of(content)
    prefix = prefix_of(content.get("normalizer"), content.get("pre_tokenizer"))
    steps = DECODERS if prefix == "never" else [*DECODERS, STRIP]
    check(content.get("decoder"), [{"type": "Sequence", "decoders": steps}], "decoder")
    vocabulary = vocabulary_of(content)
    pieces = {token: piece for piece, token in vocabulary.items()}
    bytes_known = len({byte_of(piece) for piece in vocabulary} - {None})
    check(bool(model.get("byte_fallback")), [bytes_known > 0], f"byte_fallback (for {bytes_known} bytes)")
    # Where every byte is known nothing is unknown, and it does not matter what would become of it.
    check(bool(model.get("fuse_unk")) or bytes_known == 256, [True], "fuse_unk")
    parts = {"special_tokens": special_tokens, "unknown": model.get("unk_token"), "prefix": prefix}
    if "scores" in model:
        return parts | {"pieces": pieces, "scores": dict(model["scores"])}
    return parts | {"pieces": pieces, "merges": pairs_of(model["merges"], vocabulary)}


def prefix_of(normalizer, pre_tokenizer):
    """Which of DUMMY_PREFIXES a normalizer and a pre-tokenizer make."""
    if pre_tokenizer is None:
        check(normalizer, [*NORMALIZERS.values()], "normalizer")
        return next(prefix for prefix, known in NORMALIZERS.items() if known == normalizer)
    check(normalizer, [None], "normalizer")
    check(pre_tokenizer["type"], ["Metaspace"], "pre-tokenizer")
    check(pre_tokenizer["replacement"], [SPACE], "replacement")
    check(pre_tokenizer.get("split", True), [False], "split")
    scheme = pre_tokenizer["prepend_scheme"]
    check(scheme, ["always", "first", "never"], "prepend_scheme")
    return next((prefix for prefix, known in METASPACES.items() if known == scheme), "never")

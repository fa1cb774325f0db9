"""How fast tokenizers are: ours and others' in turns, one thread each, after a look that the ids are the same.

    python tests/benchmarks/tokenizer_speed.py --text book.txt --ranks cl100k_base.tiktoken

Encoding is compared with tiktoken. A rank file and texts are found in the reference folder (TINYLLM_REFERENCE) where
there is one; the standard library's source is always there. Every measurement is the median of so many turns, and the
ratio is that of the medians: more than 1, and ours is faster.
"""

import argparse
import base64
import json
import os
import statistics
import sys
import sysconfig
import time
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
REFERENCE = Path(os.environ.get("TINYLLM_REFERENCE", ROOT.parent / "shared" / "reference"))

# tiktoken's own spelling of cl100k's pattern, with possessive quantifiers.
CL100K = (
    r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"""
    r"""|\s++$|\s*[\r\n]|\s+(?!\S)|\s"""
)
SOURCE_CHARACTERS = 20_000_000
SHORT = ("Hello world, this is", "The quick brown fox.", "def f(x): return x+1")
LONG = {"16,000 equal letters": "a" * 16_000, "16,000 letters": "thequickbrownfox" * 1_000}


@dataclass
class Comparison:
    """Median seconds of one job, by us and by another."""

    what: str
    ours: float
    theirs: float
    num_bytes: int  # of text, in one turn

    @property
    def ratio(self):
        return self.theirs / self.ours

    def line(self):
        rates = [f"{self.num_bytes / seconds / 1e6:8.1f}" for seconds in (self.ours, self.theirs)]
        times = [f"{seconds * 1e6:12.1f}" for seconds in (self.ours, self.theirs)]
        return f"{self.what:44}{'  '.join(times)}   {' '.join(rates)}   {self.ratio:6.2f}x"


HEADER = f"{'':44}{'ours, µs':>12}  {'theirs, µs':>12}   {'MB/s':>8} {'MB/s':>8}    ratio"


def in_turns(ours, theirs, turns):
    """Median seconds of two functions called alternately."""
    seconds = [], []
    for _ in range(turns):
        for function, measured in zip((ours, theirs), seconds, strict=True):
            start = time.perf_counter()
            function()
            measured.append(time.perf_counter() - start)
    return [statistics.median(measured) for measured in seconds]


def compared(what, ours, theirs, num_bytes, turns, repeats=1):
    """One comparison; each function is called `repeats` times a turn, where once is too short to be measured."""

    def repeated(function):
        return lambda: [function() for _ in range(repeats)]

    seconds = in_turns(repeated(ours), repeated(theirs), turns)
    return Comparison(what, *(each / repeats for each in seconds), num_bytes)


def standard_library_source():
    """The first so many characters of the standard library's Python files, in the order of their names."""
    folder, parts, size = Path(sysconfig.get_paths()["stdlib"]), [], 0
    for path in sorted(folder.rglob("*.py")):
        if "site-packages" in path.parts:
            continue
        try:
            parts.append(path.read_text(encoding="utf-8"))
        except UnicodeDecodeError:  # its tests have files in other encodings
            continue
        size += len(parts[-1])
        if size >= SOURCE_CHARACTERS:
            break
    return "".join(parts)[:SOURCE_CHARACTERS]


def texts_to_encode(paths):
    """Dict name -> text."""
    texts = {path.name: path.read_bytes().decode("utf-8") for path in paths}
    return texts | {"standard library": standard_library_source()}


def encoding(ranks_path, texts, turns):
    """Comparisons of encoding with tiktoken, over one vocabulary of the pattern of cl100k."""
    import tiktoken

    from tinyllm.tokenizers import BPETokenizer

    ours = BPETokenizer.from_tiktoken(ranks_path, pattern="gpt4")
    ours.use_rung("numba")
    lines = ranks_path.read_text().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in map(str.split, lines)}
    theirs = tiktoken.Encoding("theirs", pat_str=CL100K, mergeable_ranks=ranks, special_tokens={})
    for text in (*texts.values(), *SHORT, *LONG.values()):
        if ours.encode(text) != theirs.encode_ordinary(text):
            raise SystemExit("the ids differ: there is nothing to compare")
    for name, text in texts.items():
        size = len(text.encode())
        yield compared(
            f"{name}, into an array",
            lambda: ours.encode_to_array(text),
            lambda: theirs.encode_ordinary(text),
            size,
            turns,
        )
        yield compared(
            f"{name}, into a list", lambda: ours.encode(text), lambda: theirs.encode_ordinary(text), size, turns
        )
    for text in SHORT:
        yield compared(
            repr(text), lambda: ours.encode(text), lambda: theirs.encode_ordinary(text), len(text), 20 * turns, 1_000
        )
    for name, text in LONG.items():
        yield compared(name, lambda: ours.encode(text), lambda: theirs.encode_ordinary(text), len(text), 20 * turns)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, nargs="*", default=[], help="files to encode besides")
    parser.add_argument("--ranks", type=Path, help="a tiktoken rank file of cl100k's kind")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--json", type=Path, help="save everything that was measured")
    arguments = parser.parse_args()
    ranks = arguments.ranks or REFERENCE / "tokenizers" / "tiktoken" / "cl100k_base.tiktoken"
    if not ranks.is_file():
        parser.error(f"there is no rank file {ranks}; name one with --ranks")
    bible = REFERENCE / "text" / "bible.txt"
    texts = texts_to_encode(arguments.text or [bible] * bible.is_file())
    print(HEADER)
    comparisons = []
    for comparison in encoding(ranks, texts, arguments.turns):
        comparisons.append(comparison)
        print(comparison.line(), flush=True)
    if arguments.json:
        measured = [asdict(comparison) | {"ratio": comparison.ratio} for comparison in comparisons]
        arguments.json.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

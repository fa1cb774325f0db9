"""Training byte-level BPE: our time beside that of Hugging Face's trainer, and the memory that a large corpus takes.

    python tests/benchmarks/tokenizer_training.py speed             needs `tokenizers`
    python tests/benchmarks/tokenizer_training.py memory FOLDER     needs 1 GB there

speed: 20 MB of the standard library's source, 8,192 tokens, as many threads for both, rounds of both in turn, medians.
Theirs is given the files' texts from a list, and the paths of files; the faster one counts.

memory: 1 GB made of all Python files, text and markup below the folders of this Python, each distinct file once. In
the rounds that follow, as many as it takes, every 150th word of four letters or more has two letters replaced by
chance, so that new words keep coming as they do in new text. Then `tinyllm tokenizer train` reads it in a process of
its own, which says how much memory it took at most.
"""

import argparse
import os
import random
import re
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

VOCAB_SIZE, SPEED_BYTES, MEMORY_BYTES = 8192, 20_000_000, 1_000_000_000
KINDS = {".py", ".pyi", ".rst", ".md", ".txt", ".h", ".html"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "memory"])
    parser.add_argument("folder", nargs="?", type=Path, help="where the 1 GB is written (memory)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.what == "speed":
        compare_speed(options.threads, options.rounds)
    elif options.folder is None:
        parser.error("memory needs the folder where to write 1 GB")
    else:
        measure_memory(options.folder / "corpus.txt")


def compare_speed(threads, rounds):
    """Print the seconds of each round and the ratio of the medians, for both patterns."""
    os.environ |= {"RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true"}
    from tinyllm.tokenizers import BPETokenizer, count_words
    from tinyllm.tokenizers.compiling import kernels_ready

    kernels_ready(wait=True)
    texts = beginning(standard_library(), SPEED_BYTES)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.txt" for number in range(len(texts))]
        for file, text in zip(files, texts, strict=True):
            file.write_text(text, encoding="utf-8", newline="")

        def ours(pattern):
            words = count_words(texts, pattern, threads=threads)
            BPETokenizer.train_on_words(words, VOCAB_SIZE, pattern)

        ways = {
            "tinyllm": ours,
            "tokenizers, from a list": lambda pattern: theirs(pattern).train_from_iterator(texts, trainer()),
            "tokenizers, from files": lambda pattern: theirs(pattern).train(list(map(str, files)), trainer()),
        }
        for pattern in ("gpt2", "gpt4"):
            seconds = {name: [] for name in ways}
            for number in range(rounds + 1):
                for name, way in ways.items():
                    begin = time.perf_counter()
                    way(pattern)
                    seconds[name] += [time.perf_counter() - begin] if number else []  # the first warms up
            medians = {name: statistics.median(times) for name, times in seconds.items()}
            for name, times in seconds.items():
                print(f"{pattern}  {name:24} {medians[name]:6.2f} s   ", *(f"{time:.2f}" for time in times))
            ours_seconds = medians.pop("tinyllm")
            print(f"{pattern}  {min(medians.values()) / ours_seconds:.1f} times as fast, with {threads} threads each")


def theirs(pattern):
    """Hugging Face's tokenizer before training: GPT-2's pattern by its own code, another by its regular expression."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    from tinyllm.tokenizers.patterns import PATTERNS

    tokenizer = Tokenizer(models.BPE())
    if pattern == "gpt2":
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    else:
        split = pre_tokenizers.Split(Regex(PATTERNS[pattern]), "isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    return tokenizer


def trainer():
    """Hugging Face's trainer with the settings of ours."""
    from tokenizers import pre_tokenizers, trainers

    return trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )


def standard_library():
    """The source files of this Python's library, as texts."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py")):
        if "site-packages" not in path.parts:
            yield path.read_bytes().decode("utf-8", "replace")


def beginning(texts, size):
    """The first texts, of `size` bytes together."""
    taken = []
    for text in texts:
        if size <= 0:
            break
        taken.append(text)
        size -= len(text.encode("utf-8"))
    return taken


def measure_memory(path):
    """Write the corpus, unless it is there, and print the peak of a process that trains on it."""
    if not path.exists():
        write_corpus(path)
    code = (
        "import resource, sys, time\n"
        "from tinyllm.commands.main import main\n"
        "begin = time.time()\n"
        "assert main(sys.argv[1:]) == 0\n"
        "peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(f'{time.time() - begin:.0f} s, at most {peak / 1024:,.0f} MB resident')"
    )
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["tokenizer", "train", "--data", str(path), "--out", folder, "--vocab-size", str(VOCAB_SIZE)]
        subprocess.run([sys.executable, "-c", code, *arguments], check=True)


def write_corpus(path):
    """1 GB of text in which new words keep coming."""
    texts, draw, size, rounds = distinct_texts(), random.Random(0), 0, 0
    with open(path, "w", encoding="utf-8", newline="") as file:
        while size < MEMORY_BYTES:
            for text in texts:
                text = changed(text, draw) if rounds else text
                file.write(text + "\n")
                size += len(text.encode("utf-8")) + 1
                if size >= MEMORY_BYTES:
                    break
            rounds += 1
    print(f"{path}: {size:,} bytes, {len(texts):,} files in {rounds} rounds")


def distinct_texts():
    """The texts below the folders of this Python that are UTF-8 and neither equal nor above 3 MB."""
    texts = {}
    for folder in sorted({sys.prefix, sys.base_prefix, sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")}):
        for path in sorted(Path(folder).rglob("*")):
            if path.suffix in KINDS and path.is_file() and path.stat().st_size < 3_000_000:
                data = path.read_bytes()
                try:
                    texts[data.decode("utf-8")] = None
                except UnicodeDecodeError:
                    continue
    return [text for text in texts if "\0" not in text]


def changed(text, draw):
    """The text with two letters of every 150th longer word, by chance, replaced."""

    def perhaps(match):
        if draw.random() * 150 > 1:
            return match[0]
        letters = list(match[0])
        for _ in range(2):
            letters[draw.randrange(len(letters))] = draw.choice("etaoinshrdlu")
        return "".join(letters)

    return re.sub(r"[A-Za-z]{4,}", perhaps, text)


if __name__ == "__main__":
    main()

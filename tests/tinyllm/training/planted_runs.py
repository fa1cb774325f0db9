"""Runs in which something is wrong on purpose, recorded for test_diagnosis.py; about a minute.

    python tests/tinyllm/training/planted_runs.py

Writes planted_runs.json beside it: what each run measured, and the parts of its config.json that a diagnosis reads. The
text is a chain of invented sentences, read letter by letter.
"""

import json
import math
import sys
import tempfile
from pathlib import Path

import numpy as np

from tinyllm.data import load_corpus
from tinyllm.evaluation.loss import held_out_loss
from tinyllm.training.diagnosis.history import read_history
from tinyllm.training.loop import pretrain
from tinyllm.training.runs import begin_run

RECORDED = Path(__file__).with_name("planted_runs.json")
MODEL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 32}
USUAL = {"steps": 300, "batch_size": 8, "evaluate_every": 50, "evaluation_windows": 20}
WORDS = [
    "the", "a", "old", "young", "sailor", "captain", "ship", "sea", "storm", "island", "told", "sang", "saw", "found",
    "lost", "of", "and", "in", "on", "under", "with", "song", "gold", "letter", "morning", "night", "harbour", "wind",
    "long", "dark", "bright", "quiet", "slowly", "again", "never", "always",
]  # fmt: skip


def sentences(number, seed=0):
    """So many words, each drawn by the one before it."""
    rng = np.random.default_rng(seed)
    after = {word: rng.permutation(len(WORDS)) for word in WORDS}
    share = 1 / np.arange(1, len(WORDS) + 1)
    words = ["the"]
    for _ in range(number):
        words.append(WORDS[after[words[-1]][rng.choice(len(WORDS), p=share / share.sum())]])
    return " ".join(words)


def shuffled(text):
    letters = list(text)
    np.random.default_rng(0).shuffle(letters)
    return "".join(letters)


TEXT = sentences(20_000)
PLANTED = {
    "healthy": {},
    "healthy, fp16": {"precision": "fp16"},
    "healthy, three times the rate": {"learning_rate": 9e-3},
    "rate 30 times too large": {"learning_rate": 0.1},
    "rate 100 times too large": {"learning_rate": 0.3},
    "rate 3,000 times too large": {"learning_rate": 10.0},
    "rate 30 times too small": {"learning_rate": 1e-4},
    "rate 100 times too small": {"learning_rate": 3e-5},
    "rate 3,000 times too small": {"learning_rate": 1e-6},
    "no rate": {"learning_rate": 0.0},
    "clip of a thousandth": {"clip": 1e-3},
    "few steps": {"steps": 40},
    "shuffled letters": {"text": shuffled(TEXT)},
    "a page by heart": {"text": sentences(400), "learning_rate": 1e-2, "steps": 600},
    "the same page again and again": {"text": (sentences(60) + " ") * 300, "learning_rate": 1e-2, "steps": 600},
}


def planted(text=TEXT, **training):
    """Train a small model; what the run measured, as a dict."""
    with tempfile.TemporaryDirectory() as place:
        path, folder = Path(place) / "text.txt", Path(place) / "run"
        path.write_text(text)
        options = {"model": MODEL, "training": USUAL | training, "tokenizer": "character"}
        run = begin_run(folder, "quickstart", load_corpus(str(path)), **options)
        losses, norms, scales, held_out = [], [], [], []

        def after_step(record):
            losses.append(float(f"{record['loss_nats']:.4g}"))
            norms.append(float(f"{record['gradient_norm']:.3g}"))
            scales.append(record.get("loss_scale"))
            if record["step"] % run.training.config.evaluate_every == 0:
                nats, count = held_out_loss(run.training.model, run.validation_tokens.tokens, first=20)
                held_out.append([record["step"], round(nats / count, 4)])

        with np.errstate(all="ignore"):
            pretrain(run.training, after_step=after_step)
        config = run.config | {"corpus": run.config["corpus"] | {"name": "tales.txt"}}
        kept = ("format_version", "preset", "model", "training", "tokenizer", "corpus")
        return {
            "config": {name: config[name] for name in kept},
            "unigram_bits": read_history(folder).unigram / math.log(2),
            "loss_nats": losses,
            "gradient_norm": norms,
            "loss_scale": scales if scales[0] else None,
            "held_out": held_out,
        }


def main():
    recorded = {}
    for name, options in PLANTED.items():
        print(name, file=sys.stderr)
        recorded[name] = planted(**options)
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(run)}" for name, run in recorded.items())
    RECORDED.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()

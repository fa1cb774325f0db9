"""How long training pauses for a checkpoint: the whole of its writing, or the copy from which it is written beside.

    python tests/benchmarks/checkpoint_pause.py [--model 10.9m|124m] [--saves 5] [--folder DIR]

Both ways take turns in one process, on the same state. Prints medians, and the slowest step while one is being written.
"""

import argparse
import statistics
import tempfile
import time

import numpy as np

from tinyllm.data import RandomBatches
from tinyllm.models import Decoder, gpt2
from tinyllm.training.checkpoints import Checkpoints, save_checkpoint
from tinyllm.training.config import TrainingConfig
from tinyllm.training.loop import Pretraining, pretrain
from tinyllm.training.memory import keep_freed_memory

MODELS = {
    "10.9m": {
        "vocab_size": 512, "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 6,
        "max_position_embeddings": 256,
    },
    "124m": {
        "vocab_size": 50257, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "max_position_embeddings": 1024,
    },
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="10.9m")
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--folder", default=None, help="on the disk to measure; a temporary one unless given")
    options = parser.parse_args()
    keep_freed_memory()
    shape = MODELS[options.model]
    tokens = np.random.default_rng(0).integers(0, shape["vocab_size"], 20_000)
    context = 32  # short: the pause is measured, not the step
    model = Decoder(gpt2.config(**shape), seed=0)
    training = Pretraining(model, RandomBatches(tokens, batch_size=1, context=context), TrainingConfig(steps=10**6))
    print(f"{model.num_parameters():,} parameters", flush=True)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, Checkpoints(folder, keep=1) as saving:
        times = {"in the foreground": [], "the copy": [], "written after": [], "step": [], "step beside": []}
        for _ in range(options.saves):
            times["step"].append(step(training))
            times["in the foreground"].append(timed(lambda: save_checkpoint(folder, training, keep=1)))
            step(training)
            times["the copy"].append(timed(lambda: saving.save(training)))
            begun = time.perf_counter()
            while saving.unwritten:
                times["step beside"].append(step(training))
            times["written after"].append(time.perf_counter() - begun)
            saving.wait()
    for name, seconds in times.items():
        if seconds:
            median = statistics.median(seconds)
            print(f"{name:20} median {median:7.3f} s   longest {max(seconds):7.3f} s   ({len(seconds)})")


def timed(function):
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def step(training):
    """Seconds of one step."""
    end = training.step + 1
    return timed(lambda: pretrain(training, stop=lambda: training.step >= end))


if __name__ == "__main__":
    main()

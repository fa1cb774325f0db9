"""What recomputing the blocks of a 12-layer model saves and costs.

Prints, for each backend, what a step keeps for backward, how high it rises above what was there before (both by
`ag.debug.ledger`; compiled code's own memory is not in them), and how long it takes: medians over rounds, the variants
in turn within a round.

    python tests/benchmarks/recompute.py [--rounds 9] [--backends reference numba]
"""

import argparse
import statistics
import time

import numpy as np

import autograd as ag
from tinyllm.data import RandomBatches
from tinyllm.models import Decoder, gpt2
from tinyllm.training.config import TrainingConfig
from tinyllm.training.loop import Pretraining, one_step
from tinyllm.training.memory import keep_freed_memory

VARIANTS = ("none", 6, "all")
SHAPE = gpt2.config(
    vocab_size=512, hidden_size=256, num_hidden_layers=12, num_attention_heads=4, max_position_embeddings=256
)
BATCH = 8


def make(recompute):
    config = TrainingConfig(batch_size=BATCH, recompute=recompute)
    tokens = np.random.default_rng(0).integers(0, SHAPE.vocab_size, 100_000)
    batches = RandomBatches(tokens, batch_size=BATCH, context=SHAPE.max_position_embeddings, seed=0)
    return Pretraining(Decoder(SHAPE, seed=0), batches, config)


def seconds_of_a_step(training):
    started = time.perf_counter()
    one_step(training)
    return time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--backends", nargs="+", default=["reference", "numba"])
    options = parser.parse_args()
    keep_freed_memory()
    print("kernels    recompute   kept MB   peak MB   step ms   time")
    for backend in options.backends:
        with ag.use_kernels(backend):
            trainings = {recompute: make(recompute) for recompute in VARIANTS}
            books, seconds = {}, {recompute: [] for recompute in VARIANTS}
            for recompute, training in trainings.items():
                with ag.debug.ledger() as books[recompute]:
                    one_step(training)
            for _ in range(options.rounds):
                for recompute, training in trainings.items():
                    seconds[recompute].append(seconds_of_a_step(training))
            ratios = {
                recompute: statistics.median(np.divide(seconds[recompute], seconds["none"])) for recompute in VARIANTS
            }
            for recompute in VARIANTS:
                book, median = books[recompute], 1e3 * statistics.median(seconds[recompute])
                print(
                    f"{backend:11}{recompute!s:10}{book.bytes / 1e6:9.1f}{book.peak / 1e6:10.1f}{median:10.0f}"
                    f"{ratios[recompute]:7.2f}"
                )


if __name__ == "__main__":
    main()

"""What the shared store costs beside messages: steps with a communicator that sends nothing, against one process.

    python tests/benchmarks/zero_overhead.py [--rounds 15]

Both compute the same half of a batch. Times are the processor's, of all threads, medians of steps in turn; the ratio is
over those of one process, of stage 3 over one process that recomputes all blocks too.
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
from tinyllm.training.parallel import Ranks, Single
from tinyllm.training.parallel.config import ParallelConfig

SHAPES = {
    "0.2M": gpt2.config(
        vocab_size=256, hidden_size=64, num_hidden_layers=4, num_attention_heads=4, max_position_embeddings=64
    ),
    "10M": gpt2.config(
        vocab_size=4096, hidden_size=320, num_hidden_layers=7, num_attention_heads=5, max_position_embeddings=64
    ),
}
BATCH = 8


class FirstOfTwo(Single):
    """Rank 0 of two; the other is never heard of, and its weights are taken to be small and equal."""

    size = 2

    def all_gather(self, array, cuts):
        array[cuts[1] :] = 0.01


def make(shape, size, stage, recompute="none"):
    config = TrainingConfig(batch_size=BATCH * size, recompute=recompute, on_spike="off")
    tokens = np.random.default_rng(0).integers(0, shape.vocab_size, 100_000)
    batches = RandomBatches(tokens, batch_size=BATCH * size, context=shape.max_position_embeddings, seed=0)
    ranks = Ranks(FirstOfTwo()) if size == 2 else None
    return Pretraining(Decoder(shape, seed=0), batches, config, ParallelConfig(zero=stage), ranks)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--backend", default="numba")
    options = parser.parse_args()
    keep_freed_memory()
    for size, shape in SHAPES.items():
        cases = {"one process": make(shape, 1, 0), "one process, recomputing": make(shape, 1, 0, "all")}
        cases |= {f"stage {stage}": make(shape, 2, stage) for stage in range(4)}
        seconds = {case: [] for case in cases}
        with ag.use_kernels(options.backend):
            for _ in range(options.rounds):
                for case, training in cases.items():
                    started = time.process_time()
                    one_step(training)
                    seconds[case].append(time.process_time() - started)
        median = {case: statistics.median(values[1:]) for case, values in seconds.items()}
        for case in cases:
            other = "one process, recomputing" if case == "stage 3" else "one process"
            ratio = statistics.median(a / b for a, b in zip(seconds[case][1:], seconds[other][1:], strict=True))
            print(f"{size:5} {case:25} {1e3 * median[case]:8.2f} ms   {ratio:.3f}")


if __name__ == "__main__":
    main()

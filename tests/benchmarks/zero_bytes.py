"""Bytes that each rank keeps between steps at every stage of ZeRO, measured and in theory.

    python tests/benchmarks/zero_bytes.py

Ranks are threads of this process; what Python and NumPy have allocated is shared among them on average. A model of ten
million parameters in float32 with AdamW. Beside it the most that buckets and gathered weights took within a step.
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tinyllm" / "training" / "parallel"))

from rank_runs import bytes_in_theory, changed, persistent_bytes

from tinyllm.models import Decoder, gpt2

SHAPE = gpt2.config(
    vocab_size=4096, hidden_size=384, num_hidden_layers=5, num_attention_heads=6, intermediate_size=1536,
    max_position_embeddings=32, dropout=0.0,
)  # fmt: skip
BUCKET = 2**20
MB = 1e6


def main():
    num_parameters = Decoder(SHAPE).num_parameters()
    print(f"{num_parameters:,} parameters, buckets of {BUCKET:,} numbers, largest parameter {4096 * 384:,}\n")
    print("| ranks | stage | weights | gradients | optimizer | in theory MB | measured MB | off | buffers at most MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    config = changed(steps=1, accumulation=1)
    for size in (1, 2, 4):
        for stage in range(4) if size > 1 else (0,):
            theory = bytes_in_theory(num_parameters, size, stage)
            parallel = {"zero": stage, "reduce_bucket": BUCKET, "gather_bucket": BUCKET}
            measured, buffers = persistent_bytes(size, SHAPE, config, **parallel)
            kinds = " | ".join(f"{theory[kind] / MB:.1f}" for kind in theory)
            total = sum(theory.values())
            off = f"{100 * (measured / total - 1):+.2f} %"
            print(
                f"| {size} | {stage} | {kinds} | {total / MB:.1f} | {measured / MB:.1f} | {off} | {buffers / MB:.1f} |"
            )


if __name__ == "__main__":
    main()

"""How far a run on several ranks is from that of one process: 100 steps at every stage of ZeRO.

    python tests/benchmarks/world_size.py [--steps 100]

Ranks are threads of this process. A small decoder with dropout, a tied head and learned positions, its batches in two
pieces, its gradient clipped; buckets small enough that there are many. Losses are compared relatively, weights relative
to the largest in their parameter. "same bits as" names the other stages on as many ranks.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "tinyllm" / "training" / "parallel"))

from rank_runs import SMALL_BUCKETS, changed, deviations, trained, trained_on


def same_bits(run, other):
    return run[0] == other[0] and all(np.array_equal(array, other[1][name]) for name, array in run[1].items())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    steps = parser.parse_args().steps
    print("| dtype | pieces | ranks | stage | losses off by | weights off by | same bits as |")
    print("|---|---|---|---|---|---|---|")
    for dtype in ("float64", "float32"):
        for pieces in (1, 2):
            config = changed(steps=steps, warmup_steps=steps // 10, accumulation=pieces)
            alone = trained(None, config, dtype)
            for size in (2, 4):
                runs = [trained_on(size, config, dtype, zero=stage, **SMALL_BUCKETS) for stage in range(4)]
                for stage, run in enumerate(runs):
                    same = [str(other) for other in range(4) if other != stage and same_bits(run, runs[other])]
                    losses, weights = deviations(run, alone)
                    row = (dtype, pieces, size, stage, f"{losses:.1e}", f"{weights:.1e}", ", ".join(same))
                    print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()

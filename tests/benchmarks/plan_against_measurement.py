"""What `tinyllm plan` says of memory against what a step takes.

For every case two processes of their own. One counts arrays: what is kept until backward (`ag.debug.ledger`), and the
most that weights, gradients, optimizer state and one whole step had in use (`autograd.arrays.allocations`: what Python
and NumPy allocate). The other looks at the process itself: by how much its resident memory had grown at the highest,
compiled code, BLAS and the gaps between arrays included, after a small step that loads all of these.

    python tests/benchmarks/plan_against_measurement.py [--cases quickstart gpt2-124m] [--kernels numba reference]
        [--precisions fp32 bf16] [--recompute none all]

`--utilization` prints instead the speed of a training step as a share of that of a matrix product, in turns.
"""

import argparse
import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import autograd as ag
from autograd.arrays import allocations
from tinyllm.commands.speed import matmul_gflops
from tinyllm.data import RandomBatches
from tinyllm.models import Decoder
from tinyllm.training.config import changed
from tinyllm.training.loop import Pretraining, accumulate, one_step
from tinyllm.training.memory import keep_freed_memory
from tinyllm.training.planning import Workload, hardware, kept_until_backward, make_plan
from tinyllm.training.planning.arithmetic import flops_of_token
from tinyllm.training.presets import preset

CASES = {  # preset -> batch, context, vocabulary: what a machine with 8 GB and a little patience can do
    "quickstart": (16, 128, 4096),
    "textbook": (8, 256, 4096),
    "shakespeare-char": (8, 256, 65),
    "llama-tiny": (16, 256, 2048),
    "gpt2-124m": (2, 512, 50257),
}


def configs(name, precision="fp32", recompute="none"):
    """(DecoderConfig, TrainingConfig) of a case."""
    batch, context, vocab_size = CASES[name]
    chosen = preset(name)
    changes = {"batch_size": batch, "precision": precision, "recompute": recompute}
    return chosen.model_config(vocab_size, {"max_position_embeddings": context}), changed(chosen.training, changes)


def make(shape, training):
    tokens = np.random.default_rng(0).integers(0, shape.vocab_size, 20 * shape.max_position_embeddings)
    batches = RandomBatches(tokens, batch_size=training.batch_size, context=shape.max_position_embeddings, seed=0)
    return Pretraining(Decoder(shape, seed=0), batches, training)


def small_step(shape, training):
    """Everything that a step loads and compiles, with hardly any memory."""
    small = shape.replace(
        num_hidden_layers=1, vocab_size=65, hidden_size=16 * shape.num_attention_heads, intermediate_size=64,
        max_position_embeddings=16,
    )  # fmt: skip
    one_step(make(small, training))


def count_arrays(shape, training):
    with allocations(np.zeros(1)) as memory:
        before = memory.used()
        run = make(shape, training)
        memory.peak()
        one_step(run)
        peak = memory.peak() - before
        with ag.debug.ledger() as book:
            inputs, targets = run.batches.batch(0, training.batch_size)
            accumulate(run, inputs, targets, 0)
    return {"kept": book.bytes, "peak": peak}


def watch_process(shape, training):
    keep_freed_memory()
    small_step(shape, training)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far
    run = make(shape, training)
    for _ in range(2):
        one_step(run)
    return {"resident": resident("VmHWM") - before}


def resident(field):
    """Bytes of this process by a line of its status."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith(field)))


def measured(what, name, kernels, precision, recompute):
    """What a process of its own found."""
    command = [sys.executable, __file__, "--child", what, name, kernels, precision, recompute]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def child(what, name, kernels, precision, recompute):
    with ag.use_kernels(kernels):
        found = {"arrays": count_arrays, "process": watch_process}[what](*configs(name, precision, recompute))
    print(json.dumps(found))


def compare(name, kernels, precision, recompute):
    """One line of the table."""
    shape, training = configs(name, precision, recompute)
    plan = make_plan(shape, training, hardware("laptop"), kernels=kernels)
    blocks = training.recomputed_blocks(shape.num_hidden_layers)
    work = Workload(shape, training.batch_size, shape.max_position_embeddings, precision, kernels, blocks)
    kept, total = kept_until_backward(work), plan["memory"]["rank_bytes"]
    found = measured("arrays", name, kernels, precision, recompute)
    found |= measured("process", name, kernels, precision, recompute)
    figures = [
        f"{planned / 1e6:9.1f} {there / 1e6:9.1f} {planned / there - 1:+6.1%}"
        for planned, there in ((kept, found["kept"]), (total, found["peak"]), (total, found["resident"]))
    ]
    print(f"{name:17} {kernels:9} {precision} {recompute:4} " + "  ".join(figures), flush=True)


def utilization(rounds=5):
    """How fast steps are beside a product of two square matrices, in turns."""
    keep_freed_memory()
    for name, (batch, context, _) in CASES.items():
        shape, training = configs(name)
        with ag.use_kernels("numba"):
            run, shares = make(shape, training), []
            one_step(run)
            flops = flops_of_token(shape, context)["total"] * batch * context
            for _ in range(rounds):
                speed = matmul_gflops(2048) * 1e9
                started = time.perf_counter()
                one_step(run)
                shares.append(flops / (time.perf_counter() - started) / speed)
        print(f"{name:17} {np.median(shares):.2f} of a product's speed ({min(shares):.2f} to {max(shares):.2f})")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--kernels", nargs="+", default=["numba"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--recompute", nargs="+", default=["none", "all"])
    parser.add_argument("--utilization", action="store_true")
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(*options.child)
    if options.utilization:
        return utilization()
    print("MB planned, measured, and the difference of:   kept until backward" + " " * 10 + "whole step, arrays"
          + " " * 11 + "whole step, process")  # fmt: skip
    for case in itertools.product(options.cases, options.kernels, options.precisions, options.recompute):
        compare(*case)


if __name__ == "__main__":
    main()

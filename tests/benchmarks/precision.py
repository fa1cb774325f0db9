"""What half precision costs and saves on this CPU: time of a step, memory kept by it, and whether the loss is the same.

    python tests/benchmarks/precision.py [--sizes 0.8M 10.9M] [--rounds 15] [--threads 1]
    python tests/benchmarks/precision.py --curves tinyshakespeare.txt [--steps 500] [--seeds 0 1 2]
    python tests/benchmarks/precision.py --products [--rounds 15]

Each side trains in a process of its own, all of them the same model from the same weights on the same random tokens. A
round lets each do a few steps, in shuffled order. Shown are medians, and the medians of the ratios to our fp32 of the
same round. PyTorch's sides (where it is installed) run as `bench_pytorch.py` has them; bf16 is its autocast.

With --curves the preset `shakespeare-char-cpu` is trained on a text in each precision: the mean loss of every fifty
steps, and how far it ever is from that of fp32. With --products the matrix products of the 10.9M step are timed alone,
float32 and bfloat16 in turns.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
OURS = ("fp32", "fp16", "bf16")
THEIRS = ("PyTorch fp32", "PyTorch bf16")
WINDOW = 50  # steps whose losses are averaged

# --- The sides, each in a process of its own --------------------------------------------------------------------------


def our_side(size, precision):
    """(a function count -> [seconds a step, loss of the last], bytes that a step keeps for backward)"""
    import dataclasses

    from bench_cases import SIZES
    from bench_ours import OurTraining

    import autograd as ag
    from tinyllm.training.loop import Pretraining
    from tinyllm.training.memory import keep_freed_memory

    keep_freed_memory()
    case = SIZES[size]
    side = OurTraining(case, seed=0)
    model, batches = side.training.model, side.batches
    side.training = Pretraining(model, batches, dataclasses.replace(side.training.config, precision=precision))
    inputs, targets = case.batch_of_step(0, 0)
    with ag.debug.ledger() as book:
        model.loss(inputs, targets)
    return side.turn, book.bytes


def their_side(size, precision):
    import torch
    from bench_cases import SIZES
    from bench_pytorch import TorchTraining

    class Autocast(TorchTraining):
        def forward(self, inputs, targets):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                return super().forward(inputs, targets)

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return Autocast(SIZES[size], seed=0, compiled=False).turn, None


def work(size, name):
    """Answers each line, a number of steps, with [seconds a step, loss of the last]; first with the bytes kept."""
    import autograd as ag

    # Beside PyTorch the kernels are not even loaded: two pools of threads would wait for each other.
    with contextlib.nullcontext() if name in THEIRS else ag.use_kernels("numba"):
        turn, kept = their_side(size, name.split()[1]) if name in THEIRS else our_side(size, name)
        print(json.dumps(kept), flush=True)
        for line in sys.stdin:
            done = turn(int(line))
            print(json.dumps([done["seconds"] / int(line), done["proof"][-1]]), flush=True)


@contextlib.contextmanager
def sides(size, names, threads):
    """dict name -> (process, bytes kept)"""
    variables = dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    environment = os.environ | variables | {"PYTHONPATH": str(ROOT)}
    processes = {}
    try:
        for name in names:
            command = [sys.executable, __file__, "--work", size, name]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
            processes[name] = subprocess.Popen(command, **pipes)
        yield {name: (process, answer(process)) for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()


def answer(process, question=None):
    if question is not None:
        print(question, file=process.stdin, flush=True)
    line = process.stdout.readline()
    if not line:
        raise SystemExit("a side has ended; its error stands above")
    return json.loads(line)


def measure(size, rounds, threads):
    """Print the table of one size."""
    from bench_cases import SIZES

    case, names = SIZES[size], [*OURS, *(THEIRS if importlib.util.find_spec("torch") else ())]
    seconds, losses, order = {name: [] for name in names}, {}, random.Random(0)
    with sides(size, names, threads) as running:
        for process, _ in running.values():
            answer(process, case.turn)  # warm
        for _ in range(rounds):
            for name in order.sample(names, len(names)):
                took, losses[name] = answer(running[name][0], case.turn)
                seconds[name].append(took)
        kept = {name: bytes_ for name, (_, bytes_) in running.items()}
    print(f"{size}: {case.batch} x {case.context} tokens a step, {rounds} rounds, threads: {threads}")
    print(f"{'':14}{'ms a step':>10}{'of fp32':>9}{'MB kept':>9}{'loss':>9}")
    for name in names:
        ratio = statistics.median(a / b for a, b in zip(seconds[name], seconds["fp32"], strict=True))
        megabytes = "" if kept[name] is None else f"{kept[name] / 1e6:.1f}"
        print(f"{name:14}{1e3 * statistics.median(seconds[name]):10.1f}{ratio:9.2f}{megabytes:>9}{losses[name]:9.4f}")


# --- Products alone ---------------------------------------------------------------------------------------------------

SHAPES = [(2048, 384, 384), (2048, 1536, 384), (2048, 384, 1536), (2048, 512, 384)]  # rows, n_out, n_in of a linear map


def compare_products(rounds):
    """Print the time of float32's product over that of bfloat16's, for y, dx and dW of each linear map."""
    import time

    import ml_dtypes
    import numpy as np

    import autograd as ag

    with ag.use_kernels("numba"):
        from autograd.backends.numba.linalg import product

        for rows, n_out, n_in in SHAPES:
            draw = np.random.default_rng(0).standard_normal
            x, w, dy = (draw(shape, np.float32) for shape in ((rows, n_in), (n_out, n_in), (rows, n_out)))
            for name, a, b in (("y", x, w.T), ("dx", dy, w), ("dW", dy.T, x)):
                halves, ratios, speeds = [z.astype(ml_dtypes.bfloat16) for z in (a, b)], [], []
                for _ in range(rounds):
                    started = time.perf_counter()
                    product(a, b)
                    between = time.perf_counter()
                    product(*halves)
                    seconds = time.perf_counter() - between
                    ratios.append((between - started) / seconds)
                    speeds.append(2e-9 * rows * n_out * n_in / seconds)
                ratio, speed = statistics.median(ratios), statistics.median(speeds)
                print(f"{rows} x {n_in} -> {n_out}  {name:2}  {speed:4.0f} GFLOP/s, {ratio:.2f} times float32's speed")


# --- Curves -----------------------------------------------------------------------------------------------------------


def curve(text, precision, seed, steps):
    """Mean losses of every WINDOW steps, and at how many steps an overflow was skipped."""
    import dataclasses

    from tinyllm.data import RandomBatches, load_corpus
    from tinyllm.models import Decoder
    from tinyllm.tokenizers import CharacterTokenizer
    from tinyllm.training.loop import Pretraining, pretrain
    from tinyllm.training.memory import keep_freed_memory
    from tinyllm.training.presets import preset

    keep_freed_memory()
    chosen, corpus = preset("shakespeare-char-cpu"), load_corpus(text)
    tokenizer = CharacterTokenizer.train(corpus.documents)
    (training,), _ = corpus.split()
    model = Decoder(chosen.model_config(tokenizer.vocab_size), seed=seed)
    tokens, context = tokenizer.encode_to_array(training), model.config.max_position_embeddings
    batches = RandomBatches(tokens, batch_size=chosen.training.batch_size, context=context, seed=seed)
    config = dataclasses.replace(chosen.training, precision=precision, seed=seed)
    records, training = [], Pretraining(model, batches, config)
    pretrain(training, after_step=records.append, stop=lambda: training.step == steps)
    losses = [record["loss_nats"] for record in records]
    means = [statistics.mean(losses[start : start + WINDOW]) for start in range(0, steps, WINDOW)]
    return means, sum("skipped" in record for record in records)


def compare_curves(text, steps, seeds):
    import autograd as ag

    print(f"shakespeare-char-cpu, {steps} steps: mean loss of {WINDOW} steps in nats, and how far from that of fp32")
    with ag.use_kernels("numba"):
        for seed in seeds:
            curves = {precision: curve(text, precision, seed, steps) for precision in OURS}
            for precision, (means, skipped) in curves.items():
                away = [a / b - 1 for a, b in zip(means, curves["fp32"][0], strict=True)]
                print(
                    f"seed {seed}  {precision}  {means[-1]:.4f}  last {100 * away[-1]:+.2f} %  "
                    f"furthest {100 * max(away, key=abs):+.2f} %  skipped {skipped}",
                    flush=True,
                )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=["0.8M", "10.9M"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--curves", metavar="TEXT")
    parser.add_argument("--products", action="store_true")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", nargs=2, metavar=("SIZE", "SIDE"), help="be one side (for the benchmark's own use)")
    options = parser.parse_args()
    if options.work:
        work(*options.work)
    elif options.products:
        compare_products(options.rounds)
    elif options.curves:
        compare_curves(options.curves, options.steps, options.seeds)
    else:
        for size in options.sizes:
            measure(size, options.rounds, options.threads)


if __name__ == "__main__":
    main()

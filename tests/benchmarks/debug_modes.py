"""What the modes of `ag.debug` cost: switched on, switched off, and not there at all.

    python tests/benchmarks/debug_modes.py [--rounds 100]

Training steps of the preset `shakespeare-char-cpu`'s model on random tokens, each variant in a process of its own, one
step at a time in shuffled turns, on one thread: threads that wait for work disturb the next process by more than what
is measured. "plain again" is a second process of "plain", and shows what two equal ones differ by.
"without" runs a copy of the engine whose three places for modes are direct calls, as if modes had never been written.
All variants must come to the same loss, bit by bit, or nothing is reported.
"""

import argparse
import contextlib
import importlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODES = {
    "plain": [], "plain again": [], "without": [],
    "first_nan": ["first_nan"], "guard": ["guard"], "--debug": ["first_nan", "guard"],
    "ledger": ["ledger"], "profile": ["profile"],
}  # fmt: skip
DIRECT = {"context.run(": "kernels.run(", "context.record(": "Node(", "context.pull(node, dy)": "node.pull(dy)"}


def copy_without_places(folder):
    """The project with an engine that has no place for a mode."""
    for package in ("autograd", "tinyllm"):
        shutil.copytree(ROOT / package, Path(folder) / package, ignore=shutil.ignore_patterns("__pycache__"))
    engine = Path(folder) / "autograd" / "engine.py"
    source = engine.read_text()
    for place, direct in DIRECT.items():
        if source.count(place) != 1:
            raise SystemExit(f"the engine no longer says {place} once; this benchmark must follow it")
        source = source.replace(place, direct)
    engine.write_text(source)


def work(mode):
    """A process that answers each line, a number of steps, with [seconds, loss of the last]."""
    import numpy as np

    import autograd as ag
    from tinyllm.data import RandomBatches
    from tinyllm.models import Decoder
    from tinyllm.training.loop import Pretraining, pretrain
    from tinyllm.training.memory import keep_freed_memory
    from tinyllm.training.presets import preset

    keep_freed_memory()
    chosen = preset("shakespeare-char-cpu")
    tokens = np.random.default_rng(0).integers(0, 65, 100_000)
    batches = RandomBatches(tokens, batch_size=chosen.training.batch_size, context=64, seed=0)
    training = Pretraining(Decoder(chosen.model_config(65), seed=0), batches, chosen.training)
    losses = []
    print(json.dumps(ag.__file__), flush=True)
    for line in sys.stdin:
        end = training.step + json.loads(line)
        began = time.perf_counter()
        with contextlib.ExitStack() as stack:
            for name in MODES[mode]:
                stack.enter_context(getattr(importlib.import_module("autograd.debug"), name)())
            pretrain(
                training,
                after_step=lambda record: losses.append(record["loss_nats"]),
                stop=lambda: training.step >= end,
            )
        print(json.dumps([time.perf_counter() - began, losses[-1]]), flush=True)


def start(mode, root):
    process = subprocess.Popen(
        [sys.executable, __file__, f"--mode={mode}"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(root), "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    imported_from = json.loads(process.stdout.readline())
    if not imported_from.startswith(str(root)):
        raise SystemExit(f"the worker {mode} imported {imported_from}, not what lies in {root}")
    return process


def ask(process, steps):
    process.stdin.write(f"{steps}\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--mode", choices=MODES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.mode:
        work(options.mode)
        return
    with tempfile.TemporaryDirectory() as folder:
        copy_without_places(folder)
        workers = {mode: start(mode, folder if mode == "without" else ROOT) for mode in MODES}
        seconds = {mode: [] for mode in MODES}
        for mode in MODES:
            ask(workers[mode], 3)  # warm up
        for number in range(options.rounds):
            turn = random.Random(number).sample(list(MODES), len(MODES))
            answers = {mode: ask(workers[mode], 1) for mode in turn}
            if len({loss for _, loss in answers.values()}) != 1:
                raise SystemExit(f"the variants computed different losses: {answers}")
            for mode, (elapsed, _) in answers.items():
                seconds[mode].append(elapsed)
        for process in workers.values():
            process.stdin.close()
    print(f"{options.rounds} rounds of one step, milliseconds; ratio to plain in the same round, and its quartiles")
    for mode in MODES:
        ratios = [a / b for a, b in zip(seconds[mode], seconds["plain"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        typical = statistics.median(seconds[mode]) * 1e3
        print(f"{mode:12} median {typical:6.1f} ms   median ratio {middle:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()

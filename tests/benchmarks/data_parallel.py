"""Two data-parallel processes against one process with two threads: whole runs of `tinyllm pretrain`, in turn.

    python tests/benchmarks/data_parallel.py [--preset shakespeare-char-cpu] [--steps 60] [--rounds 5]

All variants train on the same batches: their losses are compared before their times. Prints, for each, the median time
of a step over all rounds, its ratio to one process in the same round (median, least and most), the share of a step
spent waiting for messages, the share of the messages' time in which the computation went on (hidden), how many began
while backward ran (early), and what a step sends.
"""

import argparse
import collections
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from tinyllm.data import load_corpus
from tinyllm.formats.run_folders import read_config
from tinyllm.training.metrics import read_metrics
from tinyllm.training.parallel.message_log import message_summary

FIRST = 10
"""Steps left out: kernels are loaded, memory is taken."""

LENGTH = 100_000
"""Characters of text: a run ends with an evaluation of a tenth of them, which is not what is measured."""

TWO = ["--devices", "2", "--parallel.log-messages", "True"]
VARIANTS = {
    "one process": [],
    "2 ranks": [*TWO],
    "2 ranks, no overlap": [*TWO, "--parallel.overlap", "False"],
    "2 ranks, small buckets": [*TWO, "--parallel.reduce-bucket", "65536"],
    "2 ranks, zero 1": [*TWO, "--zero", "1"],
    "2 ranks, zero 2": [*TWO, "--zero", "2"],
    "2 ranks, zero 3": [*TWO, "--zero", "3", "--training.recompute", "all"],
    "one process, recomputed": ["--training.recompute", "all"],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="shakespeare-char-cpu")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("options", nargs="*", help="after --: more options of tinyllm pretrain, for all variants")
    options = parser.parse_args()
    measured = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        text.write_text("".join(load_corpus("python-reference").documents)[:LENGTH], encoding="utf-8")
        for _ in range(options.rounds):
            for name in options.variants:
                measured[name].append(run(options, text, VARIANTS[name]))
    baseline = measured[options.variants[0]]
    print(f"{'':26}{'step ms':>9}{'ratio':>8}{'least':>8}{'most':>8}{'waiting':>9}{'hidden':>8}{'early':>7}  messages")
    for name, rounds in measured.items():
        compare_losses(name, rounds[0]["losses"], baseline[0]["losses"])
        ratios = [one["seconds"] / other["seconds"] for one, other in zip(rounds, baseline, strict=True)]
        seconds, waiting = (statistics.median(one[key] for one in rounds) for key in ("seconds", "waiting"))
        first = rounds[0]
        kinds = ", ".join(f"{count:.3g} {kind} {size / 1e6:.3g} MB" for kind, (count, size) in first["kinds"].items())
        print(
            f"{name:26}{seconds * 1e3:9.1f}{statistics.median(ratios):8.3f}{min(ratios):8.3f}{max(ratios):8.3f}"
            f"{waiting:9.1%}{first['overlapped']:8.0%}{first['early']:7.3g}  {kinds}"
        )


def run(options, text, variant):
    """What one run of a variant has measured of its steps after the first ones."""
    with tempfile.TemporaryDirectory() as parent:
        folder, never = Path(parent) / "run", str(options.steps + 1)
        command = [
            sys.executable, "-m", "tinyllm.commands.main", "pretrain", options.preset, "--data", str(text),
            "--run", str(folder), "--steps", str(options.steps), "--training.evaluate-every", never,
            "--training.sample-every", never, "--training.checkpoint-every", never, *variant, *options.options,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(command)}\n{done.stderr}")
        records = [record for record in read_metrics(folder) if record["split"] == "train"][FIRST:]
        config = read_config(folder)
        messages = message_summary(folder)
    targets = config["training"]["batch_size"] * config["model"]["max_position_embeddings"]
    seconds = [targets / record["tokens_per_second"] for record in records]
    return {
        "losses": [record["loss_nats"] for record in records],
        "seconds": statistics.median(seconds),
        "waiting": sum(record.get("waited_seconds", 0) for record in records) / sum(seconds),
        "kinds": messages.kinds if messages else {},
        "early": messages.early if messages else 0,
        "overlapped": messages.overlapped if messages else 0,
    }


def compare_losses(name, losses, expected):
    worst = max(abs(one / other - 1) for one, other in zip(losses, expected, strict=True))
    if worst > 1e-4:
        sys.exit(f"{name} did other work: its losses differ by {worst:.1e}")


if __name__ == "__main__":
    main()

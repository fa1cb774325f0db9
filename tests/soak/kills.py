"""Kill a training run at random moments, resume it, kill it again; at the end compare it with one never disturbed.

    python tests/soak/kills.py --kills 100 --seed 1

Everything must be the same: the weights and the optimizer to the last bit, the checkpoints, the best one, the samples,
every line of metrics.jsonl but for its times. After each kill every checkpoint under its real name must be whole. The
exit code is 1 where something differs, and where no kill has met a checkpoint half written: it would prove little.

Writing is slowed down, so that a good part of the time passes in the middle of it. Each life of the run is a process of
its own, forked from this one, which has imported everything already; the kill is SIGKILL.
"""

import argparse
import collections
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # threads survive no fork

from tinyllm.data import load_corpus
from tinyllm.formats import run_folders
from tinyllm.formats.run_folders import CHECKPOINTS, checkpoints, is_whole
from tinyllm.training import runs
from tinyllm.training.metrics import MetricsLog, whole_lines

MODEL = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 16, "dropout": 0.1,
}  # fmt: skip
TRAINING = {
    "steps": 40, "batch_size": 2, "warmup_steps": 4, "evaluate_every": 4, "evaluation_windows": 2, "sample_every": 15,
    "sample_tokens": 3, "checkpoint_every": 5, "learning_rate": 1e-2, "min_learning_rate": 1e-3,
}  # fmt: skip
LONGEST_LIFE = 0.4  # seconds: about twice the way from one checkpoint to the next
SLOWER = 0.004  # seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="of each precision")
    parser.add_argument("--seed", type=int, default=None, help="of the moments; drawn and printed unless given")
    parser.add_argument("--precision", action="append", help="fp32 and fp16 unless given")
    parser.add_argument("--aimed", action="store_true", help="kill when something is half written, two times of three")
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    failures = []
    for precision in options.precision or ("fp32", "fp16"):
        with tempfile.TemporaryDirectory() as place:
            moments = random.Random(f"{seed} {precision}")
            found, wrong = killed_runs(Path(place), precision, options.kills, moments, options.aimed)
        print(f"{precision}: " + ", ".join(f"{name} {count}" for name, count in found.items()), flush=True)
        failures += [f"{precision}: {what}" for what in wrong]
    print("\n".join(failures) or "every run ended as if it had never been killed")
    return 1 if failures else 0


def killed_runs(place, precision, kills, moments, aimed):
    """(counts of what the kills have hit, what was wrong)."""
    text = place / "text.txt"
    text.write_text("The old sailor sat by the sea and told it again. " * 40, encoding="utf-8")
    live(place / "through", text, precision)
    if not ended(place / "through"):
        return {}, ["the run that nobody disturbs did not end"]
    found = collections.Counter(dict.fromkeys(("kills", "runs", *HITS), 0))
    wrong = []
    while found["kills"] < kills and not wrong:
        folder = place / f"killed {found['runs']}"
        while not ended(folder):
            more = found["kills"] < kills
            moment = aims(folder, moments, AIMS[found["kills"] % 3] if aimed else None) if more else None
            if not live(folder, text, precision, moment):
                found["kills"] += 1
                found.update(hits(folder))
                wrong += [f"after kill {found['kills']}: {path.name} is not whole" for path in unreadable(folder)]
        found["runs"] += 1
        wrong += differences(place / "through", folder)
        shutil.rmtree(folder)
    for name in ("half a checkpoint", "half a line"):
        if not found[name]:
            wrong.append(f"no kill has met {name}; the moments are badly chosen")
    return found, wrong


def live(folder, text, precision, moment=None):
    """One life of the run, up to moment() or its end. Returns whether it came to its end."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            train(folder, text, precision)
            code = 0
        finally:
            os._exit(code)
    if moment:
        moment(child)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        sys.exit(f"a life of {folder.name} ended by itself with exit code {os.WEXITSTATUS(status)}")
    return os.WIFEXITED(status)


def train(folder, text, precision):
    """Begin the run or go on with it, writing slowly."""
    slow_writing()
    if (folder / "config.json").exists():
        run = runs.resume_run(folder)
    else:
        corpus = load_corpus(str(text))
        changes = TRAINING | {"precision": precision}
        run = runs.begin_run(folder, "textbook", corpus, tokenizer="bytes", model=MODEL, training=changes)
    runs.complete(run)


def slow_writing():
    """Rest in the middle of everything that a kill must not tear: between files, within lines, before deletions."""

    def slowly(function):
        return lambda *parts, **options: (time.sleep(SLOWER), function(*parts, **options), time.sleep(SLOWER))[1]

    class SlowLog(MetricsLog):
        def flush(self):
            self.pending, rest = self.pending[: len(self.pending) // 2], self.pending[len(self.pending) // 2 :]
            super().flush()
            time.sleep(SLOWER / 4)
            self.pending += rest
            super().flush()

    runs.write_report = lambda folder: (folder / "report.html").touch()  # drawn from the metrics; takes seconds
    run_folders.write_arrays = slowly(run_folders.write_arrays)
    shutil.rmtree = slowly(shutil.rmtree)
    runs.MetricsLog = SlowLog


def aims(folder, moments, aim):
    """A function that returns when the time has come to kill: any time, or when what `aim` names is there."""
    pause = moments.uniform(0, LONGEST_LIFE)

    def moment(child):
        time.sleep(pause)
        while aim and not ended(folder):
            if HITS[aim](folder):
                os.kill(child, signal.SIGSTOP)  # it may be over already: look again while nothing moves
                time.sleep(SLOWER)
                if HITS[aim](folder):
                    return
                os.kill(child, signal.SIGCONT)

    return moment


def half_written(folder):
    """Does metrics.jsonl or samples.jsonl end within a line?"""
    files = [path.read_bytes() for path in folder.glob("*.jsonl")]
    return any(len(whole_lines(data)) < len(data) for data in files)


HITS = {
    "half a checkpoint": lambda folder: any((folder / CHECKPOINTS).glob(".*.unfinished")),
    "half a deletion": lambda folder: any((folder / CHECKPOINTS).glob(".*.removed")),
    "half a line": half_written,
    "half another file": lambda folder: any(folder.glob(".*.tmp")),
    "before its first step": lambda folder: not (folder / "metrics.jsonl").exists(),
}
"""What a kill may have left -> is it there?"""

AIMS = ("half a checkpoint", "half a line", None)


def hits(folder):
    return collections.Counter(name for name, left in HITS.items() if left(folder))


def ended(folder):
    return (folder / "report.html").exists()


def unreadable(folder):
    return [path for kind in ("step", "best") for path in checkpoints(folder, kind) if not is_whole(path)]


def differences(one, two):
    """What is not the same in two run folders, in words."""
    return [what for what in CONTENTS if CONTENTS[what](one) != CONTENTS[what](two)] + [
        f"left behind: {path.name}" for path in two.rglob(".*")
    ]


def without_times(folder, name):
    """The records of a file, without what the clock says."""
    records = [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]
    return [{key: record[key] for key in record if key not in ("seconds", "tokens_per_second")} for record in records]


CONTENTS = {
    "metrics.jsonl differs": lambda folder: without_times(folder, "metrics.jsonl"),
    "samples.jsonl differs": lambda folder: without_times(folder, "samples.jsonl"),
    "samples.txt differs": lambda folder: (folder / "samples.txt").read_bytes(),
    "the checkpoints differ": lambda folder: {
        path.relative_to(folder): path.read_bytes() for path in (folder / CHECKPOINTS).rglob("*") if path.is_file()
    },
}


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)

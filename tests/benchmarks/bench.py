"""tinyllm against PyTorch, eager and compiled, and against the limit: in turns, the same work, the ratio of each round.

    make bench                                                        everything
    python tests/benchmarks/bench.py --size 0.8M --quick              one size, a first look
    python tests/benchmarks/bench.py --show bench.json --markdown     a saved run, as rows for docs/benchmarks.md

Each side is a process of its own that waits while the others compute. The losses of the sides must be equal, or no
ratio is reported and the exit code is 1. docs/benchmarks.md explains the method.
"""

import argparse
import dataclasses
import datetime
import json
import math
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import bench_report
from bench_cases import ATTENTION_ROUNDS, BAR, LENGTHS, PROOF, SIZES, WARM_UP, Attention, Decoding, Training

HERE = Path(__file__).parent
CHART = HERE.parents[1] / "docs" / "images" / "benchmarks.svg"
SETTLE = 0.1  # seconds between turns: threads of BLAS and OpenMP spin that long for more work, on the other's cores
TURN_SECONDS = 0.2  # short attention is repeated until a turn takes this long
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class Failed(Exception):
    """A side that cannot do its work, and why."""


class Worker:
    """The driver's end of a process of `bench_workers.py`."""

    def __init__(self, side, case, options):
        task = {"side": side, "work": type(case).__name__, "case": dataclasses.asdict(case)}
        task |= {"threads": options.threads, "kernels": options.kernels, "seed": options.seed}
        paths = [str(HERE.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "bench_workers.py"), json.dumps(task)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=subprocess.DEVNULL if side == "compiled" else None,  # a compiler's pages; the reason comes by itself
            env=os.environ | {name: str(options.threads) for name in THREADS} | {"PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip
        try:
            self.versions = self.read()["versions"]
        except Failed:
            self.close()
            raise

    def ask(self, **request):
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise Failed("its process has ended; perhaps the memory did not suffice") from None
        return self.read()

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            raise Failed("its process has ended; perhaps the memory did not suffice")
        answer = json.loads(line)
        if "failed" in answer:
            raise Failed(answer["failed"])
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class Comparison:
    """One case: its processes, and what each of their turns gave."""

    def __init__(self, name, case, sides, options):
        self.name, self.case, self.options = name, case, options
        self.workers, self.missing, self.versions = {}, {}, {}
        self.seconds, self.proof, self.shapes = {}, {}, []
        self.optional = {"compiled"} | ({"pytorch"} if isinstance(case, Decoding) else set())
        try:
            for side in sides:
                self.attempt(side, lambda side=side: self.start(side))
        except Failed:
            self.close()
            raise

    def start(self, side):
        if side == "ours":  # compile kernels that never ran here: the compiler's memory is not a step's
            rehearsal = Worker(side, self.case, self.options)
            rehearsal.ask(do="turn", count=1)
            rehearsal.close()
        self.workers[side] = Worker(side, self.case, self.options)
        self.versions |= self.workers[side].versions
        self.seconds[side], self.proof[side] = [], []

    def attempt(self, side, action):
        """A side that is optional may fail, and is then left out with the reason; another's failure is the case's."""
        try:
            return action()
        except Failed as failure:
            if side not in self.optional:
                raise Failed(f"{side}: {failure}") from None
            self.missing[side] = str(failure)
            if side in self.workers:
                self.workers.pop(side).close()
                self.seconds.pop(side)
                self.proof.pop(side)
            return None

    def turn(self, side, count):
        answer = self.attempt(side, lambda: self.workers[side].ask(do="turn", count=count))
        time.sleep(SETTLE)
        return answer

    def warm_up(self, count):
        """Untimed turns; their losses count as proof. Returns seconds of one repetition by side."""
        alone = {}
        for side in list(self.workers):
            if answer := self.turn(side, count):
                alone[side] = answer["seconds"] / count
                self.proof[side] += answer.get("proof", [])
        return alone

    def rounds(self, rounds, count):
        """`rounds` times every side's turn of `count` repetitions, in shuffled order."""
        for number in range(rounds):
            order = list(self.workers)
            random.Random(f"{self.options.seed} {number}").shuffle(order)
            for side in order:
                if answer := self.turn(side, count):
                    self.seconds[side].append(answer["seconds"] / count)
                    self.proof[side] += answer.get("proof", [])
                    if "shapes" in answer:
                        self.shapes.append(answer["shapes"])
            if self.apart() > BAR:
                return

    def apart(self):
        """Largest difference between ours and another side's proof; losses count up to step PROOF."""
        ours = self.compared("ours")
        others = [self.compared(side) for side in self.proof if side not in ("ours", "limit")]
        differences = [abs(a - b) for other in others for a, b in zip(ours, other, strict=True)]
        # max() would pass over a NaN.
        return max((d if math.isfinite(d) else math.inf for d in differences), default=0.0)

    def compared(self, side):
        return self.proof[side][: PROOF if isinstance(self.case, Training) else None]

    def memory(self):
        return {side: self.workers[side].ask(do="memory")["bytes"] for side in self.workers if side != "limit"}

    def result(self, **more):
        """All of it as one JSON object."""
        base = self.seconds.get("pytorch")
        sides = {}
        for side, seconds in self.seconds.items():
            sides[side] = {"seconds": seconds, "median_ms": statistics.median(seconds) * 1e3} if seconds else {}
            if seconds and self.apart() <= BAR:
                if base:
                    sides[side]["ratio"] = quartiles(a / b for a, b in zip(seconds, base, strict=True))
                limit = self.seconds["limit"]
                sides[side]["limit_share"] = quartiles(a / b for a, b in zip(limit, seconds, strict=True))
        if self.seconds.get("compiled") and "ratio" in sides["ours"]:
            both = zip(self.seconds["ours"], self.seconds["compiled"], strict=True)
            sides["ours"]["ratio_to_compiled"] = quartiles(a / b for a, b in both)
        for side, size in self.memory().items():
            sides[side]["memory_bytes"] = size
        proof = {side: self.compared(side) for side in self.proof if side != "limit"}
        result = {
            "name": self.name, "work": type(self.case).__name__, "case": dataclasses.asdict(self.case),
            "sides": sides, "missing": self.missing, "versions": self.versions,
            "proof": proof, "apart": self.apart(), "equal": self.apart() <= BAR,
        }  # fmt: skip
        if self.shapes:
            result["products"] = [
                shape | {"seconds": statistics.median(turn[i]["seconds"] for turn in self.shapes)}
                for i, shape in enumerate(self.shapes[0])
            ]
        return result | more

    def close(self):
        for worker in self.workers.values():
            worker.close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()


def quartiles(values):
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"low": low, "median": median, "high": high}


def measure_training(name, case, options):
    sides = ["ours", "pytorch", *([] if options.no_compile else ["compiled"]), "limit"]
    rounds, turn = options.rounds or case.rounds, case.turn
    if options.quick:
        rounds, turn = 3, min(turn, 3)
    elif WARM_UP + rounds * turn < PROOF:
        rounds = -(-(PROOF - WARM_UP) // turn)
    with Comparison(name, case, sides, options) as comparison:
        comparison.warm_up(WARM_UP)
        comparison.workers["ours"].ask(do="kernels")
        comparison.rounds(rounds, turn)
        ops = comparison.workers["ours"].ask(do="kernels")["ops"]
        steps = len(comparison.seconds["ours"]) * turn
        per_step = {op: {kind: count / steps for kind, count in counts.items()} for op, counts in ops.items()}
        return comparison.result(repetitions=turn, tokens=case.batch * case.context, kernels=per_step)


def measure_attention(options):
    """Every length, until one does not fit the memory."""
    grown = []  # our growth at each length so far
    for T in LENGTHS[:4] if options.quick else LENGTHS:
        case, name = Attention(T), f"attention T {T:,}"
        scores = 4 * case.batch * case.heads * T * T
        # Twice the length takes at most four times the memory; the limit holds two arrays of scores.
        needed = 2 * scores + (grown[-1] * min(4, max(2, grown[-1] / grown[-2])) if len(grown) > 1 else 8 * scores)
        if needed > 0.8 * free_memory():
            free = free_memory() / 1e9
            reason = f"does not fit: needs about {needed / 1e9:.1f} GB, of which {free:.1f} GB are free"
            yield skipped(name, case, reason)
            continue
        try:
            with Comparison(name, case, ["ours", "pytorch", "limit"], options) as comparison:
                comparison.warm_up(1)
                alone = comparison.warm_up(2)
                count = int(min(max(TURN_SECONDS / min(alone.values()), 1), 100))
                comparison.rounds(options.rounds or (3 if options.quick else ATTENTION_ROUNDS), count)
                grown.append(comparison.memory()["ours"])
                ops = comparison.workers["ours"].ask(do="kernels")["ops"]
                yield comparison.result(repetitions=count, tokens=case.batch * T, kernels=ops)
        except Failed as failure:
            yield skipped(name, case, failure)


def measure_decoding(name, case, options):
    rounds, turn = (2, 3) if options.quick else (case.rounds, case.turn)
    with Comparison(name, case, ["ours", "pytorch", "limit"], options) as comparison:
        comparison.warm_up(turn)
        comparison.rounds(options.rounds or rounds, turn)
        return comparison.result(repetitions=turn, tokens=1)


def free_memory():
    """Bytes that can still be had, as far as the system says; without limit where it does not."""
    try:
        return int(re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())[1]) * 1024
    except (OSError, TypeError):
        return math.inf


def processor():
    """The name that the processor gives itself."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def skipped(name, case, why):
    """The result of a part that was not measured."""
    return {"name": name, "work": type(case).__name__, "case": dataclasses.asdict(case), "skipped": str(why)}


def attempt(measure, name, case, options):
    """One part; if it fails, the others still run, and the exit code tells."""
    try:
        return measure(name, case, options)
    except Failed as failure:
        return skipped(name, case, failure) | {"equal": False}


def measurements(options):
    """Yields the result of each part that was asked for; of all where none was."""
    everything = not (options.size or options.attention or options.decode)
    for name in SIZES if everything else options.size:
        yield attempt(measure_training, name, SIZES[name], options)
    if options.attention or everything:
        yield from measure_attention(options)
    if options.decode or everything:
        yield attempt(measure_decoding, "decode 124M", Decoding(), options)


def run(options):
    """Everything that was asked for, printed part by part and saved after each."""
    report = {
        "format_version": 1,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "threads": options.threads, "kernels": options.kernels, "seed": options.seed, "quick": options.quick,
        "machine": {"cpu": processor(), "cores": os.cpu_count()}, "parts": [],
    }  # fmt: skip
    for part in measurements(options):
        report["machine"] |= part.pop("versions", {})
        report["parts"].append(part)
        print(bench_report.part_text(part), flush=True)
        if options.json:
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(report, indent=1) + "\n")
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=SIZES, default=[], help="training steps of these sizes")
    parser.add_argument("--attention", action="store_true", help=f"attention alone, T = {LENGTHS[0]} … {LENGTHS[-1]}")
    parser.add_argument("--decode", action="store_true", help="greedy decoding with the 124M model")
    parser.add_argument("--rounds", type=int, help="rounds of each part, at least 2")
    parser.add_argument("--quick", action="store_true", help="few rounds, for trying out; proves fewer steps equal")
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    parser.add_argument("--threads", type=int, default=2, help="of every side")
    parser.add_argument("--kernels", default="auto", help="ours: auto, reference or the name of a backend")
    parser.add_argument("--seed", type=int, default=0, help="of weights, batches and the order of turns")
    parser.add_argument("--json", type=Path, help="save everything that was measured")
    parser.add_argument("--show", type=Path, metavar="JSON", help="measure nothing, show what was saved")
    parser.add_argument("--markdown", action="store_true", help="print rows for docs/benchmarks.md")
    parser.add_argument("--chart", type=Path, nargs="?", const=CHART, help="draw it (svg or png); needs matplotlib")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 2:
        parser.error("--rounds must be at least 2: quartiles need two values")
    if options.show:
        report = json.loads(options.show.read_text())
        for part in report["parts"]:
            print(bench_report.part_text(part))
    else:
        report = run(options)
    print(bench_report.closing_text(report))
    if options.markdown:
        print("\n" + bench_report.markdown(report))
    if options.chart:
        bench_report.draw(report, options.chart)
        print(f"chart: {options.chart}")
    if not all(part.get("equal", True) for part in report["parts"]):
        raise SystemExit("bench: a part failed, or its sides computed different things; it has no ratios")


if __name__ == "__main__":
    main()

"""How long messages between ranks take: local processes, MPI, and MPI's own sum beside ours.

    python tests/benchmarks/communicators.py [--ranks 2] [--rounds 5]

Each way runs in processes of its own, in turn, `--rounds` times; a number is the median over the rounds of the mean
over many messages. GB/s are those of the array, not of what travels. A copy in memory by one process stands below, as a
bound. Without mpi4py or mpiexec the lines of MPI are missing.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tinyllm.training.parallel import Ranks, mpi
from tinyllm.training.parallel.launch import launch

ROOT = Path(__file__).parents[2]
SIZES = {"8 B": (1, 2000), "4 kB": (1000, 1000), "256 kB": (64_000, 200), "4 MB": (10**6, 30), "40 MB": (10**7, 5)}
"""Name -> (how many float32 or, of the first, float64; how many messages)."""
COLLECTIVES = ("all_reduce", "reduce_scatter", "all_gather", "broadcast")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", default="", help="(what mpiexec starts) measure, and write into this file")
    options = parser.parse_args()
    if options.measure:
        mpi.run(measure, options.measure)
        return
    found = {}
    for _ in range(options.rounds):
        for way, seconds in (("local", local(options.ranks)), ("mpi", by_mpi(options.ranks))):
            for name, value in seconds.items():
                found.setdefault((way, name), []).append(value)
    print(f"{options.ranks} ranks, {options.rounds} rounds\n")
    for (way, name), values in found.items():
        kind, size = name.rsplit(", ", 1)
        seconds, count = statistics.median(values), SIZES[size][0]
        rate = f"{4 * count / seconds / 1e9:8.2f} GB/s" if count > 1 else ""
        print(f"{way:6} {kind:24} {size:>7}  {1e6 * seconds:12,.1f} µs{rate}")
    print(f"\na copy in memory, of one process: {copy_rate():.1f} GB/s")


def local(ranks):
    """dict what -> seconds, of local processes."""
    with tempfile.TemporaryDirectory() as place:
        launch(measure, ranks, (f"{place}/seconds",), threads=1)
        return json.loads(Path(place, "seconds").read_text())


def by_mpi(ranks):
    """The same under mpiexec; nothing where there is none."""
    beside = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    mpiexec = shutil.which("mpiexec", path=beside)
    with tempfile.TemporaryDirectory() as place:
        command = [mpiexec, "-n", str(ranks), sys.executable, __file__, "--measure", f"{place}/seconds"]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        if not mpiexec or subprocess.run(command, env=environment).returncode:
            return {}
        return json.loads(Path(place, "seconds").read_text())


def measure(communicator, path):
    """What each rank does; the first writes down how long it took."""
    seconds = {}
    for size, (count, messages) in SIZES.items():
        array = np.ones(count, np.float64 if count == 1 else np.float32)
        each = -(-count // communicator.size)
        cuts = tuple(min(rank * each, count) for rank in range(communicator.size + 1))
        for kind in COLLECTIVES:
            others = (cuts,) if kind in ("reduce_scatter", "all_gather") else ()
            ask = getattr(communicator, kind)
            seconds[f"{kind}, {size}"] = timed(communicator, lambda: ask(array, *others), messages)
        if world := getattr(communicator, "world", None):
            from mpi4py import MPI

            own = timed(communicator, lambda: world.Allreduce(MPI.IN_PLACE, array), messages)
            seconds[f"MPI's own Allreduce, {size}"] = own
    ranks = Ranks(communicator)
    seconds["sum of a number, 8 B"] = timed(communicator, lambda: ranks.sum(1.0), 2000)
    if communicator.rank == 0:
        Path(path).write_text(json.dumps(seconds))
    communicator.barrier()


def timed(communicator, ask, messages):
    """Seconds of one message, of so many in a row."""
    with np.errstate(all="ignore"):
        ask()
        communicator.barrier()
        begun = time.perf_counter()
        for _ in range(messages):
            ask()
        return (time.perf_counter() - begun) / messages


def copy_rate():
    source, target = np.ones(10**7, np.float32), np.ones(10**7, np.float32)
    begun = time.perf_counter()
    for _ in range(20):
        np.copyto(target, source)
    return 20 * source.nbytes / (time.perf_counter() - begun) / 1e9


if __name__ == "__main__":
    main()

"""Runs the tests in parts, several at a time, each a pytest process of its own: most tests use one core.

    python tests/side_by_side.py test             # what `make test` runs
    python tests/side_by_side.py parity -rs       # what `make test-parity` runs; what follows the name goes to pytest

As many at a time as there are cores. The threads of NumPy's BLAS wait for work by spinning, and would take each other's
time: so each part has one of those, unless OPENBLAS_NUM_THREADS says otherwise. Our own kernels have all of theirs.

What a part prints is shown when it has ended, under its name, and its last line once more at the end. The exit code is
0 if that of every part is, so a part in which nothing is found fails. Every test belongs to one part of one suite;
`test_side_by_side.py` sees to that.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]

SUITES = {
    "test": [
        ("tests/autograd/backends",),  # compiles all kernels in a fresh checkout, so it comes first
        ("tests/autograd",),
        ("tests/tinyllm/commands",),
        ("tests/tinyllm/training",),
        ("tests/tinyllm/tokenizers",),
        ("tests",),
    ],
    "parity": [
        ("tests/parity/test_torch_shakespeare.py",),  # two processes itself, which wait for each other
        ("tests/parity/test_splitting_peers.py", "tests/parity/test_wordpiece_peers.py"),
        ("tests/parity/test_torch_training.py",),
        ("tests/parity/test_encoding_peers.py",),
        ("tests/parity", "tests/conformance"),
    ],
}
"""Files and folders of each part, without what is another part's; in the order in which they are started."""


def arguments_of(part):
    """What pytest is told: the part's files and folders, and what in these is another part's."""
    others = {path for suite in SUITES.values() for other in suite if other is not part for path in other}
    inside = sorted(path for path in others if any(path.startswith(folder + "/") for folder in part))
    return [*part, *(f"--ignore={path}" for path in inside)]


class Running:
    """A part that has been started."""

    def __init__(self, name, arguments):
        self.name, self.started = name, time.monotonic()
        self.output = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        command = [sys.executable, "-m", "pytest", *arguments]
        environment = {"OPENBLAS_NUM_THREADS": "1"} | os.environ
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=self.output, stderr=subprocess.STDOUT
        )

    def printed(self):
        """What it has printed so far."""
        self.output.seek(0)
        return self.output.read()


def run(parts, at_once):
    """Run parts, dict name -> arguments of pytest; returns how many failed."""
    waiting, running, last_lines, failed = dict(parts), [], {}, 0
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                name = next(iter(waiting))
                print(f"started: {name}", flush=True)
                running.append(Running(name, waiting.pop(name)))
            ended = [part for part in running if part.process.poll() is not None]
            for part in ended:
                running.remove(part)
                code = part.process.returncode
                print(f"\n===== {part.name} =====\n{part.printed()}", flush=True)
                *_, last = part.printed().strip().splitlines() or ["nothing printed"]
                last_lines[part.name] = last if code == 0 else f"{last} (exit code {code})"
                failed += code != 0
            if not ended:
                time.sleep(0.1)
    finally:
        for part in running:
            part.process.terminate()
            part.process.wait()
            print(f"\n===== {part.name}, broken off =====\n{part.printed()}", flush=True)
    for name, last in last_lines.items():
        print(f"{name}: {last}")
    return failed


def main(suite, *options):
    started = time.monotonic()
    parts = {" ".join(part): [*arguments_of(part), *options] for part in SUITES[suite]}
    failed = run(parts, at_once=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    print(f"{failed} of {len(parts)} parts failed, in {time.monotonic() - started:.0f} s")
    return min(failed, 1)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: no part is left behind
    try:
        sys.exit(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)

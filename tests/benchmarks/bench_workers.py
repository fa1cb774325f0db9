"""A process of `bench.py` that computes one side and waits while the others compute.

Started with one argument, a JSON object (work, case, side, threads, kernels, seed); the driver has set the number of
threads in the environment. Answers each line of its input, a JSON object, with one line:

    {"do": "turn", "count": 10}    compute so often; seconds of all together, and the proof: losses or projections
    {"do": "memory"}               bytes by which resident memory has grown at most since everything was made
    {"do": "kernels"}              which kernels ran since the last time it was asked

and with {"failed": "why"} where that was not possible.
"""

import contextlib
import importlib
import json
import os
import re
import resource
import sys
from pathlib import Path

from bench_cases import CASES

MODULES = {"ours": "bench_ours", "pytorch": "bench_pytorch", "compiled": "bench_pytorch", "limit": "limits"}


class ResidentMemory:
    """How much the process grew since this was made, at its largest: exact on Linux, elsewhere a lower bound."""

    def __init__(self):
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # from here on the system's peak counts anew
        self.before = self.status("VmRSS") or self.peak()

    @staticmethod
    def status(field):
        """Bytes in that field of /proc/self/status, None without one."""
        try:
            found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
        except OSError:
            return None
        return int(found[1]) * 1024 if found else None

    def peak(self):
        unit = 1 if sys.platform == "darwin" else 1024
        return self.status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    def growth(self):
        return max(self.peak() - self.before, 0)


def reason(error):
    """An error in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def versions(side):
    from tinyllm.training.machine import machine

    found = machine() if side == "ours" else {}
    for package in ("torch", "numba", "transformers"):
        if package in sys.modules:
            found[package] = sys.modules[package].__version__
    return found


class Side:
    """What the process computes, ready for turns."""

    def __init__(self, options):
        # No backend but ours looks at kernels, so none is imported into the other processes.
        if options["side"] == "ours":
            from tinyllm.commands.hardware import chosen_kernels
            from tinyllm.training.memory import keep_freed_memory

            keep_freed_memory()
            self.kernels = contextlib.ExitStack()  # never closed: until the process ends
            self.kernels.enter_context(chosen_kernels(options["kernels"]))
        elif options["side"] in ("pytorch", "compiled"):
            import torch

            torch.set_num_threads(options["threads"])
        module = importlib.import_module(MODULES[options["side"]])
        case = CASES[options["work"]](**options["case"])
        self.computation = getattr(module, options["work"].lower())(case, options)
        self.memory = ResidentMemory()

    def answer(self, request):
        if request["do"] == "turn":
            return self.computation.turn(request["count"])
        if request["do"] == "memory":
            return {"bytes": self.memory.growth()}
        import autograd as ag

        return {"ops": ag.kernels_used(reset=True)}


def main():
    options = json.loads(sys.argv[1])
    # Compilers print what they like: the answers have a channel of their own.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    side = None
    try:
        side = Side(options)
        first = {"versions": versions(options["side"])}
    except Exception as error:
        first = {"failed": reason(error)}
    print(json.dumps(first), file=answers)
    if side is None:
        return
    for line in sys.stdin:
        try:
            answer = side.answer(json.loads(line))
        except Exception as error:  # whatever went wrong, the driver decides what it means
            answer = {"failed": reason(error)}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()

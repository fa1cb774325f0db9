"""What this machine and this installation can do. Every check answers, none fails because something is not there."""

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

from tinyllm.commands.console import print_table
from tinyllm.commands.hardware import chosen_kernels

KNOWN_PAIR = "numba==0.68.1 numpy==2.4.6"  # tested together
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
OPTIONAL = {
    "tyro": "the command line",
    "rich": "progress bars and tables",
    "matplotlib": "curves in reports",
    "ml_dtypes": "bfloat16 in NumPy",
    "hypothesis": "proving the gradients of your own ops (autograd.testing)",
    "pytest": "running the tests",
}
GIGABYTE = 1e9


@dataclass
class Options:
    no_speed: bool = False
    """Leave out the measurements of products, memory and a training step, which take a few seconds."""


@dataclass(frozen=True)
class Finding:
    """One line of the table. state: "ok", "note" (works, but read this) or "broken" (training would not work)."""

    topic: str
    found: str
    state: str = "ok"


def run(options: Options):
    """Say what this machine and installation can do, and how fast. Exit code 0 when it can train.

    Example:
        tinyllm doctor
    """
    findings = []
    for check in CHECKS:
        findings += check()
    if not options.no_speed:
        with chosen_kernels("auto"):
            for check in SPEED_CHECKS:
                findings += check()
    print_table([(MARKS[finding.state], finding.topic, finding.found) for finding in findings])
    broken = [finding.topic for finding in findings if finding.state == "broken"]
    print(f"\nBroken: {', '.join(broken)}" if broken else "\nReady: tinyllm can train here.")
    return 1 if broken else 0


MARKS = {"ok": "ok", "note": "--", "broken": "!!"}


# --- What is installed ------------------------------------------------------------------------------------------------


def system():
    """Python, the operating system, memory."""
    yield Finding("Python", f"{platform.python_version()} at {sys.executable}")
    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / GIGABYTE:.0f} GB of memory"
    yield Finding("System", f"{platform.platform()}, {platform.machine()}{memory}")


def numpy_and_blas():
    """NumPy and the library that does its matrix products."""
    import numpy as np

    yield Finding("NumPy", np.__version__)
    blas = np.show_config(mode="dicts").get("Build Dependencies", {}).get("blas", {})
    name = f"{blas.get('name', 'unknown')} {blas.get('version', '')}".strip()
    yield Finding("BLAS", f"{name}: does NumPy's matrix products, most of the time of a training step")


def threads():
    """Cores this process may use, and the variables that say how many it does."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    chosen = [f"{name}={os.environ[name]}" for name in THREAD_VARIABLES if name in os.environ]
    limits = f"; {', '.join(chosen)}" if chosen else ""
    yield Finding("Threads", f"{usable} of {os.cpu_count()} cores usable{limits}")


def numba():
    """Whether Numba works with this NumPy: compiles and runs one line."""
    try:
        import numba

        if numba.njit(lambda x: x + 1)(1) != 2:
            raise ArithmeticError("a compiled function gave a wrong result")
    except Exception as error:  # a mismatch shows as ImportError, SystemError, AttributeError, ...
        reason = " ".join(str(error).split())
        yield Finding(
            "Numba",
            f"does not work ({reason}): training runs on NumPy alone, slower; a pair that works: "
            f"python -m pip install {KNOWN_PAIR}",
            "note",
        )
        return
    yield Finding("Numba", f"{numba.__version__}, works with this NumPy")


def graphics_cards():
    """CuPy and the GPUs it sees; each does one small sum, which needs the whole CUDA tool chain."""
    if not importlib.util.find_spec("cupy"):
        driver = shutil.which("nvidia-smi")
        text = "CuPy is not installed; only an NVIDIA GPU needs it"
        if driver:
            text = "there is an NVIDIA driver but no CuPy: python -m pip install 'cupy-cuda12x[ctk]' (or cupy-cuda13x)"
        yield Finding("GPU", text, "note" if driver else "ok")
        return
    try:
        import cupy

        for index in range(cupy.cuda.runtime.getDeviceCount()):
            with cupy.cuda.Device(index):
                if int(cupy.arange(4).sum()) != 6:
                    raise ArithmeticError("a sum came out wrong")
                properties = cupy.cuda.runtime.getDeviceProperties(index)
            memory = properties["totalGlobalMem"] / GIGABYTE
            yield Finding("GPU", f"{properties['name'].decode()}, {memory:.0f} GB, CuPy {cupy.__version__}")
    except Exception as error:
        reason = " ".join(str(error).split())
        yield Finding(
            "GPU", f"CuPy finds no GPU it can use ({type(error).__name__}: {reason}); training uses the CPU", "note"
        )


def ranks():
    """What several processes that train together may talk over, besides the shared memory of this machine."""
    if importlib.util.find_spec("mpi4py"):
        yield mpi()
    else:
        yield Finding("MPI", "mpi4py is not installed; only mpiexec needs it, --devices does not", "note")
    if importlib.util.find_spec("cupy"):
        yield nccl()


def mpi():
    """mpi4py, the library that it calls, and mpiexec. Started as a process: a library may end the one that loads it."""
    program = "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; print(MPI.Get_library_version())"
    try:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", timeout=60)
    except subprocess.TimeoutExpired:
        return Finding("MPI", "mpi4py does not answer; mpiexec cannot be used", "note")
    version = importlib.metadata.version("mpi4py")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        return Finding("MPI", f"mpi4py {version} does not work ({reason}); mpiexec cannot be used", "note")
    library = " ".join(done.stdout.splitlines()[0].split())
    beside = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    if not (mpiexec := shutil.which("mpiexec", path=beside)):
        return Finding("MPI", f"mpi4py {version} with {library}, but there is no mpiexec", "note")
    return Finding("MPI", f"mpi4py {version} with {library}; {mpiexec} -n 2 tinyllm pretrain ...")


def nccl():
    """Whether GPUs can talk to each other."""
    try:
        import cupy.cuda.nccl

        return Finding("NCCL", f"{cupy.cuda.nccl.get_version()}: --device cuda --devices N trains on N GPUs")
    except Exception as error:
        reason = " ".join(str(error).split())
        return Finding("NCCL", f"not usable ({reason}); only training on several GPUs needs it", "note")


def packages():
    """Optional packages, each with what it is for."""
    for name, purpose in OPTIONAL.items():
        installed = importlib.util.find_spec(name)
        version = importlib.metadata.version(name) if installed else "not installed"
        yield Finding(name, f"{version}: {purpose}", "ok" if installed else "note")


def engine():
    """Whose `autograd` this is, and whether its gradient is right."""
    import autograd as ag

    x = ag.Tensor([3.0], requires_grad=True)
    (x * x).sum().backward()
    right = x.grad is not None and float(x.grad[0]) == 6.0
    yield Finding("autograd", f"tinyllm's own, in {Path(ag.__file__).parent}", "ok" if right else "broken")
    if any(distribution.name.lower() == "autograd" for distribution in importlib.metadata.distributions()):
        yield Finding(
            "autograd",
            "HIPS' package of the same name is installed too, and may be found instead from another folder: "
            "python -m pip uninstall autograd",
            "note",
        )


def kernels():
    """Fused kernels: whether they work here, on how many threads, with which library's products, and where they lie.

    Before anything else is compiled: Numba asks only once which registers it may use.
    """
    from autograd import kernels

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        usable = kernels.load(kernels.available())
    for warning in caught:
        yield Finding("Kernels", str(warning.message), "note")
    for name in usable:
        yield Finding("Kernels", f"{name}: {'; '.join(kernels.setup(name).values())}")
    yield Finding("Kernels", "reference: the array code, always there")


def places():
    """The cache folder, the disk, the console."""
    from tinyllm.data.named_texts import cache_folder

    cache = cache_folder()
    writable = can_write(cache)
    yield Finding(
        "Cache folder",
        f"{cache}" + ("" if writable else ": cannot be written; set TINYLLM_CACHE to a folder that can"),
        "ok" if writable else "note",
    )
    free = shutil.disk_usage(".").free / GIGABYTE
    yield Finding("Disk", f"{free:,.1f} GB free here", "ok" if free > 1 else "note")
    encoding = (sys.stdout.encoding or "unknown").lower()
    utf8 = encoding.replace("-", "") == "utf8"
    yield Finding(
        "Console",
        encoding if utf8 else f"{encoding}: characters it lacks are printed as ?; PYTHONUTF8=1 changes that",
        "ok" if utf8 else "note",
    )


def can_write(folder):
    """Whether files can be made in `folder`, or in the nearest folder above it that exists."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


# --- How fast it is ---------------------------------------------------------------------------------------------------


def product_speed():
    """Matrix products in float32, the bound of every training step."""
    from tinyllm.commands.speed import matmul_gflops

    rates = {size: matmul_gflops(size) for size in (512, 1024)}
    # A step costs about six operations for each parameter and token: two forward, four backward.
    tokens = max(rates.values()) * 1e9 / (6 * 1e6)
    yield Finding(
        "Matrix product",
        ", ".join(f"{rate:,.0f} GFLOP/s at {size}" for size, rate in rates.items())
        + f": a model of a million parameters can learn from {tokens:,.0f} tokens a second at the very most",
    )


def copy_speed():
    """Copying, the bound of everything that is not a product."""
    from tinyllm.commands.speed import copy_gigabytes

    rate = copy_gigabytes()
    yield Finding(
        "Memory",
        f"{rate:.1f} GB/s copied: an optimizer step, which reads and writes seven numbers a parameter, takes at least "
        f"{7 * 4 * 1e6 / (rate * 1e9) * 1e3:.1f} ms for a million parameters",
    )


def step_speed():
    """A step of a small network, forward, backward and update, through the engine."""
    from tinyllm.commands.speed import training_step

    samples, gflops = training_step()
    yield Finding(
        "Training step",
        f"{samples:,.0f} samples/s through a network of two layers, {gflops:,.0f} GFLOP/s: "
        "the nearer to the matrix product, the less the engine itself costs",
    )


CHECKS = (system, numpy_and_blas, threads, kernels, numba, graphics_cards, ranks, packages, engine, places)
SPEED_CHECKS = (product_speed, copy_speed, step_speed)

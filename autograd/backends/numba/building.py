"""How a loop becomes a kernel: compiled once, for stated types, and kept on disk.

Numba's cache notices a change of the file that a kernel stands in, not of the formulas that it copies from another. So
the folder is named after the contents of all files here: whatever changes, everything is compiled anew, once.

The code that Numba has just compiled and the code that it keeps of it come from two passes of the compiler, which may
fuse and reorder differently. A run would then differ in its last bits from the same run a day later. So kernels are
compiled by other processes, on all cores, and this one waits for those that it calls and only ever runs what was kept.
Where nothing can be kept they are compiled here, each when it is first called.
"""

import atexit
import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from subprocess import DEVNULL

import llvmlite.binding
import numba

from autograd.backends.numba.threads import usable_cores
from autograd.kernels import announce

FLAGS = {"fastmath": {"reassoc", "contract", "arcp", "nsz"}, "error_model": "numpy"}
"""For the compiler: sums may be reordered and products fused, but NaN and infinity keep their meaning; a division by
zero gives infinity and no exception, whose branch would keep loops from being vectorized."""

PIECE = 8192
"""Elements of a flat array that one thread takes at a time; they stay in its cache."""

BLOCK = 64
"""Rows that are summed by one thread: fixed, so that a sum over rows does not depend on the number of threads."""


@functools.cache
def cache_folder():
    """Where compiled kernels are kept. NUMBA_CACHE_DIR, if set, is used as it is."""
    sources = [*sorted(Path(__file__).parent.glob("*.py")), Path(__file__).parents[2] / "arrays.py"]
    contents = hashlib.sha256(b"".join(path.read_bytes() for path in sources) + numba.__version__.encode())
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "tinyllm" / "kernels" / contents.hexdigest()[:16]


def kept_in():
    """The folder that compiled kernels are kept in, None if it cannot be made and written."""
    folder = Path(numba.config.CACHE_DIR or cache_folder())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return None
    return folder


KERNELS = {}  # "module.name" -> the function that returns the kernel, compiled or loaded
JOB = "AUTOGRAD_COMPILES"  # tells a process that it compiles, and the folder in which it finds what is wanted


def compiled(*signatures, parallel=False):
    """A loop as a kernel for exactly these types and no others: nothing is compiled unnoticed for another array."""

    def build(body):
        name = f"{body.__module__.rpartition('.')[2]}.{body.__name__}"

        @functools.cache
        def kernel():
            if JOB not in os.environ:
                wait_for(name)
            options = {"parallel": parallel, "nogil": True, **FLAGS}
            before = numba.config.CACHE_DIR
            numba.config.CACHE_DIR = before or str(cache_folder())
            try:
                return numba.njit(list(signatures), cache=True, **options)(body)
            except (OSError, RuntimeError):  # nowhere to write
                return numba.njit(list(signatures), **options)(body)
            finally:
                numba.config.CACHE_DIR = before

        @functools.wraps(body)
        def run(*arguments):
            return kernel()(*arguments)

        KERNELS[name] = kernel
        return run

    return build


def wait_for(name):
    """Return when that kernel lies on disk, or when nobody is left who could compile it: then this process does."""
    mark = mark_of(name)
    if mark is None:
        announce()
    elif not mark.exists():
        announce()
        job = kept_in() / f"job-{fingerprint()}"
        while not mark.exists() and somebody_compiles(job):
            with contextlib.suppress(FileNotFoundError):  # they have finished and tidied up, or not begun
                (job / f"{name} wanted").touch()
            time.sleep(0.01)


@functools.cache
def mark_of(name):
    """The empty file that says that this kernel is on disk; None where there can be no such files."""
    folder = kept_in()
    return folder and folder / f"compiled-{fingerprint()}" / name


WORKERS = []  # the processes that this one has started to compile everything


def somebody_compiles(job):
    """Whether processes of this program or of another compile everything; they are started if nobody has done so.

    The programs that start at one time on a machine, the ranks of a run say, so share one job. job: its folder.
    """
    if not WORKERS:
        try:
            with job_lock(job) as lock:
                WORKERS.extend(workers(job, lock))
        except BlockingIOError:
            return True  # another program's processes are at it
    return any(process.poll() is None for process in WORKERS)


@contextlib.contextmanager
def job_lock(job):
    """Take the lock of a job: (the file,), or () where a system or a disk has no such locks. BlockingIOError if it is
    taken. Processes that inherit the file keep the lock as long as one of them lives."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield ()
        return
    with open(f"{job}.lock", "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            yield ()
        else:
            yield (file.fileno(),)


def workers(job, inherited):
    """Start the processes that compile everything, one a core; none where that cannot be done.

    inherited: the descriptors of files that they get.
    """
    path = os.pathsep.join([str(Path(__file__).parents[3]), *filter(None, [os.environ.get("PYTHONPATH")])])
    here = {"NUMBA_CACHE_DIR": str(kept_in()), "PYTHONPATH": path, "NUMBA_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "autograd.backends.numba.compiling"]
    try:
        shutil.rmtree(job, ignore_errors=True)  # of processes that were killed
        job.mkdir(exist_ok=True)
        environment = os.environ | here | {JOB: str(job)}
        processes = [
            subprocess.Popen(command, env=environment, stdout=DEVNULL, stderr=DEVNULL, pass_fds=inherited)
            for _ in range(min(usable_cores(), 8))
        ]
        atexit.register(lambda: [process.poll() for process in processes])  # so that Python does not call them running
        return processes
    except OSError:  # no interpreter to start, or no more processes
        return []


@functools.cache
def fingerprint():
    """What Numba's cache looks at besides the source: where it lies, since when, the processor, the interpreter."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    parts = [sys.version, numba.config.CPU_NAME, numba.config.CPU_FEATURES, numba.config.BOUNDSCHECK]
    parts += [llvmlite.binding.get_host_cpu_name(), *((str(path), path.stat().st_mtime_ns) for path in files)]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


inlined = numba.njit(inline="always", **FLAGS)
"""A formula that is copied into the loops that use it, which can then be vectorized."""

called = numba.njit(**FLAGS)
"""A part of a loop that is seldom needed: called and not copied, for the compiler takes longer over a larger kernel."""


def disabled():
    """Whether the user has switched Numba's compiler off."""
    return bool(numba.config.DISABLE_JIT)


def processor_has(feature):
    """Whether kernels may use what LLVM calls so: the processor has it, and the user compiles for no lesser one."""
    if numba.config.CPU_FEATURES:
        return f"+{feature}" in numba.config.CPU_FEATURES.split(",")
    return not numba.config.CPU_NAME and bool(llvmlite.binding.get_host_cpu_features().get(feature))


def use_whole_registers():
    """Let loops use 512-bit registers where there are any; LLVM avoids them, and loses a fifth on these loops."""
    features = llvmlite.binding.get_host_cpu_features()
    if features.get("avx512f") and not numba.config.CPU_FEATURES and not numba.config.CPU_NAME:
        numba.config.CPU_NAME = llvmlite.binding.get_host_cpu_name()
        numba.config.CPU_FEATURES = features.flatten() + ",-prefer-256-bit"

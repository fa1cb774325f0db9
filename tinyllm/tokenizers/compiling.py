"""How a loop over integers becomes a kernel: compiled by a process of its own, kept on disk, loaded when it is there.

Plain Python gives the same ids as the kernels. So nobody has to wait for the compiler: on a fresh machine
`kernels_ready` starts one in the background and says no, until the kernels lie on disk; only who has much to do waits.
`python -m tinyllm.tokenizers.compiling` is what it starts, and may be run by hand.

Numba's cache does not notice that a part which a kernel calls has changed in another file. So the folder is named after
the contents of all files here. NUMBA_CACHE_DIR, if set, is used as it is.
"""

import atexit
import contextlib
import functools
import hashlib
import importlib
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from subprocess import DEVNULL

KERNEL_MODULES = (
    "tinyllm.tokenizers.splitting",
    "tinyllm.tokenizers.bpe_kernels",
    "tinyllm.tokenizers.word_tables",
    "tinyllm.tokenizers.bpe_training_numba",
)
"""The files in which kernels stand. They import Numba, so they are imported only once kernels are wanted."""

KERNELS = []
"""Every kernel of the modules imported so far."""

LONGEST_WAIT = 120  # seconds for all kernels, which take a few; then something is wrong with the other process


class Kernel:
    """A loop that is compiled for exactly the stated types, or loaded from disk, when it is first needed."""

    def __init__(self, body, signatures):
        functools.update_wrapper(self, body)
        self.body, self.signatures = body, list(signatures)
        KERNELS.append(self)

    @functools.cached_property
    def compiled(self):
        """The compiled function itself; calling that saves a step where every microsecond counts."""
        import numba

        options = {"nogil": True, "error_model": "numpy"}
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = before or str(cache_folder())
        try:
            return numba.njit(self.signatures, cache=True, **options)(self.body)
        except (OSError, RuntimeError):  # nowhere to write
            return numba.njit(self.signatures, **options)(self.body)
        finally:
            numba.config.CACHE_DIR = before

    def __call__(self, *arguments):
        return self.compiled(*arguments)


def kernel(*signatures):
    """Decorator: a loop as a `Kernel` for these types."""
    return lambda body: Kernel(body, signatures)


def kernels_ready(wait=False):
    """Whether kernels can be called without compiling first.

    If not, they will be: by a process in the background, for which `wait=True` waits. Always False without Numba or
    with its compiler switched off (NUMBA_DISABLE_JIT).
    """
    if not usable():
        return False
    mark = mark_on_disk()
    if mark is None or not sys.executable:  # nothing can be kept, or nobody else can be asked: compiled here
        return wait
    if mark.exists():
        return True
    process = compiling_process()
    if not wait:
        return False
    give_up = time.monotonic() + LONGEST_WAIT
    while not mark.exists() and process is not None and process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.02)
    return True


@functools.cache
def usable():
    """Whether there is a Numba that may compile."""
    try:
        import numba
    except (ImportError, OSError):  # OSError: its library of LLVM cannot be loaded
        return False
    return not numba.config.DISABLE_JIT


@functools.cache
def cache_folder():
    """Where compiled kernels are kept, unless NUMBA_CACHE_DIR says so."""
    import numba

    contents = hashlib.sha256(b"".join(path.read_bytes() for path in sources()) + numba.__version__.encode())
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "tinyllm" / "tokenizers" / contents.hexdigest()[:16]


def sources():
    """The files whose change makes kernels anew."""
    here = Path(__file__).parent
    return [*sorted(here.glob("*.py")), *sorted((here / "unicode").glob("*.py"))]


@functools.cache
def mark_on_disk():
    """The path of the empty file that says that all kernels are on disk; None where nothing can be written."""
    import llvmlite.binding
    import numba

    try:
        folder = Path(numba.config.CACHE_DIR or cache_folder())
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, RuntimeError):  # RuntimeError: there is no home folder
        return None
    # What Numba's cache looks at besides the source: where it lies, since when, the processor, the interpreter.
    parts = [sys.version, numba.__version__, numba.config.CPU_NAME, numba.config.CPU_FEATURES, numba.config.BOUNDSCHECK]
    parts += [llvmlite.binding.get_host_cpu_name(), *((str(path), path.stat().st_mtime_ns) for path in sources())]
    return folder / f"kernels-{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"


@functools.cache
def compiling_process():
    """The process that compiles, started once; None where no process can be started."""
    import numba

    folders = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    here = {"NUMBA_CACHE_DIR": str(mark_on_disk().parent), "PYTHONPATH": os.pathsep.join(folders)}
    # Whatever this process has set by hand decides what Numba makes, and so what it will look for.
    chosen = {f"NUMBA_{name}": str(getattr(numba.config, name) or "") for name in ("CPU_NAME", "CPU_FEATURES")}
    chosen = {name: value for name, value in chosen.items() if value}
    command = [sys.executable, "-m", "tinyllm.tokenizers.compiling"]
    try:
        process = subprocess.Popen(
            command,
            env=os.environ | here | chosen,
            stdin=DEVNULL,
            stdout=DEVNULL,
            stderr=DEVNULL,
            start_new_session=True,  # an interrupt at the keyboard is not meant for it
        )
    except OSError:
        return None
    atexit.register(leave, process)
    return process


def leave(process):
    """At exit: the process may go on by itself, and Python need not warn that it does."""
    if process.poll() is None:
        process.returncode = 0


@contextlib.contextmanager
def alone(path):
    """Hold the lock of this file, which the system takes back from a process that dies; on Windows nothing is held."""
    with open(path, "w") as file:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def compile_all():
    """Compile every kernel and say on disk that it is done; at once where that was said before."""
    mark = mark_on_disk()
    if mark is None:
        raise SystemExit("there is no folder in which kernels could be kept; set NUMBA_CACHE_DIR to one")
    with alone(mark.with_suffix(".lock")):
        if not mark.exists():
            for module in KERNEL_MODULES:
                importlib.import_module(module)
            for each in KERNELS:
                _ = each.compiled
            mark.touch()


if __name__ == "__main__":
    # As `tinyllm.tokenizers.compiling`, whose KERNELS the modules fill, and not as `__main__`.
    importlib.import_module("tinyllm.tokenizers.compiling").compile_all()

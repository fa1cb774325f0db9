"""Programs that start at one time share the work of compiling kernels."""

import subprocess
import sys

import pytest

pytest.importorskip("numba")
fcntl = pytest.importorskip("fcntl", reason="Windows has no such locks: there every program compiles for itself")

from autograd.backends.numba import building  # noqa: E402 (it needs numba)


@pytest.fixture
def started(monkeypatch):
    """What `workers` starts instead of compilers: one process that sleeps; a list of those."""
    processes = []

    def workers(job, inherited):
        command = [sys.executable, "-c", "import time; time.sleep(60)"]
        processes.append(subprocess.Popen(command, pass_fds=inherited))
        return processes[-1:]

    monkeypatch.setattr(building, "workers", workers)
    monkeypatch.setattr(building, "WORKERS", [])
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def test_what_one_program_compiles_another_waits_for(started, tmp_path, monkeypatch):
    job = tmp_path / "job"
    assert building.somebody_compiles(job)
    assert building.somebody_compiles(job)
    assert len(started) == 1
    monkeypatch.setattr(building, "WORKERS", [])  # as another program sees it
    assert building.somebody_compiles(job)
    assert len(started) == 1, "two programs compile the same"


def test_after_compilers_that_were_killed_the_next_program_starts_its_own(started, tmp_path, monkeypatch):
    job = tmp_path / "job"
    assert building.somebody_compiles(job)
    started[0].kill()
    started[0].wait()
    assert not building.somebody_compiles(job), "nobody is left, and it has waited for its own once already"
    monkeypatch.setattr(building, "WORKERS", [])
    assert building.somebody_compiles(job)
    assert len(started) == 2


def test_a_disk_without_locks_compiles_all_the_same(started, tmp_path, monkeypatch):
    def no_locks(file, how):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    assert building.somebody_compiles(tmp_path / "job")
    assert len(started) == 1

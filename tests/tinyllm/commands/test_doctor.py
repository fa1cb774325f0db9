"""`tinyllm doctor` answers whatever is missing."""

import sys
from importlib import metadata
from types import SimpleNamespace

import pytest

from tinyllm.commands import doctor, speed
from tinyllm.commands.main import main


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(speed, "SECONDS", 0.01)


def texts(check):
    return [(finding.state, finding.found) for finding in check()]


def test_doctor_reports_everything_and_is_content(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for topic in ("Python", "NumPy", "BLAS", "Threads", "Numba", "GPU", "tyro", "autograd", "Kernels", "Cache folder",
                  "Disk", "Console", "Matrix product", "Memory", "Training step"):  # fmt: skip
        assert f"  {topic}  " in printed
    assert printed.endswith("Ready: tinyllm can train here.\n")


def test_speed_can_be_left_out(capsys):
    assert main(["doctor", "--no-speed"]) == 0
    assert "Matrix product" not in capsys.readouterr().out


def test_doctor_runs_without_tyro_and_rich(capsys, monkeypatch):
    for name in ("tyro", "rich", *(name for name in sys.modules if name.startswith("rich."))):
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("--  rich ") and "not installed" in line for line in lines)


def test_a_numba_that_does_not_fit_is_named_with_a_pair_that_does(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    ((state, found),) = texts(doctor.numba)
    assert state == "note"
    assert "does not work" in found
    assert doctor.KNOWN_PAIR in found


def test_mpi_that_is_not_there_or_does_not_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    assert texts(doctor.ranks) == [("note", "mpi4py is not installed; only mpiexec needs it, --devices does not")]
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: "4.1")
    failed = SimpleNamespace(returncode=1, stderr="Traceback\nRuntimeError: cannot load MPI library\n")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *command, **options: failed)
    reason = "mpi4py 4.1 does not work (RuntimeError: cannot load MPI library); mpiexec cannot be used"
    assert (doctor.mpi().state, doctor.mpi().found) == ("note", reason)
    works = SimpleNamespace(returncode=0, stdout="MPICH Version: 5\nmore\n")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *command, **options: works)
    monkeypatch.setattr(doctor.shutil, "which", lambda name, path: None)
    assert doctor.mpi().found == "mpi4py 4.1 with MPICH Version: 5, but there is no mpiexec"


def test_an_nvidia_driver_without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    assert "cupy-cuda12x[ctk]" in texts(doctor.graphics_cards)[0][1]


def test_a_cupy_that_finds_no_gpu(monkeypatch):
    def no_driver():
        raise RuntimeError("cudaErrorInsufficientDriver")

    cupy = SimpleNamespace(__spec__=SimpleNamespace(), cuda=SimpleNamespace())
    cupy.cuda.runtime = SimpleNamespace(getDeviceCount=no_driver)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    ((state, found),) = texts(doctor.graphics_cards)
    assert state == "note"
    assert "cudaErrorInsufficientDriver" in found


def test_hips_autograd_beside_ours_is_noticed(monkeypatch):
    monkeypatch.setattr(metadata, "distributions", lambda: [SimpleNamespace(name="autograd")])
    assert any(state == "note" and "HIPS" in found for state, found in texts(doctor.engine))


def test_a_wrong_gradient_is_exit_code_1(capsys, monkeypatch):
    import autograd

    monkeypatch.setattr(autograd.Tensor, "backward", lambda self: None)
    monkeypatch.setattr(doctor, "CHECKS", (doctor.engine,))
    assert main(["doctor", "--no-speed"]) == 1
    assert "Broken: autograd" in capsys.readouterr().out


def test_a_cache_folder_that_cannot_be_made(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TINYLLM_CACHE", str(tmp_path / "file" / "cache"))
    assert any("set TINYLLM_CACHE" in found for _, found in texts(doctor.places))


def test_speeds_are_of_the_right_size():
    """Wrong units would be off by a thousand: this machine does between 0.1 and 100,000 of each."""
    samples, gflops = speed.training_step(samples=32, width=128)
    assert samples > 10
    for rate in (gflops, speed.matmul_gflops(128), speed.copy_gigabytes(4)):
        assert 0.01 < rate < 1e5

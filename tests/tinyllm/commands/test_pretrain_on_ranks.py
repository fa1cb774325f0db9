"""`tinyllm pretrain --devices 2`, and under mpiexec: one run, however it is spread, stopped or killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import tinyllm
from tinyllm.commands.main import main
from tinyllm.commands.pretrain import Options, on_rank
from tinyllm.errors import UserError
from tinyllm.formats.arrays import read_arrays
from tinyllm.formats.run_folders import newest_checkpoint
from tinyllm.training import runs

SECONDS = 120
RUN = """
    pretrain textbook --data text.txt --tokenizer bytes --steps 40 --training.checkpoint-every 10
    --model.hidden-size 16 --model.num-hidden-layers 1 --model.num-attention-heads 2 --model.max-position-embeddings 16
    --model.dropout 0.1 --training.batch-size 2 --training.sample-tokens 5 --training.warmup-steps 1
"""
TWO = ["--devices", "2", "--zero", "1"]
SLOWLY = """
import time
from tinyllm.data import RandomBatches
following = RandomBatches.__next__
RandomBatches.__next__ = lambda batches: (time.sleep(0.02), following(batches))[1]
from tinyllm.training import runs
runs.write_report = lambda folder: None  # drawn from the metrics; takes seconds
"""
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
CHILDREN = pytest.mark.skipif(
    not Path(f"/proc/self/task/{os.getpid()}/children").exists(), reason="finds the ranks by way of /proc"
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with text.txt, and in it the run `two` of two ranks, which nobody disturbed."""
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "text.txt").write_text("The old sailor sat by the sea and told it again. " * 40, encoding="utf-8")
    code, out, err = ended(begin(folder, [*RUN.split(), *TWO, "--run", "two"]))
    assert code == 0, err
    assert out.startswith("2 ranks; each computes with 1 thread, but for OMP_NUM_THREADS=1")
    assert out.count("Held-out loss") == 1
    return folder


def begin(folder, words, before=()):
    """`tinyllm WORDS` as a process, its steps a little slower; each rank has one thread, and starts without Numba."""
    script = folder / "slowly.py"
    script.write_text(
        f"import sys\n{SLOWLY}\nfrom tinyllm.commands.main import main\n"
        "if __name__ == '__main__':\n    sys.exit(main(sys.argv[1:]))\n"
    )
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    environment = os.environ | threads | {"PYTHONPATH": str(Path(tinyllm.__file__).parents[1])}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
    return subprocess.Popen(
        [*before, sys.executable, script, *words, "--kernels", "reference"], cwd=folder, env=environment, **pipes
    )


def ended(process):
    """(exit code, what it printed, what it complained of)"""
    try:
        out, err = process.communicate(timeout=SECONDS)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


def ranks_of(process):
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def wait_for_step(process, folder, step):
    """Until metrics.jsonl has so many steps."""
    end = time.monotonic() + SECONDS
    while not (folder / "metrics.jsonl").exists() or len(losses(folder)) < step:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def losses(folder):
    lines = (folder / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    records = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return [(record["step"], record["loss_nats"]) for record in records if record["split"] == "train"]


def arrays(folder):
    """dict file -> dict name -> bytes: the newest checkpoint."""
    files = sorted(newest_checkpoint(folder).glob("*.safetensors"))
    return {path.name: {name: array.tobytes() for name, array in read_arrays(path).items()} for path in files}


@CHILDREN
def test_a_run_that_is_stopped_and_then_loses_a_rank_ends_like_one_that_was_not(place):
    folder = place / "disturbed"
    process = begin(place, [*RUN.split(), *TWO, "--run", folder.name])
    try:
        wait_for_step(process, folder, 5)
        process.send_signal(signal.SIGINT)
    finally:
        code, out, err = ended(process)
    assert (code, err) == (130, "")
    assert "Saved at step" in out
    assert "pretrain --run disturbed --resume" in out

    process = begin(place, ["pretrain", "--run", folder.name, "--resume"])  # on as many ranks as before
    try:
        wait_for_step(process, folder, 25)
        ranks = ranks_of(process)
        os.kill(ranks[1], signal.SIGKILL)
    finally:
        code, out, err = ended(process)
    assert code == 2
    assert err == "tinyllm: rank 1 was killed by signal 9 (out of memory?); all ranks have been ended\n"
    assert len(ranks) == 2
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)

    assert ended(begin(place, ["pretrain", "--run", folder.name, "--resume", "--devices", "2"]))[0] == 0
    assert losses(folder) == losses(place / "two")
    assert arrays(folder) == arrays(place / "two")


def test_ranks_of_mpi_train_like_local_ones(place):
    if not MPIEXEC:
        pytest.skip("no mpiexec here")
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    mpiexec = [MPIEXEC, "-n", "2"]
    code, out, err = ended(begin(place, [*RUN.split(), "--zero", "1", "--run", "mpi"], mpiexec))
    assert code == 0, err
    assert out.count("Held-out loss") == 1
    assert losses(place / "mpi") == losses(place / "two")
    assert arrays(place / "mpi") == arrays(place / "two")


def test_one_process_goes_on_with_what_two_have_begun(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    monkeypatch.setattr(runs, "write_report", lambda folder: None)
    shutil.copytree("two", "one")
    shutil.rmtree("one/checkpoints/step-000040")
    assert main(["pretrain", "--run", "one", "--resume", "--devices", "1", "--zero", "0"]) == 0
    assert "one: going on at step 30 of 40" in capsys.readouterr().out
    np.testing.assert_allclose(losses(place / "one"), losses(place / "two"), rtol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--devices 0", "--devices must be at least 1, not 0"),
        ("--devices 2 --parallel.timeout 0", "timeout must be a time above 0 s, not 0.0"),
        ("--zero 4", "zero must be one of the stages 0, 1, 2 and 3, not 4"),
        ("--devices 2 --parallel.reduce-buckets 5", "there is no option --parallel.reduce-buckets; did you mean"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_started(words, message, tiny_run, refused):
    refused([*tiny_run, *words.split()], message)


def test_ranks_that_cannot_share_a_batch_are_refused_once(place):
    code, _, err = ended(begin(place, [*RUN.split(), "--devices", "3", "--run", "three"]))
    assert code == 2
    assert err.startswith("tinyllm: 3 ranks with accumulation 1 cannot share a batch of 2 equally; choose a batch size")
    assert err.count("\n") == 1
    assert not (place / "three").exists()


def test_mpiexec_and_devices_must_not_contradict(monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "2")
    with pytest.raises(UserError, match=r"^mpiexec has started 2 ranks, and --devices says 3; leave it out$"):
        on_rank(SimpleNamespace(rank=0, size=2), Options("textbook", devices=3))


def test_mpiexec_without_mpi4py_is_refused(here, tiny_run, refused, monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    refused([*tiny_run], "mpiexec has started 2 ranks, but mpi4py cannot be used")

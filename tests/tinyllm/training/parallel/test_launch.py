"""Ranks as processes: one that fails ends all with its reason, a signal to any reaches all, nobody is left over."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import tinyllm
from tinyllm.errors import UserError
from tinyllm.training.parallel import launch as launching
from tinyllm.training.parallel.communicator import LostRank
from tinyllm.training.parallel.launch import described, launch, verdict

ROOT = Path(tinyllm.__file__).parents[1]
SECONDS = 60
POSIX = pytest.mark.skipif(os.name != "posix", reason="sends signals")


@pytest.fixture(autouse=True)
def deadline():
    """Ranks that hang are ended as by Ctrl-C, twice, and the test fails."""
    timers = [threading.Timer(SECONDS + more, os.kill, (os.getpid(), signal.SIGINT)) for more in (0, 1)]
    for timer in timers:
        timer.daemon = True
        timer.start()
    yield
    for timer in timers:
        timer.cancel()


def job(communicator, what="", place=None):
    """What the ranks of these tests do: a sum, and then rank 1 something that it should not."""
    array = np.full(3, communicator.rank + 1.0)
    communicator.all_reduce(array)
    assert (array == communicator.size * (communicator.size + 1) / 2).all()
    if place:
        Path(place, f"rank {communicator.rank}").write_text(str(os.getpid()))
    if communicator.rank == 1:
        WRONG.get(what, lambda: None)()
    if what == "sleep":
        time.sleep(SECONDS)
    communicator.barrier()
    print(f"rank {communicator.rank}: {os.environ['OMP_NUM_THREADS']} threads")
    return 130 if what == "stopped" else 0


def refuse():
    raise UserError("something is wrong; mend it")


def fail():
    raise ValueError("our own mistake")


WRONG = {
    "refuses": refuse,
    "fails": fail,
    "is killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "is stopped": lambda: os.kill(os.getpid(), signal.SIGSTOP),
}


def test_the_first_rank_alone_prints_and_threads_are_shared_out(capfd, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert launch(job, 3, threads=2) == 0
    assert capfd.readouterr().out == "rank 0: 2 threads\n"
    assert "OMP_NUM_THREADS" not in os.environ


def test_the_exit_code_is_that_of_the_ranks(capfd, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert launch(job, 2, ("stopped",)) == 130
    assert capfd.readouterr().out == "rank 0: 7 threads\n"  # as the user said


@POSIX
@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("refuses", "^something is wrong; mend it$"),
        ("fails", "^rank 1 failed: ValueError: our own mistake; all ranks have been ended$"),
        ("is killed", r"^rank 1 was killed by signal 9 \(out of memory\?\); all ranks have been ended$"),
        ("is stopped", r"^rank 1 has not moved for 4 s \(was it stopped\?\); all ranks have been ended\."),
    ],
)
def test_a_rank_that_fails_ends_all_with_its_reason(what, reason, capfd, tmp_path, monkeypatch):
    monkeypatch.setattr(launching, "GRACE_SECONDS", 1)
    with pytest.raises(UserError, match=reason):
        launch(job, 2, (what, str(tmp_path)), timeout=4 if what == "is stopped" else SECONDS)
    assert capfd.readouterr().err.count("Traceback") == (what == "fails")
    assert_gone(tmp_path, 2)


def raised(error):
    """What the watching process raises for what was raised in rank 1, while the other rank has lost it."""
    outcomes = {0: described(LostRank("rank 1 has ended")), 1: described(error)}
    with pytest.raises(BaseException) as caught:  # noqa: PT011 (it is looked at by the caller)
        verdict(outcomes)
    return caught.value


def test_the_watching_process_raises_what_was_raised():
    assert isinstance(raised(KeyboardInterrupt()), KeyboardInterrupt)
    refused = raised(UserError("two\nlines"))
    assert (type(refused), str(refused)) == (UserError, "two lines")
    missing = raised(FileNotFoundError(2, "No such file or directory", "/a/file"))
    assert isinstance(missing, FileNotFoundError)
    assert missing.filename == "/a/file"
    assert "not enough memory: no room" in str(raised(MemoryError("no room")))
    assert str(raised(SystemExit(3))) == "rank 1 ended by itself with exit code 3; all ranks have been ended"


def test_how_processes_end_in_words():
    for code, words in ((1, "ended by itself with exit code 1"), (-15, "was killed by signal 15")):
        with pytest.raises(UserError, match=f"rank 2 {words};"):
            verdict({0: {"kind": "lost", "text": ""}, 2: {"kind": "gone", "code": code}})
    assert verdict({0: {"kind": "done", "code": 0}, 1: {"kind": "done", "code": 130}}) == 130
    with pytest.raises(KeyboardInterrupt):  # asked twice to end, and none has said anything
        verdict({})
    with pytest.raises(LostRank):
        verdict({0: {"kind": "lost", "text": "rank 1 has ended"}})


def assert_gone(place, size):
    """The processes that have left their numbers in the folder are not there any more."""
    numbers = [int(path.read_text()) for path in place.iterdir()]
    assert len(numbers) == size
    end = time.monotonic() + SECONDS
    while any(is_running(number) for number in numbers):
        assert time.monotonic() < end, "a rank has been left over"
        time.sleep(0.05)


def is_running(number):
    """Whether there is such a process; one that has ended and is only not yet collected does not count."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{number}/stat")
    try:
        return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def sleeping(tmp_path):
    """A process that watches two ranks, which sleep; tmp_path holds the ranks' numbers."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from test_launch import job\nfrom tinyllm.training.parallel.launch import launch\n"
        "if __name__ == '__main__':\n    launch(job, 2, ('sleep', sys.argv[1]))\n"
    )
    script = tmp_path.parent / f"{tmp_path.name}.py"
    script.write_text(program)
    command = [sys.executable, script, tmp_path, Path(__file__).parent]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, encoding="utf-8")
    try:
        end = time.monotonic() + SECONDS
        while sum(path.stat().st_size > 0 for path in tmp_path.iterdir()) < 2:
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


@POSIX
def test_ranks_do_not_outlive_the_process_that_watches_them(sleeping, tmp_path):
    sleeping.kill()
    sleeping.wait(SECONDS)
    assert_gone(tmp_path, 2)


@POSIX
def test_a_signal_to_the_watching_process_reaches_the_ranks(sleeping, tmp_path):
    sleeping.send_signal(signal.SIGTERM)
    said = sleeping.communicate(timeout=SECONDS)[1]
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert said.count("Traceback") == 1  # the watching process's own
    assert_gone(tmp_path, 2)

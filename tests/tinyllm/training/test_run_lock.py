"""One process at a time writes to a run folder, and a dead one blocks nobody."""

import os
import subprocess
import sys

import pytest

from tinyllm.errors import UserError
from tinyllm.training.run_lock import RunLock

HOLD = """
import sys
from tinyllm.training.run_lock import RunLock
lock = RunLock(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock on tmp_path."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate(timeout=60)


def test_the_second_is_told_who_holds_it(tmp_path, holder):
    with pytest.raises(UserError, match=f"is in use by process {holder.pid} on .*; wait until it has ended"):
        RunLock(tmp_path)


def test_a_killed_process_holds_nothing(tmp_path, holder):
    holder.kill()
    holder.wait(timeout=60)
    assert (tmp_path / ".lock").exists()
    RunLock(tmp_path).release()
    assert not any(tmp_path.iterdir())


def test_it_can_be_had_again_once_let_go(tmp_path):
    lock = RunLock(tmp_path)
    with pytest.raises(UserError, match=f"is in use by process {os.getpid()} on "):
        RunLock(tmp_path)
    lock.release()
    lock.release()
    again = RunLock(tmp_path)
    assert (tmp_path / ".lock").exists()
    again.release()


@pytest.mark.skipif(os.name != "posix", reason="Windows deletes no file that is open")
def test_a_lock_on_a_file_that_was_deleted_meanwhile_is_none(tmp_path, monkeypatch):
    """Between opening and locking, the run that had it may end and delete the file; the next makes another."""
    from tinyllm.training import run_lock

    taken = []

    def late(file, lock=run_lock.lock):
        if not taken:
            taken.append(file)
            (tmp_path / ".lock").unlink()
        lock(file)

    monkeypatch.setattr(run_lock, "lock", late)
    lock = RunLock(tmp_path)
    with pytest.raises(UserError, match="is in use by"):
        RunLock(tmp_path)
    lock.release()


def test_a_disk_without_locks_is_warned_of(tmp_path, monkeypatch):
    import errno

    from tinyllm.training import run_lock

    def none(file):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run_lock, "lock", none)
    with pytest.warns(UserWarning, match="is on a disk without locks; let only one run write to it"):
        RunLock(tmp_path).release()

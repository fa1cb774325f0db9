"""Ranks as processes of this machine: started, watched, and ended together.

The process that starts them does nothing else. A rank that fails tells it why; one that is killed shows in its exit
code. The others then have a moment to end by themselves, and what is left is killed. A rank that lives but does not
move is missed by its heartbeat. And should the watching process itself be killed, each rank notices a closed pipe and
ends.
"""

import contextlib
import ctypes
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker

from tinyllm.errors import UserError
from tinyllm.tokenizers.batches import usable_cores
from tinyllm.training.parallel.communicator import LostRank
from tinyllm.training.parallel.local import LocalCommunicator, Seat, leave, seats

GRACE_SECONDS = 4
"""Between the first rank's failure and the end of all that go on."""

BEAT_SECONDS = 0.5
BIRTH_SECONDS = 60
"""Before its first heartbeat a rank may take so long, however small the timeout: it imports what it needs."""

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass
class Post:
    """What a rank's process is started with. report: where it says how it ended. lifeline: a pipe that closes when the
    watching process ends. beats: shared memory in which each rank counts its heartbeats."""

    seat: Seat
    report: connection.Connection
    lifeline: connection.Connection
    beats: object


def launch(work, size, arguments=(), threads=None, timeout=600):
    """Run work(communicator, *arguments) in `size` processes; returns the largest of the exit codes it returned.

    work is a function of a module, arguments can be pickled; the calling program must be one that can be imported
    without starting again (`if __name__ == "__main__"`), as multiprocessing's spawn demands. threads: how many each
    rank computes with, unless the environment says so; None for its share of the cores. timeout: seconds without a
    heartbeat.

    A failure ends all: as the UserError, the OSError or the KeyboardInterrupt that it was in its rank; of anything else
    the traceback is printed, and a UserError names it.
    """
    context = multiprocessing.get_context("spawn")
    beats = context.RawArray(ctypes.c_int64, size)
    taken = seats(size, context=context)
    reports = [context.Pipe(duplex=False) for _ in range(size)]
    held, lifeline = context.Pipe(duplex=False)
    posts = [Post(seat, report, held, beats) for seat, (_, report) in zip(taken, reports, strict=True)]
    names = [f"rank {rank}" for rank in range(size)]
    processes = [
        context.Process(target=rank_process, args=(post, work, arguments), name=name, daemon=True)
        for post, name in zip(posts, names, strict=True)
    ]
    watch = Watch(processes, [report for report, _ in reports], beats, timeout)
    with watch.forwarding_signals():
        try:
            with environment(dict.fromkeys(THREADS, str(threads or threads_each(size)))), signals_held_back():
                for process in processes:
                    process.start()
            for post in posts:  # so that only the ranks have their ends
                leave(post.seat)
                post.report.close()
            held.close()
            outcomes = watch.outcomes()
        finally:
            watch.end()
            lifeline.close()
    return verdict(outcomes)


def threads_each(ranks):
    """How many threads each of so many ranks of a machine computes with, unless the environment says so."""
    return max(1, usable_cores() // ranks)


@contextlib.contextmanager
def environment(defaults):
    """Environment variables for the processes started meanwhile; what is set already stays."""
    new = {name: value for name, value in defaults.items() if name not in os.environ}
    os.environ |= new
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]


@contextlib.contextmanager
def signals_held_back():
    """Processes started meanwhile get Ctrl-C and SIGTERM only when they are ready for them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # multiprocessing's; its start would let signals through
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Watch:
    """What the starting process knows of its ranks."""

    def __init__(self, processes, reports, beats, timeout):
        self.processes, self.reports, self.beats, self.timeout = processes, reports, beats, timeout
        self.known = {}  # rank -> how it ended
        self.deadline = None
        self.signals = 0
        now = time.monotonic()
        self.counts, self.moved, self.looked = [0] * len(processes), [now] * len(processes), now

    @contextlib.contextmanager
    def forwarding_signals(self):
        """Pass Ctrl-C and SIGTERM on to all ranks: they are no part of the terminal's group, so each gets it once."""
        if threading.current_thread() is not threading.main_thread() or os.name != "posix":
            yield
            return

        def forward(number, frame):
            self.signals += 1
            for process in self.processes:
                if process.pid and process.exitcode is None:
                    os.kill(process.pid, number)

        before = {number: signal.signal(number, forward) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def outcomes(self):
        """dict rank -> how it ended, in the order in which they did; some may be missing after a failure."""
        while len(self.known) < len(self.processes):
            waiting = [rank for rank in range(len(self.processes)) if rank not in self.known]
            connection.wait([self.processes[rank].sentinel for rank in waiting], BEAT_SECONDS)
            for rank in waiting:
                self.look_at(rank)
            self.miss_heartbeats()
            failed = self.signals > 1 or any(outcome["kind"] != "done" for outcome in self.known.values())
            if failed and self.deadline is None:
                self.deadline = time.monotonic() + GRACE_SECONDS
            if failed and time.monotonic() > self.deadline:
                break
        return self.known

    def end(self):
        """Leave no process behind; one that has said how it ended has a moment to do so."""
        for rank, process in enumerate(self.processes):
            if process.pid:
                process.join(1 if rank in self.known else 0)
                process.kill()
                process.join()

    def look_at(self, rank):
        """Has it said how it ended, or ended without a word?"""
        ended = self.processes[rank].exitcode is not None
        try:
            if self.reports[rank].poll():
                self.known[rank] = json.loads(self.reports[rank].recv_bytes())
                return
        except (EOFError, OSError):
            pass  # killed before or while it said it: its exit code comes
        if ended:
            self.known[rank] = {"kind": "gone", "code": self.processes[rank].exitcode}

    def miss_heartbeats(self):
        """Note the ranks that have not moved for too long; time in which this process did not move is not theirs."""
        now = time.monotonic()
        asleep, self.looked = now - self.looked > 10 * BEAT_SECONDS, now
        for rank, count in enumerate(self.beats):
            patience = self.timeout if count else max(self.timeout, BIRTH_SECONDS)
            if count != self.counts[rank] or asleep:
                self.counts[rank], self.moved[rank] = count, now
            elif now - self.moved[rank] > patience and rank not in self.known:
                self.known[rank] = {"kind": "silent", "seconds": patience}


RANK_OF_REASONS = ("refused", "system", "broke", "silent", "gone", "interrupted", "lost")
"""Of several ranks' ends the first of these is the reason, and the others follow from it."""


def verdict(outcomes):
    """The exit code of ranks that have all done their work; else raise the reason."""
    bad = [rank for rank, outcome in outcomes.items() if outcome["kind"] != "done"]
    if not bad and outcomes:
        return max(outcome["code"] for outcome in outcomes.values())
    if not bad:
        raise KeyboardInterrupt
    rank = min(bad, key=lambda rank: RANK_OF_REASONS.index(outcomes[rank]["kind"]))
    outcome = outcomes[rank]
    match outcome["kind"]:
        case "refused":
            raise UserError(outcome["text"])
        case "system":
            error = OSError(outcome["errno"], outcome["text"], outcome["filename"])
            error.add_note(f"in rank {rank}:\n{outcome['traceback']}")
            raise error
        case "broke":
            print(outcome["traceback"], file=sys.stderr, end="")
            raise UserError(f"rank {rank} failed: {outcome['text']}; all ranks have been ended")
        case "silent":
            raise UserError(
                f"rank {rank} has not moved for {outcome['seconds']:g} s (was it stopped?); all ranks have been ended. "
                "--parallel.timeout sets how long to wait"
            )
        case "gone":
            raise UserError(f"rank {rank} {how_it_went(outcome['code'])}; all ranks have been ended")
        case "interrupted":
            raise KeyboardInterrupt
        case "lost":
            raise LostRank(outcome["text"])


def how_it_went(code):
    """An exit code of multiprocessing in words: the negative ones are signals."""
    if code >= 0:
        return f"ended by itself with exit code {code}"
    perhaps = " (out of memory?)" if -code == getattr(signal, "SIGKILL", 9) else ""
    return f"was killed by signal {-code}{perhaps}"


# --- In the rank's process --------------------------------------------------------------------------------------------


def rank_process(post, work, arguments):
    """What the process of one rank runs."""
    post.beats[post.seat.rank] = 1
    threading.Thread(target=live, args=(post,), name="heartbeat", daemon=True).start()
    try:
        settle_in(post.seat.rank)
        outcome = {"kind": "done", "code": work(LocalCommunicator(post.seat), *arguments) or 0}
    except BaseException as error:
        outcome = described(error)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    post.report.send_bytes(json.dumps(outcome).encode())
    if outcome["kind"] != "done":
        os._exit(1)  # threads that still wait for other ranks must not keep it


def live(post):
    """Count heartbeats until the watching process is gone; then there is nobody to go on for."""
    with contextlib.suppress(OSError):
        while not post.lifeline.poll(BEAT_SECONDS):
            post.beats[post.seat.rank] += 1
    os._exit(1)


def settle_in(rank):
    """A group of its own, for which only the watching process has signals; and standard output for the first alone."""
    if rank:
        print_nothing()
    if os.name == "posix":
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # until training begins, which saves first
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def print_nothing():
    """Standard output, of this process and all it starts, goes nowhere from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def described(error):
    """How a rank ended, for its report."""
    said = {"text": " ".join(str(error).split())}
    match error:
        case LostRank():
            return said | {"kind": "lost"}
        case UserError():
            return said | {"kind": "refused"}
        case KeyboardInterrupt():
            return {"kind": "interrupted"}
        case SystemExit():
            return {"kind": "gone", "code": error.code if isinstance(error.code, int) else 1}
        case MemoryError():
            return {"kind": "refused", "text": f"not enough memory: {error}"}
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, OSError) and error.errno is not None:
        name = None if error.filename is None else os.fsdecode(error.filename)
        return {
            "kind": "system", "errno": error.errno, "text": error.strerror, "filename": name, "traceback": trace
        }  # fmt: skip
    return {"kind": "broke", "text": f"{type(error).__name__}: {said['text']}", "traceback": trace}

"""Every communicator says what plain NumPy says, to the last bit; and what becomes of ranks whose partner is gone."""

import itertools
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinyllm
from tinyllm.errors import UserError
from tinyllm.training.parallel import Ranks, mpi
from tinyllm.training.parallel.communicator import LostRank, Single
from tinyllm.training.parallel.local import LocalCommunicator, leave, seats

ROOT = Path(tinyllm.__file__).parents[1]
MPIEXEC = shutil.which("mpiexec", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
SECONDS = 60


def together(communicators, function):
    """[function(communicator), …], each in a thread of its own; what it raised is in the place of what it returned."""
    results = [None] * len(communicators)

    def run(rank):
        try:
            results[rank] = function(communicators[rank])
        except Exception as error:
            results[rank] = error

    threads = [threading.Thread(target=run, args=(rank,), daemon=True) for rank in range(len(communicators))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
        assert not thread.is_alive(), "a rank waits for ever"
    return results


def local(size, capacity=256):
    return [LocalCommunicator(seat) for seat in seats(size, capacity)]


def arrays_of(size, count, dtype, seed=0):
    """One array a rank. The sum of large and small numbers shows the order in which it was taken."""
    random = np.random.default_rng(seed)
    return [(random.normal(size=count) * 10.0 ** random.integers(-6, 6, count)).astype(dtype) for _ in range(size)]


def sum_in_order(arrays):
    total = arrays[0].copy()
    for array in arrays[1:]:
        total = total + array
    return total


def same_bits(one, two):
    assert one.dtype == two.dtype
    assert one.tobytes() == two.tobytes()


@st.composite
def meetings(draw):
    """(arrays, cuts): one array a rank, longer or shorter than what is sent at once, cut evenly or not."""
    size, count = draw(st.integers(1, 4)), draw(st.integers(0, 200))
    arrays = arrays_of(size, count, draw(st.sampled_from(["float32", "float64"])), draw(st.integers(0, 99)))
    inner = sorted(draw(st.lists(st.integers(0, count), min_size=size - 1, max_size=size - 1)))
    return arrays, (0, *inner, count)


@settings(max_examples=60, deadline=None)
@given(meeting=meetings(), root=st.integers(0, 3))
def test_local_ranks_say_what_numpy_says(meeting, root):
    arrays, cuts = meeting
    expected, root = sum_in_order(arrays), root % len(arrays)

    def collectives(communicator):
        mine = arrays[communicator.rank]
        reduced, scattered, gathered, sent = (mine.copy() for _ in range(4))
        communicator.all_reduce(reduced)
        communicator.reduce_scatter(scattered, cuts)
        communicator.all_gather(gathered, cuts)
        communicator.barrier()
        communicator.broadcast(sent, root)
        communicator.close()
        return reduced, scattered, gathered, sent

    parts = [slice(*cut) for cut in itertools.pairwise(cuts)]
    for rank, result in enumerate(together(local(len(arrays)), collectives)):
        if isinstance(result, Exception):
            raise result
        reduced, scattered, gathered, sent = result
        same_bits(reduced, expected)
        alone = arrays[rank].copy()
        alone[parts[rank]] = expected[parts[rank]]
        same_bits(scattered, alone)
        same_bits(gathered, np.concatenate([arrays[r][part] for r, part in enumerate(parts)]))
        same_bits(sent, arrays[root])


def test_the_sum_is_the_same_whatever_the_size_of_the_pieces():
    arrays = arrays_of(3, 5000, "float32")

    def reduced(communicator):
        mine = arrays[communicator.rank].copy()
        communicator.all_reduce(mine)
        return mine

    for capacity in (64, 1024, 2**20):
        for result in together(local(3, capacity), reduced):
            same_bits(result, sum_in_order(arrays))


def test_messages_of_json_are_exchanged_however_long():
    said = [{"rank": 0, "text": "ä" * 5000}, [1, 2.5, None], ""]
    for heard in together(local(3), lambda communicator: communicator.exchange(said[communicator.rank])):
        assert heard == said
    assert Single().exchange("alone") == ["alone"]


def test_a_grid_keeps_its_shape():
    def reduced(communicator):
        grid = np.full((2, 3, 4), communicator.rank + 1.0)
        communicator.all_reduce(grid)
        return grid

    for grid in together(local(2), reduced):
        assert grid.shape == (2, 3, 4)
        assert (grid == 3).all()


def test_who_has_gone_is_missed_at_once():
    places = seats(3)

    def one_leaves(communicator):
        if communicator.rank == 1:
            communicator.close()
        else:
            communicator.barrier()

    results = together([LocalCommunicator(seat) for seat in places], one_leaves)
    assert [type(result) for result in results] == [LostRank, type(None), LostRank]
    assert "rank 1 has ended before rank 2" in str(results[2]) or "rank 0 has ended" in str(results[2])


def test_ranks_that_are_not_in_step_say_so():
    def differently(communicator):
        if communicator.rank:
            communicator.barrier()
        else:
            communicator.all_reduce(np.ones(4))

    first, second = together(local(2), differently)
    assert "rank 0 is at everyone of 32 bytes and rank 1 at barrier of 0" in str(first)
    assert isinstance(second, RuntimeError)


# --- A thread for messages --------------------------------------------------------------------------------------------


class Slow(Single):
    """A communicator of which every message takes until `let_go` is set; it notes their order."""

    size = 2

    def __init__(self):
        self.seen, self.let_go = [], threading.Event()

    def all_reduce(self, array):
        assert self.let_go.wait(SECONDS)
        self.seen.append(int(array[0]))
        array += 100

    def barrier(self):
        self.seen.append("barrier")


def test_messages_go_out_beside_the_computation_in_the_order_of_their_start():
    slow = Slow()
    ranks = Ranks(slow)
    arrays = [np.full(1, float(number)) for number in range(5)]
    messages = [ranks.start("all_reduce", array) for array in arrays]
    assert not slow.seen  # start has returned all the same
    slow.let_go.set()
    ranks.barrier()
    assert slow.seen == [0, 1, 2, 3, 4, "barrier"]
    for message in messages:
        message.wait()
    assert [array[0] for array in arrays] == [100, 101, 102, 103, 104]
    assert [(m.kind, m.num_bytes) for m in ranks.messages] == [("all_reduce", 8)] * 5
    times = [time for message in ranks.messages for time in (message.started, message.ended)]
    assert times == sorted(times)
    ranks.close()


def test_without_overlap_a_message_has_arrived_when_it_has_started():
    slow = Slow()
    slow.let_go.set()
    array = np.zeros(1)
    Ranks(slow, overlap=False).start("all_reduce", array)
    assert array[0] == 100


def test_one_rank_needs_no_thread():
    ranks, before = Ranks(), threading.active_count()
    ranks.start("all_reduce", np.zeros(3)).wait()
    assert ranks.sum(2.5) == 2.5
    assert threading.active_count() == before


def test_what_goes_wrong_with_a_message_is_raised_where_it_is_waited_for_and_nothing_follows_it():
    class Breaks(Slow):
        def reduce_scatter(self, array, cuts):
            raise LostRank("rank 1 has ended")

    breaks = Breaks()
    breaks.let_go.set()
    ranks = Ranks(breaks)
    message, after = ranks.start("reduce_scatter", np.zeros(2), (0, 1, 2)), ranks.start("all_reduce", np.zeros(1))
    for sent in (message, after):
        with pytest.raises(LostRank, match="rank 1 has ended"):
            sent.wait()
    assert breaks.seen == []
    ranks.close()


def test_a_rank_does_not_wait_for_ever():
    slow = Slow()
    ranks = Ranks(slow, timeout=0.05)
    with pytest.raises(LostRank, match=r"no answer from the other ranks to all_reduce for 0\.05 s"):
        ranks.all_reduce(np.zeros(1))
    slow.let_go.set()
    ranks.close()


def test_a_long_run_does_not_keep_all_its_messages():
    ranks = Ranks()
    for _ in range(20_001):
        ranks.all_reduce(np.zeros(1))
    assert 10_000 <= len(ranks.messages) <= 20_000


def test_sums_of_numbers_keep_their_place_between_messages():
    def numbers(communicator):
        ranks = Ranks(communicator)
        array = np.full(100_000, communicator.rank + 1.0)
        message = ranks.start("all_reduce", array)
        total = ranks.sum(0.1 * (communicator.rank + 1))
        message.wait()
        return total, array[0]

    assert together(local(2, 4096), numbers) == [(0.1 + 0.2, 3.0)] * 2


# --- MPI --------------------------------------------------------------------------------------------------------------

CHECK = """
import itertools
import numpy as np
from tinyllm.training.parallel import mpi
mpi.PIECE = mpi.MPICommunicator.capacity = {capacity}
def work(communicator):
    rank, size = communicator.rank, communicator.size
    random = np.random.default_rng(0)
    for count in (0, 1, 7, 3000):
        for dtype in ("float32", "float64"):
            arrays = [(random.normal(size=count) * 10.0 ** random.integers(-6, 6, count)).astype(dtype) for _ in range(size)]
            cuts = (0, *sorted(random.integers(0, count + 1, size - 1).tolist()), count)
            parts = [slice(*cut) for cut in itertools.pairwise(cuts)]
            total = arrays[0]
            for array in arrays[1:]:
                total = total + array
            reduced, scattered, gathered, sent = (arrays[rank].copy() for _ in range(4))
            communicator.all_reduce(reduced)
            communicator.reduce_scatter(scattered, cuts)
            communicator.all_gather(gathered, cuts)
            communicator.broadcast(sent, size - 1)
            alone = arrays[rank].copy()
            alone[parts[rank]] = total[parts[rank]]
            assert reduced.tobytes() == total.tobytes()
            assert scattered.tobytes() == alone.tobytes()
            assert gathered.tobytes() == np.concatenate([arrays[r][part] for r, part in enumerate(parts)]).tobytes()
            assert sent.tobytes() == arrays[-1].tobytes()
    communicator.barrier()
    assert communicator.exchange({{"rank": rank}}) == [{{"rank": r}} for r in range(size)]
    {then}
    if not rank:
        print("all is as it should be", flush=True)
mpi.run(work)
"""  # noqa: E501 (the text of a program)


def mpiexec(size, capacity=2**24, then="pass"):
    """CHECK on so many ranks of MPI."""
    if not MPIEXEC:
        pytest.skip("no mpiexec here")
    pytest.importorskip("mpi4py", reason="mpi4py is not installed")
    program = CHECK.format(capacity=capacity, then=then)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [MPIEXEC, "-n", str(size), sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, timeout=SECONDS)


@pytest.mark.parametrize(("size", "capacity"), [(2, 2**24), (3, 512)])
def test_ranks_of_mpi_say_what_numpy_says(size, capacity):
    done = mpiexec(size, capacity)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "all is as it should be\n"


def test_one_rank_of_mpi_that_fails_ends_them_all():
    done = mpiexec(2, then="if rank: raise ValueError('the reason')\n    communicator.barrier()")
    assert done.returncode
    assert done.stderr.count("ValueError: the reason") == 1
    assert not done.stdout


def test_how_many_ranks_mpiexec_has_started_is_read_from_the_environment():
    assert mpi.expected({}) == 1
    assert mpi.expected({"PMI_SIZE": "4"}) == 4
    assert mpi.expected({"OMPI_COMM_WORLD_SIZE": "3", "PMI_SIZE": ""}) == 3
    assert mpi.on_this_machine({"PMI_SIZE": "8", "MPI_LOCALNRANKS": "4"}) == 4
    assert mpi.on_this_machine({"PMI_SIZE": "8"}) == 8


def test_mpiexec_without_mpi4py_says_what_to_install(monkeypatch):
    monkeypatch.setenv("PMI_SIZE", "2")
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(UserError, match=r"mpiexec has started 2 ranks, but mpi4py cannot be used .* install mpi4py"):
        mpi.connect()


def test_seats_that_nobody_took_leave_nothing():
    before = os.listdir("/dev/shm") if os.path.isdir("/dev/shm") else []
    for seat in seats(2):
        leave(seat)
    assert before == (os.listdir("/dev/shm") if os.path.isdir("/dev/shm") else [])

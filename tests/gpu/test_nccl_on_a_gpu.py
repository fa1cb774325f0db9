"""NCCL with the one rank that one GPU allows: that its calls are what CuPy takes, and streams wait for each other."""

import numpy as np
import pytest

from tinyllm.training.parallel import Ranks, nccl
from tinyllm.training.parallel.communicator import Single

pytestmark = pytest.mark.gpu


@pytest.fixture
def ranks():
    pytest.importorskip("cupy.cuda.nccl", reason="NCCL is not installed")
    ranks = Ranks(nccl.connect(Single()))
    yield ranks
    ranks.close()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_alone_every_collective_leaves_what_there_was(ranks, dtype):
    import cupy

    array = cupy.arange(1000, dtype=dtype)
    for kind, others in (
        ("all_reduce", ()),
        ("reduce_scatter", ((0, 1000),)),
        ("all_gather", ((0, 1000),)),
        ("broadcast", (0,)),
    ):
        array *= 2
        ranks.start(kind, array, *others).wait()
        array += 1
    expected = np.arange(1000, dtype=dtype)
    for _ in range(4):
        expected = expected * 2 + 1
    np.testing.assert_array_equal(array.get(), expected)
    assert [message.kind for message in ranks.messages] == ["all_reduce", "reduce_scatter", "all_gather", "broadcast"]


def test_numbers_and_messages_go_over_the_host(ranks):
    assert ranks.sum(2.5) == 2.5
    assert ranks.exchange({"a": 1}) == [{"a": 1}]
    ranks.barrier()

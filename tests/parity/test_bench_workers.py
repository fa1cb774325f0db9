"""What `make bench` compares is the same work: both sides come to the same numbers. Nothing is timed here."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import bench_ours  # noqa: E402 (found through the path above, and PyTorch may be missing)
import bench_pytorch  # noqa: E402
from bench_cases import BAR, PROOF, Attention, Training  # noqa: E402

from autograd.kernels import available  # noqa: E402

SHAPE = {"vocab_size": 11, "context": 8, "layers": 2, "heads": 2, "width": 16, "batch": 3, "turn": 1, "rounds": 2}
TOYS = [
    Training(**SHAPE, biases=False, feed_forward="gelu"),
    Training(**SHAPE, biases=True, feed_forward="gelu_tanh"),
]


@pytest.mark.parametrize("case", TOYS, ids=lambda case: case.feed_forward)
def test_losses_of_both_sides_are_equal(case):
    options = {"seed": 3, "side": "pytorch"}
    ours, theirs = (side.training(case, options).turn(PROOF)["proof"] for side in (bench_ours, bench_pytorch))
    assert len(ours) == len(theirs) == PROOF
    assert ours == pytest.approx(theirs, abs=BAR / 10)
    assert len(set(ours)) == PROOF  # fresh targets every step


def test_turns_go_on_where_the_last_one_ended():
    options = {"seed": 3, "side": "pytorch"}
    for side in (bench_ours, bench_pytorch):
        whole, pieces = side.training(TOYS[0], options), side.training(TOYS[0], options)
        assert whole.turn(4)["proof"] == pieces.turn(1)["proof"] + pieces.turn(3)["proof"]


def test_attention_of_both_sides_is_equal():
    case = Attention(context=16, batch=2, heads=3, head_width=4)
    ours, theirs = (side.attention(case, {"seed": 3}).turn(2)["proof"] for side in (bench_ours, bench_pytorch))
    assert ours == pytest.approx(theirs, abs=BAR / 10)
    assert len(ours) == 8  # the output and three gradients, two numbers each


def converse(kernels, requests):
    """What our side's process answers: first that it is ready, then to each request."""
    task = {"side": "ours", "work": "Training", "case": dataclasses.asdict(TOYS[0])}
    task |= {"threads": 1, "kernels": kernels, "seed": 3}
    process = subprocess.run(
        [sys.executable, str(BENCHMARKS / "bench_workers.py"), json.dumps(task)],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True, text=True, check=True,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(BENCHMARKS.parents[1])},
    )  # fmt: skip
    return list(map(json.loads, process.stdout.splitlines()))


def test_a_process_answers_and_names_its_failure():
    requests = [{"do": "kernels"}, {"do": "turn", "count": 2}, {"do": "kernels"}, {"do": "memory"}, {"do": "turn"}]
    ready, before, turn, kernels, memory, failure = converse("reference", requests)
    assert ready["versions"]["kernels"] == ["reference"]
    assert before["ops"] == {}
    assert turn["proof"] == bench_ours.training(TOYS[0], {"seed": 3}).turn(2)["proof"]
    assert set(kernels["ops"]["linear"]) == {"reference"}
    assert memory["bytes"] >= 0
    assert failure == {"failed": "KeyError: 'count'"}


def test_a_process_runs_the_kernels_that_were_asked_for():
    """Those that are there: each backend's name shows in the counts, as what ran or as what declined."""
    for backend in available():
        ready, turn, kernels = converse(backend, [{"do": "turn", "count": PROOF}, {"do": "kernels"}])
        assert ready["versions"]["kernels"] == [backend, "reference"]
        assert any(backend in counts for counts in kernels["ops"].values())
        reference = bench_ours.training(TOYS[0], {"seed": 3}).turn(PROOF)["proof"]
        assert turn["proof"] == pytest.approx(reference, abs=BAR / 10)

"""What ranks must agree on before they go on: that none has failed, that all were told the same, that all see one disk.

Each of these is called by all ranks of a run, at the same place; on one rank they are the action alone.
"""

import functools
import hashlib
from pathlib import Path

import numpy as np

import autograd
import tinyllm
from autograd import kernels
from tinyllm.errors import UserError


def together(ranks, action):
    """What action() returns on this rank; where it fails on any rank, no rank goes on.

    All raise a UserError in the words of the first rank that failed; that rank itself raises what it was.
    """
    result = failure = words = None
    try:
        result = action()
    except Exception as error:
        failure, words = error, str(error) or type(error).__name__
    first = next((said for said in ranks.exchange(words) if said is not None), None)
    try:
        if failure is not None and words == first:
            raise failure
        if first is not None:
            raise UserError(first)
    finally:
        failure = None  # an error and the frame that names it keep each other alive, and with them a run's lock
    return result


def by_first(ranks, action):
    """action() on the first rank, whose failure is everybody's. Returns what it returned there, None elsewhere."""
    return together(ranks, lambda: action() if ranks.first else None)


def check_same(ranks, told):
    """UserError on every rank where one was told something else than the first, or runs other code.

    told: dict name -> anything that looks the same in text where it is the same.
    """
    if ranks.size == 1:
        return
    facts = {"code of tinyllm": checksum_of_code(), "NumPy": np.__version__, "kernels": " ".join(kernels.chosen())}
    facts |= {name: str(value) for name, value in told.items()}
    first, *others = ranks.exchange(facts)
    for rank, theirs in enumerate(others, 1):
        for name, known in first.items():
            if theirs.get(name) != known:
                raise UserError(
                    f"rank {rank} has another {name} than rank 0 ({theirs.get(name)}, not {known}); start all ranks "
                    "with the same command and the same installation"
                )


@functools.cache
def checksum_of_code():
    """SHA-256 of the source files of autograd and tinyllm."""
    digest = hashlib.sha256()
    for package in (autograd, tinyllm):
        folder = Path(package.__file__).parent
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.relative_to(folder).as_posix().encode("utf-8") + path.read_bytes())
    return digest.hexdigest()


def check_shared(ranks, folder, path):
    """UserError on every rank unless all read the same in a file that the first has just written for this run."""
    if ranks.size == 1:
        return
    try:
        seen = Path(path).read_bytes().hex()
    except OSError:
        seen = None
    first, *others = ranks.exchange(seen)
    for rank, theirs in enumerate(others, 1):
        if theirs is None or theirs != first:
            raise UserError(
                f"rank {rank} does not see {folder} as rank 0 does; the folder of a run must be on a disk that all "
                "its ranks share"
            )


def check_shares(config, ranks):
    """UserError unless every rank has as many samples in each piece of a batch. config: a TrainingConfig."""
    pieces = ranks.size * config.accumulation
    if config.batch_size % pieces:
        fitting = -(-config.batch_size // pieces) * pieces
        raise UserError(
            f"{ranks.size} ranks with accumulation {config.accumulation} cannot share a batch of {config.batch_size} "
            f"equally; choose a batch size divisible by {pieces}, as {fitting} is, or another number of ranks"
        )

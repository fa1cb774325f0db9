"""What the proofs of this run saw; `tests/conftest.py` prints it at the end of `make test`."""

from collections import Counter

examples = Counter()  # op -> how many drawn examples were checked
worst = {}  # op -> largest relative error of a gradient against the central difference
mutants = Counter()  # (op, "caught" | "equivalent" | "missed") -> how many planted wrong gradients


def example(op, error=0.0):
    """One example of `op` was checked; error: what check_primitive returned."""
    examples[op] += 1
    worst[op] = max(worst.get(op, 0.0), error)


def mutant(op, fate):
    mutants[op, fate] += 1


def lines(primitives):
    """The summary, one sentence a line; what did not run in this session is left out."""
    if examples:
        op = max(worst, key=worst.get)
        yield (
            f"gradients proven: {len(examples)} of {len(primitives)} primitives, {examples.total():,} drawn examples, "
            f"worst relative error {worst[op]:.1e} ({op})"
        )
    if mutants:
        count = Counter()
        for (_, fate), n in mutants.items():
            count[fate] += n
        planted = count.total() - count["equivalent"]
        yield (
            f"wrong gradients planted: {planted:,}, caught: {count['caught']:,}; "
            f"{count['equivalent']} more change nothing (listed with reasons in tests/autograd)"
        )

"""What the proofs of this run saw; `tests/conftest.py` prints it at the end of `make test`."""

from collections import Counter

examples = Counter()  # op -> how many drawn examples were checked
worst = {}  # op -> largest relative error of a gradient against the central difference
mutants = Counter()  # (op, "caught" | "equivalent" | "missed") -> how many planted wrong gradients
caught_by_number = Counter()  # op -> how many of those caught had the right shape and wrong numbers


def example(op, error=0.0):
    """One example of `op` was checked; error: what check_primitive returned."""
    examples[op] += 1
    worst[op] = max(worst.get(op, 0.0), error)


def mutant(op, fate, by_number=False):
    mutants[op, fate] += 1
    caught_by_number[op] += by_number


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
            f"wrong gradients planted: {planted:,}, caught: {count['caught']:,} "
            f"({caught_by_number.total():,} by their numbers, the others by their shape or an exception)"
        )
        if unchanged := [f"{op} {n}" for (op, fate), n in sorted(mutants.items()) if fate == "equivalent"]:
            yield (
                f"changes that change nothing: {count['equivalent']} ({count['equivalent'] / count.total():.1%}; "
                f"reasons in tests/autograd/test_mutations.py): {', '.join(unchanged)}"
            )

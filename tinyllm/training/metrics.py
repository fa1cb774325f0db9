"""A run's measurements on disk: one JSON object a line, readable at any moment, exact to resume."""

import itertools
import json
import math
from pathlib import Path

from tinyllm.errors import UserError
from tinyllm.files import atomic_write

METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"


class MetricsLog:
    """Appends records to a file of `folder`, `metrics.jsonl` unless `name` says otherwise (`samples.jsonl`).

    Each record reaches the operating system before `append` returns, so a killed process loses at most the line it was
    writing. Such a torn last line is cut off when the log is opened again.

    What cannot be written (a full disk, one that has become read-only) waits in `pending` for the next append or flush;
    `error` is the OSError then, and None once all is written.
    """

    def __init__(self, folder, name=METRICS):
        self.path = Path(folder) / name
        self.pending, self.error = b"", None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.open()

    def open(self):
        self.file = open(self.path, "ab", buffering=0)  # noqa: SIM115 (close() closes it)
        data = self.path.read_bytes()
        whole = whole_lines(data)
        if self.pending:
            self.pending = data[len(whole) :] + self.pending  # it begins with the rest of that line
        self.file.truncate(len(whole))

    def append(self, record):
        """Write one record, a dict with the integer `step` and values of JSON's types (array scalars are converted).

        JSON has no NaN and no infinity: such a number is written as null, and the field "not_finite" keeps it by name,
        {"loss_nats": null, "not_finite": {"loss_nats": "nan"}}.
        """
        values = {name: value.item() if hasattr(value, "item") else value for name, value in record.items()}
        if type(values.get("step")) is not int:
            raise ValueError(f"a record needs an integer step, so that a resumed run can rewind; it was {record}")
        lost = {name: str(value) for name, value in values.items() if isinstance(value, float) and not is_finite(value)}
        if lost:
            values |= dict.fromkeys(lost) | {"not_finite": lost}
        self.pending += json.dumps(values, allow_nan=False).encode("ascii") + b"\n"
        self.flush()

    def flush(self):
        """Hand to the system what is pending, and keep what it does not take: also the rest of a line half written."""
        self.error = None
        try:
            while self.pending:
                self.pending = self.pending[self.file.write(self.pending) :]
        except OSError as error:
            self.error = error

    def records(self):
        """All records in their order, those that are pending too."""
        return [parse(line, self.path, number) for number, line in enumerate(self.lines(), 1)]

    def lines(self):
        """All whole lines with their ends, as bytes."""
        return whole_lines(self.path.read_bytes() + self.pending).splitlines(keepends=True)

    def rewind(self, step, roll_backs=0):
        """Drop all records beyond `step` after so many roll-backs, atomically: the run resumes from there and will
        write them again."""
        lines = self.lines()
        kept, seen = [], 0
        for number, line in enumerate(lines, 1):
            record = parse(line, self.path, number)
            if seen < roll_backs or (seen == roll_backs and record["step"] <= step and not is_roll_back(record)):
                kept.append(line)
            seen += is_roll_back(record)
        if len(kept) < len(lines):
            self.close()
            try:
                with atomic_write(self.path) as file:
                    file.writelines(kept)
                self.pending, self.error = b"", None
            finally:
                self.open()

    def close(self):
        self.file.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class NoLog:
    """Stands for a MetricsLog on the ranks that leave writing to the first: it takes everything and keeps nothing."""

    error = None

    def append(self, record):
        pass

    def flush(self):
        pass

    def rewind(self, step, roll_backs=0):
        pass

    def records(self):
        return []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def read_metrics(folder, name=METRICS):
    """The records of a run folder, in the order they were written; none if the file is not there yet.

    What a roll-back took back is left out, so that no step comes twice; `read_all_metrics` has it.
    """
    return told(read_all_metrics(folder, name))[0]


def read_all_metrics(folder, name=METRICS):
    """All records, also those that a later roll-back took back.

    A line counts once its end was written, so the torn last line of a killed process is passed over. Any other line
    that is not a record raises UserError naming it.
    """
    path = Path(folder) / name
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is not a folder; expected a run folder, as `tinyllm pretrain --run` writes it")
    if not path.exists():
        return []
    lines = whole_lines(path.read_bytes()).split(b"\n")[:-1]
    return [parse(line, path, number) for number, line in enumerate(lines, 1)]


def told(records):
    """(the run as it stands, what roll-backs took back), two lists of records.

    A roll-back is a record: {"step": 620, "split": "roll-back", "to_step": 500} takes back what was written before it
    of steps beyond 500, but for earlier roll-backs. It stands, and is the last of what it took back: the step that
    spiked.
    """
    standing, taken_back = [], []
    for record in records:
        if is_roll_back(record):
            stays = [is_roll_back(earlier) or earlier["step"] <= record["to_step"] for earlier in standing]
            taken_back += [earlier for earlier, stay in zip(standing, stays, strict=True) if not stay] + [record]
            standing = list(itertools.compress(standing, stays))
        standing.append(record)
    return standing, taken_back


def is_roll_back(record):
    return record.get("split") == "roll-back"


def is_finite(value):
    """True for a number that can be drawn and averaged: not None (JSON's null), not NaN, not infinite."""
    return value is not None and math.isfinite(value)


def comparable_loss(record):
    """The held-out loss of an evaluation over as many windows as those on the way have looked at; may be None."""
    return record.get("first_windows_loss_nats", record.get("loss_nats"))


def whole_lines(data):
    """The bytes up to and including the last line end."""
    return data[: data.rfind(b"\n") + 1]


def parse(line, path, number):
    try:
        record = json.loads(line)
    except ValueError as error:  # bad JSON, or bytes that are no UTF-8
        raise UserError(f"line {number} of {path} is not valid JSON ({error}); remove that line or the file") from None
    if not isinstance(record, dict) or type(record.get("step")) is not int:
        raise UserError(f'line {number} of {path} is not a record: expected an object with "step", an integer')
    return record

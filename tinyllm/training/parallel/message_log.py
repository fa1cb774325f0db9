"""The messages of a run on disk, and what they come to: how many, how large, and how much of their time was waiting."""

import dataclasses

from tinyllm.training.metrics import read_metrics
from tinyllm.training.parallel.ranks import BACKWARD_BEGINS, BACKWARD_ENDS, MARKS

MESSAGES = "messages.jsonl"


class MessageLog:
    """Writes what its rank has sent in a step to `messages.jsonl`, and forgets it.

    A line is {"step", "kind", "bytes", "started", "ended", "waited"}: seconds since the run began, and how many of them
    the computation stood still. bytes are those of the whole array, as every rank has it.

    log: a MetricsLog, or a NoLog where nothing is to be written. ranks: the Ranks that send. began: the time, by
    time.perf_counter(), that is 0.
    """

    def __init__(self, log, ranks, began):
        self.log, self.ranks, self.began = log, ranks, began

    def append(self, step):
        for message in self.taken():
            self.log.append(
                {
                    "step": step,
                    "kind": message.kind,
                    "bytes": message.num_bytes,
                    "started": round(message.started - self.began, 6),
                    "ended": round(message.ended - self.began, 6),
                    "waited": round(message.waited, 6),
                }
            )

    def taken(self):
        """The messages since the last call."""
        messages, self.ranks.messages = self.ranks.messages, []
        self.ranks.waited_besides = 0.0
        return messages

    def totals(self):
        """What the messages since then come to, for metrics.jsonl: their bytes, and for how long the computation stood
        still, for them and for what is not recorded. Nothing where there is one rank."""
        if self.ranks.size == 1:
            return {}
        waited = self.ranks.waited_besides + sum(message.waited for message in self.ranks.messages)
        sent = sum(message.num_bytes for message in self.ranks.messages)
        return {"message_bytes": sent, "waited_seconds": round(waited, 6)}


@dataclasses.dataclass
class MessageSummary:
    """What the messages of a run come to, per step.

    kinds: dict kind -> (messages, bytes). seconds: from the start of each message to its end, added up. hidden: those
    in which the computation went on. waited: those in which it stood still, also for a message whose turn had not come.
    early: the messages that started while backward ran.
    """

    steps: int
    kinds: dict
    seconds: float
    hidden: float
    waited: float
    early: float

    @property
    def overlapped(self):
        """The share of the messages' time in which the computation went on."""
        return self.hidden / self.seconds if self.seconds else 0.0

    def __str__(self):
        kinds = "; ".join(
            f"{messages:.3g} {kind} of {num_bytes / 1e6:.3g} MB together"
            for kind, (messages, num_bytes) in self.kinds.items()
        )
        return (
            f"Messages a step: {kinds or 'none'}; {1000 * self.seconds:.3g} ms, {self.overlapped:.0%} of them beside "
            f"the computation, which waited {1000 * self.waited:.3g} ms; {self.early:.3g} began while backward ran."
        )


def message_summary(folder):
    """The MessageSummary of a run folder; None where no messages were logged."""
    records = read_metrics(folder, MESSAGES)
    return summary(records) if records else None


def summary(records):
    """The MessageSummary of records of messages.jsonl."""
    messages = [record for record in records if record["kind"] not in MARKS]
    steps, kinds = len({record["step"] for record in records}), {}
    for record in messages:
        count, num_bytes = kinds.get(record["kind"], (0, 0))
        kinds[record["kind"]] = count + 1, num_bytes + record["bytes"]
    return MessageSummary(
        steps=steps,
        kinds={kind: (count / steps, num_bytes / steps) for kind, (count, num_bytes) in kinds.items()},
        seconds=sum(map(seconds_of, messages)) / steps,
        hidden=sum(max(seconds_of(record) - record["waited"], 0.0) for record in messages) / steps,
        waited=sum(record["waited"] for record in messages) / steps,
        early=len(during_backward(records)) / steps,
    )


def seconds_of(record):
    return record["ended"] - record["started"]


def during_backward(records):
    """The messages that started between a mark that backward begins and the next that it ends."""
    spans, begun = [], None
    for record in records:
        if record["kind"] == BACKWARD_BEGINS:
            begun = record["started"]
        elif record["kind"] == BACKWARD_ENDS:
            spans.append((begun, record["started"]))
    messages = [record for record in records if record["kind"] not in MARKS]
    return [m for m in messages if any(begin <= m["started"] < end for begin, end in spans)]

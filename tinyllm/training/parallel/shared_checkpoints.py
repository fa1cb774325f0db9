"""The checkpoints of a run on several ranks: each writes what it alone has, and the first makes one of it all.

checkpoints/step-000500/weights.safetensors  optimizer-rank-0-of-2.safetensors  optimizer-rank-1-of-2.safetensors
                        state.json (numbers, who has which part, the checksums of all files; written last)
"""

import copy
import dataclasses
import math
import secrets
import shutil

from tinyllm.files import CANNOT_WRITE, reason
from tinyllm.formats.arrays import write_arrays
from tinyllm.formats.run_folders import is_whole, part_name, write_state
from tinyllm.training.checkpoints import (
    OPTIMIZER,
    WEIGHTS,
    Checkpoints,
    Snapshot,
    copied,
    finish,
    make_parent,
    prune,
    settings_of,
    versions,
)


@dataclasses.dataclass
class SharedSnapshot(Snapshot):
    """One rank's copy of what it writes into a checkpoint.

    attempt: the same on all ranks, and never the same twice. sums: dict file name -> SHA-256 of what this rank has
    written, None before. all_sums: of what all have written, None before; known to the first rank.
    """

    attempt: str = ""
    sums: dict | None = None
    all_sums: dict | None = None

    @classmethod
    def of_training(cls, training):
        """What this rank has of all that decides the next step; of what every rank has, the first has the copy."""
        arrays, numbers = training.state()
        files, parts = cls.weights_of(training)
        if training.parallel.zero:
            ranks = training.ranks
            files[part_name(OPTIMIZER, ranks.rank, ranks.size)] = copied(arrays)
            parts = {"parts": {"ranks": ranks.size, "zero": training.parallel.zero} | parts.get("parts", {})}
        elif training.ranks.first:
            files[OPTIMIZER] = copied(arrays)
        state = copy.deepcopy(numbers) | {"settings": settings_of(training.config), "made_with": versions()}
        return cls("step", training.step, files, state | parts)

    @classmethod
    def of_weights(cls, training, loss_nats):
        """This rank's part of what the model has learned so far."""
        files, parts = cls.weights_of(training)
        state = {"step": training.step, "loss_nats": loss_nats, "made_with": versions()}
        return cls("best", training.step, files, state | parts)

    @staticmethod
    def weights_of(training):
        """(files, what state.json says of them): the weights by name, at stage 3 this rank's part of the flat store."""
        store, ranks, stage = training.store, training.ranks, training.parallel.zero
        if stage < 3:
            return ({WEIGHTS: copied(store.weights())} if ranks.first else {}), {}
        places = {name: [place.start, list(place.shape)] for name, place in store.places.items()}
        files = {part_name(WEIGHTS, ranks.rank, ranks.size): copied({"values": store.own_values})}
        return files, {"parts": {"ranks": ranks.size, "zero": stage, "places": places}}

    def unfinished(self, folder):
        """Where all ranks write their files before it has its name."""
        final = self.place(folder)
        return final.with_name(f".{final.name}.{self.attempt}.unfinished")

    def write_part(self, folder):
        """This rank's files, under a temporary name; then the copy is let go."""
        if self.files:
            make_parent(self.place(folder))
            self.unfinished(folder).mkdir(exist_ok=True)
        self.sums = {name: write_arrays(self.unfinished(folder) / name, arrays) for name, arrays in self.files.items()}
        self.files = {}

    def finish(self, folder):
        """The first rank, when all have written: state.json and the real name."""
        write_state(self.unfinished(folder), self.state, self.all_sums)
        finish(self.unfinished(folder), self.place(folder))


class SharedCheckpoints(Checkpoints):
    """Checkpoints of a run on several ranks, all of which call every method at the same place.

    Each rank writes its files in the background. Between steps (`meet`) the ranks tell each other which of them are on
    disk, with their checksums; when all are, the first rank gives the checkpoint its name, in the background too. One
    whose disk takes nothing leaves the checkpoint unfinished: training goes on, and it is tried again.
    """

    snapshot = SharedSnapshot

    def __init__(self, folder, keep, every, ranks):
        super().__init__(folder, keep, every)
        self.ranks = ranks
        self.pending = {}
        """kind -> step of what is no checkpoint yet: the same on every rank."""

    def write_soon(self, kind, snapshot):
        if kind in self.pending:
            self.retry()
            self.wait()
            self.drop(kind)
        made = snapshot()
        done = self.ranks.first and is_whole(made.place(self.folder))
        made.attempt = self.ranks.exchange(None if done else secrets.token_hex(4))[0]
        if made.attempt:
            self.unwritten[kind], self.pending[kind] = made, made.step
            self.retry()

    def write(self):
        """In the background: this rank's parts; then, on the first, what all have written becomes a checkpoint."""
        try:
            waiting = sorted(self.unwritten.values(), key=lambda snapshot: (snapshot.step, snapshot.kind))
            for snapshot in waiting:
                if snapshot.sums is None:
                    snapshot.write_part(self.folder)
            for snapshot in waiting:
                if snapshot.all_sums is None:
                    break  # a best that overtook the checkpoint before it would push out what was the best for that
                self.sync_lines()
                snapshot.finish(self.folder)
                prune(self.folder, snapshot.step, self.keep, self.every)
                del self.unwritten[snapshot.kind]
            self.error = None
        except CANNOT_WRITE as error:
            self.error = error

    def meet(self):
        """Tell the other ranks what is on disk, and hear it from them."""
        if not self.pending:
            return
        waiting = list(self.unwritten.values())
        own = {
            "written": {snapshot.kind: snapshot.sums for snapshot in waiting if snapshot.sums is not None},
            "finished": [kind for kind in self.pending if kind not in self.unwritten],
            "error": self.error and reason(self.error),
        }
        told = self.ranks.exchange(own)
        for kind in told[0]["finished"]:
            self.drop(kind)
        for snapshot in waiting if self.ranks.first else ():
            if snapshot.all_sums is None and all(snapshot.kind in rank["written"] for rank in told):
                parts = (rank["written"][snapshot.kind] for rank in told)
                snapshot.all_sums = {name: known for part in parts for name, known in part.items()}
                self.retry()
        errors = [f"rank {rank}: {told[rank]['error']}" for rank in range(1, len(told)) if told[rank]["error"]]
        self.elsewhere = OSError(errors[0]) if errors else None

    def wait(self):
        """Until every rank has written what it can, and all see the folder as it has become."""
        super().wait()
        self.meet()  # the first may now go on to finish
        super().wait()
        self.meet()

    def drop(self, kind):
        """It has become a checkpoint, or never will."""
        self.pending.pop(kind, None)
        snapshot = self.unwritten.pop(kind, None)
        if snapshot and self.ranks.first:
            shutil.rmtree(snapshot.unfinished(self.folder), ignore_errors=True)

    def rewind(self, step):
        self.wait()
        for kind in [kind for kind, beyond in self.pending.items() if beyond > step]:
            self.drop(kind)
        if not self.pending:
            self.error = self.elsewhere = None
        self.lowest = math.inf
        if self.ranks.first:
            self.find_lowest(step)
        lowest = self.ranks.exchange(self.lowest if math.isfinite(self.lowest) else None)[0]
        self.lowest = math.inf if lowest is None else lowest

"""Checkpoints: everything that decides the rest of a run, written so that a killed process leaves none half done.

checkpoints/step-000500/weights.safetensors  optimizer.safetensors  state.json (numbers and checksums, written last)
checkpoints/best-000250/weights.safetensors  state.json                    the weights of the best evaluation so far
"""

import collections
import concurrent.futures
import copy
import dataclasses
import math
import shutil
import warnings
from pathlib import Path

import numpy as np

import tinyllm
from tinyllm.errors import UserError
from tinyllm.files import CANNOT_WRITE, read_json, remove_folder, sync_file, sync_folder
from tinyllm.formats.arrays import on_host, read_stretches, sizes_in
from tinyllm.formats.run_folders import (
    CHECKPOINTS,
    OPTIMIZER,
    WEIGHTS,
    checkpoints,
    is_whole,
    newest_checkpoint,
    optimizer_files,
    read_state,
    read_weights,
    step_name,
    step_of,
    write_checkpoint,
)
from tinyllm.training.parallel.agreement import by_first, together


@dataclasses.dataclass
class Snapshot:
    """A copy of what goes into a checkpoint, from which training may run on.

    kind: "step" or "best". files: dict file name -> dict name -> NumPy array. state: the numbers of state.json.
    """

    kind: str
    step: int
    files: dict
    state: dict

    @classmethod
    def of_training(cls, training):
        """All that decides the next step."""
        arrays, numbers = training.state()
        files = {WEIGHTS: copied(training.store.weights()), OPTIMIZER: copied(arrays)}
        state = copy.deepcopy(numbers) | {"settings": settings_of(training.config), "made_with": versions()}
        return cls("step", training.step, files, state)

    @classmethod
    def of_weights(cls, training, loss_nats):
        """What the model has learned so far, which scored `loss_nats`."""
        state = {"step": training.step, "loss_nats": loss_nats, "made_with": versions()}
        return cls("best", training.step, {WEIGHTS: copied(training.store.weights())}, state)

    def write(self, folder):
        """Under a temporary name that becomes the real one when all is whole. One that is whole already stays."""
        final = self.place(folder)
        if is_whole(final):
            return
        unfinished = final.with_name(f".{final.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            make_parent(final)
            unfinished.mkdir()
            write_checkpoint(unfinished, self.files, self.state)
            finish(unfinished, final)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def place(self, folder):
        """The name that it has once it is whole."""
        return Path(folder) / CHECKPOINTS / step_name(self.step, self.kind)


def make_parent(final):
    """The folder of the checkpoints."""
    parent = final.parent
    if not parent.exists():
        parent.mkdir(parents=True, exist_ok=True)  # another rank may be doing the same
        sync_folder(parent.parent)


def finish(unfinished, final):
    """Give a checkpoint that is all written its real name; what is there already is damaged."""
    if final.exists():
        remove_folder(final)
    unfinished.rename(final)
    sync_folder(final.parent)


def copied(arrays):
    """dict name -> a NumPy array of its own."""
    return {name: np.array(on_host(array)) for name, array in arrays.items()}


def settings_of(config):
    """What must be the same for a checkpoint to fit, beside the shapes of its arrays."""
    return {"optimizer": config.optimizer, "precision": config.precision}


def versions():
    return {"tinyllm": tinyllm.__version__, "numpy": np.__version__}


class Checkpoints:
    """The checkpoints of a run: written in the background from copies, in their order; the newest one loaded back.

    A save costs the training the time of the copy. One that cannot be written (a full disk, a folder that has become
    read-only) leaves those on disk as they were; `error` says why, and its copy is tried again with the next save.
    """

    snapshot = Snapshot

    def __init__(self, folder, keep, every=1):
        self.folder, self.keep, self.every = Path(folder), keep, every
        self.error = None
        """Why something is not on disk: an OSError or DiskFull, or None."""
        self.unwritten = {}
        """kind -> the Snapshot that is not on disk yet, at most one of each kind."""
        self.elsewhere = None
        """Why another rank's part is not on disk: an OSError, or None."""
        self.lowest = math.inf
        """The held-out loss of the best so far."""
        self.thread = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")
        self.under_way = collections.deque()

    def save(self, training):
        """Copy what decides the next step, and write it in the background; then delete all but the newest `keep`."""
        self.write_soon("step", lambda: self.snapshot.of_training(training))

    def save_if_best(self, training, loss_nats):
        """Keep the weights beside the checkpoints if no evaluation before has had so low a held-out loss."""
        if loss_nats < self.lowest:
            self.lowest = loss_nats
            self.write_soon("best", lambda: self.snapshot.of_weights(training, loss_nats))

    def write_soon(self, kind, snapshot):
        if kind in self.unwritten:
            self.retry()
            self.wait()
            self.unwritten.pop(kind, None)  # before the next copy is made: there is memory for one of each kind
        self.unwritten[kind] = snapshot()
        self.retry()

    def retry(self):
        """Write in the background what is not on disk yet."""
        self.under_way.append(self.thread.submit(self.write))

    def write(self):
        """In the background: the oldest first, and of one step the best, so that a checkpoint finds its best there."""
        try:
            while waiting := sorted(self.unwritten.values(), key=lambda snapshot: (snapshot.step, snapshot.kind)):
                self.sync_lines()
                waiting[0].write(self.folder)
                prune(self.folder, waiting[0].step, self.keep, self.every)
                del self.unwritten[waiting[0].kind]
            self.error = None
        except CANNOT_WRITE as error:
            self.error = error

    def sync_lines(self):
        """A checkpoint must not outlive the lines that lead to it."""
        for path in self.folder.glob("*.jsonl"):
            sync_file(path)

    def meet(self):
        """Between steps: where there are other ranks, ask how far they have come."""

    def wait(self):
        """Until nothing is being written. A mistake of ours that came up in the background is raised here."""
        while self.under_way:
            self.under_way[0].result()
            self.under_way.popleft()

    def load(self, training):
        """Go back to the newest whole checkpoint, once all that is under way is written. Returns its step."""
        self.wait()
        step = load_checkpoint(self.folder, training)
        self.rewind(step)
        return step

    def go_back(self, training):
        """After a spike: a Pretraining becomes what it was at its newest whole scheduled checkpoint, but for its data.

        Whether and when the run was interrupted must not matter, so those that Ctrl-C made do not count, and what is
        newer than the one it goes to is deleted. Returns False, with nothing done, where there is none.
        """
        self.wait()
        target = agreed_checkpoint(training.ranks, self.folder, self.newest_scheduled)
        if target is None:
            return False
        training.roll_back(lambda: load_checkpoint(self.folder, training, target))
        by_first(training.ranks, lambda: self.delete_after(training.step))
        self.rewind(training.step)
        return True

    def newest_scheduled(self):
        """The newest whole checkpoint that no interruption made, or None."""
        return next(filter(is_whole, reversed(scheduled(checkpoints(self.folder), self.every))), None)

    def delete_after(self, step):
        """Delete the checkpoints of later steps, the newest first."""
        for later in reversed(checkpoints(self.folder)):
            if step_of(later) > step:
                remove_folder(later)

    def rewind(self, step):
        """Forget what a run has come to beyond `step`, from where it goes on: a best of then is none any more."""
        self.wait()
        self.unwritten = {kind: snapshot for kind, snapshot in self.unwritten.items() if snapshot.step <= step}
        self.error = self.error if self.unwritten else None
        self.find_lowest(step)

    def find_lowest(self, step):
        """The held-out loss of the best so far; those of later steps are deleted."""
        self.lowest = self.unwritten["best"].state["loss_nats"] if "best" in self.unwritten else math.inf
        for path in checkpoints(self.folder, "best"):
            state = read_state(path)
            if state is None:
                warnings.warn(f"{path} is damaged; it counts no longer as the best so far", stacklevel=2)
            if state is None or step_of(path) > step:
                remove_folder(path)
            else:
                self.lowest = min(self.lowest, state["loss_nats"])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Waits for what is under way; nothing can be saved after."""
        self.thread.shutdown(wait=True)


def scheduled(found, every):
    """Of these checkpoints those of steps divisible by `every`: the ones that an interruption did not make."""
    return [path for path in found if step_of(path) % every == 0]


def prune(folder, step, keep, every=1):
    """Delete all checkpoints but the newest `keep` and the newest scheduled one, which a roll-back goes to; and every
    best that is neither the newest nor that of one kept.

    step: of the newest. Later ones are damaged, or the run would have gone on from them: they do not count among those
    to keep.
    """
    known = [path for path in checkpoints(folder) if step_of(path) <= step]
    kept = [path for path in known if path in known[-keep:] + scheduled(known, every)[-1:]]
    bests = checkpoints(folder, "best")
    needed = bests[-1:]
    for path in kept:  # a run that goes on from there must find what was its best then
        needed += [best for best in bests if step_of(best) <= step_of(path)][-1:]
    for old in [path for path in known if path not in kept] + [best for best in bests if best not in needed]:
        remove_folder(old)


def clear_leftovers(folder):
    """Delete what a killed process left under temporary names. For the one process that holds the folder."""
    for path in (Path(folder) / CHECKPOINTS).glob(".*.*"):
        if path.suffix in (".unfinished", ".removed"):
            shutil.rmtree(path)
    for path in Path(folder).rglob(".*.tmp"):
        path.unlink()


def save_checkpoint(folder, training, keep):
    """Write a checkpoint of a Pretraining under `folder`/checkpoints and delete all but the newest `keep`.

    A full disk raises DiskFull and leaves the older checkpoints as they were. One of this step that is there already
    and whole is left alone. Returns its folder.
    """
    Snapshot.of_training(training).write(folder)
    prune(folder, training.step, keep)
    return Path(folder) / CHECKPOINTS / step_name(training.step)


def load_checkpoint(folder, training, checkpoint=None):
    """Continue from a checkpoint, the newest whole one under `folder` unless given. Returns the step it was made at.

    It may be of any number of ranks and any ZeRO stage. All ranks of `training` call this, and each reads what is its
    own. UserError if it is one of another model, optimizer or precision; nothing is changed then, on any rank.
    """
    checkpoint = agreed_checkpoint(training.ranks, folder, lambda: checkpoint or newest_checkpoint(folder))
    stretches = own_stretches(training)
    try:
        weights, arrays, numbers = together(training.ranks, lambda: read_fitting(checkpoint, training, stretches))
        with training.store.whole():
            training.model.load_weights(weights)
        training.load_state(arrays, numbers)
    except UserError as error:
        raise UserError(f"{checkpoint} does not fit this run: {error}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{checkpoint} does not fit this run: its state.json lacks or garbles {error}") from error
    return training.step


def agreed_checkpoint(ranks, folder, choose):
    """The folder of the checkpoint that the first rank chooses, on every rank; None if choose() returns None there."""
    chosen = by_first(ranks, choose)
    name = ranks.exchange(chosen and chosen.name)[0]
    return name and Path(folder) / CHECKPOINTS / name


def own_stretches(training):
    """dict name -> (start, stop, size): what of each of the optimizer's arrays lies on this rank, and the whole's size.

    The whole is the parts of all ranks, one behind the other.
    """
    ranks, sizes = training.ranks, {name: array.size for name, array in training.optimizer.arrays.items()}
    if ranks.size == 1 or not training.parallel.zero:
        return {name: (0, size, size) for name, size in sizes.items()}
    everybody = ranks.exchange(sizes)
    stretches = {}
    for name, size in sizes.items():
        start = sum(theirs[name] for theirs in everybody[: ranks.rank])
        stretches[name] = start, start + size, sum(theirs[name] for theirs in everybody)
    return stretches


def read_fitting(checkpoint, training, stretches):
    """(weights, this rank's part of the optimizer's arrays, numbers) of a checkpoint, checked against a Pretraining.

    stretches: by `own_stretches`. Whoever wrote the checkpoint, only these are read.
    """
    numbers, files = read_json(checkpoint / "state.json"), optimizer_files(checkpoint)
    check_settings(numbers, training)
    sizes = sizes_in(files)
    for name, (_, _, size) in stretches.items():
        if sizes.get(name, size) != size:
            raise UserError(f"{name} has {sizes[name]} numbers, and this model's has {size}")
    arrays = read_stretches(files, {name: stretches.get(name, (0, 0))[:2] for name in sizes})
    training.optimizer.check_state(arrays, numbers["optimizer"])
    return read_weights(checkpoint), arrays, numbers


def check_settings(numbers, training):
    """UserError if it was made with other settings; those of version 1 do not say."""
    ours = settings_of(training.config)
    for name, made in numbers.get("settings", {}).items():
        if made != ours.get(name):
            raise UserError(
                f"it was made with {name} {made}, and config.json says {ours.get(name)}; put config.json back as it was"
            )

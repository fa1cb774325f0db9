"""Checkpoints: everything that decides the rest of a run, written so that a killed process leaves none half done.

checkpoints/step-000500/weights.safetensors  optimizer.safetensors  state.json (numbers and checksums, written last)
"""

import shutil
from pathlib import Path

from tinyllm.errors import UserError
from tinyllm.files import read_json, sync_folder
from tinyllm.formats.arrays import read_arrays, write_arrays
from tinyllm.formats.run_folders import (
    CHECKPOINTS,
    checkpoints,
    is_whole,
    newest_checkpoint,
    step_name,
    step_of,
    write_state,
)


def save_checkpoint(folder, training, keep):
    """Write a checkpoint of a Pretraining under `folder`/checkpoints and delete all but the newest `keep`.

    It is made under a temporary name and renamed when it is whole; a full disk raises UserError and leaves the older
    checkpoints as they were. One of this step that is there already is left alone. Returns its folder.
    """
    parent = Path(folder) / CHECKPOINTS
    final = parent / step_name(training.step)
    if is_whole(final):
        return final
    unfinished = parent / f".{final.name}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    arrays, numbers = training.state()
    try:
        unfinished.mkdir(parents=True)
        write_arrays(unfinished / "weights.safetensors", training.store.weights())
        write_arrays(unfinished / "optimizer.safetensors", arrays)
        write_state(unfinished, numbers)
        shutil.rmtree(final, ignore_errors=True)  # damaged, or it would be whole
        unfinished.rename(final)
        sync_folder(parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    # Later ones are damaged, or the run would have gone on from them: they do not count among those to keep.
    for old in [path for path in checkpoints(folder) if step_of(path) <= training.step][:-keep]:
        shutil.rmtree(old)
    return final


def load_checkpoint(folder, training):
    """Continue from the newest whole checkpoint under `folder`. Returns the step it was made at."""
    checkpoint = newest_checkpoint(folder)
    try:
        training.model.load_weights(read_arrays(checkpoint / "weights.safetensors"))
        training.load_state(read_arrays(checkpoint / "optimizer.safetensors"), read_json(checkpoint / "state.json"))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{checkpoint} does not fit this run: {error}") from error
    return training.step

"""Run folders: what a training run leaves, and how to get a model out of one.

config.json  tokenizer/  data/  metrics.jsonl  samples.jsonl  checkpoints/step-000500/  checkpoints/best-000250/
report.html
"""

import json
import math
import re
import warnings
from pathlib import Path

import numpy as np

from tinyllm.errors import UserError
from tinyllm.files import read_json, sha256_of, write_json
from tinyllm.formats.arrays import read_arrays, write_arrays
from tinyllm.models import Decoder, DecoderConfig
from tinyllm.tokenizers import load_tokenizer

FORMAT_VERSION = 1
CHECKPOINT_VERSION, PARTED_VERSION = 2, 3
"""Of state.json. Since 2 it has a checksum of itself; 3 is one whose files hold parts, written by several ranks."""

CHECKPOINTS, WEIGHTS, OPTIMIZER = "checkpoints", "weights.safetensors", "optimizer.safetensors"


def load(folder, checkpoint="newest"):
    """(model, tokenizer) of a run folder, or of a folder by `save`.

    checkpoint: "newest" for the weights of the newest whole checkpoint, "best" for those with the lowest held-out loss,
    or the number of a step whose checkpoint is still there.
    """
    folder = Path(folder)
    config = decoder_config(read_config(folder), folder)
    tokenizer = load_tokenizer(folder / "tokenizer")
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{folder / 'tokenizer'} has {tokenizer.vocab_size} tokens, the model {config.vocab_size}: it is not the "
            "tokenizer that this model was trained with; put that one back"
        )
    checkpoint = chosen_checkpoint(folder, checkpoint)
    model = Decoder(config)
    try:
        model.load_weights(read_weights(checkpoint))
    except UserError as error:
        raise UserError(f"{checkpoint}: {error}") from None
    return model, tokenizer


def decoder_config(config, folder):
    """The DecoderConfig in a run folder's config; UserError where somebody's edit left no config at all."""
    try:
        return DecoderConfig.from_dict(config["model"])
    except (TypeError, UserError) as error:
        raise UserError(f"{folder / 'config.json'} describes no model ({error}); put it back as it was") from None


def save(model, tokenizer, folder):
    """Write a model and its tokenizer to a folder that `load` reads. The folder must not hold a run already."""
    folder = Path(folder)
    if (folder / "config.json").exists():
        raise UserError(f"{folder} holds a model already; choose another folder")
    tokenizer.save(folder / "tokenizer")
    checkpoint = folder / CHECKPOINTS / step_name(0)
    write_checkpoint(checkpoint, {WEIGHTS: {n: p.data for n, p in model.parameters().items()}}, {"step": 0})
    write_json(folder / "config.json", {"format_version": FORMAT_VERSION, "model": model.config.as_dict()})


def read_config(folder):
    """The config.json of a run folder, refused if it is none of ours or newer than this version."""
    folder = Path(folder)
    if not (folder / "config.json").exists():
        there = "has no config.json" if folder.is_dir() else "is a file" if folder.exists() else "does not exist"
        raise UserError(f"{folder} is not a run folder: it {there}; train one with: tinyllm pretrain")
    config = read_json(folder / "config.json")
    version = config.get("format_version") if isinstance(config, dict) else None
    if not isinstance(version, int) or "model" not in config:
        raise UserError(
            f"{folder / 'config.json'} is not the config of a tinyllm run: it has no format_version or model"
        )
    if version > FORMAT_VERSION:
        raise UserError(
            f"{folder} was written by a newer tinyllm (format {version}, this one reads {FORMAT_VERSION}); upgrade"
        )
    return config


def is_separated(config):
    """Did the model learn from many texts, with end-of-text between them? Yes, where the config does not say."""
    return (config.get("corpus") or {}).get("num_documents", 2) > 1


def step_name(step, kind="step"):
    return f"{kind}-{step:06d}"


def part_name(name, rank, ranks):
    """The file of one rank's part: "optimizer-rank-0-of-2.safetensors"."""
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}-rank-{rank}-of-{ranks}{dot}{suffix}"


def write_checkpoint(folder, files, state):
    """Write the files of a checkpoint into `folder`; state.json, whose checksums say that all is whole, is the last.

    files: dict file name -> dict name -> array. state: what state.json shall hold beside, of JSON's types.
    """
    write_state(folder, state, {name: write_arrays(folder / name, arrays) for name, arrays in files.items()})


def write_state(folder, state, sums):
    """Write state.json beside the files of a checkpoint. sums: dict file name -> SHA-256."""
    version = PARTED_VERSION if "parts" in state else CHECKPOINT_VERSION
    state = {"format_version": version, **state, "sha256": sums}
    write_json(folder / "state.json", state | {"state_sha256": sha256_of_state(state)})


def sha256_of_state(state):
    """The checksum of what state.json says, however it is laid out."""
    return sha256_of(json.dumps({name: state[name] for name in state if name != "state_sha256"}, sort_keys=True))


def read_state(checkpoint):
    """What state.json says, if it and the files that it names have their checksums; else None.

    UserError if all is whole and of a newer version: passing over it would lose what it holds.
    """
    try:
        return whole_state(checkpoint)
    except Damaged:
        return None


class Damaged(Exception):
    """What is wrong with a checkpoint, in a few words."""


def whole_state(checkpoint):
    """As `read_state`, but Damaged says what is wrong."""
    try:
        state = read_json(checkpoint / "state.json")
        version, sums = state["format_version"], state["sha256"]
        if version != 1 and state["state_sha256"] != sha256_of_state(state):
            raise Damaged("state.json has another checksum")
        if not sums:
            raise Damaged("state.json names no files")
        for name, known in sums.items():
            if not (checkpoint / name).exists():
                raise Damaged(f"{name} is missing")
            if sha256_of(checkpoint / name) != known:
                raise Damaged(f"{name} has another checksum")
    except (UserError, OSError, KeyError, TypeError, AttributeError):
        raise Damaged("state.json cannot be read") from None
    if version > PARTED_VERSION:
        raise UserError(
            f"{checkpoint} was written by a newer tinyllm (format {version}, this one reads {PARTED_VERSION}); upgrade"
        )
    return state


def read_weights(checkpoint):
    """dict name -> array of a whole checkpoint; put together, where ranks have each written a part of the flat store.

    state.json then has, under parts: ranks, zero, and places: name -> [where it begins in the store, its shape].
    """
    parts = read_json(checkpoint / "state.json").get("parts", {})
    if "places" not in parts:
        return read_arrays(checkpoint / WEIGHTS)
    files = [checkpoint / part_name(WEIGHTS, rank, parts["ranks"]) for rank in range(parts["ranks"])]
    values = np.concatenate([read_arrays(path)["values"] for path in files])
    places = parts["places"].items()
    return {name: values[start : start + math.prod(shape)].reshape(shape) for name, (start, shape) in places}


def optimizer_files(checkpoint):
    """The files whose arrays, one behind the other in this order, are the optimizer's."""
    ranks = read_json(checkpoint / "state.json").get("parts", {}).get("ranks")
    names = [OPTIMIZER] if ranks is None else [part_name(OPTIMIZER, rank, ranks) for rank in range(ranks)]
    return [checkpoint / name for name in names]


def is_whole(checkpoint):
    """Does every file have the checksum that state.json gives it?"""
    return read_state(checkpoint) is not None


def checkpoints(folder, kind="step"):
    """The folders of all checkpoints, whole or not, the oldest first. kind: "step", or "best" for the best so far."""
    found = [path for path in (Path(folder) / CHECKPOINTS).glob(f"{kind}-*") if re.fullmatch(rf"{kind}-\d+", path.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint):
    """The step that a checkpoint was made at, from its name."""
    return int(checkpoint.name.partition("-")[2])


def chosen_checkpoint(folder, which):
    """The folder of the checkpoint that is asked for: "newest", "best" or a step, as number or text."""
    if which == "newest":
        return newest_checkpoint(folder)
    if which == "best":
        return newest_checkpoint(folder, "best")
    if not str(which).isdecimal():
        raise UserError(f"a checkpoint is newest, best or the number of a step, not {which!r}")
    checkpoint = Path(folder) / CHECKPOINTS / step_name(int(which))
    if not checkpoint.exists():
        there = ", ".join(f"{step_of(path):,}" for path in checkpoints(folder)) or "none"
        raise UserError(f"{folder} has no checkpoint of step {int(which):,} (any more); there are those of: {there}")
    if not is_whole(checkpoint):
        raise UserError(f"{checkpoint} is damaged; choose another")
    return checkpoint


def newest_checkpoint(folder, kind="step"):
    """The folder of the newest checkpoint whose checksums hold; UserError if there is none.

    kind: as `checkpoints` takes it; the newest "best" is the best of all. A warning names the newer ones that are
    damaged and passed over.
    """
    found, faults = checkpoints(folder, kind), {}
    for checkpoint in reversed(found):
        try:
            whole_state(checkpoint)
        except Damaged as fault:
            faults[checkpoint.name] = str(fault)
            continue
        if faults:
            names, causes = ", ".join(reversed(faults)), "; ".join(f"{name}: {fault}" for name, fault in faults.items())
            warnings.warn(f"{folder}: {names} is damaged; using {checkpoint.name} ({causes})", stacklevel=2)
        return checkpoint
    damaged = f"; {len(found)} damaged: {found[-1]} ({faults[found[-1].name]})" if found else ""
    if kind == "best":
        raise UserError(f"{folder} has no whole best checkpoint yet{damaged}; an evaluation on the way writes one")
    raise UserError(f"{folder} has no whole checkpoint yet{damaged}")

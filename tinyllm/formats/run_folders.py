"""Run folders: what a training run leaves, and how to get a model out of one.

config.json  tokenizer/  data/  metrics.jsonl  samples.jsonl  checkpoints/step-000500/  report.html
"""

import re
import warnings
from pathlib import Path

from tinyllm.errors import UserError
from tinyllm.files import read_json, sha256_of, write_json
from tinyllm.formats.arrays import read_arrays, write_arrays
from tinyllm.models import Decoder, DecoderConfig
from tinyllm.tokenizers import load_tokenizer

FORMAT_VERSION = 1
CHECKPOINTS = "checkpoints"


def load(folder):
    """(model, tokenizer) of a run folder, with the weights of its newest whole checkpoint, or of a folder by `save`."""
    folder = Path(folder)
    config = decoder_config(read_config(folder), folder)
    tokenizer = load_tokenizer(folder / "tokenizer")
    if tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{folder / 'tokenizer'} has {tokenizer.vocab_size} tokens, the model {config.vocab_size}: it is not the "
            "tokenizer that this model was trained with; put that one back"
        )
    checkpoint = newest_checkpoint(folder)
    model = Decoder(config)
    try:
        model.load_weights(read_arrays(checkpoint / "weights.safetensors"))
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
    write_arrays(checkpoint / "weights.safetensors", {name: p.data for name, p in model.parameters().items()})
    write_state(checkpoint, {"step": 0})
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


def step_name(step):
    return f"step-{step:06d}"


def write_state(checkpoint, state):
    """The last file of a checkpoint: its checksums say that the others are whole."""
    sums = {path.name: sha256_of(path) for path in sorted(checkpoint.glob("*.safetensors"))}
    write_json(checkpoint / "state.json", {"format_version": FORMAT_VERSION, **state, "sha256": sums})


def is_whole(checkpoint):
    """Does every file have the checksum that state.json gives it?"""
    try:
        sums = read_json(checkpoint / "state.json")["sha256"]
        return bool(sums) and all(sha256_of(checkpoint / name) == known for name, known in sums.items())
    except (UserError, OSError, KeyError, TypeError, AttributeError):
        return False


def checkpoints(folder):
    """The folders of all checkpoints, whole or not, the oldest first."""
    found = [path for path in (Path(folder) / CHECKPOINTS).glob("step-*") if re.fullmatch(r"step-\d+", path.name)]
    return sorted(found, key=step_of)


def step_of(checkpoint):
    """The step that a checkpoint was made at, from its name."""
    return int(checkpoint.name.removeprefix("step-"))


def newest_checkpoint(folder):
    """The folder of the newest checkpoint whose checksums hold; UserError if there is none.

    A warning names the newer ones that are damaged and passed over.
    """
    found = checkpoints(folder)
    for number, checkpoint in enumerate(reversed(found)):
        if is_whole(checkpoint):
            if number:
                damaged = ", ".join(path.name for path in found[-number:])
                warnings.warn(f"{folder}: {damaged} is damaged; using {checkpoint.name}", stacklevel=2)
            return checkpoint
    damaged = f"; {len(found)} damaged: {found[-1]}" if found else ""
    raise UserError(f"{folder} has no whole checkpoint yet{damaged}")

"""Measure the band of usual loss of a preset on a text, for `tinyllm why`, into tinyllm/training/bands.json.

    python tests/benchmarks/measure_bands.py quickstart
    python tests/benchmarks/measure_bands.py shakespeare-char-cpu --data shakespeare --seeds 0 1 2 --work runs/bands

One run for each seed, in a folder of its own under --work. A run that is there already is finished and used again. What
the file says of the same preset, text and tokenizer is replaced.
"""

import argparse
import datetime
from pathlib import Path

import numpy as np

import autograd as ag
import tinyllm.training
from tinyllm.data import load_corpus
from tinyllm.files import read_json, write_json
from tinyllm.training.bands import FORMAT_VERSION, trailing_means
from tinyllm.training.metrics import read_metrics
from tinyllm.training.presets import preset
from tinyllm.training.progress import training_display
from tinyllm.training.runs import begin_run, complete, resume_run

BANDS = Path(tinyllm.training.__file__).with_name("bands.json")
POINTS = 20
"""Places along the curve of training loss."""


def finished_run(folder, name, data, seed):
    """Train, or go on training, to the end; the folder's config."""
    if (folder / "config.json").exists():
        run = resume_run(folder)
    else:
        run = begin_run(folder, name, load_corpus(data), training={"seed": seed})
    complete(run, training_display())
    return run.config


def training_curve(folder, steps):
    """(steps, losses) at POINTS places: means of the last steps, as `tinyllm why` takes them."""
    records = [record for record in read_metrics(folder) if record["split"] == "train"]
    means = trailing_means(np.array([record["loss_nats"] for record in records]))
    places = np.unique(np.linspace(0, steps, POINTS + 1).round().astype(int))[1:]
    return places, means[places - 1]


def held_out_curve(folder):
    """(steps, losses) of the evaluations."""
    records = [record for record in read_metrics(folder) if record["split"] == "validation"]
    return np.array([record["step"] for record in records]), np.array([record["loss_nats"] for record in records])


def envelope(curves):
    """Rows [step, lowest, highest] of curves (steps, losses) with the same steps."""
    steps = curves[0][0]
    assert all(np.array_equal(steps, others) for others, _ in curves)
    losses = np.stack([losses for _, losses in curves])
    ends = zip(steps.tolist(), losses.min(0).round(4).tolist(), losses.max(0).round(4).tolist(), strict=True)
    return [list(row) for row in ends]


def measure(name, data, seeds, work):
    """The entry of bands.json for a preset on a text."""
    folders = [work / f"{name}-seed{seed}" for seed in seeds]
    configs = [finished_run(folder, name, data, seed) for folder, seed in zip(folders, seeds, strict=True)]
    first = configs[0]
    assert len({(config["corpus"]["sha256"], config["tokenizer"]["hash"]) for config in configs}) == 1
    return {
        "preset": name,
        "corpus": Path(first["corpus"]["name"]).name,
        "corpus_sha256": first["corpus"]["sha256"],
        "tokenizer_hash": first["tokenizer"]["hash"],
        "steps": first["training"]["steps"],
        "seeds": list(seeds),
        "date": datetime.date.today().isoformat(),
        "machine": {key: first["machine"].get(key) for key in ("python", "numpy", "blas", "processor", "tinyllm")},
        "training": envelope([training_curve(folder, first["training"]["steps"]) for folder in folders]),
        "held_out": envelope([held_out_curve(folder) for folder in folders]),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("preset")
    parser.add_argument("--data", default="")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("runs/bands"))
    options = parser.parse_args()
    with ag.use_kernels("numba"):
        entry = measure(options.preset, options.data or preset(options.preset).data, options.seeds, options.work)
    key = ("preset", "corpus_sha256", "tokenizer_hash")
    others = [e for e in read_json(BANDS)["bands"] if any(e[k] != entry[k] for k in key)]
    bands = sorted([*others, entry], key=lambda e: [e[k] for k in key])
    write_json(BANDS, {"format_version": FORMAT_VERSION, "bands": bands})
    print(f"{BANDS}: {len(entry['training'])} and {len(entry['held_out'])} places of {len(options.seeds)} runs")


if __name__ == "__main__":
    main()

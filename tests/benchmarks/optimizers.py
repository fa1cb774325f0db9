"""The optimizers beside each other: held-out loss of a small model at several learning rates, and what a step costs.

    python tests/benchmarks/optimizers.py --text tinyshakespeare.txt     the table of losses in docs/optimizers.md
    python tests/benchmarks/optimizers.py --time                         the table of times

Times are medians of interleaved rounds on one thread, shares of the same model's loss and gradient.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np

import autograd as ag
from autograd.backends.numba.launch import at_most
from tinyllm.data import RandomBatches
from tinyllm.models import Decoder, gpt2
from tinyllm.tokenizers import CharacterTokenizer
from tinyllm.training.config import BESIDE_ADAMW, OPTIMIZER_OPTIONS, TrainingConfig
from tinyllm.training.loop import Pretraining, accumulate, pretrain
from tinyllm.training.presets import PRESETS

SHAPE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
RATES = (1e-3, 3e-3, 1e-2, 3e-2)  # of AdamW
SEEDS = (0, 1, 2)


def config_of(optimizer, rate, steps, seed=0):
    """rate: AdamW's; others get theirs as a preset's would be changed."""
    factor = BESIDE_ADAMW.get(optimizer, 1)
    return TrainingConfig(
        steps=steps, batch_size=8, warmup_steps=20, optimizer=optimizer, seed=seed,
        learning_rate=rate * factor, min_learning_rate=rate * factor / 10, weight_decay=0.1 / factor,
    )  # fmt: skip


def held_out_loss(config, tokens, windows, vocab_size):
    """Nats per token over windows (N, T + 1) after training on tokens."""
    model = Decoder(gpt2.config(vocab_size=vocab_size, **SHAPE), seed=config.seed)
    batches = RandomBatches(tokens, batch_size=config.batch_size, context=64, seed=config.seed)
    pretrain(Pretraining(model, batches, config))
    with ag.no_grad():
        return model.loss(windows[:, :-1], windows[:, 1:]).item()


def losses(path, steps):
    text = path.read_text(encoding="utf-8")
    tokenizer = CharacterTokenizer.train([text])
    tokens = np.array(tokenizer.encode(text))
    split = len(tokens) * 9 // 10
    windows = tokens[split : split + 128 * 65].reshape(128, 65)
    print("| optimizer | " + " | ".join(f"{rate:g}" for rate in RATES) + " | the best, three seeds |")
    print("| --- |" + " --- |" * (len(RATES) + 1))
    for optimizer in OPTIMIZER_OPTIONS:
        data = (tokens[:split], windows, tokenizer.vocab_size)
        found = {rate: held_out_loss(config_of(optimizer, rate, steps), *data) for rate in RATES}
        best = min(found, key=found.get)
        seeds = [found[best], *(held_out_loss(config_of(optimizer, best, steps, seed), *data) for seed in SEEDS[1:])]
        cells = [f"{loss:.3f}" for loss in found.values()]
        print(f"| {optimizer} | {' | '.join(cells)} | {min(seeds):.3f} to {max(seeds):.3f} |", flush=True)


def times(rounds):
    """A step of each optimizer as a share of the loss and gradient, and its state in numbers per parameter."""
    preset = PRESETS["shakespeare-char-cpu"]
    shape = preset.model_config(65)
    tokens = np.random.default_rng(0).integers(0, 65, 10_000)
    trainings = {
        optimizer: Pretraining(
            Decoder(shape), RandomBatches(tokens, batch_size=12, context=64), config_of(optimizer, 1e-4, 100)
        )
        for optimizer in OPTIMIZER_OPTIONS
    }
    took = {name: [] for name in ("gradient", *trainings)}
    with ag.use_kernels("numba"), at_most(1):
        for _ in range(rounds):
            for optimizer, training in trainings.items():
                inputs, targets = next(training.batches)
                started = time.perf_counter()
                accumulate(training, inputs, targets, 0)
                between = time.perf_counter()
                training.optimizer.step()
                took["gradient"].append(between - started)
                took[optimizer].append(time.perf_counter() - between)
    whole = statistics.median(took.pop("gradient"))
    for optimizer, seconds in took.items():
        arrays = trainings[optimizer].optimizer.arrays.values()
        state = sum(array.size for array in arrays) / trainings[optimizer].store.size
        print(f"| {optimizer} | {state:.2f} | {100 * statistics.median(seconds) / whole:.1f} % |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--time", action="store_true")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    if arguments.text:
        losses(arguments.text, arguments.steps)
    if arguments.time:
        times(arguments.rounds)

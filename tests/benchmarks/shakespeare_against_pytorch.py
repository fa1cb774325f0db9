"""nanoGPT's CPU preset, here and in PyTorch: the same weights, the same batches, in turns on the same machine.

    python tests/benchmarks/shakespeare_against_pytorch.py [--steps 2000] [--block 50] [--seed 0]

needs torch, and the text (TINYLLM_REFERENCE or the cache folder). Each side is a process of its own that waits while
the other one computes, so that neither's idle threads disturb. Prints seconds a block and their ratio, the training
losses of both (the proof that the work is the same) and both losses over the whole validation split.

    python tests/benchmarks/shakespeare_against_pytorch.py --pytorch-alone [--steps 2000] [--seed 0]

trains PyTorch only, with weights and batches from its own random numbers: what other seeds would have reached.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import numpy as np

from tinyllm.data import RandomBatches, load_corpus, windows
from tinyllm.models import Decoder
from tinyllm.tokenizers import CharacterTokenizer
from tinyllm.training.presets import preset

CONTEXT = 64


def prepare(seed):
    """The same for both sides: tokens, batches, initial weights."""
    corpus = load_corpus("shakespeare")
    tokenizer = CharacterTokenizer.train(corpus.documents)
    training, validation = (tokenizer.encode_to_array(text[0]) for text in corpus.split())
    chosen = preset("shakespeare-char-cpu")
    model = Decoder(chosen.model_config(tokenizer.vocab_size), seed=seed)
    batches = RandomBatches(training, batch_size=chosen.training.batch_size, context=CONTEXT, seed=seed)
    return model, batches, validation, chosen.training


class Ours:
    def __init__(self, seed):
        from tinyllm.training.loop import Pretraining
        from tinyllm.training.memory import keep_freed_memory

        keep_freed_memory()
        model, batches, self.validation, config = prepare(seed)
        self.training = Pretraining(model, batches, config)

    def run(self, steps):
        from tinyllm.training.loop import pretrain

        losses, end = [], self.training.step + steps
        pretrain(
            self.training,
            after_step=lambda record: losses.append(record["loss_nats"]),
            stop=lambda: self.training.step >= end,
        )
        return losses

    def validate(self):
        from tinyllm.evaluation.loss import held_out_loss

        nats, count = held_out_loss(self.training.model, self.validation)
        return nats / count


class PyTorch:
    """The same model in PyTorch: fused attention, fused AdamW, eager."""

    def __init__(self, seed):
        import torch

        from tinyllm.training.schedules import warmup_cosine

        self.torch, self.schedule = torch, warmup_cosine
        model, self.batches, self.validation, self.config = prepare(seed)
        weights = {name: torch.tensor(p.data.copy(), requires_grad=True) for name, p in model.parameters().items()}
        self.weights, self.heads, self.layers = (
            weights,
            model.config.num_attention_heads,
            model.config.num_hidden_layers,
        )
        groups = [
            {"params": [p for p in weights.values() if p.dim() >= 2], "weight_decay": self.config.weight_decay},
            {"params": [p for p in weights.values() if p.dim() < 2], "weight_decay": 0.0},
        ]
        betas = (self.config.beta1, self.config.beta2)
        self.optimizer = torch.optim.AdamW(groups, lr=self.config.learning_rate, betas=betas, fused=True)
        self.step = 0

    def draw(self, seed):
        """Weights and batches from PyTorch's own random numbers, with the same distributions."""
        self.torch.manual_seed(1337 + seed)
        for name, weight in self.weights.items():
            if weight.dim() >= 2:
                into_residual = name.endswith(("attention.output.weight", "feed_forward.down.weight"))
                self.torch.nn.init.normal_(weight, std=0.02 / (2 * self.layers) ** 0.5 if into_residual else 0.02)
        places = len(self.batches.tokens) - CONTEXT
        self.batches.offsets = lambda start, count: self.torch.randint(places, (count,)).numpy()

    def loss(self, inputs, targets, reduction="mean"):
        F, w = self.torch.nn.functional, self.weights
        B, T = inputs.shape
        x = w["embedding.weight"][inputs] + w["position.weight"][:T]
        C = x.shape[-1]
        for i in range(self.layers):
            name = f"blocks.{i}."
            h = F.layer_norm(x, (C,), w[name + "attention_norm.weight"])
            q, k, v = (
                F.linear(h, w[f"{name}attention.{part}.weight"]).view(B, T, self.heads, -1).transpose(1, 2)
                for part in ("query", "key", "value")
            )
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(B, T, C)
            x = x + F.linear(y, w[name + "attention.output.weight"])
            h = F.layer_norm(x, (C,), w[name + "feed_forward_norm.weight"])
            h = F.gelu(F.linear(h, w[name + "feed_forward.up.weight"]))
            x = x + F.linear(h, w[name + "feed_forward.down.weight"])
        logits = F.linear(F.layer_norm(x, (C,), w["final_norm.weight"]), w["embedding.weight"])
        return F.cross_entropy(logits.view(B * T, -1), targets.reshape(-1), reduction=reduction)

    def run(self, steps):
        losses, config = [], self.config
        for _ in range(steps):
            rate = self.schedule(
                self.step,
                peak=config.learning_rate,
                floor=config.min_learning_rate,
                warmup_steps=config.warmup_steps,
                steps=config.steps,
            )
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            inputs, targets = map(self.torch.from_numpy, next(self.batches))
            loss = self.loss(inputs, targets)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.torch.nn.utils.clip_grad_norm_(self.weights.values(), config.clip)
            self.optimizer.step()
            losses.append(loss.item())
            self.step += 1
        return losses

    def validate(self):
        nats = count = 0
        with self.torch.no_grad():
            for inputs, targets in windows(self.validation, CONTEXT, 64):
                tensors = map(self.torch.from_numpy, (inputs, targets))
                nats += self.loss(*tensors, reduction="sum").item()
                count += int((targets != -100).sum())
        return nats / count


def work(side, seed):
    """A process that answers requests, one JSON a line: how many steps to run, 0 for the validation loss."""
    trainer = {"ours": Ours, "pytorch": PyTorch}[side](seed)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        steps = json.loads(line)
        print(json.dumps(trainer.run(steps) if steps else trainer.validate()), flush=True)


def start(side, seed):
    command = [sys.executable, __file__, "--side", side, "--seed", str(seed)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    json.loads(process.stdout.readline())
    return process


def ask(process, steps):
    """(answer, seconds)"""
    begin = time.perf_counter()
    process.stdin.write(f"{steps}\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline())
    return answer, time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--block", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pytorch-alone", action="store_true", help="PyTorch only, with its own random numbers")
    parser.add_argument("--side", choices=["ours", "pytorch"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        work(options.side, options.seed)
        return
    if options.pytorch_alone:
        alone = PyTorch(options.seed)
        alone.draw(options.seed)
        alone.run(options.steps)
        print(f"pytorch, its own random numbers, seed {options.seed}: validation {alone.validate():.4f}")
        return
    sides = {side: start(side, options.seed) for side in ("ours", "pytorch")}
    for process in sides.values():
        ask(process, 0)  # warm up without a step
    losses, seconds = {side: [] for side in sides}, {side: [] for side in sides}
    for _ in range(options.steps // options.block):
        for side, process in sides.items():
            answer, elapsed = ask(process, options.block)
            losses[side] += answer
            seconds[side].append(elapsed)
    ratios = [a / b for a, b in zip(seconds["ours"], seconds["pytorch"], strict=True)]
    apart = np.abs(np.array(losses["ours"]) - np.array(losses["pytorch"]))
    print(f"seed {options.seed}, {len(losses['ours'])} steps in blocks of {options.block}")
    for side, process in sides.items():
        total, validation = sum(seconds[side]), ask(process, 0)[0]
        print(f"{side:8} {total:7.1f} s, {total / len(losses[side]) * 1e3:6.1f} ms a step, validation {validation:.4f}")
        process.stdin.close()
    low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
    print(f"ours / pytorch: median of blocks {middle:.2f} ({low:.2f} to {high:.2f})")
    print(f"training losses apart by at most {apart[:20].max():.1e} in 20 steps, {apart[:200].max():.1e} in 200")


if __name__ == "__main__":
    main()

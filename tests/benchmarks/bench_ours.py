"""Our side of `bench.py`: the same functions that a user calls."""

import time
from collections import deque

import numpy as np
from bench_cases import BETAS, CLIP, EPS, WEIGHT_DECAY, project

import autograd as ag
from tinyllm.generation import stream
from tinyllm.models import Decoder
from tinyllm.training.config import TrainingConfig
from tinyllm.training.loop import Pretraining, pretrain


class Batches:
    """Hands the training loop the batches that were drawn before the clock started."""

    def __init__(self, case, seed):
        self.case, self.seed, self.position, self.step, self.drawn = case, seed, 0, 0, deque()

    def draw(self, count):
        for _ in range(count):
            self.drawn.append(self.case.batch_of_step(self.seed, self.step))
            self.step += 1

    def __next__(self):
        self.position += self.case.batch
        return self.drawn.popleft()


class OurTraining:
    def __init__(self, case, seed):
        config = TrainingConfig(
            steps=10**6, batch_size=case.batch, learning_rate=case.learning_rate, min_learning_rate=case.learning_rate,
            warmup_steps=0, beta1=BETAS[0], beta2=BETAS[1], weight_decay=WEIGHT_DECAY, clip=CLIP, seed=seed,
        )  # fmt: skip
        self.batches = Batches(case, seed)
        self.training = Pretraining(Decoder(case.config(), seed=seed), self.batches, config)
        if self.training.optimizer.eps != EPS:
            raise ValueError(f"AdamW's eps is {self.training.optimizer.eps}, PyTorch's in this benchmark {EPS}")

    def turn(self, count):
        self.batches.draw(count)
        losses, end = [], self.training.step + count
        began = time.perf_counter()
        pretrain(
            self.training,
            after_step=lambda metrics: losses.append(metrics["loss_nats"]),
            stop=lambda: self.training.step == end,
        )
        return {"seconds": time.perf_counter() - began, "proof": losses}


class OurAttention:
    def __init__(self, case, seed):
        *inputs, self.dy, self.direction = case.arrays(seed)
        self.inputs = [ag.Tensor(array, requires_grad=True) for array in inputs]

    def turn(self, count):
        began = time.perf_counter()
        for _ in range(count):
            for tensor in self.inputs:
                tensor.grad = None
            y = ag.attention(*self.inputs)
            y.backward(self.dy)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "proof": project([y.data, *(t.grad for t in self.inputs)], self.direction)}


class OurDecoding:
    def __init__(self, case, seed):
        self.case, self.seed = case, seed
        self.model = Decoder(case.config(), seed=seed)

    def turn(self, count):
        """Seconds between the first new token, which pays for reading the prompt, and the last."""
        tokens, times = [], []
        prompt = self.case.prompt(self.seed, count + 1)
        for token in stream(self.model, prompt, max_new_tokens=count + 1, temperature=0):
            times.append(time.perf_counter())
            tokens.append(int(np.asarray(token)))
        return {"seconds": times[-1] - times[0], "proof": tokens}


def training(case, options):
    return OurTraining(case, options["seed"])


def attention(case, options):
    return OurAttention(case, options["seed"])


def decoding(case, options):
    return OurDecoding(case, options["seed"])

"""Three small measurements for `tinyllm doctor`, about a second each. The best of several runs counts."""

import time

import numpy as np

import autograd as ag

SECONDS = 0.7  # for each measurement


def best_time(function):
    """Seconds of the fastest run of `function`, which is run at least twice (the first one is warm-up)."""
    function()
    best, end = float("inf"), time.perf_counter() + SECONDS
    while True:
        start = time.perf_counter()
        function()
        now = time.perf_counter()
        best = min(best, now - start)
        if now > end:
            return best


def matmul_gflops(size):
    """GFLOP/s of a float32 product of two size x size matrices, by whichever kernels are chosen."""
    a, b = np.random.default_rng(0).standard_normal((2, size, size), dtype=np.float32)
    return 2 * size**3 / best_time(lambda: ag.linear(a, b)) / 1e9


def copy_gigabytes(megabytes=64):
    """GB/s of a copy, counting what is read and what is written."""
    source = np.zeros(megabytes * 2**20 // 4, np.float32)
    target = np.ones_like(source)
    return 2 * source.nbytes / best_time(lambda: np.copyto(target, source)) / 1e9


def training_step(samples=256, width=512):
    """(samples/s, GFLOP/s) of gradient descent on a network of two square layers, in float32."""
    random = np.random.default_rng(0)
    x, y = random.standard_normal((2, samples, width), dtype=np.float32)
    weights = [
        ag.Tensor(random.standard_normal((width, width), dtype=np.float32) / width**0.5, requires_grad=True)
        for _ in range(2)
    ]

    def step():
        difference = ag.linear(ag.gelu(ag.linear(ag.Tensor(x), weights[0])), weights[1]) - y
        loss = (difference * difference).mean()
        loss.backward()
        for weight in weights:
            weight.data -= 0.01 * weight.grad
            weight.grad = None

    seconds = best_time(step)
    # Forward two products, backward three: nobody asks for the gradient of x.
    return samples / seconds, 5 * 2 * samples * width**2 / seconds / 1e9

"""Optimizers: each rule is one array function over flat memory, with its paper."""

import functools
import math

from autograd import kernels
from autograd.arrays import xp_of, zeros_from_a_line

PIECE = 2**16  # elements


def in_pieces(rule):
    """Apply a rule to a stretch of its flat arrays, then to the next.

    A stretch stays in the processor's cache, so that ten passes cost little more than reading and writing it once.
    """

    @functools.wraps(rule)
    def every_piece(*arrays, **options):
        for start in range(0, len(arrays[0]), PIECE):
            rule(*(array[start : start + PIECE] for array in arrays), **options)

    return every_piece


@kernels.rule
@in_pieces
def adamw(p, g, m, v, *, step, learning_rate, betas, eps, weight_decay):
    """One AdamW step, in place (Loshchilov, Hutter 2019, algorithm 2; eps outside the root).

    p <- p (1 - lr λ);  m <- β1 m + (1 - β1) g;  v <- β2 v + (1 - β2) g²
    p <- p - lr m̂ / (√v̂ + eps),  m̂ = m / (1 - β1^step),  v̂ = v / (1 - β2^step)
    """
    beta1, beta2 = betas
    if weight_decay:
        p *= 1 - learning_rate * weight_decay
    m *= beta1
    m += (1 - beta1) * g
    v *= beta2
    scratch = g * g
    scratch *= 1 - beta2
    v += scratch
    root = xp_of(v).sqrt(v, out=scratch)
    root *= 1 / math.sqrt(1 - beta2**step)
    root += eps
    update = m / root
    update *= learning_rate / (1 - beta1**step)
    p -= update


@kernels.rule
@in_pieces
def sgd(p, g, velocity, *, learning_rate, momentum, weight_decay):
    """One step of gradient descent with momentum, in place (Sutskever et al. 2013, as PyTorch writes it).

    velocity <- μ velocity + g + λ p;  p <- p - lr velocity
    """
    velocity *= momentum
    velocity += g
    if weight_decay:
        velocity += weight_decay * p
    p -= learning_rate * velocity


class Optimizer:
    """What the rules share: state of the size of the store, a learning rate, weight decay on the group "decay".

    learning_rate may be set before every step. `state()` and `load_state()` give and take everything that decides the
    next step, for checkpoints.
    """

    state_names = ()

    def __init__(self, store, learning_rate, weight_decay):
        self.store, self.learning_rate, self.weight_decay = store, learning_rate, weight_decay
        self.steps = 0
        self.arrays = {name: zeros_from_a_line(store.size, like=store.values) for name in self.state_names}

    def step(self):
        """Update every parameter from its gradient, then forget the gradients."""
        self.store.collect()
        self.steps += 1
        for group, where in self.store.groups.items():
            decay = self.weight_decay if group == "decay" else 0.0
            state = [array[where] for array in self.arrays.values()]
            self.rule(self.store.values[where], self.store.gradients[where], *state, weight_decay=decay)
        self.store.zero()

    def state(self):
        """(dict name -> flat array, dict of numbers)."""
        return dict(self.arrays), {"steps": self.steps}

    def load_state(self, arrays, numbers):
        for name, array in self.arrays.items():
            array[...] = self.store.xp.asarray(arrays[name])
        self.steps = int(numbers["steps"])


class AdamW(Optimizer):
    """Adam with decoupled weight decay (on matrices only, unless the store has other groups)."""

    state_names = ("m", "v")

    def __init__(self, store, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01):
        super().__init__(store, lr, weight_decay)
        self.betas, self.eps = tuple(betas), eps

    def rule(self, p, g, m, v, weight_decay):
        options = {"learning_rate": self.learning_rate, "betas": self.betas, "eps": self.eps}
        adamw(p, g, m, v, step=self.steps, weight_decay=weight_decay, **options)


class SGD(Optimizer):
    """Gradient descent with momentum."""

    state_names = ("velocity",)

    def __init__(self, store, lr=1e-2, momentum=0.9, weight_decay=0.0):
        super().__init__(store, lr, weight_decay)
        self.momentum = momentum

    def rule(self, p, g, velocity, weight_decay):
        sgd(p, g, velocity, learning_rate=self.learning_rate, momentum=self.momentum, weight_decay=weight_decay)

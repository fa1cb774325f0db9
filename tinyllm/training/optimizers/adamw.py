"""AdamW: Adam with decoupled weight decay."""

import math

from autograd import kernels
from autograd.arrays import xp_of
from tinyllm.training.optimizers.optimizer import Optimizer, in_pieces


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


class AdamW(Optimizer):
    """Adam with decoupled weight decay (on matrices only, unless the store has other groups)."""

    state_names = ("m", "v")

    def __init__(self, store, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, groups=None):
        super().__init__(store, lr, weight_decay, groups)
        self.betas, self.eps = tuple(betas), eps

    def rule(self, p, g, m, v, **options):
        adamw(p, g, m, v, step=self.steps, betas=self.betas, eps=self.eps, **options)

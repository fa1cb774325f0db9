"""Gradient descent with momentum."""

from autograd import kernels
from tinyllm.training.optimizers.optimizer import Optimizer, in_pieces


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


class SGD(Optimizer):
    """Gradient descent with momentum."""

    state_names = ("velocity",)

    def __init__(self, store, lr=1e-2, momentum=0.9, weight_decay=0.0):
        super().__init__(store, lr, weight_decay)
        self.momentum = momentum

    def rule(self, p, g, velocity, weight_decay):
        sgd(p, g, velocity, learning_rate=self.learning_rate, momentum=self.momentum, weight_decay=weight_decay)

"""Gradient descent with momentum."""

from autograd import kernels
from tinyllm.training.optimizers.optimizer import Optimizer, in_pieces


@kernels.rule
@in_pieces
def sgd(p, g, velocity, *, learning_rate, momentum, nesterov, weight_decay):
    """One step of gradient descent with momentum, in place (Sutskever et al. 2013, as PyTorch writes it).

    d = g + λ p;  velocity <- μ velocity + d
    p <- p - lr velocity;  with Nesterov's look ahead (their equation 7)  p <- p - lr (d + μ velocity)
    """
    d = g + weight_decay * p if weight_decay else g
    velocity *= momentum
    velocity += d
    p -= learning_rate * (d + momentum * velocity if nesterov else velocity)


class SGD(Optimizer):
    """Gradient descent with momentum, by Nesterov's rule if asked. The decay is part of the gradient."""

    state_names = ("velocity",)

    def __init__(self, store, lr=1e-2, momentum=0.9, nesterov=False, weight_decay=0.0, groups=None):
        super().__init__(store, lr, weight_decay, groups)
        self.momentum, self.nesterov = momentum, nesterov

    def rule(self, p, g, velocity, **options):
        sgd(p, g, velocity, momentum=self.momentum, nesterov=self.nesterov, **options)

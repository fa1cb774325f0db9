"""Lion: the sign of a momentum."""

from autograd import kernels
from autograd.arrays import xp_of
from tinyllm.training.optimizers.optimizer import Optimizer, in_pieces


@kernels.rule
@in_pieces
def lion(p, g, m, *, learning_rate, betas, weight_decay):
    """One Lion step, in place (Chen et al. 2023, algorithm 2). The sign of 0 is 0.

    c = β1 m + (1 - β1) g;  p <- p - lr (sign c + λ p);  m <- β2 m + (1 - β2) g
    """
    beta1, beta2 = betas
    c = beta1 * m
    c += (1 - beta1) * g
    if weight_decay:
        p *= 1 - learning_rate * weight_decay
    p -= learning_rate * xp_of(c).sign(c)
    m *= beta2
    m += (1 - beta2) * g


class Lion(Optimizer):
    """Every weight moves by the learning rate, up or down; one array of state where AdamW has two.

    It wants a learning rate 3 to 10 times smaller than AdamW's and a weight decay as many times larger (section 5 of
    the paper): with λ lr as it was, weights settle at the same size.
    """

    state_names = ("m",)

    def __init__(self, store, lr=1e-4, betas=(0.9, 0.99), weight_decay=0.0, groups=None):
        super().__init__(store, lr, weight_decay, groups)
        self.betas = tuple(betas)

    def rule(self, p, g, m, **options):
        lion(p, g, m, betas=self.betas, **options)

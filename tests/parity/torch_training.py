"""A training loop in PyTorch with its own optimizers and clipping, to hold ours against."""

import pytest

torch = pytest.importorskip("torch")


class TorchTraining:
    """weights: dict name -> leaf tensor; loss(weights, inputs, targets) -> tensor; optimizer: made from `groups`.

    Those are matrices and the rest, each a list of (name, parameter) pairs.
    """

    def __init__(self, weights, loss, make_optimizer, *, weight_decay, clip):
        self.weights, self.loss, self.clip = weights, loss, clip
        groups = [
            {"params": [(name, p) for name, p in weights.items() if p.dim() >= 2], "weight_decay": weight_decay},
            {"params": [(name, p) for name, p in weights.items() if p.dim() < 2], "weight_decay": 0.0},
        ]
        self.optimizer = make_optimizer(groups)

    def step(self, inputs, targets, learning_rate):
        """One update; returns the loss before it and the gradient's norm before clipping."""
        self.optimizer.zero_grad()
        loss = self.loss(self.weights, inputs, targets)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.weights.values(), self.clip)
        self.follow(learning_rate)
        return loss.item(), norm.item()

    def follow(self, learning_rate):
        """The update by the gradients that the weights have."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()

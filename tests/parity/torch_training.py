"""A training loop in PyTorch with its own optimizers and clipping, to hold ours against."""

import pytest

torch = pytest.importorskip("torch")


class TorchTraining:
    """weights: dict name -> leaf tensor; loss(weights, inputs, targets) -> tensor; optimizer: made from `groups`."""

    def __init__(self, weights, loss, make_optimizer, *, weight_decay, clip):
        self.weights, self.loss, self.clip = weights, loss, clip
        groups = [
            {"params": [p for p in weights.values() if p.dim() >= 2], "weight_decay": weight_decay},
            {"params": [p for p in weights.values() if p.dim() < 2], "weight_decay": 0.0},
        ]
        self.optimizer = make_optimizer(groups)

    def step(self, inputs, targets, learning_rate):
        """One update; returns the loss before it and the gradient's norm before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad()
        loss = self.loss(self.weights, inputs, targets)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.weights.values(), self.clip)
        self.optimizer.step()
        return loss.item(), norm.item()

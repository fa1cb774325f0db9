"""Mixed precision: which dtype activations have, and the scale that keeps small float16 gradients from vanishing."""

import numpy as np

from tinyllm.errors import UserError


def activation_dtype(precision, weights=np.float32):
    """The dtype of activations and of the weights that products read; None for the weights' own.

    Weights themselves, their gradients and the optimizer's state stay in float32: an update of a thousandth of a weight
    would be rounded away in half precision.
    """
    if precision == "fp32":
        return None
    if weights != np.float32:
        raise UserError(f"{precision} is for float32 weights, and this model's are {weights}; train them with fp32")
    if precision == "fp16":
        return np.dtype(np.float16)
    try:
        import ml_dtypes
    except ImportError:
        raise UserError('bf16 needs a NumPy with bfloat16: pip install "tinyllm[bf16]", or choose fp32') from None
    return np.dtype(ml_dtypes.bfloat16)


LARGEST = float(np.finfo(np.float32).max)


class LossScaler:
    """Dynamic loss scaling for float16 (Micikevicius et al. 2018, section 3.2), with the constants of PyTorch's.

    float16 has no numbers below 6e-8, where many gradients lie. So the loss, and with it every gradient, is multiplied
    by `scale`, and the finished gradient divided by it. Too large a scale overflows: then the whole step is skipped and
    the scale halved. After `interval` good steps in a row it is doubled. The scale is a power of two, so that it
    rounds nothing.

    active: False for precisions that need none; then the scale is 1 and stays 1.
    """

    growth, backoff = 2.0, 0.5

    def __init__(self, active=True, scale=2.0**16, interval=2000):
        self.active, self.interval = active, interval
        self.scale = scale if active else 1.0
        self.good_steps = 0
        """Since the scale was changed last."""

    def update(self, overflow):
        """After each step: overflow, whether a gradient was infinite or NaN."""
        if not self.active:
            return
        if overflow:
            self.scale *= self.backoff
            self.good_steps = 0
            return
        self.good_steps += 1
        if self.good_steps == self.interval:
            grown = self.scale * self.growth
            self.scale = grown if grown <= LARGEST else self.scale
            self.good_steps = 0

    def state(self):
        return {"scale": self.scale, "good_steps": self.good_steps}

    def load_state(self, numbers):
        if self.active:
            self.scale, self.good_steps = float(numbers["scale"]), int(numbers["good_steps"])

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

    active: False for precisions that need none; then the scale is 1 and stays 1. exhausted: whether an overflow is one
    more than there is a remedy for.
    """

    growth, backoff = 2.0, 0.5
    exhausted = False

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
            self.grow()
            self.good_steps = 0

    def grow(self):
        grown = self.scale * self.growth
        self.scale = grown if grown <= LARGEST else self.scale

    def state(self):
        return {"scale": self.scale, "good_steps": self.good_steps}

    def load_state(self, numbers):
        if self.active:
            self.scale, self.good_steps = float(numbers["scale"]), int(numbers["good_steps"])


class PatientLossScaler(LossScaler):
    """Dynamic loss scaling as DeepSpeed has it: an overflow first costs patience, then scale, down to a least one.

    With the hysteresis H, of which h is left (H at first), the interval W, the least scale L, and n, 0 at first:

    overflow    n <- 0;  h <- h - 1 if h > 1, else s <- max(s / 2, L)
    good step   n <- n + 1;  if n = W + 1: s <- 2 s, h <- H, n <- 1

    So the first good step after an overflow does not count. Patience stays at 1 once it is used up, until the scale
    grows. consecutive: every good step gives it back, so that it takes H overflows in a row. An overflow at the least
    scale with no patience left is an error, which the loop raises: `exhausted` says that the next would be one.
    """

    def __init__(self, scale=2.0**16, interval=1000, hysteresis=2, consecutive=False, least=1.0):
        super().__init__(scale=scale, interval=interval)
        self.hysteresis, self.consecutive, self.least = hysteresis, consecutive, least
        self.patience = hysteresis

    @property
    def exhausted(self):
        return self.patience == 1 and self.scale == self.least

    def update(self, overflow):
        if overflow:
            self.good_steps = 0
            if self.patience > 1:
                self.patience -= 1
            else:
                self.scale = max(self.scale * self.backoff, self.least)
            return
        self.good_steps += 1
        grows = self.good_steps == self.interval + 1
        if grows:
            self.grow()
            self.good_steps = 1
        if grows or self.consecutive:
            self.patience = self.hysteresis

    def state(self):
        return super().state() | {"patience": self.patience}

    def load_state(self, numbers):
        super().load_state(numbers)
        self.patience = int(numbers["patience"])


class FixedLossScale(LossScaler):
    """A scale that was chosen and stays. A step that overflows is skipped."""

    def update(self, overflow):
        """Nothing changes."""


def make_scaler(config):
    """The loss scaler that a TrainingConfig names."""
    if config.precision != "fp16":
        return LossScaler(active=False)
    options = config.loss_scaling_options()
    if config.loss_scaling == "fixed":
        return FixedLossScale(scale=float(options["loss_scale"]))
    scale, interval = 2.0 ** options["initial_scale_power"], options["loss_scale_window"]
    if config.loss_scaling == "patient":
        patience = {"hysteresis": options["hysteresis"], "consecutive": options["consecutive_hysteresis"]}
        return PatientLossScaler(scale, interval, **patience, least=float(options["min_loss_scale"]))
    return LossScaler(scale=scale, interval=interval)

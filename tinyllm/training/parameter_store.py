"""All trainable parameters in one contiguous array, their gradients in a second.

Then an optimizer step is one pass over flat memory, the gradient norm is one reduction, and a checkpoint is a few
large writes. Each parameter's `.data` and gradient buffer become views into the two; the model does not notice.
"""

import contextlib
import dataclasses

from autograd import kernels
from autograd.arrays import xp_of, zeros_from_a_line

ALIGNMENT = 64  # elements; every parameter starts at a multiple, the padding between stays zero


def is_matrix(name, tensor):
    return tensor.ndim >= 2


def is_hidden_matrix(name, tensor):
    """A map from hidden states to hidden states: a matrix in a block; not an embedding, table of positions or head."""
    return tensor.ndim == 2 and name.startswith("blocks.")


DEFAULT_GROUPS = {"decay": is_matrix, "no_decay": lambda name, tensor: True}
HIDDEN_GROUPS = {"hidden": is_hidden_matrix, **DEFAULT_GROUPS}
"""For Muon."""


@kernels.rule
def sum_of_squares(x):
    """Σ x_i² of a flat array."""
    return xp_of(x).dot(x, x)


@kernels.rule
def scale(x, *, factor):
    """x <- factor x, in place."""
    x *= factor


@dataclasses.dataclass(frozen=True)
class Place:
    """Where one parameter lies: store[start:stop] in this shape."""

    group: str
    start: int
    stop: int
    shape: tuple

    @property
    def end(self):
        """Where the next parameter begins: behind the padding."""
        return -(-self.stop // ALIGNMENT) * ALIGNMENT

    def view(self, flat):
        """The parameter's part of a flat array as long as the store."""
        return flat[self.start : self.stop].reshape(self.shape)


class ParameterStore:
    """Lays parameters side by side: by group, within a group in model order.

    parameters: a Module, or a dict name -> Tensor. groups: dict name -> predicate (name, tensor) -> bool, first match
    wins; by default matrices ("decay") and everything else ("no_decay"). Make it once, after freezing and `.to()`.

    values, gradients: the two flat arrays. groups: dict group -> slice. places: dict name -> Place.
    """

    def __init__(self, parameters, groups=None):
        if not isinstance(parameters, dict):
            parameters = parameters.parameters()
        self.parameters = {name: p for name, p in parameters.items() if p.requires_grad}
        if not self.parameters:
            raise ValueError("ParameterStore: nothing to train; no parameter requires a gradient")
        dtypes = {str(p.dtype) for p in self.parameters.values()}
        if len(dtypes) > 1:
            raise ValueError(
                f"ParameterStore: trainable parameters must share one dtype, not {', '.join(sorted(dtypes))}"
            )
        self.lay_out(groups or DEFAULT_GROUPS)
        first = next(iter(self.parameters.values())).data
        self.xp = xp_of(first)
        self.hold_weights(first)
        self.hold_gradients(first)

    def lay_out(self, groups):
        """Decide where everything lies: fills places, groups and size."""
        self.places, self.groups, start = {}, {}, 0
        for group, belongs in groups.items():
            begin = start
            for name, p in self.parameters.items():
                if name not in self.places and belongs(name, p):
                    self.places[name] = Place(group, start, start + p.size, p.shape)
                    start = self.places[name].end
            self.groups[group] = slice(begin, start)
        if left_out := [name for name in self.parameters if name not in self.places]:
            raise ValueError(f"ParameterStore: no group takes {', '.join(left_out)}; add one whose predicate does")
        self.size = start

    def hold_weights(self, like):
        """Move the parameters into one flat array. like: an array of the kind and dtype that it has."""
        self.values, self.views = zeros_from_a_line(self.size, like), {}
        for name, p in self.parameters.items():
            view = self.places[name].view(self.values)
            view[...] = p.data
            p.data = self.views[name] = view

    def hold_gradients(self, like):
        """Make the flat array that gradients are written into."""
        self.gradients = zeros_from_a_line(self.size, like)
        for name, p in self.parameters.items():
            p.buffer, p.grad = self.places[name].view(self.gradients), None

    @property
    def part(self):
        """What this process's optimizer updates: here all of it. Where ranks share the work, one rank's part."""
        return self

    def layout(self):
        """dict group -> [start, stop]: in which order parameters lie, and so what each number of a state is for."""
        return {group: [where.start, where.stop] for group, where in self.groups.items()}

    def place_at(self, name, start):
        """The Place of a parameter in an array where it begins at `start`."""
        place = self.places[name]
        return dataclasses.replace(place, start=start, stop=start + place.stop - place.start)

    def backward(self, loss, seed, last=True):
        """Add the gradient of a loss. seed: dL/dloss; last: it is the last piece of a batch.

        Where there are several ranks they exchange gradients meanwhile.
        """
        loss.backward(seed)

    def publish(self):
        """After the optimizer's step: let other ranks have what this one has updated."""

    def whole(self):
        """`with store.whole():` every parameter's `.data` is its weights, to be read and filled, wherever they lie."""
        return contextlib.nullcontext()

    def gathered(self):
        """`with store.gathered():` the model is about to be called many times: weights used in each call are kept."""
        return contextlib.nullcontext()

    def alone(self):
        """`with store.alone():` nothing is exchanged with other ranks: a look at this one's share of a gradient."""
        return contextlib.nullcontext()

    def check_bound(self, name):
        """RuntimeError if a parameter's array is no longer the one that the store gave it."""
        if self.parameters[name].data is not self.views[name]:
            raise RuntimeError(
                f"{name}.data was rebound to another array, which the optimizer does not see; "
                "fill it in place instead: tensor.data[...] = values"
            )

    def collect(self, names=None):
        """Make `gradients` whole before it is read: what received none is zero. Also checks that the views stand.

        names: of which parameters; of all unless given.
        """
        for name in self.parameters if names is None else names:
            p = self.parameters[name]
            self.check_bound(name)
            if p.grad is None:
                p.buffer[...] = 0
            elif p.grad is not p.buffer:
                p.buffer[...] = p.grad
            p.grad = p.buffer

    def zero(self):
        """Forget the gradients; the next backward writes over them."""
        for p in self.parameters.values():
            p.grad = None

    def unscale(self, loss_scale):
        """Divide the gradient by what the loss was multiplied with."""
        self.collect()
        if loss_scale != 1:
            scale(self.part.gradients, factor=1 / loss_scale)

    def is_finite(self):
        """Whether every entry of the gradient is a number."""
        self.collect()
        return bool(self.xp.isfinite(self.gradients).all())

    def norm(self):
        """Euclidean norm of the whole gradient, as a Python float."""
        self.collect()
        return float(self.xp.sqrt(sum_of_squares(self.gradients)))

    def clip(self, max_norm, norm=None):
        """Scale the gradient so that its norm is at most max_norm; returns the norm before.

        norm: what `norm()` has returned, if that is known already. The factor is max_norm / (norm + 1e-6), as PyTorch
        computes it (Pascanu et al. 2013).
        """
        norm = self.norm() if norm is None else norm
        factor = max_norm / (norm + 1e-6)
        if factor < 1:
            scale(self.part.gradients, factor=factor)
        return norm

    def weights(self):
        """dict name -> array (views): what a checkpoint holds. Called by all ranks, where there are several."""
        return dict(self.views)

"""A layer is a plain object: its parameters are attributes, found by walking over them."""

import contextlib

import autograd as ag
from autograd import arrays
from tinyllm.errors import UserError


class Module:
    """Base of all layers. Subclasses set Tensors, Modules and lists of Modules as attributes and define `forward`.

    The dotted path of a parameter (`blocks.0.attention.query.weight`) is its name everywhere: in optimizer state,
    checkpoints, errors. There is no train/eval mode: what a call does depends on its arguments only.
    """

    name = ""  # the last part of the path, set by the model that owns this layer

    def __call__(self, *inputs, **options):
        with ag.scope(self.name) if self.name else contextlib.nullcontext():
            return self.forward(*inputs, **options)

    def children(self):
        """(name, layer) for every layer held directly, entries of lists as `blocks.0`."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, list):
                yield from ((f"{name}.{i}", layer) for i, layer in enumerate(value) if isinstance(layer, Module))

    def named_tensors(self, prefix=""):
        """(path, Tensor) for every parameter in model order, a tied one under each of its names."""
        for name, value in vars(self).items():
            if isinstance(value, ag.Tensor):
                yield prefix + name, value
        for name, layer in self.children():
            yield from layer.named_tensors(f"{prefix}{name}.")

    def parameters(self):
        """dict path -> Tensor; a tied tensor stands once, under its first name."""
        first = {}
        for path, tensor in self.named_tensors():
            first.setdefault(id(tensor), (path, tensor))
        return dict(first.values())

    def tied(self):
        """dict second name -> first name, for tensors that stand in several places."""
        first, names = {}, {}
        for path, tensor in self.named_tensors():
            if first.setdefault(id(tensor), path) != path:
                names[path] = first[id(tensor)]
        return names

    def num_parameters(self):
        """How many numbers are trained, tied ones counted once."""
        return sum(tensor.size for tensor in self.parameters().values())

    def to(self, device):
        """Move every parameter to "cpu" or "cuda", in place; before a ParameterStore is made of them."""
        for path, tensor in self.parameters().items():
            if tensor.buffer is not None:
                raise ValueError(f"to({device!r}): {path} lies in a ParameterStore already; move the model first")
            tensor.data, tensor.grad = arrays.to_device(tensor.data, device), None
        return self

    def load_weights(self, weights):
        """Fill every parameter from a dict path -> array, casting to its dtype. All of them or, on an error, none."""
        parameters, tied = self.parameters(), self.tied()
        missing = [f"missing {name} {list(t.shape)}" for name, t in parameters.items() if name not in weights]
        unexpected = [
            f"unexpected {name} {list(array.shape)}"
            for name, array in weights.items()
            if name not in parameters and name not in tied
        ]
        misfits = [
            f"{name} is {list(weights[name].shape)}, the model's is {list(t.shape)}"
            for name, t in parameters.items()
            if name in weights and weights[name].shape != t.shape
        ]
        if wrong := missing + unexpected + misfits:
            shown = "; ".join(wrong[:6]) + (f"; and {len(wrong) - 6} more" if len(wrong) > 6 else "")
            raise UserError(f"these weights are not this model's: {shown}")
        for name, tensor in parameters.items():
            tensor.data[...] = arrays.xp_of(tensor.data).asarray(weights[name])


def name_layers(module):
    """Tell every layer below its own name, so that errors carry the path."""
    for name, layer in module.children():
        layer.name = name
        name_layers(layer)

"""What is switched on in this thread: recording, kernels, the layer path. One object, one place to look."""

import functools
import threading


class Context(threading.local):
    """Class attributes are the process's defaults; what a `with` block sets holds in its own thread only.

    A server that generates under `no_grad` must not stop a trainer's thread from recording.

    run, record and pull are the three things that the engine does with an op. A mode of `autograd.debug` puts its own
    function around one of them and looks on; when no mode is on, nothing asks for one.
    """

    recording = True  # do ops build the graph?
    kernels = ()  # names of backends, tried in order before the reference
    path = ()  # names of the layers we are inside of
    collecting = None  # dict of leaves that `recompute` gathers in its first pass
    needs = ()  # which inputs of the op that is running want a gradient
    run = record = pull = None  # how an op is run, a node made, a gradient pulled back: `engine.py` sets them once

    def set(self, **values):
        """Set attributes for the length of a `with` block."""
        return Setting(self, values)


class Setting:
    """What `with context.set(…)` enters and leaves. Every layer does, so it is no generator, which takes longer."""

    __slots__ = ("before", "context", "values")

    def __init__(self, context, values):
        self.context, self.values = context, values

    def __enter__(self):
        self.before = {name: getattr(self.context, name) for name in self.values}
        self.context.__dict__.update(self.values)

    def __exit__(self, *error):
        self.context.__dict__.update(self.before)

    def __call__(self, function):
        """As a decorator, `@no_grad()`: set anew in each call."""

        @functools.wraps(function)
        def within(*arguments, **options):
            with Setting(self.context, self.values):
                return function(*arguments, **options)

        return within


context = Context()


def no_grad():
    """`with no_grad():` ops compute, nothing is recorded and nothing is saved."""
    return context.set(recording=False)


def scope(name):
    """`with scope("attention"):` names what runs inside; errors carry the dotted path."""
    return context.set(path=(*context.path, name))


def needs():
    """Inside a primitive's body: a tuple of bools, one per positional argument, True where a gradient is wanted.

    All False under `no_grad`. For fused ops that would otherwise compute gradients in vain.
    """
    return context.needs

"""How tensors and graphs show themselves in a notebook: `operators.py` hangs these on Tensor and Node."""

from html import escape

import numpy as np

from autograd.debug.drawing.boxes import gather
from autograd.debug.drawing.svg import render
from autograd.engine import describe

LARGEST = 200  # boxes that a notebook draws unasked


def tensor_html(tensor):
    """What a tensor is, where it comes from and its values, the middle of large ones left out; arrays of any device."""
    node = tensor.node
    origin = f"from {node.name}" if node else "leaf" if tensor.requires_grad else "constant"
    facts = [describe(tensor), origin]
    if node and node.path:
        facts.append(f"layer {'.'.join(node.path)}")
    if tensor.requires_grad:
        facts.append("requires_grad")
    if tensor.grad is not None:
        facts.append("has a gradient")
    values = np.array2string(tensor.numpy(), threshold=100, precision=4)
    title = " · ".join(f"<b>{escape(fact)}</b>" if i == 0 else escape(fact) for i, fact in enumerate(facts))
    shown = f'<pre style="font-family: monospace">{escape(values)}</pre>'
    return f'<div class="autograd-tensor"><code>Tensor</code> {title}{shown}</div>'


def node_svg(node):
    """The graph of a node, drawn as `draw` does, or None, and a notebook shows plain text.

    None after backward, which frees the graph, and for more boxes than anybody wants to see without having asked.
    """
    try:
        frame = gather(node, None)
    except RuntimeError:
        return None
    return render(frame) if len(frame.boxes()) <= LARGEST else None

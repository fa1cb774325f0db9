"""A loss that is NaN, a gradient that is wrong, memory that runs out: five ways to look inside a graph.

Each part makes a mistake that people make, and lets `ag.debug` say what it was. Read the printed messages beside the
lines that caused them. Needs NumPy. A second.
"""

import tempfile
from pathlib import Path

import numpy as np

import autograd as ag

rng = np.random.default_rng(0)
np.seterr(all="ignore")  # NumPy's own warnings say that it happened, not where

##### 1. NaN in forward: the logarithm of a probability that was rounded to zero.

logits = ag.Tensor(np.array([[120.0, -3.0, 1.0]], np.float32), requires_grad=True)


def surprise(logits):
    p = ag.softmax(logits)
    return -ag.log(p)[0, 1]  # the second token was the right one


try:
    with ag.debug.first_nan():
        surprise(logits).backward()
except ag.debug.NonFinite as error:
    print(f"1. {error}\n")

# exp(-123) is no float32. Never taking the logarithm of a rounded number, log_softmax has the answer:
print(f"   with log_softmax: {(-ag.log_softmax(logits))[0, 1].item():.1f}\n")

##### 2. NaN in backward only: the length of a vector that is zero. The loss looks fine.

x = ag.Tensor(np.zeros((2, 3)), requires_grad=True)


def lengths(x):
    return ag.sqrt((x * x).sum(axis=1))


loss = lengths(x).sum()
loss.backward()
print(f"2. the loss is {loss.item()}, the gradient {x.grad[0]}")
try:
    with ag.debug.first_nan():
        lengths(x).sum().backward()
except ag.debug.NonFinite as error:
    print(f"   {error}\n")

##### 3. A gradient of nothing: an update between forward and backward.

w = ag.Tensor(rng.normal(size=(3, 2)), requires_grad=True)
batch = ag.Tensor(rng.normal(size=(4, 2)), requires_grad=True)
try:
    with ag.debug.guard():
        loss = (ag.linear(batch, w) ** 2).sum()
        w.data -= 0.1  # too early
        loss.backward()
except ag.debug.Overwritten as error:
    print(f"3. {error}\n")

##### 4. Memory: what a feed-forward layer keeps for backward, and what it keeps when told to compute that again.

up, down = (
    ag.Tensor(0.1 * rng.normal(size=shape).astype(np.float32), requires_grad=True) for shape in ((256, 64), (64, 256))
)
x = ag.Tensor(rng.normal(size=(512, 64)).astype(np.float32), requires_grad=True)


def feed_forward(x):
    return ag.linear(ag.gelu(ag.linear(x, up)), down)


with ag.debug.ledger() as memory:
    feed_forward(x).sum().backward()
print(f"4. {memory}\n")
with ag.debug.ledger() as memory:
    ag.recompute(feed_forward, x).sum().backward()
print(f"   with recompute: {memory.bytes:,} bytes kept, {memory.transient:,} more at the peak, {memory.where}\n")

##### 5. The graph itself, as a picture.


def attention(q, k, v):
    scores = ag.matmul(q, ag.transpose(k, axes=(0, 1, 3, 2))) / 8
    return ag.matmul(ag.softmax(scores), v)


q, k, v = (ag.Tensor(rng.normal(size=(1, 4, 16, 64)), requires_grad=True) for _ in range(3))
drawing = ag.debug.draw(attention(q, k, v))
drawing.save(Path(tempfile.gettempdir()) / "attention.svg")
print(f"5. open {Path(tempfile.gettempdir()) / 'attention.svg'} in a browser")

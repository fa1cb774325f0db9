"""An op of your own, and the proof that its gradient is right.

The op is the soft cap that some models put on their logits: y = c tanh(x / c), nearly x when x is small and never
beyond c. You see it proven as a formula, as an op, and on inputs that hypothesis thinks up; then three mistakes and
the message each one gets. Needs NumPy, and hypothesis for the third proof. A few seconds.
"""

import numpy as np
from hypothesis import given, settings

import autograd as ag
from autograd.testing import arrays, check_gradient, check_primitive, check_vjp

##### 1. A formula. No Tensor, no op: two array functions, forward and pullback.


def softcap_forward(x):
    return 30 * np.tanh(x / 30)


def softcap_vjp(dy, x):
    return dy * (1 - np.tanh(x / 30) ** 2)


x = np.array([[-50.0, -1.0, 0.0], [2.0, 29.0, 300.0]])
check_vjp(softcap_forward, softcap_vjp, x)
print("proven: the formula")

##### 2. An op. Forward and pullback share what they both need; what the pullback names is saved.


@ag.primitive
def softcap(x, *, cap=30.0):
    """Limit smoothly to (-cap, cap).

    Equation   y = c tanh(x / c)
    Shapes     x, y (...)
    Gradient   dx = dy (1 - tanh²(x / c))
    Saves      t (tanh(x / c))
    """
    t = np.tanh(x / cap)
    y = cap * t

    def vjp(dy):
        # y = c tanh(x / c): the c outside and the 1/c inside cancel
        return (dy * (1 - t * t),)

    return y, vjp


check_primitive(softcap, x)
check_primitive(softcap, x.astype(np.float32), cap=5.0)
print("proven: the op; it keeps dtypes, writes into nothing, and is linear in dy")

# It takes part in everything, at once: here between a matrix product and a loss.
check_gradient(lambda x, w: ag.cross_entropy(softcap(x @ w), np.array([0, 1])), x, np.ones((3, 4)))
print("proven: a loss that uses it")

##### 3. Inputs nobody would write down: strange strides, ties, tiny and huge numbers, no axes at all.

tried = []


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(arrays())
def prove(x):
    check_primitive(softcap, x)
    tried.append(x.shape)


prove()
print(f"proven: {len(tried)} arrays of {len(set(tried))} shapes\n")

##### 4. Mistakes


@ag.primitive
def forgets_the_cap(x, *, cap=30.0):
    y = cap * np.tanh(x / cap)

    def vjp(dy):
        return (dy * (1 - y * y),)  # tanh's own derivative, but y is c tanh(x / c)

    return y, vjp


@ag.primitive
def one_in_a_thousand(x, *, cap=30.0):
    t = np.tanh(x / cap)
    y = cap * t

    def vjp(dy):
        return (dy * (1 - t * t) * 1.001,)  # a loss would go down all the same

    return y, vjp


@ag.primitive
def writes_into_dy(x, *, cap=30.0):
    t = np.tanh(x / cap)
    y = cap * t

    def vjp(dy):
        dy *= 1 - t * t  # dy may be on its way to another op, too
        return (dy,)

    return y, vjp


for wrong in (forgets_the_cap, one_in_a_thousand, writes_into_dy):
    try:
        check_primitive(wrong, x)
    except AssertionError as error:
        print(f"caught: {error}\n")
    else:
        raise SystemExit(f"{wrong.name} was not caught")

"""Backpropagation one number at a time.

One neuron with one input, a loss, and every derivative three times: by the chain rule, written out by hand; from the
engine; and by nudging the number and looking. The weight is used twice, so two gradients arrive at it and are summed.
Then a few steps downhill. Needs only NumPy. Takes a moment.
"""

import math

import autograd as ag


def neuron(x, w, b, target):
    """How far the neuron is from its target, and a small price for a large weight."""
    z = w * x + b
    y = ag.tanh(z)
    error = y - target
    return error * error + 0.1 * w * w  # w is used here again


numbers = {"x": 0.5, "w": 0.8, "b": -0.1, "target": 1.0}

##### Forward, by hand

x, w, b, target = numbers.values()
z = w * x + b
y = math.tanh(z)
error = y - target
fit = error * error
price = 0.1 * w * w
loss = fit + price

print("forward")
print(f"  z     = w x + b      = {w} * {x} + {b} = {z:.4f}")
print(f"  y     = tanh(z)      = {y:.4f}")
print(f"  error = y - target   = {y:.4f} - {target} = {error:.4f}")
print(f"  fit   = error^2      = {fit:.4f}")
print(f"  price = 0.1 w^2      = {price:.4f}")
print(f"  loss  = fit + price  = {loss:.4f}")

##### Backward, by hand: the same lines from the last to the first. dz is short for d loss / dz.

# loss = fit + price
dfit = 1.0
dprice = 1.0
# price = 0.1 w²
dw_price = dprice * 0.2 * w
# fit = error²
derror = dfit * 2 * error
# error = y - target
dy = derror
dtarget = -derror
# y = tanh(z)
dz = dy * (1 - y * y)
# z = w x + b
dw_z = dz * x
dx = dz * w
db = dz
# w was used twice: what arrives is summed
dw = dw_z + dw_price

print("\nbackward")
print(f"  derror  = 2 error           = {derror:8.4f}")
print(f"  dy      = derror            = {dy:8.4f}")
print(f"  dtarget = -derror           = {dtarget:8.4f}")
print(f"  dz      = dy (1 - y^2)      = {dy:.4f} * (1 - {y:.4f}^2) = {dz:.4f}")
print(f"  dx      = dz w              = {dx:8.4f}")
print(f"  db      = dz                = {db:8.4f}")
print(f"  dw      = dz x + 0.2 w      = {dw_z:.4f} + {dw_price:.4f} = {dw:.4f}   (two uses)")

##### The same from the engine, and by nudging

leaves = {name: ag.Tensor(value, requires_grad=True) for name, value in numbers.items()}
neuron(**leaves).backward()


def nudged(name, h=1e-6):
    """(loss(number + h) - loss(number - h)) / 2h: what a derivative means."""
    up, down = (neuron(**{**numbers, name: numbers[name] + step}).item() for step in (h, -h))
    return (up - down) / (2 * h)


print("\n            by hand    engine     nudged")
for name, by_hand in {"x": dx, "w": dw, "b": db, "target": dtarget}.items():
    engine = leaves[name].grad.item()
    print(f"  d{name:8}{by_hand:9.6f}{engine:11.6f}{nudged(name):11.6f}")
    assert math.isclose(by_hand, engine, rel_tol=1e-12)
    assert math.isclose(by_hand, nudged(name), rel_tol=1e-6)

##### What gradients are for: a step against each makes the loss smaller

print("\nten steps downhill, moving w and b")
w, b = ag.Tensor(numbers["w"], requires_grad=True), ag.Tensor(numbers["b"], requires_grad=True)
for step in range(11):
    loss = neuron(x, w, b, target)
    loss.backward()
    print(f"  step {step:2}   w {w.item():.4f}   b {b.item():7.4f}   loss {loss.item():.4f}")
    for leaf in (w, b):
        leaf.data -= 0.5 * leaf.grad
        leaf.grad = None

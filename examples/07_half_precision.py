"""Training in sixteen bits: what goes wrong, and the three things that cure it.

Half the memory, and products several times as fast where the processor has them. But float16 has eleven bits of
precision and ends at 65504. Each part loses something in float16 and gets it back. Needs NumPy. A second.
"""

import numpy as np

import autograd as ag
from tinyllm.training.precision import LossScaler

half, single = np.float16, np.float32
np.seterr(over="ignore")  # overflow is the subject here

##### 1. Steps between numbers grow with the numbers, and there is an end to them.

for x in (1.0, 1000.0, 60000.0):
    print(f"1. after {x:>5.0f} comes {float(np.nextafter(half(x), half(np.inf))):.10g}")
smallest = float(np.nextafter(half(0), half(1)))
print(f"   the smallest number is {smallest:.1e}; twice 65504 is {half(65504) * half(2)}")

##### 2. An update is lost when the weight is much larger. Cure: keep the weight in float32, round a copy of it.

weight, master = half(1.0), single(1.0)
for _ in range(1000):
    weight += half(1e-4)  # half of the step after 1 is 0.0005: rounds back to 1, a thousand times
    master += single(1e-4)
print(f"2. 1 + 1000 times 0.0001: in float16 {weight}, in float32 {master:.4f}, rounded once at the end {half(master)}")

##### 3. A sum is lost when it is long. Cure: multiply in halves, add up in float32, round once. So does every product.

x = np.full(10_000, half(0.1))
total = half(0)
for value in x:
    total += value
row = ag.Tensor(x[None])
product = ag.matmul(row, ag.Tensor(np.ones((10_000, 1), half))).item()
print(f"3. 10,000 times 0.1: added up in float16 {total}, in a product {product}")  # 0.1 is 0.09998 in float16

##### 4. A small gradient is rounded to zero. Cure: multiply the loss by a large number, divide the gradient by it.


def gradient(scale):
    """dL/dw of L = 1e-8 Σ w x, computed in float16 on the way, for a float32 weight w."""
    w = ag.Tensor(np.ones(4, single), requires_grad=True)
    x = ag.Tensor(np.arange(1, 5, dtype=half))
    loss = (ag.cast(w, dtype=half) * x).sum()
    loss.backward(half(1e-8 * scale))  # dL/dloss; 1e-8 is no float16
    return w.grad / single(scale)


print(f"4. the gradient is {gradient(1)}, with the loss times 65536 {gradient(2.0**16)}")
assert np.allclose(gradient(2.0**16), 1e-8 * np.arange(1, 5), rtol=1e-3)

##### 5. How large? As large as does not overflow, found by trying: halved when it was too much, doubled now and then.

scaler, true_gradient, w, followed = LossScaler(scale=2.0**20, interval=4), 0.5, 1.0, 0
for step in range(12):
    scaled = half(true_gradient * scaler.scale)
    overflow = not np.isfinite(scaled)
    print(f"5. step {step:2}  scale {scaler.scale:>9,.0f}  gradient {float(scaled):>7}", end="  ")
    if overflow:
        print("skipped: nothing has changed but the scale")
    else:
        w -= 0.1 * float(scaled) / scaler.scale
        followed += 1
        print(f"w {w:.2f}")
    scaler.update(overflow)
assert np.isclose(w, 1 - 0.1 * true_gradient * followed)

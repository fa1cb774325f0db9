"""The backward of attention, every number on a line of its own.

Three tokens, vectors of two numbers, causal. Each line printed is a formula with the numbers in it: first the forward,
then dv, dp, ds, dq and dk. At the end all of it is compared with ag.attention. docs/attention.md derives the formulas.
Needs only NumPy. Takes a moment.
"""

import math

import numpy as np

import autograd as ag

T, D = 3, 2
q = np.array([[1.0, 0.0], [0.5, 1.0], [-1.0, 2.0]])
k = np.array([[1.0, 1.0], [0.0, 2.0], [1.0, -1.0]])
v = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, -1.0]])
dy = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, -1.0]])  # what the loss thinks of y: given
scale = 1 / math.sqrt(D)


def table(name, formula):
    print(f"\n{name} = {formula}")


def products(name, i, j, pairs, times=None):
    """Sum the products of the pairs, times a factor; print how: `dv[0, 1] = 1.00 * 0.00 + 0.33 * 2.00 = 0.6600`."""
    formula = " + ".join(f"{a:.2f} * {b:.2f}" for a, b in pairs)
    value = sum(a * b for a, b in pairs)
    if times is not None:
        formula, value = f"({formula}) * {times:.4f}", value * times
    print(f"  {name}[{i}, {j}] = {formula} = {value:.4f}")
    return value


##### Forward

s, p, y = np.full((T, T), -math.inf), np.zeros((T, T)), np.zeros((T, D))

table("s[i, j]", "sum over d of q[i, d] k[j, d], times 1/sqrt(D); only keys j <= i may be seen")
for i in range(T):
    for j in range(i + 1):
        s[i, j] = products("s", i, j, [(q[i, d], k[j, d]) for d in range(D)], times=scale)

table("p[i, j]", "exp(s[i, j]) / sum over l of exp(s[i, l])")
for i in range(T):
    Z = sum(math.exp(s[i, l]) for l in range(i + 1))
    for j in range(i + 1):
        p[i, j] = math.exp(s[i, j]) / Z
        print(f"  p[{i}, {j}] = {math.exp(s[i, j]):.4f} / {Z:.4f} = {p[i, j]:.4f}")

table("y[i, d]", "sum over j of p[i, j] v[j, d]")
for i in range(T):
    for d in range(D):
        y[i, d] = products("y", i, d, [(p[i, j], v[j, d]) for j in range(i + 1)])

##### Backward: the same three steps from the last to the first

dv, dp, ds, dq, dk = (np.zeros((T, n)) for n in (D, T, T, D, D))

# y[i, d] = Σ_j p[i, j] v[j, d]
table("dv[j, d]", "sum over i of p[i, j] dy[i, d]: every token that looked at value j, by how much it looked")
for j in range(T):
    for d in range(D):
        dv[j, d] = products("dv", j, d, [(p[i, j], dy[i, d]) for i in range(j, T)])

table("dp[i, j]", "sum over d of dy[i, d] v[j, d]: would looking at value j more help?")
for i in range(T):
    for j in range(T):
        dp[i, j] = products("dp", i, j, [(dy[i, d], v[j, d]) for d in range(D)])

# p = softmax(s), row by row
table("ds[i, j]", "p[i, j] (dp[i, j] - sum over l of dp[i, l] p[i, l]): better or worse than the row's mean?")
for i in range(T):
    mean = sum(dp[i, l] * p[i, l] for l in range(T))
    for j in range(T):
        ds[i, j] = p[i, j] * (dp[i, j] - mean)
        why = "   (masked: p is 0, and so is this)" if j > i else "   (token 0 has no choice)" if i == 0 else ""
        print(f"  ds[{i}, {j}] = {p[i, j]:.4f} * ({dp[i, j]:.4f} - {mean:.4f}) = {ds[i, j] + 0.0:.4f}{why}")

# s[i, j] = Σ_d q[i, d] k[j, d] scale
table("dq[i, d]", "sum over j of ds[i, j] k[j, d], times 1/sqrt(D): the keys that token i looked at")
for i in range(T):
    for d in range(D):
        dq[i, d] = products("dq", i, d, [(ds[i, j], k[j, d]) for j in range(i + 1)], times=scale)

table("dk[j, d]", "sum over i of ds[i, j] q[i, d], times 1/sqrt(D): the tokens that looked at key j")
for j in range(T):
    for d in range(D):
        dk[j, d] = products("dk", j, d, [(ds[i, j], q[i, d]) for i in range(j, T)], times=scale)

##### The op: the same numbers, for any number of tokens, heads and rows

leaves = [ag.Tensor(x[None, None], requires_grad=True) for x in (q, k, v)]  # (B, H, T, D)
result = ag.attention(*leaves, causal=True)
result.backward(dy[None, None])

print("\nlargest difference from ag.attention")
theirs = [result.data, *(leaf.grad for leaf in leaves)]
for name, ours, op in zip(("y", "dq", "dk", "dv"), (y, dq, dk, dv), theirs, strict=True):
    difference = abs(op[0, 0] - ours).max()
    print(f"  {name:3} {difference:.0e}")
    assert difference < 1e-14

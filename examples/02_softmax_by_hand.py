"""Softmax and cross-entropy by hand, forward and backward.

A model gives four letters a score each; the next letter was "b". You see the scores become probabilities, the
probability of "b" become a loss, and the long way back through the logarithm and the softmax collapse into p - onehot.
Everything is then compared with the library's op and with nudged scores. Needs only NumPy. Takes a moment.
"""

import math

import numpy as np

import autograd as ag

letters = "abcd"
V = len(letters)
scores = np.array([2.0, 1.0, 0.0, -1.0])
target = letters.index("b")

##### Forward

e = np.exp(scores)
Z = e.sum()
p = e / Z
loss = -math.log(p[target])

print("forward\n        score      exp        p")
for v in range(V):
    print(f"  {letters[v]}  {scores[v]:8.4f} {e[v]:8.4f} {p[v]:8.4f}")
print(f"  sum          {Z:8.4f} {p.sum():8.4f}")
print(f"  loss = -log p[b] = -log {p[target]:.4f} = {loss:.4f} nats")

##### Backward, the long way

# loss = -log p[target]: only the target's probability is read
dp = np.zeros(V)
dp[target] = -1 / p[target]

# p_i = e_i / Z: score j moves e_j, and with Z every p.  dp_i / dscore_j = p_i (δ_ij - p_j)
jacobian = np.zeros((V, V))
for i in range(V):
    for j in range(V):
        jacobian[i, j] = p[i] * ((i == j) - p[j])

# a score moves all four probabilities: sum over them
dscores = np.zeros(V)
for j in range(V):
    dscores[j] = sum(dp[i] * jacobian[i, j] for i in range(V))

print("\nbackward, the long way")
print(f"  dp[b] = -1 / p[b] = {dp[target]:.4f}, all others 0")
print("  how p_i (row) moves with score j (column): p_i (delta_ij - p_j)")
for i in range(V):
    print(f"    {letters[i]} " + "".join(f"{jacobian[i, j]:9.4f}" for j in range(V)))
print("  each column sums to 0: what one probability gains, the others lose")

##### Backward, the short way

# dp is zero but at the target t: dscore_j = -1/p_t · p_t (δ_tj - p_j) = p_j - δ_tj
onehot = np.eye(V)[target]
short = p - onehot
print("\nbackward, the short way: p - onehot")
for v in range(V):
    print(f"  {letters[v]}  {p[v]:.4f} - {onehot[v]:.0f} = {short[v]:7.4f}   the long way {dscores[v]:7.4f}")
print('  the loss pushes "b" up by what it lacks, and each other letter down by what it took')

##### The op, and the forward alone

leaf = ag.Tensor(scores[None], requires_grad=True)  # one row of logits
ag.cross_entropy(leaf, np.array([target])).backward()
composed = ag.Tensor(scores, requires_grad=True)
(-ag.log(ag.softmax(composed)[target])).backward()


def loss_at(scores):
    return -math.log(np.exp(scores[target]) / np.exp(scores).sum())


h = 1e-6
nudged = [(loss_at(scores + h * row) - loss_at(scores - h * row)) / (2 * h) for row in np.eye(V)]

print("\n       p - onehot   ag.cross_entropy   -log(softmax)   nudged")
for v in range(V):
    print(f"  {letters[v]}  {short[v]:11.6f} {leaf.grad[0, v]:18.6f} {composed.grad[v]:15.6f} {nudged[v]:8.4f}")
assert np.allclose(dscores, short, rtol=1e-12)
assert np.allclose(leaf.grad[0], short, rtol=1e-12)
assert np.allclose(composed.grad, short, rtol=1e-12)
assert np.allclose(nudged, short, atol=1e-8)

##### What it does: move the scores against the gradient

print("\nsteps of size 1 against the gradient")
for step in range(6):
    p = np.exp(scores) / np.exp(scores).sum()
    print(f"  step {step}   p = " + "  ".join(f"{letters[v]} {p[v]:.3f}" for v in range(V)))
    scores -= p - onehot

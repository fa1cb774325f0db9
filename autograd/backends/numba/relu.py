"""Rectifiers. What they multiply by is 0 or 1, so that NaN and infinity in a gradient go on as in the reference."""

import numpy as np
from numba import prange

from autograd.backends.numba.activation import elementwise, flatten, is_float32
from autograd.backends.numba.building import PIECE, compiled, inlined
from autograd.backends.numba.formulas import ONE, TWO, ZERO
from autograd.backends.numba.halves import in_float32
from autograd.backends.numba.launch import launch
from autograd.ops.activation import relu, squared_relu


@inlined
def rectify(x):
    """max(x, 0); NaN stays NaN"""
    return ZERO if x <= ZERO else x


@compiled(elementwise(1), parallel=True)
def relu_forward(x, y):
    """y = max(x, 0)"""
    for piece in prange((x.size + PIECE - 1) // PIECE):
        here = slice(piece * PIECE, (piece + 1) * PIECE)
        xs, ys = x[here], y[here]
        for i in range(xs.size):
            ys[i] = rectify(xs[i])


@compiled(elementwise(2), parallel=True)
def relu_backward(y, dy, dx):
    """dx = dy [y > 0]"""
    for piece in prange((y.size + PIECE - 1) // PIECE):
        here = slice(piece * PIECE, (piece + 1) * PIECE)
        ys, dys, dxs = y[here], dy[here], dx[here]
        for i in range(ys.size):
            dxs[i] = dys[i] * (ONE if ys[i] > ZERO else ZERO)


@compiled(elementwise(1), parallel=True)
def squared_relu_forward(x, y):
    """y = max(x, 0)²"""
    for piece in prange((x.size + PIECE - 1) // PIECE):
        here = slice(piece * PIECE, (piece + 1) * PIECE)
        xs, ys = x[here], y[here]
        for i in range(xs.size):
            ys[i] = rectify(xs[i]) * rectify(xs[i])


@compiled(elementwise(2), parallel=True)
def squared_relu_backward(x, dy, dx):
    """dx = 2 dy max(x, 0)"""
    for piece in prange((x.size + PIECE - 1) // PIECE):
        here = slice(piece * PIECE, (piece + 1) * PIECE)
        xs, dys, dxs = x[here], dy[here], dx[here]
        for i in range(xs.size):
            dxs[i] = dys[i] * (TWO * rectify(xs[i]))


@relu.kernel("numba")
@in_float32
def relu_kernel(x):
    if not is_float32(x):
        return NotImplemented
    shape, xs = x.shape, flatten(x)
    ys = np.empty_like(xs)
    launch(relu_forward, xs, ys)

    def vjp(dy):
        dx = np.empty_like(ys)
        launch(relu_backward, ys, flatten(dy), dx)
        return (dx.reshape(shape),)

    return ys.reshape(shape), vjp


@squared_relu.kernel("numba")
@in_float32
def squared_relu_kernel(x):
    if not is_float32(x):
        return NotImplemented
    shape, xs = x.shape, flatten(x)
    y = np.empty_like(xs)
    launch(squared_relu_forward, xs, y)

    def vjp(dy):
        dx = np.empty_like(xs)
        launch(squared_relu_backward, xs, flatten(dy), dx)
        return (dx.reshape(shape),)

    return y.reshape(shape), vjp

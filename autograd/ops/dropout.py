"""Dropout from a seed: which elements fall out is a function of (seed, position), the same on every device.

So a block that is computed again in backward drops the same elements, a resumed run goes on as if never stopped, and
a batch that is cut over several processes drops what the whole batch would have dropped.
"""

import math

import numpy as np

from autograd.arrays import xp_of
from autograd.engine import primitive


def random_bits(seeds, n, xp):
    """uint32 (len(seeds), n): a hash of (seed, position), each bit as good as a coin.

    Two rounds of multiply and xor-shift (the finalizer of MurmurHash3), first over the seed, then over the position.
    """
    seeds = seeds.astype(np.uint64)
    state = mix(mix((seeds & 0xFFFFFFFF).astype(np.uint32)) ^ (seeds >> np.uint64(32)).astype(np.uint32))
    return mix(xp.arange(n, dtype=np.uint32) * np.uint32(0x9E3779B9) + state[:, None])


def mix(h):
    """The finalizer of MurmurHash3 (Appleby 2011): every input bit reaches every output bit. uint32 wraps around."""
    h = h ^ (h >> np.uint32(16))
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return h


@primitive
def dropout(x, *, rate, seed):
    """Set a random share of the elements to zero, scale the others up so that the expectation stays.

    Equation   y = x m / (1 - rate), m = 0 with probability rate, else 1
    Shapes     x, y (...);  seed a whole number, or (B,) one for each entry of the first axis
    Gradient   dx = dy m / (1 - rate)
    Saves      factor (m / (1 - rate))
    Cost       nine integer passes for the mask, one pass for the product
    Precision  the rate is met to 2^-32
    Errors     ValueError for a rate outside [0, 1)
    Source     Srivastava et al. 2014
    """
    if not 0 <= rate < 1:
        raise ValueError(f"dropout: rate must be in [0, 1), not {rate}")
    xp = xp_of(x)
    seeds = xp.asarray(seed).reshape(-1)
    bits = random_bits(seeds, math.prod(x.shape) // max(len(seeds), 1), xp)
    kept = (bits >= np.uint32(int(rate * 2**32))).reshape(x.shape)
    factor = (kept * (1 / (1 - rate))).astype(x.dtype)
    y = x * factor

    def vjp(dy):
        return (dy * factor,)

    return y, vjp

"""From logits to the next token."""

import math

import numpy as np

from tinyllm.errors import UserError


def check(*, max_new_tokens, temperature, top_k, top_p, seed):
    """The ranges of the options."""
    if max_new_tokens < 0:
        raise UserError(f"max_new_tokens must not be negative; it was {max_new_tokens}")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise UserError(f"temperature must be 0 (always the likeliest token) or positive, not {temperature}")
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k must be at least 1, not {top_k}")
    if top_p is not None and not 0 < top_p <= 1:
        raise UserError(f"top_p must be in (0, 1], not {top_p}")
    if seed < 0:
        raise UserError(f"seed must not be negative; it was {seed}")


def probabilities(logits, *, temperature=1.0, top_k=None, top_p=None):
    """The distribution that is sampled from: (B, V) logits -> (B, V) float64, rows that sum to 1.

    temperature: logits are divided by it; 0 puts everything on the largest (the first of equal ones). top_k: only the
    k likeliest (more where the k-th is tied). top_p: only the likeliest tokens that together reach p, at least one
    (Holtzman et al. 2020). Raises UserError for logits that are not numbers: a model whose training diverged.
    """
    logits = finite(np.asarray(logits, np.float64))
    if temperature == 0:
        return (np.arange(logits.shape[-1]) == logits.argmax(-1)[:, None]).astype(np.float64)
    if top_k is not None and top_k < logits.shape[-1]:
        kth = np.partition(logits, -top_k, -1)[:, -top_k, None]
        logits = np.where(logits < kth, -np.inf, logits)
    with np.errstate(over="ignore"):  # at a tiny temperature a difference becomes -inf, and its exponential 0: right
        p = np.exp((logits - logits.max(-1, keepdims=True)) / temperature)
    p /= p.sum(-1, keepdims=True)
    if top_p is not None and top_p < 1:
        order = np.argsort(-p, -1, kind="stable")
        before = np.cumsum(np.take_along_axis(p, order, -1), -1) - np.take_along_axis(p, order, -1)
        keep = np.empty(p.shape, bool)
        np.put_along_axis(keep, order, before < top_p, -1)
        p = np.where(keep, p, 0)
        p /= p.sum(-1, keepdims=True)
    return p


def draw(logits, uniform, *, temperature=1.0, **options):
    """The next token of each row of logits (B, V), by a number (B,) in [0, 1) each; options as for `probabilities`."""
    if temperature == 0:  # the same token as by way of probabilities, in a tenth of the time
        return finite(logits).argmax(-1)
    return choose(probabilities(logits, temperature=temperature, **options), uniform)


def finite(logits):
    """The logits; UserError if they are not numbers: a model whose training diverged."""
    if not np.isfinite(logits).all():
        raise UserError("the model's logits are not finite: its training diverged; train with a lower learning rate")
    return logits


def choose(p, uniform):
    """One token a row: the first at which the running sum of probabilities passes `uniform` (B,) in [0, 1)."""
    running = np.cumsum(p, -1)
    return (running <= (uniform * running[:, -1])[:, None]).sum(-1)

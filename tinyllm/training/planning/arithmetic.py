"""Floating point operations of a token: the exact count by products, and the formula that everybody quotes."""

from tinyllm.training.planning.shapes import products


def flops_of_token(config, context, recomputed=0):
    """dict of flops a token, forward and backward, averaged over a window of `context` tokens.

    A product with a matrix of n numbers takes 2 n flops: a multiplication and an addition each. A query's scores with
    `context` keys take 2 H D T, the mean of their values as many. Backward has two products for each of forward, one
    for either factor. Elementwise work is left out: below a hundredth.

    forward, backward, recomputation: the counts. attention: what of forward and backward is scores and means. total:
    all but recomputation, which is no progress, so that utilization is counted without it. causal_share: the part of
    the attention's products that a kernel needs that leaves the future out.
    """
    matrices = products(config)
    L, inner = config.num_hidden_layers, config.num_attention_heads * config.head_width
    keys = min(context, config.sliding_window or context)
    attention = 4 * inner * keys
    block = 2 * matrices["blocks"] / L + attention
    forward = L * block + 2 * matrices["head"]
    return {
        "forward": forward,
        "backward": 2 * forward,
        "recomputation": recomputed * block,
        "attention": 3 * L * attention,
        "total": 3 * forward,
        "causal_share": (context + 1) / (2 * context),
    }


def six_p(config, parameters, context):
    """6 P + 12 L C T, with P all parameters, tables of tokens and positions too (Chowdhery et al. 2022, appendix B)."""
    inner = config.num_attention_heads * config.head_width
    return 6 * parameters + 12 * config.num_hidden_layers * inner * context

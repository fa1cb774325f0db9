"""How many tokens a model of a size should see, and how many a step should hold."""

TOKENS_PER_PARAMETER = 20
"""Hoffmann et al. 2022, tables 2 and 3: what their first two ways of measuring agree on."""

LAWS = {
    "Hoffmann et al. 2022": (406.4, 410.7, 0.34, 0.28),
    "Besiroglu et al. 2024": (482.01, 2085.43, 0.3478, 0.3658),
}
"""A, B, α, β of loss = E + A / N^α + B / D^β: as first fitted to their runs, and as fitted again to the same runs."""


def tokens_by_law(parameters, law):
    """D for which N = parameters is the best use of C = 6 N D flops, by a fitted law of LAWS.

    With C fixed, D = C / 6N. The slope of A N^-α + B (C / 6N)^-β is 0 where α A / N^α = β B / D^β, so
    D = (β B N^α / (α A))^(1/β).
    """
    A, B, alpha, beta = LAWS[law]
    return (beta * B * parameters**alpha / (alpha * A)) ** (1 / beta)


LARGE_BATCH = 4_000_000
"""Tokens a step. GPT-3's largest model was trained with 3.2 million (Brown et al. 2020, table 2.1), its smallest with
half a million. Beyond the critical batch, which grows as the loss falls, more samples a step save hardly any steps
(McCandlish et al. 2018)."""

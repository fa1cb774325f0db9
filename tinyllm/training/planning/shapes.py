"""The parameters of a model by name and shape, without a single array: for models larger than this machine."""

import math


def parameter_shapes(config):
    """dict path -> shape of every parameter of `Decoder(config)`, in model order; a tied head is not there twice."""
    C, D = config.hidden_size, config.head_width
    shapes = {"embedding.weight": (config.vocab_size, C)}
    if config.position == "learned":
        shapes["position.weight"] = (config.max_position_embeddings, C)
    for i in range(config.num_hidden_layers):
        shapes |= {f"blocks.{i}.{path}": shape for path, shape in block_shapes(config, C, D).items()}
    if config.norm_place == "pre":
        shapes |= norm("final_norm", config)
    if not config.tie_word_embeddings:
        shapes["head.weight"] = (config.vocab_size, C)
    return shapes


def block_shapes(config, C, D):
    """One block's parameters, by their path in it."""
    queries, keys, F = config.num_attention_heads * D, config.key_value_heads * D, config.feed_forward_width
    a, f = config.attention_bias, config.feed_forward_bias
    shapes = norm("attention_norm", config)
    shapes |= linear("attention.query", queries, C, a)
    shapes |= linear("attention.key", keys, C, a) | linear("attention.value", keys, C, a)
    shapes |= linear("attention.output", C, queries, a)
    if config.query_key_norm:
        shapes |= {"attention.query_norm.weight": (D,), "attention.key_norm.weight": (D,)}
    shapes |= norm("feed_forward_norm", config) | linear("feed_forward.up", F, C, f)
    if config.feed_forward == "swiglu":
        shapes |= linear("feed_forward.gate", F, C, f)
    return shapes | linear("feed_forward.down", C, F, f)


def linear(path, n_out, n_in, bias):
    shapes = {f"{path}.weight": (n_out, n_in)}
    return shapes | {f"{path}.bias": (n_out,)} if bias else shapes


def norm(path, config):
    shapes = {f"{path}.weight": (config.hidden_size,)}
    has_bias = config.norm == "layernorm" and config.norm_bias
    return shapes | {f"{path}.bias": (config.hidden_size,)} if has_bias else shapes


def count(shapes):
    """How many numbers parameters of these shapes have."""
    return sum(math.prod(shape) for shape in shapes.values())


def products(config):
    """dict part -> numbers in matrices that every token is multiplied with: the blocks', and the head's, tied or not.

    Looking a row up is no product, so tables of tokens and positions do not count.
    """
    blocks = [shape for path, shape in parameter_shapes(config).items() if path.startswith("blocks.")]
    matrices = sum(math.prod(shape) for shape in blocks if len(shape) == 2)
    return {"blocks": matrices, "head": config.vocab_size * config.hidden_size}


PARTS = {
    "embedding": "V C",
    "positions": "P C",
    "attention": "L (2 C H D + 2 C G D)",
    "feed-forward": "L {maps} C F",
    "norms": "",
    "head": "V C",
}


def by_part(config):
    """dict part -> (how many numbers, the formula of its matrices). Biases count with what they belong to."""
    totals = dict.fromkeys(PARTS, 0)
    for path, shape in parameter_shapes(config).items():
        totals[part_of(path)] += math.prod(shape)
    maps = 3 if config.feed_forward == "swiglu" else 2
    return {part: (total, PARTS[part].format(maps=maps)) for part, total in totals.items() if total}


def part_of(path):
    """Which line of the plan a parameter counts in."""
    if "norm" in path:
        return "norms"
    if ".attention." in path:
        return "attention"
    if ".feed_forward." in path:
        return "feed-forward"
    return {"embedding": "embedding", "position": "positions", "head": "head"}[path.split(".")[0]]

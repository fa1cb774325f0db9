"""Wrong gradients that people write, by hand: masks, normalizers, repeated rows, ties, directions, off by one.

Two ways to write one. REWRITTEN changes the text of an op's backward (as `ast.unparse` prints it, without comments).
FORGOTTEN keeps the forward and takes the backward of another call, so that the backward has forgotten the mask, say.
"""

import ast
import functools

import numpy as np
from mutations_of_source import compiled, tree_of

# Text of the backward: (op, what is wrong): {old text: new text}

REWRITTEN = {
    ("attention", "the normalizer's term dropped"): {"dp - (dp * p).sum(-1, keepdims=True)": "dp"},
    ("attention", "the normalizer's term over queries"): {"(dp * p).sum(-1,": "(dp * p).sum(-2,"},
    ("attention", "the normalizer's term without p"): {"(dp * p).sum": "dp.sum"},
    ("attention", "the normalizer's term only where p is large"): {"(dp * p).sum": "(dp * p * (p > 0.5)).sum"},
    ("attention", "q scaled twice"): {"dq = product(": "dq = scale * product("},
    ("attention", "k scaled twice"): {"dk = product(": "dk = scale * product("},
    ("attention", "dk from k rather than q"): {", rows)": ", k)"},
    ("attention", "dq from v rather than k"): {"dq = product(": "dq = (lambda s, _: product(s, v))("},
    ("attention", "dp from k rather than v"): {"widen(swap(v))": "widen(swap(k))"},
    ("attention", "dv from the scores' gradient"): {
        "dv = product(swap(p), dy)": "pass",
        "dk = ": "dv = product(swap(ds), dy)\n        dk = ",
    },
    ("attention", "dv from queries in reverse order"): {"product(swap(p), dy)": "product(swap(p[:, :, ::-1]), dy)"},
    ("attention", "dv without the first key"): {"product(swap(p), dy)": "product(swap(p * (xp.arange(S) > 0)), dy)"},
    ("attention", "only the last head of a group reaches k"): {
        "dk = product(": "dk = (lambda s, q: product(s[..., -T:], q[:, :, -T:]))("
    },
    ("attention", "only the first head of a group reaches v"): {
        "product(swap(p), dy)": "product(swap(p[:, :, :T]), dy[:, :, :T])"
    },
    ("attention", "k gets the mean over a group"): {"dk = product(": "dk = G / H * product("},
    ("attention", "v gets the mean over a group"): {"product(swap(p), dy)": "product(swap(p), dy) / (H // G)"},
    ("attention", "dq of the heads in reverse order"): {
        "dq = product(": "dq = (lambda *s: product(*s).reshape(B, H, T, D)[:, ::-1].reshape(rows.shape))("
    },
    ("attention", "dq as if heads of a group stood apart"): {
        "dq = product(": (
            "dq = (lambda *s: product(*s).reshape(B, G, H // G, T, D).swapaxes(1, 2).reshape(rows.shape))("
        )
    },
    ("attention", "dp of the first query dropped"): {"dp - (": "(xp.arange(H // G * T) > 0)[:, None] * dp - ("},
    ("broadcast_to", "mean of the repetitions"): {"(dy, x_like)": "(dy * (x.size / (dy.size or 1)), x_like)"},
    ("clip", "limited, not cut"): {"dy * inside": "dy * xp.where(inside, 1, 0.5)"},
    ("concatenate", "slices one too far"): {"slice(start, end)": "slice(start - (start > 0), end - (start > 0))"},
    ("concatenate", "slices one too long"): {"slice(start, end)": "slice(start, end + 1)"},
    ("concatenate", "first slice for all"): {
        "for part, dtype in zip(parts,": "for part, dtype in zip([parts[0]] * len(parts),"
    },
    ("concatenate", "slices in reverse order"): {"zip(parts,": "zip(parts[::-1],"},
    ("cross_entropy", "ignored rows give gradient"): {"/ count, 0)": "/ count, dloss.reshape(-1) / count)"},
    ("cross_entropy", "ignored rows are counted"): {
        "dloss.reshape(-1) / count": "dloss.reshape(-1) / (rows.size if reduction == 'mean' else 1)"
    },
    ("cross_entropy", "ignored rows learn class 0"): {
        "dlogits[rows, target] -= (1 - label_smoothing) * dL[:, 0]": (
            "dlogits[rows, target] -= (1 - label_smoothing) * (dloss.reshape(-1) / count)"
        )
    },
    ("cross_entropy", "the mean over all rows is a sum"): {"dloss.reshape(-1) / count": "dloss.reshape(-1)"},
    ("cross_entropy", "mean over elements"): {"dloss.reshape(-1) / count": "dloss.reshape(-1) / (count * V)"},
    ("cross_entropy", "p not normalized"): {"p /= total": "pass"},
    ("cross_entropy", "p normalized over rows"): {"p /= total": "p /= p.sum(0)"},
    ("cross_entropy", "smoothing shared by all classes but the target"): {
        "label_smoothing / V": "label_smoothing / max(V - 1, 1)"
    },
    ("cross_entropy", "smoothing does not lower the target"): {"(1 - label_smoothing) * dL": "dL"},
    ("cross_entropy", "smoothing also where ignored"): {
        "dL * (label_smoothing / V)": "dloss.reshape(-1)[:, None] / count * (label_smoothing / V)"
    },
    ("cross_entropy", "target one too low"): {"dlogits[rows, target]": "dlogits[rows, target - 1]"},
    ("cross_entropy", "targets of other rows"): {"dlogits[rows, target]": "dlogits[rows, target[::-1]]"},
    ("cross_entropy", "p (1 - p) instead of p - q"): {"dlogits = p * dL": "dlogits = p * (1 - p) * dL"},
    ("cumsum", "running sum from the same end"): {
        "xp.cumsum(xp.flip(widen(dy), axis), axis)": "xp.flip(xp.cumsum(dy, axis), axis)"
    },
    ("cumsum", "without its own element"): {"xp.flip(backwards, axis)": "(xp.flip(backwards, axis) - dy)"},
    ("cumsum", "sum over everything"): {"xp.flip(backwards, axis)": "xp.flip(0 * backwards + dy.sum(), axis)"},
    ("dropout", "scale forgotten"): {"dy * factor": "dy * (factor != 0)"},
    ("dropout", "mask forgotten"): {"dy * factor": "dy * (1 / (1 - rate))"},
    ("dropout", "mask and scale forgotten"): {"dy * factor": "dy.copy()"},
    ("dropout", "mask inverted"): {"dy * factor": "dy * ((factor == 0) / (1 - rate))"},
    ("dropout", "mask of the next element"): {"dy * factor": "dy * xp.roll(factor, 1)"},
    ("dropout", "scaled by the rate"): {"dy * factor": "dy * ((factor != 0) / (rate or 1))"},
    ("dropout", "scaled twice"): {"dy * factor": "dy * factor * factor"},
    ("embedding", "repeated rows overwritten"): {"scatter_add(": "type(dw).__setitem__("},
    ("embedding", "repeated rows get the mean"): {
        "dw.astype": "(dw / xp.maximum(xp.bincount(ids.reshape(-1), minlength=shape[0]), 1)[:, None]).astype"
    },
    ("embedding", "next row"): {"ids.reshape(-1)": "(ids.reshape(-1) + 1) % shape[0]"},
    ("embedding", "rows in the order of ids"): {
        "scatter_add(dw, ids.reshape(-1)": "scatter_add(dw, xp.sort(ids, None)"
    },
    ("embedding", "rows that were not looked up get gradient"): {"dw[...] = 0": "dw[...] = dy.sum()"},
    ("gather", "repeated ids overwritten"): {"scatter_add(": "type(total).__setitem__("},
    ("gather", "ids of another row"): {"chosen.reshape(-1)": "chosen[::-1].reshape(-1)"},
    ("gather", "chosen along the flat array"): {"chosen.reshape(-1)": "(chosen + 1).reshape(-1) % n"},
    ("getitem", "counted from the other end"): {
        "dx[index] = dy": "dx[(..., *[slice(None, None, -1)] * dx.ndim)][index] = dy"
    },
    ("getitem", "the whole array"): {"dx[index] = dy": "dx[...] = dy.sum()"},
    ("index_add", "rows that receive lose their gradient"): {
        "return dy\n": "lost = dy.copy()\n        lost[rows] = 0\n        return lost\n"
    },
    ("index_add", "values of repeated rows share"): {
        "return dy[rows]": "return (dy[rows].T / (rows[:, None] == rows).sum(0)).T"
    },
    ("index_add", "values of the next row"): {"dy[rows]": "dy[(rows + 1) % len(dy)]"},
    ("index_add", "values in reverse order"): {"dy[rows]": "dy[rows[::-1]]"},
    ("layer_norm", "mean forgotten"): {"dnormal - dnormal.mean(-1, keepdims=True)": "dnormal"},
    ("layer_norm", "variance forgotten"): {" - normal * along": ""},
    ("layer_norm", "statistics are constants"): {
        "(dnormal - dnormal.mean(-1, keepdims=True) - normal * along)": "dnormal"
    },
    ("layer_norm", "rstd cubed"): {"along) * rstd": "along) * rstd ** 3"},
    ("layer_norm", "rstd squared"): {"along) * rstd": "along) * rstd ** 2"},
    ("layer_norm", "eps outside the root"): {"along) * rstd": "along) / (xp.sqrt(rstd ** -2 - eps) + eps)"},
    ("layer_norm", "eps twice"): {"along) * rstd": "along) / xp.sqrt(rstd ** -2 + eps)"},
    ("layer_norm", "variance over n - 1"): {
        "(dnormal * normal).mean(-1, keepdims=True)": (
            "(dnormal * normal).sum(-1, keepdims=True) / max(normal.shape[-1] - 1, 1)"
        )
    },
    ("layer_norm", "weight forgotten in the variance's term"): {"along = (dnormal * ": "along = (dy * "},
    ("layer_norm", "dweight from x - mean"): {"(dy * normal)": "(dy * normal / rstd)"},
    ("layer_norm", "dweight of the first row"): {
        "dweight = (dy * normal).sum(rows)": "dweight = (dy * normal).reshape(-1, len(weight))[:1].sum(0)"
    },
    ("layer_norm", "dbias from the scaled gradient"): {"dy.sum(rows)": "dnormal.sum(rows)"},
    ("linear", "gradient of the bias is a mean"): {".sum(0)": ".mean(0)"},
    ("linear_cross_entropy", "ignored rows are counted"): {
        "dx_of_sum * (dloss / count)": "dx_of_sum * (dloss / (target.size if reduction == 'mean' else 1))"
    },
    ("linear_cross_entropy", "dx divided twice"): {
        "(dx_of_sum * (dloss / count))": "(dx_of_sum * (dloss / count / count))"
    },
    ("linear_cross_entropy", "dweight not divided"): {
        "xp.multiply(dweight_of_sum, dloss / count,": "xp.multiply(dweight_of_sum, dloss,"
    },
    ("linear_cross_entropy", "as if dL were 1"): {"dx_of_sum * (dloss / count)": "dx_of_sum * (1 / count)"},
    ("log_softmax", "weighted by p once more"): {"widen(dy).sum(axis": "(widen(dy) * xp.exp(widen(y))).sum(axis"},
    ("log_softmax", "one over the number of classes for p"): {"xp.exp(widen(y)) *": "1 / y.shape[axis] *"},
    ("log_softmax", "the normalizer a constant"): {
        "widen(dy) - xp.exp(widen(y)) * widen(dy).sum(axis, keepdims=True)": "widen(dy).copy()"
    },
    ("logsumexp", "gradient of the maximum"): {"xp.exp(widen(x) - top - total)": "(widen(x) == top)"},
    ("logsumexp", "not normalized"): {" - top - total": " - top"},
    ("max", "all equal maxima get the whole"): {"is_max / is_max.sum(axis, keepdims=True)": "is_max"},
    ("max", "first of equal maxima gets the whole"): {
        "dy * share": (
            "dy * share if isinstance(axis, tuple) "
            "else dy * ((share > 0) & (share.cumsum(axis).reshape(share.shape) <= share))"
        )
    },
    ("max", "gradient for every element"): {"dy * share": "dy * (share >= 0)"},
    ("maximum", "a tie goes to a"): {"(a >= b) * 0.5 + (a > b) * 0.5": "(a >= b) * 1.0"},
    ("maximum", "a tie goes to both"): {"dy * b_share": "dy * (b >= a)"},
    ("maximum", "half to each everywhere"): {"(a >= b) * 0.5 + (a > b) * 0.5": "(a == a) * 0.5 + (b != b)"},
    ("mean", "over all elements"): {"dy / n": "dy / (x.size or 1)"},
    ("minimum", "a tie goes to a"): {"(a <= b) * 0.5 + (a < b) * 0.5": "(a <= b) * 1.0"},
    ("minimum", "gradient of maximum"): {"(a <= b) * 0.5 + (a < b) * 0.5": "(a >= b) * 0.5 + (a > b) * 0.5"},
    ("pad", "inside one too far"): {
        "slice(before, before + n)": "slice(before - (before > 0), before - (before > 0) + n)"
    },
    ("power", "exponent not lowered"): {"** lower": "** exponent"},
    ("power", "logarithm of the result"): {"xp.log(xp.where(x == 0, 1, x))": "xp.log(xp.where(y == 0, 1, y))"},
    ("reshape", "in column order"): {"dy.reshape(before)": "dy.reshape(before, order='F')"},
    ("rms_norm", "size a constant"): {"dnormal - normal * (dnormal * normal).mean(-1, keepdims=True)": "dnormal"},
    ("rms_norm", "mean subtracted as in layer norm"): {
        "dx = (dnormal - ": "dx = (dnormal - dnormal.mean(-1, keepdims=True) - "
    },
    ("rms_norm", "rstd cubed"): {") * rstd": ") * rstd ** 3"},
    ("rms_norm", "eps outside the root"): {"True)) * rstd": "True)) / (xp.sqrt(rstd ** -2 - eps) + eps)"},
    ("rms_norm", "weight forgotten in the size's term"): {"(dnormal * normal).mean": "(dy * normal).mean"},
    ("rms_norm", "dweight from x"): {"(dy * normal)": "(dy * normal / rstd)"},
    ("softmax", "diagonal of the Jacobian only"): {"p * (dp - (dp * p).sum(axis, keepdims=True))": "p * (1 - p) * dp"},
    ("softmax", "not weighted by p"): {"(dp * p).sum": "dp.sum"},
    ("softmax", "weighted by p twice"): {"(dp * p).sum": "(dp * p * p).sum"},
    ("softmax", "gradient of log_softmax"): {
        "p * (dp - (dp * p).sum(axis, keepdims=True))": "dp - p * dp.sum(axis, keepdims=True)"
    },
    ("stack", "next slice"): {"first[i, ...]": "first[i - 1, ...]"},
    ("stack", "mean of all slices"): {"first[i, ...]": "first.mean(0)"},
    ("transpose", "permuted once more, not back"): {"dy.transpose(inverse)": "dy.transpose(axes)"},
}


def rewritten(reference, changes):
    """The op compiled from its text with these changes."""
    return compiled(ast.parse(rewritten_text(reference, changes)).body[0], dict(reference.__globals__))


def rewritten_text(reference, changes):
    """The op's text with these changes, each of which must fit in exactly one place."""
    text = ast.unparse(tree_of(reference))
    for old, new in changes.items():
        assert text.count(old) == 1, f"{reference.__name__} has {text.count(old)} places like this: {old}\n{text}"
        text = text.replace(old, new)
    return ast.unparse(ast.parse(text))


def texts_by_hand(op, reference):
    """Every text of the op in the table above."""
    return {rewritten_text(reference, changes) for (name, _), changes in REWRITTEN.items() if name == op}


# Backward of another call: (op, what is wrong): function of a call's arguments -> arguments of the call it takes it for


def with_options(**others):
    return lambda *inputs, **options: (inputs, options | others)


def with_option(name, default, change):
    """One option, if the call has it or it has a default, made another."""

    def other_call(*inputs, **options):
        value = options.get(name, default)
        return inputs, options if value is None else options | {name: change(value)}

    return other_call


def with_input(i, change):
    return lambda *inputs, **options: ((*inputs[:i], change(inputs[i], **options), *inputs[i + 1 :]), options)


def with_causal_mask(last_key):
    """The causal mask drawn elsewhere: query t at key position p = S - T + t sees the keys up to last_key(p, S - T)."""

    def other_call(q, k, v, *, causal=True, bias=None, **options):
        if causal:
            T, S = q.shape[2], k.shape[2]
            mask = np.where(np.arange(S) <= last_key(np.arange(S - T, S)[:, None], S - T), 0.0, -np.inf)
            bias = mask if bias is None else bias + mask
            causal = False
        return (q, k, v), options | {"causal": causal, "bias": bias}

    return other_call


def groups_apart(q, k, v, **options):
    """Query head h takes key head h % G, as if the heads of a group did not stand side by side."""
    (B, H, T, D), G = q.shape, k.shape[1]
    return (q.reshape(B, H // G, G, T, D).swapaxes(1, 2).reshape(q.shape), k, v), options


FORGOTTEN = {
    ("attention", "mask ignored"): with_options(causal=False, window=None, segments=None),
    ("attention", "causal mask ignored"): with_options(causal=False),
    ("attention", "causal mask where there is none"): with_options(causal=True),
    ("attention", "mask one key too far"): with_causal_mask(lambda position, _: position + 1),
    ("attention", "mask one key too near"): with_causal_mask(lambda position, _: position - 1),
    ("attention", "queries at the first keys, not the last"): with_causal_mask(
        lambda position, first: position - first
    ),
    ("attention", "mask of another time"): with_causal_mask(lambda position, first: position.max() - position + first),
    ("attention", "window ignored"): with_options(window=None),
    ("attention", "window one key too long"): with_option("window", None, lambda n: n + 1),
    ("attention", "window one key too short"): with_option("window", None, lambda n: n - 1),
    ("attention", "segments ignored"): with_options(segments=None),
    ("attention", "padding a segment like others"): with_option("segments", None, lambda s: np.where(s == -1, 99, s)),
    ("attention", "segments of the first batch entry"): with_option(
        "segments", None, lambda s: np.broadcast_to(s[:1], s.shape)
    ),
    ("attention", "bias ignored"): with_options(bias=None),
    ("attention", "bias with the wrong sign"): with_option(
        "bias", None, lambda bias: np.where(bias > -np.inf, -bias, bias)
    ),
    ("attention", "groups apart"): groups_apart,
    ("clip", "upper limit ignored"): with_options(high=None),
    ("clip", "lower limit ignored"): with_options(low=None),
    ("cross_entropy", "smoothing forgotten"): with_options(label_smoothing=0.0),
    ("cross_entropy", "smoothing where there is none"): with_options(label_smoothing=0.1),
    ("cross_entropy", "ignored targets taken for class 0"): lambda logits, targets, *, ignore_index=-100, **options: (
        (logits, np.where(targets == ignore_index, 0, targets)),
        options,
    ),
    ("cross_entropy", "another ignore_index"): with_input(
        1, lambda targets, ignore_index=-100, **_: np.where(targets == 0, ignore_index, targets.astype(int))
    ),
    ("cumsum", "other axis"): with_option("axis", -1, lambda axis: -1 - axis if axis in (0, -1) else axis),
    ("dropout", "another mask"): with_option("seed", None, lambda seed: seed + 1),
    ("dropout", "mask of another rate"): with_option("rate", None, lambda rate: rate / 2),
    ("gelu", "bias forgotten"): lambda x, bias=None, **options: (
        (x, None if bias is None else 0 * bias),
        options,
    ),
    ("gelu", "of the other approximation"): with_option(
        "approximate", "none", {"none": "tanh", "tanh": "none"}.__getitem__
    ),
    ("layer_norm", "eps forgotten"): with_options(eps=0.0),
    ("layer_norm", "eps ten times as large"): with_option("eps", 1e-5, lambda eps: 10 * eps),
    ("linear_cross_entropy", "smoothing forgotten"): with_options(label_smoothing=0.0),
    ("linear_cross_entropy", "every row an equal share"): with_options(reduction="mean"),
    ("linear_cross_entropy", "ignored targets taken for class 0"): (
        lambda x, weight, targets, *, ignore_index=-100, **options: (
            (x, weight, np.where(targets == ignore_index, 0, targets)),
            options,
        )
    ),
    (
        "linear_cross_entropy",
        "only the first piece",
    ): lambda x, weight, targets, *, chunk=99, ignore_index=-100, **options: (
        (
            x,
            weight,
            np.where(
                np.arange(targets.size).reshape(targets.shape) < max(chunk // len(weight), 1), targets, ignore_index
            ),
        ),
        options | {"ignore_index": ignore_index},
    ),
    ("linear_cross_entropy", "smoothing where there is none"): with_options(label_smoothing=0.1),
    ("rms_norm", "eps forgotten"): with_options(eps=0.0),
    ("rms_norm", "eps ten times as large"): with_option("eps", 1e-5, lambda eps: 10 * eps),
    ("rope", "the other layout"): with_option(
        "layout", "half", {"half": "interleaved", "interleaved": "half"}.__getitem__
    ),
    ("rope", "other theta"): with_option("theta", 10000.0, lambda theta: theta + 1),
    ("rope", "next position"): lambda x, *, positions=None, **options: (
        (x,),
        options | {"positions": 1 + (np.arange(x.shape[-2]) if positions is None else positions)},
    ),
    ("rope", "positions ignored"): with_options(positions=None),
    ("rope", "positions of the first batch entry"): with_option(
        "positions", None, lambda t: np.broadcast_to(t[:1], t.shape) if t.ndim == 2 else t
    ),
    ("rope", "turned forward"): lambda x, *, positions=None, **options: (
        (x,),
        options | {"positions": -(np.arange(x.shape[-2]) if positions is None else positions)},
    ),
    ("where", "condition inverted"): with_input(0, lambda condition: ~condition),
    ("where", "condition ignored"): with_input(0, np.ones_like),
}


def forgotten(reference, other_call):
    """The op with the backward of another call."""

    @functools.wraps(reference)
    def body(*inputs, **options):
        y, _ = reference(*inputs, **options)
        others, other_options = other_call(*inputs, **options)
        _, vjp = reference(*others, **other_options)
        return y, vjp

    return body


def mutants_by_hand(op, reference):
    """(name, how to make it) for everything in the two tables about this op."""
    for table, make in ((REWRITTEN, rewritten), (FORGOTTEN, forgotten)):
        for (name, wrong), change in table.items():
            if name == op:
                yield wrong, functools.partial(make, reference, change)

"""What `bench.py` measured: as text for a terminal, as Markdown for docs/benchmarks.md, as a chart."""

NAMES = {"ours": "tinyllm", "pytorch": "PyTorch eager", "compiled": "torch.compile", "limit": "the limit"}
COLORS = {"ours": "#1f6feb", "pytorch": "#d2691e", "compiled": "#b8860b", "limit": "#8a8f98"}
EACH = {"Training": "step", "Attention": "forward and backward", "Decoding": "token"}


def side_name(part, side):
    if part["work"] == "Decoding":
        return {"ours": "tinyllm", "pytorch": "transformers", "limit": "reading the weights"}[side]
    return NAMES[side]


def milliseconds(value):
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def spread(ratio):
    return f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})" if ratio else ""


def megabytes(size):
    return "" if size is None else f"{size / 1e6:,.0f}"


COLUMNS = ("", "ms", "tokens/s", "time / PyTorch", "limit / time", "memory MB")


def rows(part):
    """A row of COLUMNS for every side that ran."""
    for side, figures in part["sides"].items():
        if "median_ms" in figures:
            limit = side == "limit"
            yield (
                side_name(part, side),
                milliseconds(figures["median_ms"]),
                "" if limit else f"{part['tokens'] / figures['median_ms'] * 1e3:,.0f}",
                spread(figures.get("ratio")),
                "" if limit else spread(figures.get("limit_share")),
                megabytes(figures.get("memory_bytes")),
            )


def aligned(table):
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for first, *others in table:
        yield "  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:], strict=True))])


def proof_text(part):
    """What was compared, in a sentence that shows the numbers of both sides."""
    proof, bar = part["proof"], "equal" if part["equal"] else "NOT EQUAL, so there are no ratios"
    if len(proof) < 2:
        return "nothing to compare with"
    if part["work"] == "Decoding":
        return f"{len(proof['ours'])} greedy tokens: {bar}"
    if part["work"] == "Attention":
        return f"outputs and gradients apart by at most {part['apart']:.1e}: {bar}"
    ends = "; ".join(f"{NAMES[side]} {losses[0]:.5f} … {losses[-1]:.5f}" for side, losses in proof.items())
    return f"losses of {len(proof['ours'])} steps: {ends}; apart by at most {part['apart']:.1e}: {bar}"


def title(part):
    case = part["case"]
    if part["work"] == "Training":
        short = {"V": "vocab_size", "T": "context", "L": "layers", "H": "heads", "C": "width", "B": "batch"}
        return f"{part['name']} ({', '.join(f'{letter} {case[field]:,}' for letter, field in short.items())})"
    if part["work"] == "Attention":
        return f"{part['name']} (B {case['batch']}, H {case['heads']}, D {case['head_width']})"
    return f"{part['name']}, context {case['context']}"


def part_text(part):
    """One part for a terminal."""
    if "skipped" in part:
        return f"\n{title(part)}: {part['skipped']}"
    table = list(rows(part))
    rounds = len(part["sides"]["ours"].get("seconds", []))
    lines = [f"\n{title(part)}, {rounds} rounds of {part['repetitions']}, each a {EACH[part['work']]}"]
    lines += aligned([COLUMNS, *table])
    lines += [f"{side_name(part, side)}: not here ({why})" for side, why in part["missing"].items()]
    if ratio := part["sides"]["ours"].get("ratio_to_compiled"):
        lines.append(f"time of tinyllm / torch.compile's: {spread(ratio)}")
    lines.append(proof_text(part))
    if part["work"] == "Training":
        lines.append("products of the limit, once a step:")
        lines += aligned([("", "times", "ms", "GFLOP/s"), *product_rows(part)])
    if part.get("kernels"):
        lines.append(f"ran: {kernels_text(part)}")
    return "\n".join(lines)


def product_rows(part):
    for p in part["products"]:
        speed = p["flops"] / p["seconds"] / 1e9
        yield p["product"], str(p["count"]), milliseconds(p["seconds"] * 1e3), f"{speed:.0f}"


def kernels_text(part):
    """Which kind of code ran each op, and how often."""
    kinds = {}
    for op, counts in part["kernels"].items():
        for kind, count in counts.items():
            kinds.setdefault(kind, []).append(f"{op} {count:g}")
    return "; ".join(f"{kind}: {', '.join(sorted(ops))}" for kind, ops in sorted(kinds.items()))


def closing_text(report):
    """What ends the output: attention over its length, and the machine."""
    table = attention_rows(report)
    lines = ["", *aligned([ATTENTION_COLUMNS, *table])] if len(table) > 1 else []
    return "\n".join([*lines, "", machine_text(report)])


def machine_text(report):
    """Where, when and with what."""
    machine = report["machine"]
    versions = [f"{name} {machine[name]}" for name in ("python", "numpy", "blas", "numba", "torch") if name in machine]
    if "transformers" in machine:
        versions.append(f"transformers {machine['transformers']}")
    kernels = ", ".join(machine.get("kernels", []))
    products = machine.get("kernels_numba", {}).get("products")
    kernels += f", {products}" if products else ""
    quick = "; a quick run, for trying out" if report["quick"] else ""
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine.get('platform', '')}; {', '.join(versions)}; "
        f"{report['threads']} threads on every side; kernels: {kernels}; {report['date']}{quick}"
    )


def markdown_table(head, table):
    lines = [head, ["---"] * len(head), *table]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def markdown(report):
    """Tables for docs/benchmarks.md: training with the products of its limit, attention, decoding."""
    done = [part for part in report["parts"] if "skipped" not in part]
    blocks = [f"**Machine**: {machine_text(report)}."]
    for part in done:
        if part["work"] != "Attention":
            blocks.append(f"{title(part)}; {proof_text(part)}:")
            blocks.append(markdown_table(COLUMNS, rows(part)))
        if ratio := part["sides"]["ours"].get("ratio_to_compiled"):
            blocks.append(f"Time of tinyllm / torch.compile's: {spread(ratio)}.")
        if part["work"] == "Training":
            blocks.append(markdown_table(("product of the limit", "times", "ms", "GFLOP/s"), product_rows(part)))
    if table := attention_rows(report):
        blocks.append("Attention alone:")
        blocks.append(markdown_table(ATTENTION_COLUMNS, table))
    return "\n\n".join(blocks)


ATTENTION_COLUMNS = (
    "T", "tinyllm ms", "PyTorch ms", "time / PyTorch", "limit / time", "memory MB", "of T / 2", "PyTorch's MB"
)  # fmt: skip


def attention_rows(report):
    """A row of ATTENTION_COLUMNS for every length; "of T / 2": how many times the memory of half the length."""
    table, before = [], None
    for part in report["parts"]:
        if part["work"] != "Attention":
            continue
        length = f"{part['case']['context']:,}"
        if "skipped" in part:
            table.append((length, "left out", *[""] * 5, part["skipped"]))
            continue
        ours, theirs = part["sides"]["ours"], part["sides"]["pytorch"]
        table.append(
            (
                length,
                milliseconds(ours["median_ms"]),
                milliseconds(theirs["median_ms"]),
                spread(ours.get("ratio")),
                spread(ours.get("limit_share")),
                megabytes(ours["memory_bytes"]),
                f"x {ours['memory_bytes'] / before:.1f}" if before else "",
                megabytes(theirs["memory_bytes"]),
            )
        )
        before = ours["memory_bytes"]
    return table


def draw(report, path):
    """Bars of the training step over PyTorch's, attention's time and memory over its length."""
    try:
        import matplotlib
    except ImportError:
        raise SystemExit('bench: the chart needs matplotlib: pip install "tinyllm[plot]"') from None
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "tinyllm"  # the same run gives the same file
    from matplotlib import pyplot

    equal = [part for part in report["parts"] if part.get("equal")]
    training = [part for part in equal if part["work"] == "Training"]
    attention = [part for part in equal if part["work"] == "Attention"]
    panels = [draw_training] * bool(training) + [draw_attention_time, draw_attention_memory] * bool(attention)
    if not panels:
        raise SystemExit("bench: there is nothing to draw: neither training nor attention was measured")
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(4.6 * len(panels), 3.6), squeeze=False, layout="constrained"
    )
    for panel, axis in zip(panels, axes[0], strict=True):
        panel(axis, training if panel is draw_training else attention)
        axis.spines[["top", "right"]].set_visible(False)
        beneath = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.1), "ncols": 4, "columnspacing": 1}
        axis.legend(frameon=False, fontsize=8, **(beneath if panel is draw_training else {}))
    machine = report["machine"]
    figure.set_layout_engine("constrained")
    figure.suptitle(f"{machine['cpu']}, {report['threads']} threads, {report['date'][:10]}", fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    pyplot.close(figure)


def draw_training(axis, parts):
    """Medians of per-round ratios, quartiles as whiskers."""
    sides = [side for side in NAMES if any("ratio" in part["sides"].get(side, {}) for part in parts)]
    width = 0.8 / len(sides)
    for i, side in enumerate(sides):
        for x, part in enumerate(parts):
            if ratio := part["sides"].get(side, {}).get("ratio"):
                whiskers = [[ratio["median"] - ratio["low"]], [ratio["high"] - ratio["median"]]]
                axis.bar(
                    x + (i - (len(sides) - 1) / 2) * width,
                    ratio["median"],
                    width * 0.9,
                    color=COLORS[side],
                    yerr=whiskers if side != "pytorch" else None,
                    error_kw={"linewidth": 1, "capsize": 2},
                    label=NAMES[side] if x == 0 else None,
                )
    axis.axhline(1, color=COLORS["pytorch"], linewidth=0.8)
    axis.set_xticks(range(len(parts)), [part["name"] for part in parts])
    axis.set_title("A training step: time over PyTorch's", fontsize=10)


def draw_attention_time(axis, parts):
    draw_lines(axis, parts, ("ours", "pytorch", "limit"), "median_ms", 1, "Attention, forward and backward: ms")


def draw_attention_memory(axis, parts):
    draw_lines(axis, parts, ("ours", "pytorch"), "memory_bytes", 1e6, "Attention: growth of resident memory, MB")


def draw_lines(axis, parts, sides, field, unit, heading):
    lengths = [part["case"]["context"] for part in parts]
    for side in sides:
        axis.plot(lengths, [p["sides"][side][field] / unit for p in parts], "o-", color=COLORS[side], label=NAMES[side])
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xticks(lengths, [f"{T:,}" for T in lengths], fontsize=8)
    axis.set_xlabel("T")
    axis.set_title(heading, fontsize=10)

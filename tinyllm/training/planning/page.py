"""A plan as a page to read: figures of two or three digits, each with its unit."""

from tinyllm.training.planning.compute_optimal import LARGE_BATCH

WIDTH, FIGURE = 23, 11


def number(value):
    """Three digits: `124 M`, `6.21 B`, `812`."""
    return scaled(value, ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k"), (1, "")))


def in_bytes(value):
    return scaled(value, ((1e12, " TB"), (1e9, " GB"), (1e6, " MB"), (1e3, " KB"), (1, " B")))


def in_flops(value):
    return scaled(value, ((1e15, " PFLOP"), (1e12, " TFLOP"), (1e9, " GFLOP"), (1e6, " MFLOP"), (1e3, " kFLOP")))


def in_time(seconds):
    units = ((365 * 86400, " years"), (86400, " days"), (3600, " h"), (60, " min"), (1, " s"), (1e-3, " ms"))
    return scaled(seconds, (*units, (1e-6, " us")))


def scaled(value, units):
    """The value in the first unit that it reaches, with three digits."""
    if value == 0:
        return "0"
    factor, unit = next((pair for pair in units if abs(value) >= pair[0]), units[-1])
    value /= factor
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}{unit}"


def dollars(value):
    return "< $0.01" if 0 < value < 0.01 else f"${value:,.2f}" if value < 100 else f"${value:,.0f}"


def line(title, figure="", note="", indent=0):
    """One line: what, how much, of what or why."""
    return f"{'  ' * indent + title:<{WIDTH}}{figure:>{FIGURE}}  {note}".rstrip()


def page(plan):
    """The plan as text."""
    sections = (heading, parameters, memory, arithmetic, messages, time, tokens)
    return "\n\n".join("\n".join(section(plan)) for section in sections)


def heading(plan):
    asked = plan["asked"]
    machine = asked["hardware"]
    model, count = asked["model"], f"{machine['count']:,} x " if machine["count"] > 1 else ""
    yield (
        f"{counted(model['num_hidden_layers'], 'block')} of width {model['hidden_size']:,}, "
        f"{counted(model['num_attention_heads'], 'head')}, vocabulary {model['vocab_size']:,}"
    )
    pieces = f" in {asked['accumulation']} pieces" if asked["accumulation"] > 1 else ""
    yield f"On {count}{machine['title']}, {counted(asked['ranks'], 'rank')}, ZeRO stage {asked['zero']}"
    yield (
        f"{asked['batch_size']:,} samples of {asked['context']:,} tokens a step, "
        f"{asked['samples']:,} at a time on each rank{pieces}"
    )
    yield f"{asked['precision']}, {asked['optimizer']}, {asked['kernels']} kernels, {recomputing(asked)}"
    if asked["ranks"] > 1:
        yield "Data parallel: ranks share the batch; no layer is cut over them, which this project cannot do"


def counted(n, word):
    return f"{n:,} {word}" + ("" if n == 1 else "s")


def recomputing(asked):
    blocks, all_blocks = asked["recomputed_blocks"], asked["model"]["num_hidden_layers"]
    if blocks == 0:
        return "no recomputation"
    why = ", as stage 3 needs it" if asked["zero"] == 3 and asked["ranks"] > 1 else ""
    return f"{'all' if blocks == all_blocks else blocks} {all_blocks if blocks == all_blocks else ''}".strip() + (
        f" blocks recomputed{why}"
    )


def parameters(plan):
    found = plan["parameters"]
    yield line("Parameters P", number(found["total"]))
    for part, row in found["parts"].items():
        yield line(part, number(row["count"]), row["formula"], 1)


STATE = {"adamw": "8 P", "sgd": "4 P", "lion": "4 P", "muon": "4 to 8 P"}
SINCE = {"weights": 3, "gradients": 2, "optimizer": 1}


def memory(plan):
    asked, found = plan["asked"], plan["memory"]
    held, activations, borrowed = (found[f"{kind}_bytes"] for kind in ("persistent", "activation", "borrowed"))
    machine = asked["hardware"]
    formulas = {"weights": "4 P", "gradients": "4 P", "optimizer": STATE.get(asked["optimizer"], "rows and columns")}
    yield line("Memory of a rank", in_bytes(found["rank_bytes"]), verdict(found, machine, asked["ranks"]))
    for kind in ("weights", "gradients", "optimizer"):
        parted = asked["zero"] >= SINCE[kind] and asked["ranks"] > 1
        yield line(kind, in_bytes(held[kind]), formulas[kind] + (f" / {asked['ranks']:,} ranks" if parted else ""), 1)
    yield line("activations of blocks", in_bytes(activations["blocks"]), "kept until backward", 1)
    yield line("head and loss", in_bytes(activations["loss"]), "kept until backward", 1)
    yield line("at the highest", in_bytes(activations["above"]), f"beyond these, {activations['when']}", 1)
    if borrowed["buckets"]:
        yield line("buckets of gradients", in_bytes(borrowed["buckets"]), "at most", 1)
    if borrowed["gathered"]:
        yield line("gathered weights", in_bytes(borrowed["gathered"]), "outside blocks, and of two blocks", 1)
    yield line(
        "activations in all", in_bytes(activations["peak_without_recomputation"]),
        f"without recomputation; {in_bytes(activations['peak_with_recomputation'])} with all blocks recomputed", 1,
    )  # fmt: skip
    yield from instead(plan)


def verdict(found, machine, ranks):
    room = f"of {in_bytes(machine['memory'])}"
    if machine["shared"] and ranks > 1:
        room = f"{in_bytes(found['machine_bytes'])} for all ranks, {room}"
    return f"{room}: {'fits' if found['fits'] else 'DOES NOT FIT'}"


def instead(plan):
    """What to change where it does not fit."""
    if plan["memory"]["fits"]:
        return
    found = plan["instead"]
    if found is None:
        yield "  Nothing that this project has makes it fit; take a smaller model or more memory."
        return
    options = " ".join(f"--{name} {value}" for name, value in found["changes"].items())
    yield f"  It fits with {options}: {in_bytes(found['rank_bytes'])} a rank."


def arithmetic(plan):
    found, asked = plan["flops_of_token"], plan["asked"]
    yield line("Flops of a token", in_flops(found["total"]), "forward and backward, by products")
    yield line("forward", in_flops(found["forward"]), f"2 x {number(plan['parameters']['in_products'])} in products", 1)
    yield line("backward", in_flops(found["backward"]), "twice that", 1)
    share = f"{found['attention'] / found['total']:.0%} of these; kernels skip the future, nearly half of it"
    yield line("attention", in_flops(found["attention"]), share, 1)
    if asked["recomputed_blocks"]:
        yield line("recomputation", in_flops(found["recomputation"]), "on top: an extra forward of these blocks", 1)
    yield line("6 P + 12 L C T", in_flops(found["formula"]), "the usual estimate", 1)


def messages(plan):
    found, asked = plan["messages"], plan["asked"]
    if asked["ranks"] == 1:
        yield line("Messages of a step", "none", "one rank")
        return
    yield line("Messages of a step", f"{found['count']:,}", f"each rank sends {in_bytes(found['sent_bytes'])}")
    for kind in found["kinds"]:
        what = f"{kind['of']}, {counted(kind['count'], 'message')}"
        yield line(kind["kind"].replace("_", "-"), in_bytes(kind["sent_bytes"]), what, 1)
    yield line("time", in_time(found["seconds"]), f"at {in_bytes(found['bytes_per_second'])}/s", 1)
    if asked["zero"] == 3:
        yield "  Stage 3 gathers the weights of each block twice, and computes its forward twice."


def time(plan):
    found, asked = plan["time"], plan["asked"]
    yield line("Time of a step", in_time(found["step_overlapped_seconds"]), time_note(asked))
    yield line("computing", in_time(found["step_computing_seconds"]), assumed(plan), 1)
    if asked["ranks"] > 1:
        yield line("one after the other", in_time(found["step_serial_seconds"]), "computing, then messages", 1)
        here = asked["samples"] * asked["accumulation"] * asked["context"]
        longer = "messages take" if here < found["balance_tokens"] else "computing takes"
        note = f"tokens a rank would take equally long; with {number(here)}, {longer} longer"
        yield line("balance", number(found["balance_tokens"]), note, 1)
    yield line("Speed", number(found["tokens_per_second"]), "tokens/s")
    yield line("The run", in_time(found["run_seconds"]), f"{counted(found['steps'], 'step')}")
    price = f"{counted(found['devices'], 'device')} at ${found['price_per_hour']:g} an hour, which is an assumption"
    yield line("Price", dollars(found["dollars"]), price)


def time_note(asked):
    if asked["ranks"] == 1:
        return ""
    if not asked["overlap"]:
        return "computing, then messages"
    return ("gradients sent beside backward", "messages beside the computation")[asked["zero"] == 3]


def assumed(plan):
    asked, machine = plan["asked"], plan["asked"]["hardware"]
    share = f"{plan['time']['utilization']:.0%} of {in_flops(machine['flops'][asked['precision']])}/s"
    return f"{share}, {machine['assumed']}" if plan["time"]["utilization"] == machine["utilization"] else share


def tokens(plan):
    found = plan["tokens"]
    yield line("Tokens of the run", number(found["planned"]), "")
    yield line("compute-optimal", number(found["optimal"]), "20 P (Hoffmann et al. 2022)", 1)
    for law, value in found["by_law"].items():
        yield line("by a fitted law", number(value), law, 1)
    yield line("a step", number(found["of_step"]), "", 1)
    if found["large_batch"]:
        yield f"  More than {number(LARGE_BATCH)} tokens a step: GPT-3's largest model had 3.2 M. Beyond the critical"
        yield "  batch (McCandlish et al. 2018) more samples save hardly any steps, nor more devices any time."

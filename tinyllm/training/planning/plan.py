"""A plan: one dict of numbers for a model, a batch, a way to share the work, and a machine."""

import dataclasses
import math

from tinyllm.errors import UserError
from tinyllm.training.parallel.config import ParallelConfig
from tinyllm.training.planning import memory
from tinyllm.training.planning.activations import Workload, kept_between, loss_of, peak_of_step
from tinyllm.training.planning.arithmetic import flops_of_token, six_p
from tinyllm.training.planning.compute_optimal import LARGE_BATCH, LAWS, TOKENS_PER_PARAMETER, tokens_by_law
from tinyllm.training.planning.messages import messages_of_step
from tinyllm.training.planning.outline import OutlinedStore
from tinyllm.training.planning.shapes import by_part, count, parameter_shapes, products

HOUR = 3600
FREE = 0.95
"""The share of a device's memory that arrays may fill; the rest is for the program, its libraries and fragments."""


def make_plan(model, training, hardware, *, parallel=None, ranks=None, kernels="numba", tokens=None, utilization=None,
              price=None):  # fmt: skip
    """dict of all that `page` shows, numbers in bytes, flops, seconds and dollars.

    model: a DecoderConfig, whose context is what samples are long. training: a TrainingConfig, of which batch_size,
    accumulation, recompute, precision and optimizer count. hardware: a Hardware. ranks: how many processes; as many as
    there are devices unless given. tokens: how many to train on; 20 for each parameter unless given. UserError for
    ranks that do not divide the batch, and numbers that make no sense.
    """
    parallel, ranks = parallel or ParallelConfig(), hardware.count if ranks is None else ranks
    check(training, hardware, ranks, tokens, utilization, price)
    plan = outcome(model, training, hardware, parallel, ranks, kernels)
    shapes = parameter_shapes(model)
    parameters, context = count(shapes), model.max_position_embeddings
    utilization = hardware.utilization if utilization is None else utilization
    price = hardware.price if price is None else price
    optimal = TOKENS_PER_PARAMETER * parameters
    tokens = optimal if tokens is None else tokens
    plan["parameters"] = {
        "total": parameters,
        "in_products": sum(products(model).values()),
        "parts": {part: {"count": number, "formula": formula} for part, (number, formula) in by_part(model).items()},
    }
    plan["flops_of_token"] |= {"formula": six_p(model, parameters, context)}
    plan["messages"] = communication(OutlinedStore(shapes, training, ranks), parallel, training, hardware)
    plan["time"] = time_and_cost(plan, training, hardware, ranks, context, tokens, utilization, price)
    plan["tokens"] = {
        "planned": tokens,
        "optimal": optimal,
        "by_law": {law: tokens_by_law(parameters, law) for law in LAWS},
        "of_step": training.batch_size * context,
        "large_batch": training.batch_size * context > LARGE_BATCH,
    }
    plan["instead"] = None if plan["memory"]["fits"] else remedy(model, training, hardware, parallel, ranks, kernels)
    return plan


def check(training, hardware, ranks, tokens, utilization, price):
    """UserError for what cannot be planned."""
    if ranks < 1:
        raise UserError(f"--ranks must be at least 1, not {ranks}")
    if not hardware.shared and 1 < hardware.count < ranks:
        raise UserError(
            f"{ranks} ranks do not fit {hardware.count} devices; one rank needs one: --ranks {hardware.count}"
        )
    pieces = ranks * training.accumulation
    if training.batch_size % pieces:
        near = max(round(training.batch_size / pieces), 1) * pieces
        beside = f" x accumulation {training.accumulation}" if training.accumulation > 1 else ""
        raise UserError(
            f"a batch of {training.batch_size:,} samples does not divide by {ranks:,} ranks{beside}; "
            f"--batch-size {near} does"
        )
    for name, value in (("tokens", tokens), ("utilization", utilization)):
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"--{name} must be above 0 and finite, not {value}")
    if utilization is not None and utilization > 1:
        raise UserError(f"--utilization is a share of the peak, at most 1, not {utilization}")
    if price is not None and not 0 <= price < math.inf:
        raise UserError(f"--price must not be negative, infinite or NaN; it was {price}")


def outcome(model, training, hardware, parallel, ranks, kernels):
    """What is asked for, the memory it takes, the arithmetic of a token: what a change to the plan changes."""
    store, context = OutlinedStore(parameter_shapes(model), training, ranks), model.max_position_embeddings
    samples = training.batch_size // (ranks * training.accumulation)
    gathers = parallel.zero == 3 and ranks > 1
    recomputed = model.num_hidden_layers if gathers else training.recomputed_blocks(model.num_hidden_layers)
    work = Workload(model, samples, context, training.precision, kernels, recomputed)
    stage = parallel.zero if ranks > 1 else 0
    held = memory.persistent(store, training.optimizer, stage)
    borrowed = memory.borrowed(store, parallel, model.tie_word_embeddings)
    peak, when = peak_of_step(work)
    update = memory.update_needs(training.optimizer, store)
    most = max(peak + sum(borrowed.values()), update)
    total = sum(held.values()) + most
    on_machine = total * ranks if hardware.shared else total
    return {
        "asked": {
            "model": model.as_dict(), "batch_size": training.batch_size, "context": context,
            "samples": samples, "accumulation": training.accumulation, "precision": training.precision,
            "optimizer": training.optimizer, "recomputed_blocks": recomputed, **parallel.as_dict(), "ranks": ranks,
            "kernels": kernels, "hardware": dataclasses.asdict(hardware),
        },
        "memory": {
            "persistent_bytes": held,
            "activation_bytes": {
                "blocks": kept_between(work),
                "loss": loss_of(work).kept,
                "above": peak - kept_between(work) - loss_of(work).kept,
                "peak": peak,
                "when": when,
                "peak_without_recomputation": peak_of_step(dataclasses.replace(work, recomputed=0))[0],
                "peak_with_recomputation": peak_of_step(
                    dataclasses.replace(work, recomputed=model.num_hidden_layers)
                )[0],
            },
            "borrowed_bytes": borrowed,
            "update_bytes": update,
            "rank_bytes": total,
            "machine_bytes": on_machine,
            "fits": on_machine <= FREE * hardware.memory,
        },
        "flops_of_token": flops_of_token(model, context, recomputed),
    }  # fmt: skip


def communication(store, parallel, training, hardware):
    """Messages of a step by kind, what each rank sends, and how long that takes at the full speed of the link."""
    found = messages_of_step(store, parallel, training.accumulation)
    sent = sum(message.sent_bytes for message in found)
    return {
        "kinds": [dataclasses.asdict(message) for message in found],
        "count": sum(message.count for message in found),
        "sent_bytes": sent,
        "bytes_per_second": hardware.sends(store.ranks),
        "seconds": sent / hardware.sends(store.ranks),
    }


def time_and_cost(plan, training, hardware, ranks, context, tokens, utilization, price):
    """Seconds of a step, of the run, and its price. A device computes at `utilization` of its peak, whatever it does.

    overlapped: messages go on beside the computation where they can; serial: one after the other. balance_tokens: with
    so many tokens a rank and step the two take equally long.
    """
    flops = plan["flops_of_token"]
    speed = hardware.flops[training.precision] * utilization / (ranks if hardware.shared else 1)
    of_token = (flops["total"] + flops["recomputation"]) / speed
    computing, sending = training.batch_size * context / ranks * of_token, plan["messages"]["seconds"]
    forward = training.batch_size * context / ranks * flops["forward"] / speed
    step = overlapped(plan, forward, computing - forward, training.accumulation)
    steps = -(-int(tokens) // (training.batch_size * context))
    run = steps * step
    devices = 1 if hardware.shared else ranks
    return {
        "utilization": utilization,
        "step_computing_seconds": computing,
        "step_sending_seconds": sending,
        "step_overlapped_seconds": step,
        "step_serial_seconds": computing + sending,
        "balance_tokens": sending / of_token,
        "tokens_per_second": training.batch_size * context / step,
        "steps": steps,
        "run_seconds": run,
        "devices": devices,
        "price_per_hour": price,
        "dollars": run / HOUR * devices * price,
    }


def overlapped(plan, forward, backward, pieces):
    """Seconds of a step whose messages go on beside the computation where they can.

    Gradients are sent while backward goes on, below stage 2 that of a batch's last piece; updated weights when the step
    is done, and nothing is computed meanwhile. At stage 3 both are sent beside forward and backward.
    """
    messages, stage = plan["messages"], plan["asked"]["zero"]
    if not plan["asked"]["overlap"]:
        return forward + backward + messages["seconds"]
    if stage == 3:
        return max(forward + backward, messages["seconds"])
    kinds = {"gradients": 0.0, "weights": 0.0}
    for kind in messages["kinds"]:
        kinds[kind["of"]] += kind["sent_bytes"] / messages["bytes_per_second"]
    last = backward if stage == 2 else backward / pieces
    return forward + backward - last + max(last, kinds["gradients"]) + kinds["weights"]


def remedy(model, training, hardware, parallel, ranks, kernels):
    """The first change, from the cheapest, after which it fits: dict of options and the bytes of a rank; None if none
    does."""
    for changes in candidates(training, hardware, parallel, ranks):
        rest = {name: value for name, value in changes.items() if name not in ("zero", "ranks")}
        changed_training = dataclasses.replace(training, **rest)
        changed_parallel = dataclasses.replace(parallel, zero=changes.get("zero", parallel.zero))
        tried = outcome(model, changed_training, hardware, changed_parallel, changes.get("ranks", ranks), kernels)
        if tried["memory"]["fits"]:
            return {"changes": changes, "rank_bytes": tried["memory"]["rank_bytes"]}
    return None


def candidates(training, hardware, parallel, ranks):
    """Changes to try, as dicts: fewer samples at a time, recomputation, both; higher stages; more ranks."""
    each = training.batch_size // ranks
    smaller = [{"accumulation": n} for n in divisors(each) if n > training.accumulation]
    again = {"recompute": "all"}
    yield from (*smaller, again, *(again | change for change in smaller))
    for stage in range(parallel.zero + 1, 4) if ranks > 1 else ():
        yield from (change | {"zero": stage} for change in ({}, again, again | {"accumulation": each}))
    for more in divisors(training.batch_size) if not hardware.shared else ():
        if more > ranks:
            yield {"zero": 3, "ranks": more, "accumulation": training.batch_size // more}


def divisors(n):
    """All of them, rising."""
    small = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return sorted({*small, *(n // d for d in small)})

"""Where the memory and the time of one training step go."""

import autograd as ag
from tinyllm.training.loop import accumulate


def inspection(training):
    """Tables of what one step of a Pretraining keeps, and of where its time goes, as text.

    Loss and gradients of the next batch are computed three times (to warm up, under `ag.debug.ledger`, under
    `ag.debug.profile`) and forgotten: weights, optimizer and batches are left as they were.
    """
    inputs, targets = training.batches.batch(training.batches.position, training.batches.batch_size)

    def step():
        training.store.zero()
        accumulate(training.model, inputs, targets, training.config, training.batches.position, training.scaler.scale)

    step()
    with ag.debug.ledger() as memory:
        step()
    with ag.debug.profile() as times:
        step()
    training.store.zero()
    return f"Memory of one step\n\n{memory}\n\nTime of one step\n\n{times}"

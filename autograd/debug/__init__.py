"""Looking into a graph: which op broke, who overwrote what, what is kept alive, where the time goes, how it is wired.

    with ag.debug.first_nan():           # names the first op that makes a NaN or an infinity
        loss = model.loss(ids, targets)
        loss.backward()

Each mode puts its own function around what the engine does with an op (`context.run`, `record`, `pull`) for the length
of a `with` block, in this thread. Outside such a block nothing is left of it.
"""

from autograd.debug.drawing.draw import Drawing, draw
from autograd.debug.first_nan import NonFinite, first_nan
from autograd.debug.guard import Overwritten, guard
from autograd.debug.ledger import ledger
from autograd.debug.profile import profile

__all__ = ["Drawing", "NonFinite", "Overwritten", "draw", "first_nan", "guard", "ledger", "profile"]

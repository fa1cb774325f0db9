"""Two processes train one model: what they say to each other, in bytes, and that nobody can tell it from one process.

The two are connected by a pipe and nothing else. What tinyllm wants to know of such a connection is the class below;
`tinyllm pretrain --devices 2` brings a faster one. Needs NumPy. A few seconds.
"""

import multiprocessing

import numpy as np

import autograd as ag
from tinyllm.data import RandomBatches
from tinyllm.models import Decoder, gpt2
from tinyllm.training.config import TrainingConfig
from tinyllm.training.loop import Pretraining, pretrain
from tinyllm.training.parallel import Communicator, Ranks
from tinyllm.training.parallel.config import ParallelConfig

##### What two processes need


class Pair(Communicator):
    """One of two ranks. Both call the same methods in the same order; sums are rank 0's number plus rank 1's."""

    size = 2

    def __init__(self, rank, pipe):
        self.rank, self.pipe = rank, pipe

    def both(self, array):
        """[rank 0's array, rank 1's]. Rank 0 speaks first: who only speaks fills the pipe, and waits for ever."""
        mine, theirs = np.ascontiguousarray(array), np.empty_like(array)
        steps = [lambda: self.pipe.send_bytes(mine), lambda: self.pipe.recv_bytes_into(theirs)]
        for step in steps if self.rank == 0 else reversed(steps):
            step()
        return [mine, theirs] if self.rank == 0 else [theirs, mine]

    def all_reduce(self, array):
        first, second = self.both(array)
        array[...] = first + second

    def reduce_scatter(self, array, cuts):
        first, second = self.both(array)  # half of which nobody asked for
        mine = slice(*cuts[self.rank : self.rank + 2])
        array[mine] = first[mine] + second[mine]

    def all_gather(self, array, cuts):
        first, second = self.both(array)
        array[: cuts[1]], array[cuts[1] :] = first[: cuts[1]], second[cuts[1] :]


##### One number through both


def one_number(ranks):
    """L = Σ (w x - y)² / 4 over four samples, two on each rank."""
    x, y = np.array([1.0, 2, 3, 4]), np.array([3.0, 5, 4, 9])
    mine = ranks.share(4)

    def loss_of(w, samples):
        return ((w * x[samples] - y[samples]) ** 2).sum() / 4

    w = ag.Tensor(1.0, requires_grad=True)
    loss_of(w, mine).backward()  # the sum over this rank's samples, divided by the number of all
    gradients = np.zeros(2)
    gradients[ranks.rank] = w.grad
    ranks.all_reduce(gradients)  # to show them: zeros are nothing in a sum

    shared = ag.Tensor(1.0, requires_grad=True)
    loss_of(ag.copy_to_ranks(shared, ranks=ranks), mine).backward()  # the same as an op, whose backward is the sum

    whole = ag.Tensor(1.0, requires_grad=True)
    loss_of(whole, slice(0, 4)).backward()
    if ranks.first:
        print(f"1. dL/dw of rank 0's samples {gradients[0]}, of rank 1's {gradients[1]}, their sum {shared.grad}")
        print(f"   and in one process {whole.grad}")
    assert shared.grad == whole.grad


##### A model through both

SHAPE = gpt2.config(
    vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=16, dropout=0.1
)
CONFIG = TrainingConfig(steps=8, batch_size=8, learning_rate=1e-2, warmup_steps=2)
TOKENS = np.arange(2000) ** 2 % 61


def train(ranks, zero):
    """(losses, the trained weights in one array, how many numbers of AdamW are kept here)."""
    model, losses = Decoder(SHAPE, seed=0, dtype="float64"), []
    batches = RandomBatches(TOKENS, batch_size=8, context=16, seed=0)  # every rank draws all of it, and knows its share
    training = Pretraining(model, batches, CONFIG, ParallelConfig(zero=zero), ranks)
    pretrain(training, after_step=lambda record: losses.append(record["loss_nats"]))
    state, _ = training.optimizer.state()
    return losses, training.store.values.copy(), sum(array.size for array in state.values())


def a_model(ranks):
    alone, weights, numbers = train(Ranks(), zero=0)
    lines = [f"2. one process:        losses {alone[0]:.6f} … {alone[-1]:.6f}, {numbers:,} numbers of AdamW"]
    results = []
    for zero in (0, 1):
        sent = len(ranks.messages)
        losses, ours, numbers = train(ranks, zero)
        kinds = [message.kind for message in ranks.messages[sent:] if message.num_bytes > 1000]
        lines.append(f"   two, ZeRO stage {zero}:  losses {losses[0]:.6f} … {losses[-1]:.6f}, {numbers:,} on each rank")
        lines.append(f"   what a step sends:   {', '.join(sorted(set(kinds)))}")
        assert np.allclose(losses, alone, rtol=1e-12, atol=0)
        assert np.allclose(ours, weights, rtol=0, atol=1e-9)
        results.append((losses, ours))

    (losses, ours), (with_zero, ours_with_zero) = results
    assert losses == with_zero
    assert np.array_equal(ours, ours_with_zero)
    of_rank_0, of_rank_1 = ranks.communicator.both(ours)
    assert np.array_equal(of_rank_0, of_rank_1)
    lines.append("3. the two ranks have the same weights, and both stages too, to the last bit;")
    lines.append(f"   one process has them to {abs(ours - weights).max():.0e}: it adds the samples up in another order")
    if ranks.first:
        print("\n".join(lines))


def rank(number, pipe):
    """What each process does: the same."""
    ranks = Ranks(Pair(number, pipe))
    one_number(ranks)
    a_model(ranks)
    ranks.close()


if __name__ == "__main__":
    processes = multiprocessing.get_context("spawn")
    ours, theirs = processes.Pipe()
    other = processes.Process(target=rank, args=(1, theirs), daemon=True)
    other.start()
    theirs.close()  # the other process has its own; if that ends, so does what is said here
    rank(0, ours)
    other.join()
    assert other.exitcode == 0

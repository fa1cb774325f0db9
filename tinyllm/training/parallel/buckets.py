"""The gradient in buckets: stretches of the store that are sent as one, while backward is still making the others."""

import collections
import dataclasses


@dataclasses.dataclass(frozen=True, eq=False)
class Bucket:
    """Parameters that lie side by side in the store.

    where: the slice of the store that they fill, padding included. names: theirs. earliest: which number the first of
    them has in the model. Backward goes through a model from its end, so that one completes the bucket.
    """

    where: slice
    names: tuple
    earliest: int

    @property
    def size(self):
        return self.where.stop - self.where.start


def make_buckets(store, limit):
    """The store's parameters in buckets of at most `limit` numbers, in the order in which backward completes them.

    A parameter is never cut: a larger one has a bucket of its own. Nor does a bucket reach over groups: those without
    decay are small, come from all over the model, and would keep the matrices beside them waiting.
    """
    number = {name: i for i, name in enumerate(store.parameters)}
    buckets = []
    for group, span in store.groups.items():
        names = [name for name, place in store.places.items() if place.group == group]
        begins = [store.places[name].start for name in names] + [span.stop]
        first = 0
        for i in range(1, len(names) + 1):
            if i == len(names) or begins[i + 1] - begins[first] > limit:
                inside = tuple(names[first:i])
                buckets.append(Bucket(slice(begins[first], begins[i]), inside, min(map(number.get, inside))))
                first = i
    return sorted(buckets, key=lambda bucket: bucket.earliest, reverse=True)


class Sending:
    """The buckets of one backward on their way out, on all ranks in the same order.

    send(bucket) is called for each of them once. A bucket that is whole before its turn waits for it; one that misses
    the gradient of a parameter that the loss does not depend on goes out at the end.
    """

    def __init__(self, buckets, send):
        self.send, self.queue = send, collections.deque(buckets)
        self.missing = {bucket: len(bucket.names) for bucket in buckets}

    def arrived(self, bucket):
        """Another parameter of this bucket has its whole gradient."""
        self.missing[bucket] -= 1
        self.send_while(lambda first: not self.missing[first])

    def send_while(self, ready):
        """Send the next bucket as long as ready(bucket) says so."""
        while self.queue and ready(self.queue[0]):
            self.send(self.queue.popleft())

    def send_rest(self):
        self.send_while(lambda first: True)

"""Between our paths and other projects' names of the same weights, in both directions."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class WeightNames:
    """A table of published name -> our path, or a tuple of paths where several are stored as one (rows joined).

    `{i}` stands for the layer. transposed: endings of published names whose matrices are stored (in, out).
    """

    table: dict
    transposed: tuple = ()

    def rows(self, config):
        """(published name, tuple of our paths, transposed?) with the layer numbers filled in."""
        for published, ours in self.table.items():
            paths = (ours,) if isinstance(ours, str) else ours
            for i in range(config.num_hidden_layers) if "{i}" in published else (0,):
                yield (
                    published.format(i=i),
                    tuple(path.format(i=i) for path in paths),
                    published.endswith(self.transposed) if self.transposed else False,
                )

    def to_ours(self, weights, config):
        """Published weights (dict name -> array) under our paths; names the table does not know stay as they are."""
        ours = dict(weights)
        for published, paths, transposed in self.rows(config):
            if published in ours:
                array = ours.pop(published)
                array = array.T if transposed else array
                ends = np.cumsum([num_rows(path, config) for path in paths]) if len(paths) > 1 else [len(array)]
                ours.update(zip(paths, np.split(array, ends[:-1]), strict=True))
        return ours

    def to_published(self, weights, config):
        """The inverse: our weights under their published names, joined and transposed back."""
        published = {}
        for name, paths, transposed in self.rows(config):
            if all(path in weights for path in paths):
                array = np.concatenate([np.asarray(weights[path]) for path in paths])
                published[name] = np.ascontiguousarray(array.T if transposed else array)
        return published


def num_rows(path, config):
    """How many rows of a joined query-key-value matrix belong to `path`."""
    heads = config.num_attention_heads if ".query." in path else config.key_value_heads
    return heads * config.head_width

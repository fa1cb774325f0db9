"""Which of three ways encodes: plain Python, NumPy arrays or compiled kernels. They give the same ids.

Plain Python begins, since it has nothing to load. Who encodes more than a few pages gets the kernels: at once where
they lie on disk, else as soon as a process in the background has compiled them. Only a large text waits for that.
"""

import contextlib
import time

from tinyllm.errors import UserError
from tinyllm.tokenizers.bpe_arrays import ArrayEncoder
from tinyllm.tokenizers.compiling import kernels_ready, usable
from tinyllm.tokenizers.patterns import machine_of, splitter

RUNGS = ("python", "numpy", "numba")
A_FEW_PAGES = 100_000  # characters: what plain Python encodes in the time that it takes to load Numba
LARGE_TEXT = 8_000_000  # characters at once: plain Python takes as long for as many as the compiler for its kernels
PAUSE = 0.1  # seconds from one look for the kernels to the next


class Rungs:
    """The way of encoding that one tokenizer uses."""

    def __init__(self, tokens, byte_ids, merges, pattern, *, ignore_merges=False):
        """tokens: dict id -> bytes. byte_ids: the ids of the 256 bytes. merges: dict (left id, right id) -> (rank,
        merged id). pattern: a regular expression. ignore_merges: a piece that is a token as a whole becomes that one.
        """
        self._vocabulary = tokens, byte_ids, merges
        self._pattern = pattern
        self.encoder = None
        """What encodes instead of plain Python; None as long as that does."""
        self.name = "python"
        self._ignore_merges = ignore_merges
        self._settled = self._has_no_kernels()
        self._characters, self._next_look = 0, 0.0

    def _has_no_kernels(self):
        """There are kernels for the named patterns only."""
        return machine_of(self._pattern) is None

    def encoder_for(self, characters):
        """What shall encode as many: an encoder, or None for plain Python."""
        if self._settled:
            return self.encoder
        self._characters += characters
        large = characters >= LARGE_TEXT
        if self._characters >= A_FEW_PAGES and (large or time.monotonic() >= self._next_look):
            self._next_look = time.monotonic() + PAUSE
            if kernels_ready(wait=large):
                with contextlib.suppress(UserError):  # its tokens are too long for the tables: plain Python goes on
                    self.use("numba")
                self._settled = True
            self._settled = self._settled or not usable()
        return self.encoder

    def use(self, rung):
        """Encode in this way from now on, "python", "numpy" or "numba"; None: as it is best.

        Errors: UserError for another name, and for "numba" where there is none, the pattern is the user's own, or
        tokens have to be looked up that are too long for its tables.
        """
        if rung is None:
            self.name, self.encoder, self._settled = "python", None, self._has_no_kernels()
            return
        if rung not in RUNGS:
            raise UserError(f"rung must be one of {', '.join(RUNGS)} or None; got {rung!r}")
        self.encoder = {"python": lambda: None, "numpy": self._of_arrays, "numba": self._of_kernels}[rung]()
        self.name, self._settled = rung, True

    def _of_arrays(self):
        tokens, byte_ids, merges = self._vocabulary
        whole_pieces = {content: token for token, content in tokens.items()} if self._ignore_merges else {}
        return ArrayEncoder(byte_ids, merges, splitter(self._pattern), whole_pieces)

    def _of_kernels(self):
        machine = machine_of(self._pattern)
        if machine is None:
            raise UserError('there are kernels for the named patterns only; use the rung "python" or "numpy"')
        if not kernels_ready(wait=True):
            raise UserError('Numba is not installed here, or switched off; use the rung "python" or "numpy"')
        from tinyllm.tokenizers.bpe_encoder import KernelEncoder

        return KernelEncoder(*self._vocabulary, machine, self._ignore_merges)

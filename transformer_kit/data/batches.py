"""Batches as a pure function of seed and step, so resuming needs only the step number.

The corpus is cut into windows of seq_len targets that overlap by one token. Each epoch visits every window once, in
its own pseudo-random order.

A training batch may span two epochs. A pass over the validation share ends with a smaller batch, and then reads the
rest of each region as a shorter window. So every target counts once, for any batch size.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transformer_kit.data.permutation import Permutation
from transformer_kit.data.store import TokenStore

Split = Literal["train", "validation"]

MAX_REGIONS = 64
REGION_TOKENS = 1 << 16
"""Minimum number of validation tokens per region, when there are several regions."""


class Batches:
    """Batches of one share of a corpus.

    store: the corpus. split: which share. validation: size of the validation share, in [0, 1).
    batch_size, seq_len: rows of a batch, targets of a row. seed: order of the training windows. The order of the
    validation windows does not depend on the seed, so that runs with different seeds are comparable.
    document_mask: whether batches contain the document index of each token.

    Raises ValueError when the share is too small for a single window.
    """

    def __init__(
        self,
        store: TokenStore,
        split: Split,
        *,
        batch_size: int,
        seq_len: int,
        validation: float,
        seed: int = 0,
        document_mask: bool = False,
    ) -> None:
        self._store = store
        self._spans = spans(len(store), validation, split)
        self._split = split
        self._seq_len = seq_len
        self._batch_size = batch_size
        self._key = f"train:{seed}" if split == "train" else "validation"
        self._document_mask = document_mask
        lengths = self._spans[:, 1] - self._spans[:, 0]
        self._upto = np.cumsum(np.maximum(0, lengths - 1) // seq_len)
        self.windows = int(self._upto[-1])
        """Number of windows per epoch."""
        self.tokens = int(lengths.sum())
        """Number of tokens of this share."""
        if self.windows == 0:
            raise ValueError(self._too_small(split, validation, int(lengths.max())))
        counts = np.maximum(0, lengths - 1) // seq_len
        rests = np.stack([self._spans[:, 0] + counts * seq_len, self._spans[:, 1]], axis=1)
        self._rests = rests[rests[:, 1] - rests[:, 0] > 1]  # remainders of regions that hold a target
        self._full = -(-self.windows // batch_size)
        self.per_pass = self._full + len(self._rests)
        """Number of batches in one pass over the validation share."""

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes per token of this share. Nats per token / (ln 2 * this) are bits per byte."""
        return sum(self._store.bytes_between(int(a), int(b)) for a, b in self._spans) / self.tokens

    def batch(self, step: int) -> tuple[Tensor, Tensor | None]:
        """Tokens of `step`, counted from 0, and with `document_mask` their segments, each (B, seq_len + 1).

        Segments number the documents of a row from 0. An end-of-text token belongs to its document.
        The last batches of a validation pass have fewer rows, or one shorter row.
        """
        index = self._index(step)
        rows = [self._store.tokens[row[0] : row[-1] + 1] for row in index]
        tokens = torch.from_numpy(np.stack(rows).astype(np.int64))
        if not self._document_mask:
            return tokens, None
        documents = self._store.document_of(index)
        return tokens, torch.from_numpy(documents - documents[:, :1])

    def _index(self, step: int) -> NDArray[np.int64]:
        """Indices of the batch's tokens in the corpus."""
        assert step >= 0
        visit = step * self._batch_size + np.arange(self._batch_size)
        if self._split == "validation":
            step %= self.per_pass
            if step >= self._full:
                return np.arange(*self._rests[step - self._full])[None]
            visit = np.arange(step * self._batch_size, min((step + 1) * self._batch_size, self.windows))
        return self._starts(visit)[:, None] + np.arange(self._seq_len + 1)

    def _starts(self, visit: NDArray[np.int64]) -> NDArray[np.int64]:
        """First token of each row, from the number of rows before it."""
        epochs, places = np.divmod(visit, self.windows)
        window = np.empty_like(places)
        for epoch in np.unique(epochs):
            rows = epochs == epoch
            window[rows] = Permutation(self.windows, f"{self._key}:{epoch}")(places[rows])
        span = np.searchsorted(self._upto, window, side="right")
        first = np.concatenate([[0], self._upto])[span]
        return self._spans[span, 0] + (window - first) * self._seq_len

    def _too_small(self, split: Split, validation: float, longest: int) -> str:
        needed = f"a sequence needs seq_len + 1 = {self._seq_len + 1}"
        if len(self._store) <= self._seq_len:
            return f"the corpus has {len(self._store)} tokens and {needed}; give more text or a smaller seq_len"
        remedy = "raise" if split == "validation" else "lower"
        return (
            f"the {split} share has runs of at most {longest} tokens ({self.tokens} of {len(self._store)}, with "
            f"validation = {validation:g}) and {needed}; {remedy} `validation` or choose a smaller seq_len"
        )


def spans(n_tokens: int, validation: float, split: Split) -> NDArray[np.int64]:
    """Begin and end (R, 2) of the corpus ranges that belong to `split`. The splits share no token.

    The corpus is divided into equal regions, and the end of each region is validation data. So validation covers a
    sorted corpus evenly. Small corpora have one region. The ranges depend neither on seq_len nor on a seed.
    """
    regions = min(MAX_REGIONS, max(1, int(n_tokens * validation) // REGION_TOKENS))
    borders = np.arange(regions + 1, dtype=np.int64) * n_tokens // regions
    begin, end = borders[:-1], borders[1:]
    middle = end - np.round((end - begin) * validation).astype(np.int64)
    return np.stack([begin, middle] if split == "train" else [middle, end], axis=1)

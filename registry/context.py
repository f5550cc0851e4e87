"""The context of one forward pass: the positions of its tokens and the attention mask.

A token has an *index*, its offset in the row, and a *position*, its offset in its own document. The two differ
when a row holds several documents or left padding. `segments` describes both cases: tokens attend to each other only
within a segment, and positions count from its first token. Padding is segment -1.

B batch, T query tokens, S key tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from registry.dense_mask import DenseMask
from registry.segments import begun

PADDING, FORGOTTEN = -1, -2
"""Segment of padding tokens, and segment of tokens that were reset."""

T = TypeVar("T")


@dataclass
class Context:
    """Positions, segments and causality of the tokens in one forward pass of a stack.

    `Context.of` makes the context of a whole sequence. `DecodeState.context` makes the context of a continuation.
    """

    start: int | Tensor
    """Index of the first token in its row: the number of earlier tokens. A tensor (1,) in a static-shape step."""
    length: int
    """Number of tokens T."""
    positions: Tensor
    """Position of each token in its own document: (T,), or (B, T) with segments."""
    segments: Tensor | None = None
    """Segment of each token (B, T); None when each row is one sequence."""
    past: Tensor | None = None
    """Segment of each key so far (B, S); None when each row is one sequence."""
    causal: bool = True
    """Whether attention is causal: a property of the stack."""
    foreseen: Tensor | None = None
    """Minimum sequence length of each row (B, 1), where it exceeds the tokens of this pass."""
    forward_cache: dict[Any, Any] = field(default_factory=dict)
    """Per-forward cache: results that several layers share in this pass; see `cached`."""
    losses: list[Tensor] = field(default_factory=list)
    """Auxiliary training losses, such as a router's load-balancing loss."""

    @staticmethod
    def of(tokens: Tensor, segments: Tensor | None = None, *, causal: bool = True) -> "Context":
        """The context of `tokens` (B, T, ...) that start a sequence."""
        index = torch.arange(tokens.shape[1], device=tokens.device)
        if segments is None:
            return Context(0, tokens.shape[1], index, causal=causal)
        return Context(0, tokens.shape[1], index - begun(segments, None, None, index), segments, segments, causal)

    def cached(self, key: Any, compute: Callable[[], T]) -> T:
        """Return `compute()`, computed once per `key` and forward pass."""
        if key not in self.forward_cache:
            self.forward_cache[key] = compute()
        return self.forward_cache[key]

    def mask(self, *, keys: int | Tensor, window: int | None = None, chunk: int | None = None) -> "Mask":
        """The attention mask over `keys`: their count, or the index of each, the same in all layers.

        A `chunk` needs all keys since the start, given as a count.
        """
        key = ("mask", window, chunk, keys if isinstance(keys, int) else len(keys))
        return self.cached(key, lambda: self._mask(keys, window, chunk))

    def _mask(self, keys: int | Tensor, window: int | None, chunk: int | None) -> "Mask":
        past = self.past
        if past is not None:
            past = past[:, :keys] if isinstance(keys, int) else past[:, keys.clamp(min=0)]
        where = (self.start, self.length, keys, self.causal, window, self.positions.device)
        return Mask(*where, self.segments, past, chunk, self.positions)


@dataclass(frozen=True)
class Mask(DenseMask):
    """A lazy attention mask: only a kernel without a faster way builds the dense tensor.

    A query attends to the keys of its own segment. With `causal` it attends to no later key. With `window` it attends
    to keys fewer than `window` tokens away.
    """

    start: int | Tensor
    """Index of the first query; a tensor (1,) in a static-shape decode step."""
    length: int
    """Number of queries T; their indices are consecutive."""
    keys: int | Tensor
    """Number of keys S, if they are the first S tokens of the row; else their indices (S,), negative if empty."""
    causal: bool
    window: int | None
    device: torch.device
    query_segments: Tensor | None = None
    key_segments: Tensor | None = None
    chunk: int | None = None
    """Chunk size of chunked attention: tokens attend only within their chunk of positions; None for no chunks."""
    positions: Tensor | None = None
    """Position of each query in its own document: (T,), or (B, T) with segments; its index when None."""
    built: dict[str, Any] = field(default_factory=dict)
    """Tensors built so far (torch.compile cannot trace the lock of `functools.cached_property`)."""

    @property
    def is_causal(self) -> bool:
        """Whether this is the square causal case: the queries are the keys, and no window or segment limits them."""
        known = isinstance(self.start, int) and isinstance(self.keys, int)
        return self.causal and known and (self.start, self.keys) == (0, self.length) and not self._limited

    @property
    def is_full(self) -> bool:
        """Whether every query attends to every key; False if only the device knows."""
        if not isinstance(self.start, int):
            return False
        if not isinstance(self.keys, int):  # one query, and a cache whose tokens all lie in the window
            near = self.window is not None and len(self.keys) <= self.window
            return self.causal and self.length == 1 and near and self.query_segments is None
        return not (self.causal and self.keys > self.start + 1) and not self._limited

    @property
    def _limited(self) -> bool:
        assert isinstance(self.start, int)
        assert isinstance(self.keys, int)
        far = max(self.keys, self.start + self.length)
        return self.query_segments is not None or min(n for n in (self.window, self.chunk, far) if n is not None) < far

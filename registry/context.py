"""What one forward pass carries beside the activations: where its tokens stand, and which keys they attend to.

Tokens have an *index*, their place in the row, and a *position*, their place in their own text. The two differ
when a row holds several documents or padding on the left. Both cases are one description, `segments`: tokens attend to
each other only within a segment, and positions count from its first token. Padding is segment -1.

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
"""The segments of tokens that are nobody's, and of those that were reset."""

T = TypeVar("T")


@dataclass
class Context:
    """One forward pass of a stack: where its tokens stand and what they may attend to.

    `Context.of` makes that of a whole text, `DecodeState.context` that of tokens which follow others.
    """

    start: int | Tensor
    """Index of the first token in its row: how many came before. A tensor (1,) where only the device knows it."""
    length: int
    """Number of tokens T."""
    positions: Tensor
    """Place of each token in its own text: (T,), or (B, T) with segments."""
    segments: Tensor | None = None
    """Segment of each token (B, T); None when each row is one text."""
    past: Tensor | None = None
    """Segment of each key so far (B, S); None when each row is one text."""
    causal: bool = True
    """Whether tokens attend to none after them: a property of the stack."""
    foreseen: Tensor | None = None
    """Tokens of each row's text (B, 1), where more than this pass are known to come."""
    forward_cache: dict[Any, Any] = field(default_factory=dict)
    """What one layer computed and others use again in this pass; see `cached`."""
    losses: list[Tensor] = field(default_factory=list)
    """What parts add to the training loss, such as a router's load-balancing loss."""

    @staticmethod
    def of(tokens: Tensor, segments: Tensor | None = None, *, causal: bool = True) -> "Context":
        """The context of `tokens` (B, T, ...) that follow nothing."""
        index = torch.arange(tokens.shape[1], device=tokens.device)
        if segments is None:
            return Context(0, tokens.shape[1], index, causal=causal)
        return Context(0, tokens.shape[1], index - begun(segments, None, None, index), segments, segments, causal)

    def cached(self, key: Any, compute: Callable[[], T]) -> T:
        """What `compute` returned the first time that `key` was asked for in this pass."""
        if key not in self.forward_cache:
            self.forward_cache[key] = compute()
        return self.forward_cache[key]

    def mask(self, *, keys: int | Tensor, window: int | None = None, chunk: int | None = None) -> "Mask":
        """Describe which of `keys` (a count, or the index of each, the same in all layers) the tokens attend to.

        A `chunk` needs all keys since the start: a count.
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
    """Which keys a query attends to: described here, built only by a kernel that has no faster way.

    It attends to a key that lies in its own segment, not after it if `causal`, and fewer than `window` tokens away if
    there is a window (the token itself counts).
    """

    start: int | Tensor
    """Index of the first query; a tensor (1,) where only the device knows it."""
    length: int
    """Number of queries T; they stand in a row."""
    keys: int | Tensor
    """Number of keys S, when they are the first S tokens of the row; else the index of each, (S,), below 0 of none."""
    causal: bool
    window: int | None
    device: torch.device
    query_segments: Tensor | None = None
    key_segments: Tensor | None = None
    chunk: int | None = None
    """Tokens attend to their own block of so many positions only; to the whole past when None."""
    positions: Tensor | None = None
    """Place of each query in its own text: (T,), or (B, T) with segments; its index when None."""
    built: dict[str, Any] = field(default_factory=dict)
    """What has been built so far (`functools.cached_property` takes a lock, which compilers cannot see through)."""

    @property
    def is_causal(self) -> bool:
        """Queries are the keys, and each attends to itself and all before: the square causal case."""
        known = isinstance(self.start, int) and isinstance(self.keys, int)
        return self.causal and known and (self.start, self.keys) == (0, self.length) and not self._limited

    @property
    def is_full(self) -> bool:
        """Every query attends to every key, as far as Python knows."""
        if not isinstance(self.start, int):
            return False
        if not isinstance(self.keys, int):  # one query after a sliding window's tokens, of which all are near
            near = self.window is not None and len(self.keys) <= self.window
            return self.causal and self.length == 1 and near and self.query_segments is None
        return not (self.causal and self.keys > self.start + 1) and not self._limited

    @property
    def _limited(self) -> bool:
        assert isinstance(self.start, int)
        assert isinstance(self.keys, int)
        far = max(self.keys, self.start + self.length)
        return self.query_segments is not None or min(n for n in (self.window, self.chunk, far) if n is not None) < far

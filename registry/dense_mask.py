"""The matrix of pairs of a query and a key that a mask allows, built where a kernel has no faster way.

B batch, T query tokens, S key tokens.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from registry.segments import same_chunk


class DenseMask:
    """Builds what `Mask` describes, each matrix once."""

    start: int | Tensor
    length: int
    keys: int | Tensor
    causal: bool
    window: int | None
    chunk: int | None
    device: torch.device
    query_segments: Tensor | None
    key_segments: Tensor | None
    positions: Tensor | None
    built: dict[str, Any]

    @property
    def queries(self) -> Tensor:
        """Index of each query: (T,)."""
        return torch.arange(self.length, device=self.device) + self.start

    @property
    def distance(self) -> Tensor:
        """How far each query stands behind each key: (T, S)."""
        return self._built("distance", lambda: self.queries[:, None] - self._key_index())

    @property
    def key_positions(self) -> Tensor:
        """Place of each key in its query's text, which means something where it is seen: (T, S), or (B, T, S)."""
        return (self.queries if self.positions is None else self.positions)[..., None] - self.distance

    @property
    def dense(self) -> Tensor:
        """True where a query attends to a key: (T, S), or (B, 1, T, S) with segments."""
        return self._built("dense", self._dense)

    @property
    def hidden(self) -> Tensor:
        """True where a query does not attend to a key, shaped as `dense`."""
        return self._built("hidden", lambda: ~self.dense)

    def added(self, dtype: torch.dtype) -> Tensor:
        """What hides finite scores by being added to them: 0 where a query attends to a key, else -inf."""
        return self._built(f"added {dtype}", lambda: self._added(dtype))

    def _built(self, name: str, build: Callable[[], Tensor]) -> Tensor:
        if name not in self.built:
            self.built[name] = build()
        found: Tensor = self.built[name]
        return found

    def _key_index(self) -> Tensor:
        return torch.arange(self.keys, device=self.device) if isinstance(self.keys, int) else self.keys

    def _added(self, dtype: torch.dtype) -> Tensor:
        return torch.zeros_like(self.hidden, dtype=dtype).masked_fill(self.hidden, float("-inf"))

    def _dense(self) -> Tensor:
        distance = self.distance
        seen = distance >= 0 if self.causal else torch.ones_like(distance, dtype=torch.bool)
        if self.window is not None:
            seen = seen & (distance.abs() < self.window)
        if not isinstance(self.keys, int):
            seen = seen & (self.keys >= 0)
        if self.chunk is not None:
            seen = seen & same_chunk(self.chunk, self.queries, self._key_index(), self.key_segments)
        if self.query_segments is None or self.key_segments is None:
            return seen
        return seen & (self.query_segments[:, None, :, None] == self.key_segments[:, None, None, :])

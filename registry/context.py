"""What one forward pass carries beside the activations: where the tokens stand, what they see, what is remembered.

Tokens have an *index*, their place in the row, and a *position*, their place in their own text. The two differ
when a row holds several documents or padding on the left. Both cases are one description, `segments`: tokens see
each other only within a segment, and positions count from its first token. Padding is segment -1.

B batch, T query tokens, S key tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

PADDING = -1
"""The segment of tokens that are nobody's."""

T = TypeVar("T")


class State:
    """What decoding remembers of a batch of rows: each layer's own state, and the segments of the past.

    Made by `Model.state(batch, capacity)`, advanced in place by each `Model.forward`, unless `fix` was called.
    """

    def __init__(self, layers: list[Any], batch: int, capacity: int) -> None:
        self.layers = layers
        self.batch = batch
        self.capacity = capacity
        self.seen = 0
        self.segments: Tensor | None = None  # (B, capacity), once any row is divided
        self.start: Tensor | None = None  # (B, 1) index at which each row's current segment began
        self.place: Tensor | None = None  # (1,) index of the next token, in steps of fixed shapes
        self.reach = 0  # tokens, past and new, that such a step finds at most
        self.foreseen: Tensor | None = None  # (B, 1) tokens that each row's text has at least, once all were read

    def fix(self, place: Tensor, reach: int) -> None:
        """From now on each pass takes in one token of every row, at index `place` (1,), which is less than `reach`.

        No shape, and no number that Python holds, then depends on how many tokens were seen, so that one step can be
        recorded and replayed. Whoever moves `place` counts `seen` as well.
        """
        self.place, self.reach = place, reach
        if self.segments is not None:  # what comes belongs to the last text of each row
            self.segments[:, self.seen :] = self.segments[:, self.seen - 1, None]

    def advance(self, segments: Tensor | None, length: int, device: torch.device) -> tuple[Tensor | None, Tensor]:
        """Take in `length` tokens; their segments (B, T) or None, and positions (B, T) or (T,)."""
        begin, end = self.seen, self.seen + length
        if end > self.capacity:
            raise ValueError(f"decode state holds {self.capacity} tokens, got {end}")
        if self.place is not None:
            return self._fixed(segments, length, self.place)
        self.seen = end
        index = torch.arange(begin, end, device=device)
        if segments is None and self.segments is None:
            return None, index
        if self.segments is None:
            self.segments = torch.zeros(self.batch, self.capacity, dtype=torch.long, device=device)
        last = self.segments[:, max(begin - 1, 0), None]
        current = last.expand(-1, length) if segments is None else segments
        self.segments[:, begin:end] = current
        origin = begun(current, last if begin else None, self.start, index)
        self.start = origin[:, -1:]
        return self.segments[:, begin:end], index - origin

    def _fixed(self, segments: Tensor | None, length: int, place: Tensor) -> tuple[Tensor | None, Tensor]:
        if segments is not None or length != 1:
            raise ValueError("a fixed decode state takes one token at a time, of the text that each row is in")
        if self.segments is None or self.start is None:
            return None, place
        return self.segments[:, -1:], place - self.start


def begun(segments: Tensor, last: Tensor | None, start: Tensor | None, index: Tensor) -> Tensor:
    """Index (B, T) at which each token's segment began. `last`, `start` (B, 1): segment and beginning of the past."""
    previous = torch.cat([segments[:, :1] if last is None else last, segments[:, :-1]], dim=1)
    origin = torch.where(segments != previous, index, torch.zeros_like(index))
    if start is not None:
        origin = torch.cat([start, origin], dim=1).cummax(dim=1).values
        return origin[:, 1:]
    return origin.cummax(dim=1).values


@dataclass(frozen=True)
class Mask:
    """Which keys a query sees: described here, built only by a kernel that has no faster way.

    A key is seen when it lies in the query's segment, not ahead of it if `causal`, and fewer than `window` tokens
    away if there is a window (the token itself counts).
    """

    start: int
    """Index of the first query; the largest it may be where there is a `place`."""
    length: int
    """Number of queries T; they stand in a row."""
    keys: int | Tensor
    """Number of keys S, when they are the first S tokens of the row; else the index of each, (S,)."""
    causal: bool
    window: int | None
    device: torch.device
    query_segments: Tensor | None = None
    key_segments: Tensor | None = None
    chunk: int | None = None
    """Tokens see their own block of so many positions only; the whole past when None."""
    positions: Tensor | None = None
    """Place of each query in its own text: (T,), or (B, T) with segments; its index when None."""
    place: Tensor | None = None
    """Index of the one query (1,), in steps of fixed shapes; keys after it are not filled yet."""
    built: dict[str, Tensor] = field(default_factory=dict)
    """What has been built so far (`functools.cached_property` takes a lock, which compilers cannot see through)."""

    @property
    def is_causal(self) -> bool:
        """Queries are the keys, and each sees itself and all before: the square causal case."""
        square = self.start == 0 and isinstance(self.keys, int) and self.keys == self.length
        return self.causal and square and not self._limited and self.place is None

    @property
    def is_full(self) -> bool:
        """Every query sees every key."""
        if self.place is not None:
            return False
        if not isinstance(self.keys, int):
            return self.causal and self.length == 1 and self.query_segments is None  # a ring: never outside the window
        ahead = self.causal and self.keys > self.start + 1
        return not ahead and not self._limited

    @property
    def _limited(self) -> bool:
        reach = max(self.keys, self.start + self.length) if isinstance(self.keys, int) else self.start + self.length
        near = min(n for n in (self.window, self.chunk, reach) if n is not None)
        return self.query_segments is not None or near < reach

    @property
    def queries(self) -> Tensor:
        """Index of each query: (T,)."""
        if self.place is not None:
            return self.place
        return torch.arange(self.start, self.start + self.length, device=self.device)

    @property
    def distance(self) -> Tensor:
        """How far each query stands behind each key: (T, S)."""
        if "distance" not in self.built:
            self.built["distance"] = self._distance()
        return self.built["distance"]

    @property
    def key_positions(self) -> Tensor:
        """Place of each key in its query's text, which means something where it is seen: (T, S), or (B, T, S)."""
        return (self.queries if self.positions is None else self.positions)[..., None] - self.distance

    @property
    def dense(self) -> Tensor:
        """True where a query sees a key: (T, S), or (B, 1, T, S) with segments."""
        if "dense" not in self.built:
            self.built["dense"] = self._dense()
        return self.built["dense"]

    @property
    def hidden(self) -> Tensor:
        """True where a query does not see a key, shaped as `dense`."""
        if "hidden" not in self.built:
            self.built["hidden"] = ~self.dense
        return self.built["hidden"]

    def added(self, dtype: torch.dtype) -> Tensor:
        """What hides finite scores by being added to them: 0 where a query sees a key, else -inf; shaped as `dense`."""
        key = f"added {dtype}"
        if key not in self.built:
            self.built[key] = torch.zeros_like(self.hidden, dtype=dtype).masked_fill(self.hidden, float("-inf"))
        return self.built[key]

    def _distance(self) -> Tensor:
        return self.queries[:, None] - (
            torch.arange(self.keys, device=self.device) if isinstance(self.keys, int) else self.keys
        )

    def _dense(self) -> Tensor:
        distance = self.distance
        seen = distance >= 0 if self.causal else torch.ones_like(distance, dtype=torch.bool)
        if self.window is not None:
            seen = seen & (distance.abs() < self.window)
        if self.place is not None and not isinstance(self.keys, int):
            seen = seen & (self.keys >= 0)  # slots of a ring that nothing was written to
        if self.chunk is not None:
            seen = seen & self._same_chunk(self.chunk)
        if self.query_segments is None or self.key_segments is None:
            return seen
        return seen & (self.query_segments[:, None, :, None] == self.key_segments[:, None, None, :])

    def _same_chunk(self, chunk: int) -> Tensor:
        """Whether query and key stand in the same block of positions: (T, S), or (B, 1, T, S) with segments."""
        keys = torch.arange(self.keys, device=self.device) if isinstance(self.keys, int) else self.keys
        if self.key_segments is not None:
            keys = (keys - begun(self.key_segments, None, None, keys))[:, None]  # (B, 1, S)
        blocks = keys // chunk
        queries = blocks[..., self.queries]
        return queries[..., :, None] == blocks[..., None, :]


@dataclass
class Context:
    """One forward pass: where its tokens stand and what they may see. `of` makes it."""

    start: int
    """Index of the first token in its row: how many came before; the most that can where there is a `place`."""
    length: int
    """Number of tokens T."""
    positions: Tensor
    """Place of each token in its own text: (T,), or (B, T) with segments."""
    segments: Tensor | None
    """Segment of each token (B, T); None when each row is one text."""
    past: Tensor | None
    """Segment of each key so far (B, S); None when each row is one text."""
    place: Tensor | None = None
    """Index of the one token (1,), in steps of fixed shapes; see `State.fix`."""
    foreseen: Tensor | None = None
    """Tokens of each row's text (B, 1), where more than this pass are known to come."""
    memo: dict[Any, Any] = field(default_factory=dict)
    """What several layers need and one computes."""
    losses: list[Tensor] = field(default_factory=list)
    """What parts add to the training loss, such as a router's balance."""

    @staticmethod
    def of(tokens: Tensor, segments: Tensor | None = None, state: State | None = None) -> "Context":
        """The context of `tokens` (B, T, ...), which follow whatever `state` has seen."""
        length = tokens.shape[1]
        if state is not None:
            if tokens.shape[0] != state.batch:
                raise ValueError(f"decode state is for {state.batch} rows, got {tokens.shape[0]}")
            start = state.seen if state.place is None else state.reach - 1
            here, positions = state.advance(segments, length, tokens.device)
            past = None if state.segments is None else state.segments[:, : start + length]
            return Context(start, length, positions, here, past, state.place, state.foreseen)
        index = torch.arange(length, device=tokens.device)
        if segments is None:
            return Context(0, length, index, None, None)
        return Context(0, length, index - begun(segments, None, None, index), segments, segments)

    def once(self, key: Any, compute: Callable[[], T]) -> T:
        """What `compute` returned the first time it was asked for under `key` in this pass."""
        if key not in self.memo:
            self.memo[key] = compute()
        return self.memo[key]

    def mask(self, *, causal: bool, window: int | None = None, chunk: int | None = None, keys: int | Tensor) -> Mask:
        """Describe what this pass's tokens see of `keys` (a count, or the index of each, the same in all layers).

        A `chunk` needs all keys since the start: a count.
        """
        key = ("mask", causal, window, chunk, keys if isinstance(keys, int) else "ring")
        return self.once(key, lambda: self._mask(causal, window, chunk, keys))

    def _mask(self, causal: bool, window: int | None, chunk: int | None, keys: int | Tensor) -> Mask:
        seen = self.past
        if seen is not None:
            # Slots that nothing was written to have an index below 0; that they are not seen is up to the mask.
            seen = seen[:, :keys] if isinstance(keys, int) else seen[:, keys.clamp(min=0)]
        device = self.positions.device
        return Mask(
            self.start,
            self.length,
            keys,
            causal,
            window,
            device,
            self.segments,
            seen,
            chunk,
            self.positions,
            self.place,
        )

"""What decoding remembers: a typed state for each layer, and the segments of the past.

A mixer allocates its layer's state (`Mixer.state`) and appends to it in `forward`. `DecodeState` holds those of all
layers; the methods of both have the same names. Attention caches keys and values, latent attention the latents that
they are made of. The state of a recurrence and the projected memory of cross-attention are states like these.

B batch, T query tokens, S key tokens, G kv heads, L max_length.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from registry.context import FORGOTTEN, Context
from registry.segments import begun

Keys = int | Tensor
"""Keys of a pass: their number, when they are the first tokens of the row; else the index of each, (S,)."""


class Capacity(NamedTuple):
    """What a decode state has room for, as `Mixer.state` is asked for it."""

    batch: int
    """Number of rows B."""
    max_length: int
    """Tokens of a row, at most: L."""
    dtype: torch.dtype
    device: torch.device
    rollback: int = 0
    """Tokens that `truncate` must be able to drop at any time."""

    def zeros(self, *shape: int) -> Tensor:
        """An empty tensor (B, *shape)."""
        return torch.zeros(self.batch, *shape, dtype=self.dtype, device=self.device)


class LayerState(ABC):
    """What one layer remembers of B rows. The mixer that allocated it alone knows what its tensors mean."""

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tensors
        """All that is remembered, rows first: (B, ...)."""

    @property
    @abstractmethod
    def bytes_per_token(self) -> int:
        """Bytes that one more token of a row takes; 0 where the size does not depend on the number of tokens."""

    @property
    def bytes_per_sequence(self) -> int:
        """Bytes that are allocated for each row."""
        return sum(t[:1].numel() * t.element_size() for t in self.tensors)

    def select_rows(self, rows: Tensor) -> None:
        """Keep rows (N,), given by index, in this order; a row may be named several times or not at all."""
        self.tensors = tuple(t.index_select(0, rows) for t in self.tensors)

    @abstractmethod
    def truncate(self, length: int, written: int) -> None:
        """Forget all tokens but the first `length`, where at most `written` were ever held.

        Raises ValueError, before anything is changed, where what they left is gone.
        """

    @abstractmethod
    def reset(self, rows: Tensor) -> None:
        """Rows (B,), where True, begin a new segment: what they remember must not reach later tokens."""


class TokenCache(LayerState):
    """What attention keeps of each token: tensors (B, ..., L, width), the token at index i in place i."""

    @property
    def bytes_per_token(self) -> int:
        return self.bytes_per_sequence // self.tensors[0].shape[-2]

    def append(self, new: tuple[Tensor, ...], context: Context) -> tuple[tuple[Tensor, ...], Keys]:
        """Add the tokens of this pass, (B, ..., T, width) each; all tokens so far, and how many there are."""
        assert isinstance(context.start, int), "a start that is a tensor needs a cache that writes at one"
        end = context.start + context.length
        for held, t in zip(self.tensors, new, strict=True):
            held.narrow(-2, context.start, context.length).copy_(t)
        return tuple(held.narrow(-2, 0, end) for held in self.tensors), end

    def truncate(self, length: int, written: int) -> None:
        """Nothing to do: later tokens are written over the forgotten ones."""

    def reset(self, rows: Tensor) -> None:
        """Nothing to do: the mask hides other segments."""


class KVCache(TokenCache):
    """The key and the value of each token, for each kv head."""

    @classmethod
    def allocate(cls, capacity: Capacity, *, heads: int, widths: Sequence[int]) -> Self:
        """An empty cache of a tensor (B, G, L, width) for each of `widths`."""
        return cls(*(capacity.zeros(heads, capacity.max_length, width) for width in widths))


class LatentCache(TokenCache):
    """The latent of each token that all heads make their keys and values of, and whatever else they share."""

    @classmethod
    def allocate(cls, capacity: Capacity, *, width: int) -> Self:
        """An empty cache of one tensor (B, L, width)."""
        return cls(capacity.zeros(capacity.max_length, width))


class SlidingWindowCache(TokenCache):
    """The keys and values of the last tokens: the token at index i lies in slot i mod the number of slots.

    There are as many slots as the window has tokens, and `Capacity.rollback` more.
    """

    def __init__(self, *tensors: Tensor, window: int) -> None:
        super().__init__(*tensors)
        self.window, self.slots = window, tensors[0].shape[-2]

    @classmethod
    def allocate(cls, capacity: Capacity, *, heads: int, widths: Sequence[int], window: int) -> Self:
        """An empty cache of a tensor (B, G, slots, width) for each of `widths`."""
        slots = min(window + capacity.rollback, capacity.max_length)
        return cls(*(capacity.zeros(heads, slots, width) for width in widths), window=window)

    def append(self, new: tuple[Tensor, ...], context: Context) -> tuple[tuple[Tensor, ...], Keys]:
        """Add the tokens of this pass; those that its queries may attend to, and the index of each, (S,)."""
        assert isinstance(context.start, int), "a start that is a tensor needs a cache that writes at one"
        begin, end, device = context.start, context.start + context.length, new[0].device
        if begin == 0:
            self._write(new, end)
            return new, end
        if context.length == 1:
            self._write(new, end)
            filled = min(end, self.slots)
            index = context.cached(("slots", self.slots), lambda: slot_index(end, self.slots, device))
            return tuple(held[..., :filled, :] for held in self.tensors), index
        # The first queries of a chunk still attend to keys that its last tokens overwrite.
        past = context.cached(("held", self.slots), lambda: held_index(begin, self.slots, device))
        slots = past % self.slots
        joined = tuple(torch.cat([held[..., slots, :], t], -2) for held, t in zip(self.tensors, new, strict=True))
        self._write(new, end)
        return joined, torch.cat([past, torch.arange(begin, end, device=device)])

    def truncate(self, length: int, written: int) -> None:
        """Slots that were written over are lost, and may not be needed: those of the window before `length`."""
        least = written - self.slots + self.window - 1
        if written > self.slots and length < least:
            raise ValueError(
                f"a sliding window of {self.window} tokens with {self.slots} slots can go back to {least} tokens after "
                f"{written}, got {length}; allocate the state with rollback of at least {written - length - 1}"
            )

    def _write(self, new: tuple[Tensor, ...], end: int) -> None:
        """Store the last of the new tokens, which end before index `end`, in their slots."""
        kept = min(new[0].shape[-2], self.slots)
        first = (end - kept) % self.slots
        before = min(kept, self.slots - first)  # tokens up to the last slot; the rest go on from the first
        for held, t in zip(self.tensors, new, strict=True):
            last = t[..., -kept:, :]
            held[..., first : first + before, :] = last[..., :before, :]
            held[..., : kept - before, :] = last[..., before:, :]


def held_index(end: int, slots: int, device: torch.device) -> Tensor:
    """Indices, in order, of the tokens that so many slots hold after `end` tokens."""
    return torch.arange(max(0, end - slots), end, device=device)


def slot_index(end: int, slots: int, device: torch.device) -> Tensor:
    """Index of the token in each filled slot after `end` tokens: (min(end, slots),)."""
    place = torch.arange(min(end, slots), device=device)
    return place + slots * ((end - 1 - place) // slots)


class DecodeState:
    """What decoding remembers of a batch of rows: each layer's state, and the segments of the past.

    Made by `Model.state(batch, max_length)` and advanced in place by each `Model.forward`.
    """

    def __init__(self, layers: Sequence[LayerState | None], batch: int, max_length: int) -> None:
        self.layers = list(layers)
        """The state of each layer; None of one that remembers nothing."""
        self.batch, self.max_length = batch, max_length
        self.length = self.written = 0
        """Tokens that are held, and the most that ever were."""
        self.segments: Tensor | None = None  # (B, L), once any row is divided
        self.current: Tensor | None = None  # (B, 1) the segment that each row is in
        self.begin: Tensor | None = None  # (B, 1) index at which it began
        self.foreseen: Tensor | None = None  # (B, 1) tokens that each row's text has at least, once all were read

    @property
    def bytes_per_token(self) -> int:
        """Bytes that one more token of a row takes, in all layers."""
        return sum(layer.bytes_per_token for layer in self._held())

    @property
    def bytes_per_sequence(self) -> int:
        """Bytes that are allocated for each row, in all layers."""
        return sum(layer.bytes_per_sequence for layer in self._held())

    def context(self, tokens: Tensor, segments: Tensor | None = None, *, causal: bool = True) -> Context:
        """Take in `tokens` (B, T, ...) and their segments (B, T); where they stand, and what is before them.

        Raises ValueError for another number of rows, and for more tokens than there is room for.
        """
        start, length = self.length, tokens.shape[1]
        if tokens.shape[0] != self.batch:
            raise ValueError(f"decode state is for {self.batch} rows, got {tokens.shape[0]}")
        if start + length > self.max_length:
            raise ValueError(f"decode state holds {self.max_length} tokens, got {start + length}")
        here, positions = self._advance(segments, length, tokens.device)
        past = None if self.segments is None else self.segments[:, : start + length]
        return Context(start, length, positions, here, past, causal=causal, foreseen=self.foreseen)

    def select_rows(self, rows: Tensor) -> None:
        """Keep rows (N,), given by index, in this order: the best beams, or the rows that have not ended."""
        for layer in self._held():
            layer.select_rows(rows)
        kept = (self.segments, self.current, self.begin, self.foreseen)
        self.segments, self.current, self.begin, self.foreseen = (t if t is None else t[rows] for t in kept)
        self.batch = len(rows)

    def truncate(self, length: int) -> None:
        """Forget all tokens but the first `length`: those of a draft that were not accepted.

        Raises ValueError where there are fewer, and where a sliding window has let go of what it would need:
        `Model.state(..., rollback=n)` keeps enough to drop n tokens at any time.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"length must be from 0 to {self.length}, the tokens that are held, got {length}")
        if length == 0:
            self.reset()
        elif length < self.length:
            self._drop(length)

    def reset(self, rows: Tensor | None = None) -> None:
        """Forget everything, of all rows or of `rows` (B,), where True; others go on, and room is not given back."""
        if rows is None:
            self.length = self.written = 0
            self.segments = self.current = self.begin = self.foreseen = None
            rows = torch.ones(self.batch, dtype=torch.bool)
        elif self.length:
            past, current, begin = self._divided(rows.device)
            past[:, : self.length].masked_fill_(rows[:, None], FORGOTTEN)
            self.current = current.masked_fill(rows[:, None], 0)
            self.begin = begin.masked_fill(rows[:, None], self.length)
        for layer in self._held():
            layer.reset(rows)

    def _drop(self, length: int) -> None:
        for layer in self._held():
            layer.truncate(length, self.written)
        self.length = length
        if self.segments is not None:
            held, index = self.segments[:, :length], torch.arange(length, device=self.segments.device)
            fresh = held[:, -1:] == FORGOTTEN
            self.current = torch.where(fresh, 0, held[:, -1:])
            self.begin = torch.where(fresh, length, begun(held, None, None, index)[:, -1:])

    def _held(self) -> list[LayerState]:
        return [layer for layer in self.layers if layer is not None]

    def _divided(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """The segments of the past, that of the present and where it began; without any, all tokens are segment 0."""
        if self.segments is None or self.current is None or self.begin is None:
            self.segments = torch.zeros(self.batch, self.max_length, dtype=torch.long, device=device)
            self.current, self.begin = self.segments[:, :1].clone(), self.segments[:, :1].clone()
        return self.segments, self.current, self.begin

    def _advance(self, segments: Tensor | None, length: int, device: torch.device) -> tuple[Tensor | None, Tensor]:
        """Take in `length` tokens; their segments (B, T) or None, and positions (B, T) or (T,)."""
        start, end = self.length, self.length + length
        self.length, self.written = end, max(end, self.written)
        index = torch.arange(start, end, device=device)
        if segments is None and self.segments is None:
            return None, index
        past, current, begin = self._divided(device)
        here = current.expand(-1, length) if segments is None else segments
        if segments is not None and start:
            for layer in self._held():
                layer.reset(here[:, 0] != current[:, 0])
        past[:, start:end] = here
        origin = begun(here, current if start else None, begin, index)
        self.current, self.begin = here[:, -1:], origin[:, -1:]
        return past[:, start:end], index - origin

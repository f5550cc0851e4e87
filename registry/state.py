"""Decode state: the KV cache or recurrent state of each layer, and the segments of past tokens.

A mixer allocates the state of its layer (`Mixer.state`) and appends to it in `forward`. `DecodeState` holds the states
of all layers; both classes use the same method names. Attention caches keys and values. Multi-head latent attention
(MLA) caches the latents. A recurrent state and the projected memory of cross-attention are layer states too.

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
"""Keys of a pass: their count, if they are the first tokens of the row; else the index of each, (S,)."""


class Capacity(NamedTuple):
    """Size of a decode state, an argument of `Mixer.state`."""

    batch: int
    """Number of rows B."""
    max_length: int
    """Maximum cache length L, in tokens of a row."""
    dtype: torch.dtype
    device: torch.device
    rollback: int = 0
    """Number of tokens that `truncate` can always drop."""

    def zeros(self, *shape: int) -> Tensor:
        """A tensor of zeros (B, *shape)."""
        return torch.zeros(self.batch, *shape, dtype=self.dtype, device=self.device)


class LayerState(ABC):
    """The state of one layer for B rows. Only the mixer that allocated it knows the meaning of its tensors."""

    def __init__(self, *tensors: Tensor) -> None:
        self.tensors = tensors
        """All tensors of the state, batch dimension first: (B, ...)."""

    @property
    @abstractmethod
    def bytes_per_token(self) -> int:
        """Bytes per token and row; 0 if the size does not depend on the number of tokens."""

    @property
    def bytes_per_sequence(self) -> int:
        """Bytes allocated per row."""
        return sum(t[:1].numel() * t.element_size() for t in self.tensors)

    def select_rows(self, rows: Tensor) -> None:
        """Keep the rows with the indices `rows` (N,), in this order; an index may repeat."""
        self.tensors = tuple(t.index_select(0, rows) for t in self.tensors)

    @abstractmethod
    def truncate(self, length: int, written: int) -> None:
        """Keep the first `length` tokens. `written` is the largest number of tokens ever held.

        Raises ValueError, before it changes anything, if later tokens overwrote needed ones.
        """

    @abstractmethod
    def reset(self, rows: Tensor) -> None:
        """Start a new segment in each row whose entry in `rows` (B,) is True: later tokens must not see its past."""


class TokenCache(LayerState):
    """A cache with one slot per token: tensors (B, ..., L, width), the token at index i in slot i."""

    @property
    def bytes_per_token(self) -> int:
        return self.bytes_per_sequence // self.tensors[0].shape[-2]

    def append(self, new: tuple[Tensor, ...], context: Context) -> tuple[tuple[Tensor, ...], Keys]:
        """Append the tokens of this pass, (B, ..., T, width) each. Return all tokens so far, and their count."""
        assert isinstance(context.start, int), "a start that is a tensor needs a cache that writes at one"
        end = context.start + context.length
        for held, t in zip(self.tensors, new, strict=True):
            held.narrow(-2, context.start, context.length).copy_(t)
        return tuple(held.narrow(-2, 0, end) for held in self.tensors), end

    def truncate(self, length: int, written: int) -> None:
        """Do nothing: later tokens overwrite the dropped ones."""

    def reset(self, rows: Tensor) -> None:
        """Do nothing: the mask hides other segments."""


class KVCache(TokenCache):
    """KV cache: the key and the value of each token, for each kv head."""

    @classmethod
    def allocate(cls, capacity: Capacity, *, heads: int, widths: Sequence[int]) -> Self:
        """An empty cache with a tensor (B, G, L, width) for each of `widths`."""
        return cls(*(capacity.zeros(heads, capacity.max_length, width) for width in widths))


class LatentCache(TokenCache):
    """MLA's cache: the KV latent of each token, and the rotary key that all heads share."""

    @classmethod
    def allocate(cls, capacity: Capacity, *, width: int) -> Self:
        """An empty cache with one tensor (B, L, width)."""
        return cls(capacity.zeros(capacity.max_length, width))


class SlidingWindowCache(TokenCache):
    """KV cache of the last tokens, a ring buffer: the token at index i lies in slot i mod the number of slots.

    The number of slots is the window plus `Capacity.rollback`.
    """

    def __init__(self, *tensors: Tensor, window: int) -> None:
        super().__init__(*tensors)
        self.window, self.slots = window, tensors[0].shape[-2]

    @classmethod
    def allocate(cls, capacity: Capacity, *, heads: int, widths: Sequence[int], window: int) -> Self:
        """An empty cache with a tensor (B, G, slots, width) for each of `widths`."""
        slots = min(window + capacity.rollback, capacity.max_length)
        return cls(*(capacity.zeros(heads, slots, width) for width in widths), window=window)

    def append(self, new: tuple[Tensor, ...], context: Context) -> tuple[tuple[Tensor, ...], Keys]:
        """Append the tokens of this pass. Return the tokens that its queries may attend to, and their indices (S,)."""
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
        """Check that no overwritten slot belongs to the window before `length`."""
        least = written - self.slots + self.window - 1
        if written > self.slots and length < least:
            raise ValueError(
                f"a sliding window of {self.window} tokens with {self.slots} slots can go back to {least} tokens after "
                f"{written}, got {length}; allocate the state with rollback of at least {written - length - 1}"
            )

    def _write(self, new: tuple[Tensor, ...], end: int) -> None:
        """Write the last of the new tokens, which end before index `end`, into their slots."""
        kept = min(new[0].shape[-2], self.slots)
        first = (end - kept) % self.slots
        before = min(kept, self.slots - first)  # tokens up to the last slot; the rest go on from the first
        for held, t in zip(self.tensors, new, strict=True):
            last = t[..., -kept:, :]
            held[..., first : first + before, :] = last[..., :before, :]
            held[..., : kept - before, :] = last[..., before:, :]


def held_index(end: int, slots: int, device: torch.device) -> Tensor:
    """Indices, in order, of the tokens that `slots` slots hold after `end` tokens."""
    return torch.arange(max(0, end - slots), end, device=device)


def slot_index(end: int, slots: int, device: torch.device) -> Tensor:
    """Index of the token in each filled slot after `end` tokens: (min(end, slots),)."""
    place = torch.arange(min(end, slots), device=device)
    return place + slots * ((end - 1 - place) // slots)


class DecodeState:
    """Decode state of a batch of rows: the state of each layer, and the segments of past tokens.

    `Model.state(batch, max_length)` makes it, and each `Model.forward` advances it in place.
    """

    def __init__(self, layers: Sequence[LayerState | None], batch: int, max_length: int) -> None:
        self.layers = list(layers)
        """The state of each layer; None for a stateless layer."""
        self.batch, self.max_length = batch, max_length
        self.length = self.written = 0
        """Number of tokens held now, and the largest number ever held."""
        self.segments: Tensor | None = None  # (B, L), once any row has several segments
        self.current: Tensor | None = None  # (B, 1) current segment of each row
        self.begin: Tensor | None = None  # (B, 1) start index of the current segment
        self.foreseen: Tensor | None = None  # (B, 1) minimum sequence length of each row, once the prompt is known

    @property
    def bytes_per_token(self) -> int:
        """Bytes per token and row, in all layers."""
        return sum(layer.bytes_per_token for layer in self._held())

    @property
    def bytes_per_sequence(self) -> int:
        """Bytes allocated per row, in all layers."""
        return sum(layer.bytes_per_sequence for layer in self._held())

    def context(self, tokens: Tensor, segments: Tensor | None = None, *, causal: bool = True) -> Context:
        """Advance the state by `tokens` (B, T, ...) with segments (B, T). Return the context of their forward pass.

        Raises ValueError for a wrong batch size, and for more tokens than `max_length`.
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
        """Keep the rows with the indices `rows` (N,), in this order: the best beams, or the unfinished rows."""
        for layer in self._held():
            layer.select_rows(rows)
        kept = (self.segments, self.current, self.begin, self.foreseen)
        self.segments, self.current, self.begin, self.foreseen = (t if t is None else t[rows] for t in kept)
        self.batch = len(rows)

    def truncate(self, length: int) -> None:
        """Keep the first `length` tokens, for instance to drop rejected draft tokens.

        Raises ValueError if there are fewer, or if a sliding window has overwritten tokens that it would need.
        `Model.state(..., rollback=n)` keeps enough tokens to drop n at any time.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"length must be from 0 to {self.length}, the number of cached tokens, got {length}")
        if length == 0:
            self.reset()
        elif length < self.length:
            self._drop(length)

    def reset(self, rows: Tensor | None = None) -> None:
        """Clear all rows, or those whose entry in `rows` (B,) is True. Clearing some rows frees no cache length."""
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
        """Past segments, the current segment and its start; allocated on first use, with all tokens in segment 0."""
        if self.segments is None or self.current is None or self.begin is None:
            self.segments = torch.zeros(self.batch, self.max_length, dtype=torch.long, device=device)
            self.current, self.begin = self.segments[:, :1].clone(), self.segments[:, :1].clone()
        return self.segments, self.current, self.begin

    def _advance(self, segments: Tensor | None, length: int, device: torch.device) -> tuple[Tensor | None, Tensor]:
        """Advance by `length` tokens. Return their segments (B, T) or None, and their positions (B, T) or (T,)."""
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

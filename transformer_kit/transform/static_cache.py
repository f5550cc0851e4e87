"""Static caches: a decode state whose shapes do not depend on how many tokens it holds.

    if has_static_form(state):
        static = StaticState(state, max_length=256)   # the same memory
        model(token, state=static)                    # writes at `static.cache_position`

Queries attend to all `max_length` slots of a cache, and the mask hides empty ones. No Python number depends on the
step, so a CUDA graph can capture one step and replay it. Mixers use the cache like any other.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from registry.context import Context
from registry.state import DecodeState, Keys, KVCache, LatentCache, LayerState, SlidingWindowCache, TokenCache


class StaticState(DecodeState):
    """The memory of a state, for one token of each row at a time, at the index in the tensor `cache_position` (1,).

    The caller that advances `cache_position` must also advance `length`, in this state and in the original one.
    """

    def __init__(self, state: DecodeState, max_length: int, cache_position: Tensor | None = None) -> None:
        super().__init__([_static(layer, max_length) for layer in state.layers], state.batch, max_length)
        self.length, self.written = state.length, state.written
        self.segments, self.current, self.begin = state.segments, state.current, state.begin
        if self.segments is not None:  # new tokens belong to each row's last document
            assert self.current is not None
            self.segments[:, self.length :] = self.current
            self.segments = self.segments[:, :max_length]
        device = next(layer.tensors[0].device for layer in self._held())
        self.cache_position = torch.tensor([state.length], device=device) if cache_position is None else cache_position

    def context(self, tokens: Tensor, segments: Tensor | None = None, *, causal: bool = True) -> Context:
        """Write one token of each row, (B, 1). A repeated call changes nothing until `cache_position` advances."""
        if segments is not None or tokens.shape != (self.batch, 1):
            raise ValueError(
                f"a static state takes one token of each of its {self.batch} rows, of the text that the row is in; got "
                f"tokens {tuple(tokens.shape)}{'' if segments is None else ' with segments'}"
            )
        if self.length >= self.max_length:
            raise ValueError(f"decode state holds {self.max_length} tokens, got {self.length + 1}")
        positions = self.cache_position if self.begin is None else self.cache_position - self.begin
        return Context(self.cache_position, 1, positions, self.current, self.segments, causal)


def has_static_form(state: DecodeState) -> bool:
    """Whether `StaticState` supports the cache of every layer."""
    return bool(state._held()) and all(type(layer) in _FORMS for layer in state._held())


class _StaticCache(TokenCache):
    def __init__(self, cache: TokenCache, max_length: int) -> None:
        super().__init__(*(t.narrow(-2, 0, max_length) for t in cache.tensors))

    def append(self, new: tuple[Tensor, ...], context: Context) -> tuple[tuple[Tensor, ...], Keys]:
        _write(self.tensors, new, context.start)
        return self.tensors, self.tensors[0].shape[-2]


class _StaticWindow(SlidingWindowCache):
    def __init__(self, cache: SlidingWindowCache, max_length: int) -> None:
        super().__init__(*cache.tensors, window=cache.window)
        self.filled = min(self.slots, max_length)  # slots beyond max_length stay empty

    def append(self, new: tuple[Tensor, ...], context: Context) -> tuple[tuple[Tensor, ...], Keys]:
        slot, index = context.cached(("slot", self.slots), lambda: last_index(context.start, self.slots))
        _write(self.tensors, new, slot)
        return tuple(t.narrow(-2, 0, self.filled) for t in self.tensors), index[: self.filled]


_FORMS: dict[type[LayerState], Callable[[Any, int], LayerState]] = {
    KVCache: _StaticCache,
    LatentCache: _StaticCache,
    SlidingWindowCache: _StaticWindow,
}


def _static(layer: LayerState | None, max_length: int) -> LayerState | None:
    return None if layer is None else _FORMS[type(layer)](layer, max_length)


def _write(held: Sequence[Tensor], new: Sequence[Tensor], place: int | Tensor) -> None:
    """Write the token of each row at `place` (1,)."""
    for old, t in zip(held, new, strict=True):
        old.index_copy_(-2, place, t)  # type: ignore[arg-type]


def last_index(place: int | Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """The slot of the token at index `place` (1,), and the last index up to it that each slot can hold, (slots,).

    The index is negative for an empty slot.
    """
    assert isinstance(place, Tensor)
    return place % slots, place - (place - torch.arange(slots, device=place.device)) % slots

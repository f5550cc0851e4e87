"""A step of decoding whose shapes stay, from the token that goes in to the token that is chosen.

Attention looks at more slots of the decode state than are filled, and hides the rest, so that steps do the same until
there is no room left.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.modules.module import _has_any_global_hook

from registry.state import DecodeState
from transformer_kit.generate.choose import Picker
from transformer_kit.generate.reading import settled
from transformer_kit.generate.static_cache import StaticState, has_static_form

if TYPE_CHECKING:
    from transformer_kit.model.model import Model


class Fixed:
    """One step: reads the token chosen last, chooses the next."""

    def __init__(self, model: "Model", state: DecodeState, pick: Picker, draws: Tensor, chosen: Tensor) -> None:
        """draws (B, steps); chosen (2, B): the first of the steps, after which `state` stands."""
        self.model, self.origin, self.pick, self.draws = model, state, pick, draws
        self.chosen = chosen.clone()
        self.state = StaticState(state, state.length)
        self.turn = torch.ones_like(self.state.cache_position)

    @property
    def full(self) -> bool:
        """Whether there is no room for another token."""
        return self.state.length >= self.state.max_length

    def widen(self, more: int) -> None:
        """Make room for so many tokens more, or for as many as the state can hold."""
        length = min(self.origin.length + more, self.origin.max_length)
        self.state = StaticState(self.origin, length, self.state.cache_position)

    def count(self) -> None:
        """Note that a token was taken in: what `move` does on the device."""
        self.state.length += 1
        self.origin.length = self.origin.written = self.state.length

    def step(self) -> Tensor:
        """What is chosen next, (2, B). Nothing moves: doing it twice is doing it once."""
        return self.choose(self.read())

    def read(self) -> Tensor:
        """Take in the token chosen last; logits (B, V) of what follows it."""
        return self.model(self.chosen[0][:, None], state=self.state, last=True).logits[:, -1]

    def choose(self, logits: Tensor) -> Tensor:
        """What is chosen next, (2, B)."""
        draw = self.draws.index_select(1, self.turn)[:, 0] if self.pick.samplers else None
        return self.pick(logits, draw)

    def move(self, chosen: Tensor) -> Tensor:
        """Go on to the next token, on the device; what was chosen."""
        self.chosen.copy_(chosen)
        self.state.cache_position.add_(1)
        self.turn.add_(1)
        return chosen

    def go(self) -> Tensor:
        """A step, and on to the next token."""
        return self.move(self.step())


def fixable(model: "Model", state: DecodeState) -> bool:
    """Whether the state has a static form, and nobody listens with hooks, which are not replayed."""
    heard = _has_any_global_hook() or any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    return settled(model) and has_static_form(state) and not heard

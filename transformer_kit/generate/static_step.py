"""One decoding step with static shapes, from the token that goes in to the token that is chosen."""

import torch
from torch import Tensor

from registry.state import DecodeState
from transformer_kit.generate.choose import Picker
from transformer_kit.generate.protocol import LanguageModel
from transformer_kit.transform.static_cache import StaticState


class StaticStep:
    """Takes in the token chosen last and chooses the next; `state` is a static form of the state it is made for."""

    def __init__(self, model: LanguageModel, state: DecodeState, pick: Picker, draws: Tensor, chosen: Tensor) -> None:
        """draws (B, steps); chosen (2, B): the first of the steps, after which `state` stands."""
        self.model, self.origin, self.pick, self.draws = model, state, pick, draws
        self.chosen = chosen.clone()
        self.state = StaticState(state, state.length)
        self.turn = torch.ones_like(self.state.cache_position)

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another token."""
        return self.state.length >= self.state.max_length

    def widen(self, more: int) -> None:
        """Make room for so many tokens more, or for as many as the state can hold."""
        length = min(self.origin.length + more, self.origin.max_length)
        self.state = StaticState(self.origin, length, self.state.cache_position)

    def next(self) -> Tensor:
        """What is chosen next, (2, B). Nothing advances: doing it twice is doing it once."""
        logits = self.model(self.chosen[0][:, None], state=self.state, last=True).logits[:, -1]
        draw = self.draws.index_select(1, self.turn)[:, 0] if self.pick.samplers else None
        return self.pick(logits, draw)

    def advance(self, chosen: Tensor) -> None:
        """Go on to the next token, on the device; `count` does the same in Python."""
        self.chosen.copy_(chosen)
        self.state.cache_position.add_(1)
        self.turn.add_(1)

    def count(self) -> None:
        """Note in Python that `advance` was done."""
        self.state.length += 1
        self.origin.length = self.origin.written = self.state.length

"""One decoding step with static shapes, from the input token to the chosen token."""

import torch
from torch import Tensor

from registry.state import DecodeState
from transformer_kit.generate.choose import Picker
from transformer_kit.generate.protocol import LanguageModel
from transformer_kit.transform.static_cache import StaticState


class StaticStep:
    """Runs the last chosen token and chooses the next; `state` is the static form of a decode state."""

    def __init__(self, model: LanguageModel, state: DecodeState, pick: Picker, draws: Tensor, chosen: Tensor) -> None:
        """draws (B, steps); chosen (2, B): the first choice, made with `state` as it is."""
        self.model, self.origin, self.pick, self.draws = model, state, pick, draws
        self.chosen = chosen.clone()
        self.state = StaticState(state, state.length)
        self.turn = torch.ones_like(self.state.cache_position)

    @property
    def is_full(self) -> bool:
        """Whether the capacity is used up."""
        return self.state.length >= self.state.max_length

    def widen(self, more: int) -> None:
        """Extend the capacity by so many tokens, or as far as the state allows."""
        length = min(self.origin.length + more, self.origin.max_length)
        self.state = StaticState(self.origin, length, self.state.cache_position)

    def next(self) -> Tensor:
        """The next choice, (2, B). It advances nothing, so a repeated call returns the same."""
        logits = self.model(self.chosen[0][:, None], state=self.state, last=True).logits[:, -1]
        draw = self.draws.index_select(1, self.turn)[:, 0] if self.pick.samplers else None
        return self.pick(logits, draw)

    def advance(self, chosen: Tensor) -> None:
        """Advance to the next token on the device; `count` does the same in Python."""
        self.chosen.copy_(chosen)
        self.state.cache_position.add_(1)
        self.turn.add_(1)

    def count(self) -> None:
        """Record one `advance` in Python."""
        self.state.length += 1
        self.origin.length = self.origin.written = self.state.length

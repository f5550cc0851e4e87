"""Token sequences with a decode state: prompts in chunks, then one token at a time; recomputed when they outgrow it.

Letters: B rows, T tokens, V vocab.
"""

import torch
from torch import Tensor

from registry.context import PADDING
from registry.contracts import Position
from registry.state import DecodeState
from registry.texts import TextGrew
from transformer_kit.generate.protocol import LanguageModel
from transformer_kit.generate.sliding import read


class Reading:
    """A batch of sequences that grow by one token each at a time."""

    def __init__(
        self, model: LanguageModel, tokens: Tensor, segments: Tensor | None, capacity: int, chunk: int
    ) -> None:
        """tokens (B, T), `chunk` in one pass; capacity for `capacity` tokens."""
        self.model, self.capacity, self.chunk = model, capacity, chunk
        self.tokens, self.segments = tokens, segments
        self.keeps = not settled(model)
        self.state: DecodeState

    def read(self) -> Tensor:
        """Run all tokens with a new state; logits (B, V) for the next ones."""
        self.state = self.model.state(len(self.tokens), self.capacity)
        self.state.foreseen = self._lengths()
        return read(self.model, self.tokens, self.segments, self.state, self.chunk)

    def follow(self, ids: Tensor) -> Tensor:
        """Append one token to each sequence (B,); logits (B, V) for the next ones."""
        if not self.keeps:
            return self._next(ids)
        self.tokens = torch.cat([self.tokens, ids[:, None]], dim=1)
        if self.segments is not None:
            self.segments = torch.cat([self.segments, self.segments[:, -1:]], dim=1)
        try:
            return self._next(ids)
        except TextGrew:
            return self.read()

    def _next(self, ids: Tensor) -> Tensor:
        return self.model(ids[:, None], state=self.state, last=True).logits[:, -1]

    def _lengths(self) -> Tensor | None:
        """Length of each sequence (B, 1), where positions depend on it."""
        if not self.keeps:
            return None
        if self.segments is None:
            return torch.full_like(self.tokens[:, :1], self.tokens.shape[1])
        return (self.segments != PADDING).sum(dim=1, keepdim=True)


def settled(model: LanguageModel) -> bool:
    """Whether the model's positions do not depend on the length of the sequence."""
    return all(m.settled for m in model.modules() if isinstance(m, Position))

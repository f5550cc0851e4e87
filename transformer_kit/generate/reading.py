"""Texts through a decode state: the prompts in pieces, then token by token; all again where a text outgrows its state.

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
    """A batch of texts that grow by one token of each at a time."""

    def __init__(
        self, model: LanguageModel, tokens: Tensor, segments: Tensor | None, capacity: int, chunk: int
    ) -> None:
        """tokens (B, T), of which `chunk` are read at once; room for `capacity`."""
        self.model, self.capacity, self.chunk = model, capacity, chunk
        self.tokens, self.segments = tokens, segments
        self.keeps = not settled(model)
        self.state: DecodeState

    def read(self) -> Tensor:
        """Take in everything, in a fresh state; logits (B, V) of what follows."""
        self.state = self.model.state(len(self.tokens), self.capacity)
        self.state.foreseen = self._lengths()
        return read(self.model, self.tokens, self.segments, self.state, self.chunk)

    def follow(self, ids: Tensor) -> Tensor:
        """Take in one token more of each text (B,); logits (B, V) of what follows."""
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
        """How long each text is (B, 1), where that decides how its first tokens are read."""
        if not self.keeps:
            return None
        if self.segments is None:
            return torch.full_like(self.tokens[:, :1], self.tokens.shape[1])
        return (self.segments != PADDING).sum(dim=1, keepdim=True)


def settled(model: LanguageModel) -> bool:
    """Whether what its positions do to a token does not depend on how many follow."""
    return all(m.settled for m in model.modules() if isinstance(m, Position))

"""Text longer than the context, for positions that end there: each new token is chosen from the last max_seq_len ones.

Absolute positions mean nothing beyond max_seq_len, so the text is cropped, its positions count from 0 again, and the
cropped text is read as a whole for each token. A cache would hold keys and values at positions that have changed.
"""

import torch
from torch import Tensor

from registry.state import DecodeState
from transformer_kit.generate.protocol import LanguageModel
from transformer_kit.model.lengths import ends
from transformer_kit.spec.schema import ModelSpec


def cached(model: ModelSpec, length: int, new: int) -> int:
    """How many of `new` tokens after `length` ones are chosen from text that fits into the context."""
    return max(0, min(new, model.max_seq_len - length + 1)) if ends(model) else new


def fitting(model: ModelSpec, length: int, new: int) -> int:
    """How many of `new` tokens follow `length` ones when nobody insists: those that fit; all where text is cropped or
    is longer than max_seq_len already.
    """
    room = model.max_seq_len - length
    return new if ends(model) or room < 1 else min(new, room)


def note(model: ModelSpec, length: int, new: int) -> str | None:
    """What to say where text passes max_seq_len; None where it does not."""
    limit = model.max_seq_len
    if length + new <= limit + ends(model):  # of text that is cropped, nothing is until the last token is read
        return None
    more = f"{length} tokens and {new} new ones are more than max_seq_len ({limit})"
    if not ends(model):
        return f"{more}, which the model is made for"
    return (
        f"{more}, where absolute positions end: each token past it is chosen from the last {limit} tokens, without a "
        "cache"
    )


class Window:
    """The last max_seq_len tokens (B, T) of each row, and their segments."""

    def __init__(self, limit: int, tokens: Tensor, segments: Tensor | None) -> None:
        self.limit = limit
        self.tokens = tokens[:, -limit:]
        self.segments = None if segments is None else segments[:, -limit:]

    def add(self, chosen: Tensor) -> None:
        """Append one token to each row: (B,)."""
        self.tokens = torch.cat([self.tokens, chosen[:, None]], dim=1)[:, -self.limit :]
        if self.segments is not None:
            self.segments = torch.cat([self.segments, torch.zeros_like(chosen)[:, None]], dim=1)[:, -self.limit :]

    def read(self, model: LanguageModel, chunk: int | None) -> Tensor:
        """Logits (B, V) of what follows the window."""
        state = model.state(len(self.tokens), self.tokens.shape[1])
        return read(model, self.tokens, self.segments, state, chunk or self.limit)


def read(model: LanguageModel, tokens: Tensor, segments: Tensor | None, state: DecodeState, chunk: int) -> Tensor:
    """Take in tokens (B, T), `chunk` at a time; logits (B, V) of what follows them."""
    pieces = tokens.split(chunk, dim=1)
    parts = [None] * len(pieces) if segments is None else segments.split(chunk, dim=1)
    for piece, part in zip(pieces, parts, strict=True):
        logits = model(piece, segments=part, state=state, last=True).logits
    return logits[:, -1]

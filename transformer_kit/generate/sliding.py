"""Sequences beyond max_seq_len with absolute positions: each new token depends on the last max_seq_len tokens.

Absolute positions end at max_seq_len, so the sequence is cropped and its positions start at 0 again. Each token needs a
full pass over the cropped sequence, since cached keys and values would have outdated positions.
"""

import torch
from torch import Tensor

from registry.state import DecodeState
from transformer_kit.generate.protocol import LanguageModel
from transformer_kit.model.lengths import ends
from transformer_kit.spec.schema import ModelSpec


def cached(model: ModelSpec, length: int, new: int) -> int:
    """How many of `new` tokens after `length` ones are generated without cropping."""
    return max(0, min(new, model.max_seq_len - length + 1)) if ends(model) else new


def fitting(model: ModelSpec, length: int, new: int) -> int:
    """How many of `new` tokens to generate by default after `length` ones: those that fit into max_seq_len.

    All of them where the sequence is cropped or already longer.
    """
    room = model.max_seq_len - length
    return new if ends(model) or room < 1 else min(new, room)


def note(model: ModelSpec, length: int, new: int) -> str | None:
    """Note for a sequence that exceeds max_seq_len; else None."""
    limit = model.max_seq_len
    if length + new <= limit + ends(model):  # the last new token is never fed back
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
        """Logits (B, V) for the next token."""
        state = model.state(len(self.tokens), self.tokens.shape[1])
        return read(model, self.tokens, self.segments, state, chunk or self.limit)


def read(model: LanguageModel, tokens: Tensor, segments: Tensor | None, state: DecodeState, chunk: int) -> Tensor:
    """Run tokens (B, T), `chunk` at a time; logits (B, V) for the next token."""
    pieces = tokens.split(chunk, dim=1)
    parts = [None] * len(pieces) if segments is None else segments.split(chunk, dim=1)
    for piece, part in zip(pieces, parts, strict=True):
        logits = model(piece, segments=part, state=state, last=True).logits
    return logits[:, -1]

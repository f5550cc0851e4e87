"""How long each text of a pass is: a row holds one, or several, or one beside padding.

B batch, T query tokens.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from registry.context import PADDING, Context


class TextGrew(ValueError):
    """A text became longer than the tokens in a decode state were read for; a fresh state must read all of it."""


def lengths(context: Context) -> Tensor:
    """Tokens of each token's text, from its first to the last one known: (1, 1), (B, 1) or (B, T)."""
    if context.segments is None:
        length = context.positions[None, -1:] + 1
    else:
        ends = torch.ones_like(context.segments, dtype=torch.bool)
        ends[:, :-1] = context.segments[:, 1:] != context.segments[:, :-1]
        index = torch.arange(context.length, device=ends.device)
        last = torch.where(ends, index, context.length).flip(1).cummin(1).values.flip(1)
        length = context.positions.gather(1, last) + 1
    return length if context.foreseen is None else torch.maximum(length, context.foreseen)


def check_grown(name: str, context: Context, lengths: Tensor, frequencies: Callable[[Tensor], Tensor]) -> None:
    """Raise TextGrew where the scaling `name` has other frequencies for `lengths` than tokens were read with before."""
    before = begun_with(context)
    read, now = (frequencies(n[..., None]) for n in (before, lengths[:, :1]))
    if bool(((read != now) & (before[..., None] > 0)).any()):
        raise TextGrew(
            f"{name} turns all tokens of a text by its length, and one in this decode state grew past what its first "
            f"tokens were read for, to {int(lengths.max())}: read it again in a fresh one"
        )


def begun_with(context: Context) -> Tensor:
    """Tokens that the text of each row's first token was last read with, 0 of a new one: (1, 1) or (B, 1)."""
    if context.segments is None:
        read = context.positions[None, :1]
    else:
        read = context.positions[:, :1] * (context.segments[:, :1] != PADDING)
    return read if context.foreseen is None else torch.maximum(read, context.foreseen) * (read > 0)

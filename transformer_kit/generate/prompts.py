"""Checked prompts as one padded batch."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from registry.context import PADDING
from transformer_kit.spec.schema import ModelSpec


def check(prompts: Sequence[Sequence[int]], max_new_tokens: int, model: ModelSpec) -> None:
    """Raise ValueError, with the prompt's number, unless each prompt has one or more valid ids."""
    if not _is_whole(max_new_tokens) or max_new_tokens < 1:
        raise ValueError(f"max_new_tokens must be a whole number, at least 1; got {max_new_tokens!r}")
    for row, prompt in enumerate(prompts):
        name = f"prompt {row}" if len(prompts) > 1 else "the prompt"
        if not prompt:
            raise ValueError(f"{name} is empty; give at least one token")
        check_ids(prompt, model.vocab_size, name)


def check_ids(ids: Iterable[int], vocab_size: int, name: str) -> None:
    """Raise ValueError unless all `ids` are token ids of the vocabulary."""
    for token in ids:
        if not _is_whole(token) or not 0 <= token < vocab_size:
            raise ValueError(f"{name}: token ids must be from 0 to {vocab_size - 1} (vocab_size - 1), got {token!r}")


def padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Tokens (B, T), padded on the left, and their segments (B, T); None when no row needs padding."""
    lengths = [len(prompt) for prompt in prompts]
    width = max(lengths)
    rows = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    tokens = torch.tensor(rows, dtype=torch.long, device=device)
    if min(lengths) == width:
        return tokens, None
    places = torch.arange(width, device=device)
    begins = width - torch.tensor(lengths, device=device)[:, None]
    return tokens, torch.where(places < begins, PADDING, 0)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)

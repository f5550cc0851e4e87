"""Causal language modeling: predict each next token (Bengio et al. 2003, JMLR 3:1137; Radford et al. 2018)."""

from typing import Any

from torch import Tensor

from registry.context import PADDING
from registry.contracts import Objective
from registry.core import register

IGNORED = -100
"""The target that counts for nothing."""


@register
class CausalLM(Objective):
    """-sum_t log p(token[t+1] | token[0..t]), over the targets that lie in the same document as their token."""

    def loss(self, model: Any, tokens: Tensor, segments: Tensor | None) -> tuple[Tensor, Tensor]:
        """Sum of the losses in nats, a float32 scalar, and the number of valid targets in `tokens` (B, T+1)."""
        inputs, targets = tokens[:, :-1], tokens[:, 1:]  # (B, T) twice
        seen = None
        if segments is not None:
            seen, ahead = segments[:, :-1], segments[:, 1:]
            targets = targets.masked_fill((ahead != seen) | (ahead == PADDING), IGNORED)
        count = (targets != IGNORED).sum()
        return model(inputs, targets, segments=seen, skip_logits=True).loss * count, count

"""Greedy decoding: always the most likely token."""

import torch
from torch import Tensor

from registry.contracts import Sampler
from registry.core import register


@register
class Greedy(Sampler):
    """Keeps argmax(logits); the first of equal ones."""

    def apply(self, logits: Tensor) -> Tensor:
        best, token = logits.max(dim=-1, keepdim=True)  # (B, 1) twice
        return torch.full_like(logits, -torch.inf).scatter(-1, token, best)

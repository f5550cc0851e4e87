"""Top-k sampling (Fan, Lewis & Dauphin 2018, arXiv:1805.04833)."""

import torch
from torch import Tensor

from registry.contracts import Sampler
from registry.core import register
from registry.options import Count


@register
class TopK(Sampler):
    """Keeps the k largest logits; all of them when the vocabulary is smaller."""

    class Options(Sampler.Options):
        k: Count = 50
        """Number of tokens to keep."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.k = options.k

    def apply(self, logits: Tensor) -> Tensor:
        best, tokens = logits.topk(min(self.k, logits.shape[-1]), dim=-1, sorted=False)  # (B, k) twice
        return torch.full_like(logits, -torch.inf).scatter(-1, tokens, best)

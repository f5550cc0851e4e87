"""Top-p or nucleus sampling (Holtzman et al. 2019, arXiv:1904.09751)."""

import torch
from torch import Tensor

from registry.contracts import Sampler
from registry.core import register
from registry.options import Fraction


@register
class TopP(Sampler):
    """Keeps the smallest set of most likely tokens whose probabilities sum to at least p."""

    class Options(Sampler.Options):
        p: Fraction = 0.9
        """Total probability of the kept tokens."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.p = options.p

    def apply(self, logits: Tensor) -> Tensor:
        # Summed from the least likely up: small terms first lose nothing, so p = 1 keeps whatever has a probability.
        ascending, tokens = logits.sort(dim=-1)  # (B, V) twice
        keep = ascending.softmax(dim=-1).cumsum(dim=-1) > 1 - self.p
        keep[:, -1] = True
        return torch.full_like(logits, -torch.inf).scatter(-1, tokens, ascending.where(keep, -torch.inf))

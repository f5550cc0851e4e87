"""Min-p sampling (Nguyen et al. 2024, arXiv:2407.01082)."""

import math

import torch
from torch import Tensor

from registry.contracts import Sampler
from registry.core import register
from registry.options import Fraction


@register
class MinP(Sampler):
    """Keeps tokens at least p times as likely as the most likely one: logit >= max + ln p."""

    class Options(Sampler.Options):
        p: Fraction = 0.05
        """Smallest kept probability, relative to the largest."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.reach = math.log(options.p)

    def apply(self, logits: Tensor) -> Tensor:
        floor = logits.amax(dim=-1, keepdim=True) + self.reach  # (B, 1)
        return logits.where(logits >= floor, -torch.inf)

"""Sigmoid linear unit, also called swish (Elfwing, Uchibe & Doya 2017, arXiv:1702.03118)."""

import torch.nn.functional as F
from torch import Tensor

from registry.contracts import Activation
from registry.core import register


@register
class SiLU(Activation):
    """x * sigmoid(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x)

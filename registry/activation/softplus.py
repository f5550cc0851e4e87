"""Softplus, a smooth rectifier (Dugas et al. 2001)."""

import torch.nn.functional as F
from torch import Tensor

from registry.contracts import Activation
from registry.core import register


@register
class Softplus(Activation):
    """ln(1 + exp(x))."""

    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(x)

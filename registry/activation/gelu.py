"""Gaussian error linear unit, exact (Hendrycks & Gimpel 2016, arXiv:1606.08415)."""

import torch.nn.functional as F
from torch import Tensor

from registry.contracts import Activation
from registry.core import register


@register
class GELU(Activation):
    """x * P(X <= x) for a standard normal X."""

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x)

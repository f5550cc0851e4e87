"""Sigmoid approximation of GELU (Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2; used by CLIP)."""

import torch
from torch import Tensor

from registry.contracts import Activation
from registry.core import register


@register
class QuickGELU(Activation):
    """x * sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)

"""Rectified linear unit (Nair & Hinton 2010)."""

import torch
from torch import Tensor

from registry.contracts import Activation
from registry.core import register


@register
class ReLU(Activation):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x)

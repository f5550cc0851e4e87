"""Squared rectified linear unit (So et al. 2021, Primer, arXiv:2109.08668)."""

import torch
from torch import Tensor

from registry.contracts import Activation
from registry.core import register


@register
class ReLUSquared(Activation):
    """max(x, 0)^2."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x).square()

"""Gaussian error linear unit, tanh approximation (Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2)."""

import torch.nn.functional as F
from torch import Tensor

from registry.contracts import Activation
from registry.core import register


@register
class GELUTanh(Activation):
    """x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))."""

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate="tanh")

"""Logistic sigmoid, as gates use it (Hochreiter & Schmidhuber 1997)."""

import torch
from torch import Tensor

from registry.contracts import Activation
from registry.core import register


@register
class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)

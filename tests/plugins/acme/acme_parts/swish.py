"""Swish with a trainable slope (Ramachandran, Zoph & Le 2017, arXiv:1710.05941)."""

import torch
from torch import Generator, Tensor, nn

from registry.contracts import Activation, Site
from registry.options import Positive


class Swish(Activation):
    """x * sigmoid(slope * x)."""

    constant = ("slope",)

    class Options(Activation.Options):
        slope: Positive = 1.0
        """The slope at the start."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.first = options.slope
        self.slope = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self, generator: Generator | None = None) -> None:
        nn.init.constant_(self.slope, self.first)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.slope * x)

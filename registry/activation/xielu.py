"""xIELU, an expanded integral of ELU with two learned slopes (Huang & Schlag 2024, arXiv:2411.13010)."""

import math

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Generator, Tensor, nn

from registry.contracts import Activation, Site
from registry.core import register
from registry.options import Positive


@register
class XIELU(Activation):
    """a_p x^2 + beta x for x > 0, else (exp(min(x, eps)) - 1 - x) a_n + beta x, with
    a_p = softplus(alpha_p) and a_n = beta + softplus(alpha_n).
    """

    constant = ("alpha_p", "alpha_n")

    class Options(Activation.Options):
        alpha_p: Positive = 0.8
        """First curvature right of zero."""
        alpha_n: Positive = 0.8
        """First curvature left of zero; more than beta."""
        beta: Positive = Field(default=0.5, examples=[0.25])
        """Slope at zero."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        if options.alpha_n <= options.beta:
            raise ValueError(f"alpha_n must be more than beta ({options.beta}), got {options.alpha_n}")
        self.beta = options.beta
        self.first = (options.alpha_p, options.alpha_n - options.beta)
        self.alpha_p = nn.Parameter(torch.empty(1))
        self.alpha_n = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        right = F.softplus(self.alpha_p) * x * x
        left = (torch.expm1(x.clamp(max=-1e-6)) - x) * (self.beta + F.softplus(self.alpha_n))
        return torch.where(x > 0, right, left) + self.beta * x

    def reset_parameters(self, generator: Generator | None = None) -> None:
        for parameter, value in zip((self.alpha_p, self.alpha_n), self.first, strict=True):
            nn.init.constant_(parameter, math.log(math.expm1(value)))  # softplus gives the value back

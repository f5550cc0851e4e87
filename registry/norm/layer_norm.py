"""Layer normalization (Ba, Kiros & Hinton 2016, arXiv:1607.06450)."""

from typing import Self

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Generator, Tensor, nn

from registry.contracts import Norm, Site
from registry.core import register
from registry.options import Positive


@register
class LayerNorm(Norm):
    """(x - mean(x)) / sqrt(var(x) + eps) * (offset + weight) + bias, over the last dimension."""

    constant = ("weight", "bias")

    class Options(Norm.Options):
        eps: Positive = 1e-5
        """Added to the variance."""
        weight: bool = True
        """Whether there is a learned scale."""
        bias: bool = True
        """Whether there is a learned bias."""
        offset: float = 0.0
        """Added to the learned scale; 1 where checkpoints store scale - 1 (Nemotron)."""

        @model_validator(mode="after")
        def _offset_needs_a_weight(self) -> Self:
            if self.offset and not self.weight:
                raise ValueError("offset is added to the weight, and there is none; leave it out")
            return self

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.shape = (site.d_model,)
        self.eps = options.eps
        self.offset = options.offset
        self.weight = nn.Parameter(torch.empty(self.shape)) if options.weight else None
        self.bias = nn.Parameter(torch.empty(self.shape)) if options.bias else None
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight if self.weight is None or self.offset == 0 else self.weight + self.offset
        return F.layer_norm(x, self.shape, scale, self.bias, self.eps)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        if self.weight is not None:
            nn.init.constant_(self.weight, 1.0 - self.offset)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

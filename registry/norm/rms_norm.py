"""Root mean square normalization (Zhang & Sennrich 2019, arXiv:1910.07467)."""

from typing import Self

import torch
from pydantic import model_validator
from torch import Generator, Tensor, nn

from registry.contracts import Norm, Site
from registry.core import register
from registry.options import Positive


@register
class RMSNorm(Norm):
    """x / sqrt(mean(x^2) + eps) * (offset + weight), over the last dimension, in float32."""

    constant = ("weight",)

    class Options(Norm.Options):
        eps: Positive = 1e-6
        """Added to the mean square."""
        weight: bool = True
        """Whether there is a learned scale."""
        offset: float = 0.0
        """Added to the learned scale; 1 where checkpoints store scale - 1 (Gemma)."""

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
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        scale = None if self.weight is None else self.weight.float()
        if scale is not None and self.offset:
            scale = scale + self.offset
        return torch.rms_norm(x.float(), self.shape, scale, self.eps).type_as(x)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        if self.weight is not None:
            nn.init.constant_(self.weight, 1.0 - self.offset)

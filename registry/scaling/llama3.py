"""Llama 3.1 scaling: long wavelengths stretch, short ones stay (Grattafiori et al. 2024, arXiv:2407.21783)."""

import math
from typing import Self

import torch
from pydantic import model_validator
from torch import Tensor

from registry.contracts import Scaling
from registry.core import register
from registry.options import Count, Positive


@register
class Llama3(Scaling):
    """f/factor for wavelengths over N/low, f for those under N/high, a blend between."""

    class Options(Scaling.Options):
        factor: Positive = 8.0
        """How many times longer the context becomes."""
        low: Positive = 1.0
        """Wavelengths longer than original/low stretch in full."""
        high: Positive = 4.0
        """Wavelengths shorter than original/high do not stretch."""
        original: Count = 8192
        """N: context of the first training, in tokens."""

        @model_validator(mode="after")
        def _apart(self) -> Self:
            if self.high <= self.low:
                raise ValueError(f"high must be more than low ({self.low}), got {self.high}")
            return self

    def frequencies(self, base: Tensor, theta: float, length: Tensor) -> tuple[Tensor, float]:
        low, high, factor = self.options.low, self.options.high, self.options.factor
        turns = self.options.original * base / (2 * math.pi)  # wavelengths that fit into the first context
        blend = ((turns - low) / (high - low)).clamp(0, 1)
        return torch.lerp(base / factor, base, blend), 1.0

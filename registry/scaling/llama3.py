"""Llama 3.1 scaling: stretch long wavelengths, keep short ones (Grattafiori et al. 2024, arXiv:2407.21783)."""

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
    """f/factor for wavelengths over N/low_freq_factor, f for those under N/high_freq_factor, a blend between."""

    class Options(Scaling.Options):
        factor: Positive = 8.0
        """Extended context length divided by N."""
        low_freq_factor: Positive = 1.0
        """Wavelengths longer than N / low_freq_factor are scaled by `factor`."""
        high_freq_factor: Positive = 4.0
        """Wavelengths shorter than N / high_freq_factor are not scaled."""
        original_max_seq_len: Count = 8192
        """N: context length of pretraining."""

        @model_validator(mode="after")
        def _apart(self) -> Self:
            if self.high_freq_factor <= self.low_freq_factor:
                raise ValueError(
                    f"high_freq_factor must be more than low_freq_factor ({self.low_freq_factor}), "
                    f"got {self.high_freq_factor}"
                )
            return self

    def frequencies(self, base: Tensor, theta: float, length: Tensor) -> tuple[Tensor, float]:
        low, high, factor = self.options.low_freq_factor, self.options.high_freq_factor, self.options.factor
        turns = self.options.original_max_seq_len * base / (2 * math.pi)  # rotations within N tokens
        blend = ((turns - low) / (high - low)).clamp(0, 1)
        return torch.lerp(base / factor, base, blend), 1.0

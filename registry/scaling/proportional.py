"""Proportional rotation: the slow channel pairs do not rotate (Gemma 4)."""

import torch
from torch import Tensor

from registry.contracts import Scaling
from registry.core import register
from registry.options import Fraction, Positive


@register
class Proportional(Scaling):
    """f / factor for the first fraction of the pairs, 0 for the rest."""

    class Options(Scaling.Options):
        partial_rotary_factor: Fraction = 1.0
        """Fraction of the channel pairs that rotate."""
        factor: Positive = 1.0
        """Extended context length divided by that of pretraining."""

    def frequencies(self, base: Tensor, theta: float, length: Tensor) -> tuple[Tensor, float]:
        rotating = int(self.options.partial_rotary_factor * 2 * len(base) // 2)
        still = torch.arange(len(base), device=base.device) >= rotating
        return (base / self.options.factor).masked_fill(still, 0.0), 1.0

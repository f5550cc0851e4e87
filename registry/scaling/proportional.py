"""Proportional rotation: full-width pairs of which the slow ones do not turn (Gemma 4)."""

import torch
from torch import Tensor

from registry.contracts import Scaling
from registry.core import register
from registry.options import Fraction, Positive


@register
class Proportional(Scaling):
    """f / factor for the first share of pairs, 0 for the rest."""

    class Options(Scaling.Options):
        fraction: Fraction = 1.0
        """Share of the pairs that turn."""
        factor: Positive = 1.0
        """How many times longer the context becomes."""

    def frequencies(self, base: Tensor, theta: float, length: Tensor) -> tuple[Tensor, float]:
        turning = int(self.options.fraction * 2 * len(base) // 2)
        still = torch.arange(len(base), device=base.device) >= turning
        return (base / self.options.factor).masked_fill(still, 0.0), 1.0

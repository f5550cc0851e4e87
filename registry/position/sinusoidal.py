"""Sinusoidal positions (Vaswani et al. 2017, arXiv:1706.03762, section 3.5)."""

import torch
from torch import Tensor

from registry.context import Context
from registry.contracts import Position, Site
from registry.core import register
from registry.options import Positive


@register
class Sinusoidal(Position):
    """x[p, 2i] += sin(p / base^(2i/D)), x[p, 2i+1] += cos(p / base^(2i/D))."""

    acts = "embedding"
    shift_invariant = False

    class Options(Position.Options):
        base: Positive = 10_000.0
        """Longest wavelength, in units of 2 pi tokens."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.base = options.base
        self.d_model = site.d_model

    def embed(self, x: Tensor, context: Context) -> Tensor:
        return x + self.table(context.positions).type_as(x)

    def table(self, positions: Tensor) -> Tensor:
        """positions (..., T) -> (..., T, D), in float32."""
        exponent = torch.arange(0, self.d_model, 2, device=positions.device, dtype=torch.float32) / self.d_model
        angle = positions[..., None].float() / self.base**exponent  # (..., T, ceil(D/2))
        pairs = torch.stack([angle.sin(), angle.cos()], dim=-1)  # (..., T, ceil(D/2), 2)
        return pairs.flatten(-2)[..., : self.d_model]

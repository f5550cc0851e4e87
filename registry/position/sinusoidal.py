"""Sinusoidal positions (Vaswani et al. 2017, arXiv:1706.03762, section 3.5; closed range of wavelengths: tensor2tensor,
Vaswani et al. 2018, arXiv:1803.07416, and fairseq).
"""

from typing import Literal

import torch
from torch import Tensor

from registry.context import Context
from registry.contracts import Position, Site
from registry.core import register
from registry.options import Natural, Positive


@register
class Sinusoidal(Position):
    """x[p, 2i] += scale * sin(p / base^(2i/D)), x[p, 2i+1] += scale * cos(p / base^(2i/D)), for i = 0 .. D/2 - 1."""

    acts = "embedding"
    shift_invariant = False

    class Options(Position.Options):
        scale: Positive = 0.02
        """Amplitude. The default matches embeddings of `init: normal` and `init: gpt2`; 1 in the 2017 Transformer,
        which multiplies embeddings by sqrt(d_model)."""
        base: Positive = 10_000.0
        """Longest wavelength, in units of 2 pi tokens."""
        layout: Literal["interleaved", "halves"] = "interleaved"
        """Whether sines and cosines alternate, or all sines come first (CTRL, XGLM)."""
        closed: bool = False
        """Whether the last pair has exactly the longest wavelength: exponents 2i/(D-2) in place of 2i/D (XGLM)."""
        offset: Natural = 0
        """Added to each position; 2 in XGLM."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.base, self.offset, self.scale = options.base, options.offset, options.scale
        self.d_model = site.d_model
        self.halves = options.layout == "halves"
        self.span = site.d_model - 2 if options.closed else site.d_model
        if options.closed and self.span < 1:
            raise ValueError(f"a closed range of wavelengths needs d_model of at least 3, got {site.d_model}")

    def embed(self, x: Tensor, context: Context) -> Tensor:
        return torch.add(x, self.table(context.positions + self.offset).type_as(x), alpha=self.scale)

    def table(self, positions: Tensor) -> Tensor:
        """positions (..., T) -> (..., T, D), in float32."""
        exponent = torch.arange(0, self.d_model, 2, device=positions.device, dtype=torch.float32) / self.span
        angle = positions[..., None].float() / self.base**exponent  # (..., T, ceil(D/2))
        if self.halves:
            return torch.cat([angle.sin(), angle.cos()], dim=-1)[..., : self.d_model]
        pairs = torch.stack([angle.sin(), angle.cos()], dim=-1)  # (..., T, ceil(D/2), 2)
        return pairs.flatten(-2)[..., : self.d_model]

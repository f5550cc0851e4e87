"""Rotary positions (Su et al. 2021, RoFormer, arXiv:2104.09864); partial rotation as in GPT-NeoX (arXiv:2204.06745)."""

import torch
from torch import Tensor

from registry.context import Context
from registry.contracts import Position, Site
from registry.core import register
from registry.options import Fraction, Positive


@register
class RoPE(Position):
    """Turns channels (i, i + R/2) of q and k by the angle p * theta^(-2i/R), for the first R channels of a head."""

    acts = "rotation"

    class Options(Position.Options):
        theta: Positive = 10_000.0
        """Base of the wavelengths; larger for longer contexts."""
        fraction: Fraction = 1.0
        """Share of each head's channels that turn; the rest pass unchanged."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.theta = options.theta
        self.width = int(site.d_model * options.fraction)  # R
        if self.width < 2 or self.width % 2:
            raise ValueError(
                f"the rotated width must be even and at least 2, got {self.width} "
                f"(head_dim {site.d_model} times fraction {options.fraction}); choose another head_dim or fraction"
            )

    def rotate(self, q: Tensor, k: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        cos, sin = context.once(("rope", self.theta, self.width, q.dtype), lambda: self._angles(context.positions, q))
        return self._turn(q, cos, sin), self._turn(k, cos, sin)

    def _angles(self, positions: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        exponent = torch.arange(0, self.width, 2, device=positions.device, dtype=torch.float32) / self.width
        angle = positions[..., None].float() * self.theta**-exponent  # (T, R/2) or (B, T, R/2)
        angle = torch.cat([angle, angle], dim=-1)
        if angle.ndim == 3:
            angle = angle[:, None]  # (B, 1, T, R): the same for all heads
        return angle.cos().type_as(like), angle.sin().type_as(like)

    def _turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        if self.width == x.shape[-1]:
            return x * cos + _quarter(x) * sin
        turned, passed = x[..., : self.width], x[..., self.width :]
        return torch.cat([turned * cos + _quarter(turned) * sin, passed], dim=-1)


def _quarter(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)

"""Attention with linear biases (Press, Smith & Lewis 2021, ALiBi, arXiv:2108.12409)."""

import math

import torch
from torch import Tensor

from registry.context import Mask
from registry.contracts import Position, Site
from registry.core import register


@register
class ALiBi(Position):
    """scores[h, t, s] -= slope[h] * |t - s|, with slopes in a geometric series over the heads."""

    acts = "bias"

    def __init__(self, options: Position.Options, site: Site) -> None:
        super().__init__(options, site)
        if site.n_heads is None:
            raise ValueError("alibi biases the scores of a mixer with heads, and this one has none")
        self.slopes = slopes(site.n_heads)

    def bias(self, mask: Mask) -> Tensor:
        slope = torch.tensor(self.slopes, device=mask.device, dtype=torch.float32)
        return -slope[:, None, None] * mask.distance.abs()  # (H, T, S)


def slopes(n_heads: int) -> list[float]:
    """2^(-8i/n) for i = 1..n when n is a power of two; else those of the next power below, then of every other one
    between (the published rule for other head counts).
    """
    power = 2 ** int(math.log2(n_heads))
    series = [2 ** (-8 * i / power) for i in range(1, power + 1)]
    between = [2 ** (-8 * i / (2 * power)) for i in range(1, 2 * power + 1, 2)]
    return series + between[: n_heads - power]

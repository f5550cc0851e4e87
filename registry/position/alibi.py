"""Attention with linear biases (Press, Smith & Lewis 2021, ALiBi, arXiv:2108.12409)."""

from torch import Tensor

from registry.context import Mask
from registry.contracts import Position, Site
from registry.core import register
from registry.options import Positive
from registry.position._shared import slopes


@register
class ALiBi(Position):
    """scores[h, t, s] -= slope[h] * |t - s|, with slopes in a geometric series over the heads."""

    acts = "bias"

    class Options(Position.Options):
        flattest: Positive = 8.0
        """Negative binary logarithm of the flattest slope."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        if site.n_heads is None:
            raise ValueError("alibi biases the scores of a mixer with heads, and this one has none")
        self.n_heads, self.flattest = site.n_heads, options.flattest

    def bias(self, mask: Mask) -> Tensor:
        slope = slopes(self.n_heads, self.flattest, mask.device)
        return -slope[:, None, None] * mask.distance.abs()  # (H, T, S)

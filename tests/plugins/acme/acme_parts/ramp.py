"""Positions as one straight ramp on every feature, the plainest scheme there is."""

from torch import Tensor

from registry.context import Context
from registry.contracts import Position, Site
from registry.options import Positive


class Ramp(Position):
    """x + slope * position."""

    acts = "embedding"
    shift_invariant = False

    class Options(Position.Options):
        slope: Positive = 0.01
        """What a step adds."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.slope = options.slope

    def embed(self, x: Tensor, context: Context) -> Tensor:
        return x + self.slope * context.positions[..., None].to(x.dtype)  # (T, 1) or (B, T, 1)

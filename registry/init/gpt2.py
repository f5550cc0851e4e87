"""GPT-2 initialization: residual projections scaled by depth (Radford et al. 2019, GPT-2, section 2.3).

Position tables have half the standard deviation of token tables, as in the published code.
"""

from torch import Generator, Tensor, nn

from registry.contracts import Init, Site, Weight
from registry.core import register
from registry.options import Positive


@register
class GPT2(Init):
    """weight ~ N(0, s^2) with s = std; std / 2 of positions, std / sqrt(2L) of projections into the residual stream."""

    class Options(Init.Options):
        std: Positive = 0.02
        """Standard deviation."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.std = options.std
        self.scales = {"residual": (2 * site.n_layers) ** -0.5, "position": 0.5}

    def fill(self, weight: Tensor, where: Weight, generator: Generator) -> None:
        nn.init.normal_(weight, std=self.std * self.scales.get(where.role, 1.0), generator=generator)

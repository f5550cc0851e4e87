"""GPT-2 initialisation: residual projections shrink with depth (Radford et al. 2019, GPT-2, section 2.3)."""

from torch import Generator, Tensor, nn

from registry.contracts import Init, Site, Weight
from registry.core import register
from registry.options import Positive


@register
class GPT2(Init):
    """weight ~ N(0, std^2); projections into the residual stream ~ N(0, std^2 / 2L), there being 2L of them."""

    class Options(Init.Options):
        std: Positive = 0.02
        """Standard deviation."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.std = options.std
        self.residual_std = options.std * (2 * site.n_layers) ** -0.5

    def fill(self, weight: Tensor, where: Weight, generator: Generator) -> None:
        std = self.residual_std if where.role == "residual" else self.std
        nn.init.normal_(weight, std=std, generator=generator)

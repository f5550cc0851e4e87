"""Normal initialization: every weight from one Gaussian (Radford et al. 2018, GPT)."""

from torch import Generator, Tensor, nn

from registry.contracts import Init, Site, Weight
from registry.core import register
from registry.options import Positive


@register
class Normal(Init):
    """weight ~ N(0, std^2)."""

    class Options(Init.Options):
        std: Positive = 0.02
        """Standard deviation."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.std = options.std

    def fill(self, weight: Tensor, where: Weight, generator: Generator) -> None:
        nn.init.normal_(weight, std=self.std, generator=generator)

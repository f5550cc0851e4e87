"""Xavier initialization: variance kept from layer to layer (Glorot & Bengio 2010, AISTATS)."""

from torch import Generator, Tensor, nn

from registry.contracts import Init, Site, Weight
from registry.core import register
from registry.options import Positive


@register
class Xavier(Init):
    """weight ~ U(-a, a) with a = gain * sqrt(6 / (fan_in + fan_out))."""

    class Options(Init.Options):
        gain: Positive = 1.0
        """Multiplies the bound."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.gain = options.gain

    def fill(self, weight: Tensor, where: Weight, generator: Generator) -> None:
        nn.init.xavier_uniform_(weight, gain=self.gain, generator=generator)

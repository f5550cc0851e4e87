"""A feed-forward network that narrows before it widens again, with another part in a slot."""

from torch import Tensor, nn

from registry.context import Context
from registry.contracts import FFN, Activation, ActivationSlot, Site
from registry.options import Width, named


class Bottleneck(FFN):
    """up(act(down(x)))."""

    roles = {"up": "residual"}

    class Options(FFN.Options):
        width: Width = 8
        """Features in the neck."""
        activation: ActivationSlot = named("acme.swish")
        """Activation of the inner features."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.down = nn.Linear(site.d_model, options.width)
        self.activation = site.inside(d_model=options.width).build(options.activation, Activation)
        self.up = nn.Linear(options.width, site.d_model)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return self.up(self.activation(self.down(x)))

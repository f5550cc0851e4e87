"""Position-wise feed-forward network (Vaswani et al. 2017, arXiv:1706.03762, section 3.3)."""

from torch import Tensor, nn

from registry.context import Context
from registry.contracts import FFN, Activation, ActivationSlot, Site
from registry.core import register
from registry.options import Width, named


@register
class MLP(FFN):
    """down(act(up(x)))."""

    roles = {"down": "residual"}

    class Options(FFN.Options):
        d_ff: Width | None = None
        """Hidden width; four times d_model when not given."""
        activation: ActivationSlot = named("gelu")
        """Activation of the hidden features."""
        bias: bool = True
        """Whether both projections add a bias."""

    @classmethod
    def derived(cls, options: Options, site: Site) -> dict[str, int]:
        return {"d_ff": 4 * site.d_model if options.d_ff is None else options.d_ff}

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        d_ff = self.derived(options, site)["d_ff"]
        self.up = nn.Linear(site.d_model, d_ff, bias=options.bias)
        self.activation = site.inside(d_model=d_ff).build(options.activation, Activation)
        self.down = nn.Linear(d_ff, site.d_model, bias=options.bias)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        return self.down(self.activation(self.up(x)))

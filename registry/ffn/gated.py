"""Gated feed-forward: SwiGLU, GeGLU, ReGLU (Shazeer 2020, arXiv:2002.05202)."""

from torch import Tensor, nn

from registry.contracts import FFN, Activation, ActivationSlot, Site
from registry.core import register
from registry.options import Width, named


@register
class Gated(FFN):
    """down(act(gate(x)) * up(x))."""

    residual = ("down",)

    class Options(FFN.Options):
        d_ff: Width | None = None
        """Inner width; 8/3 of d_model, rounded up to a multiple of 256, when not given."""
        activation: ActivationSlot = named("silu")
        """What bends the gate."""
        bias: bool = False
        """Whether the three projections add a bias."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        d_ff = -(-8 * site.d_model // (3 * 256)) * 256 if options.d_ff is None else options.d_ff
        self.gate = nn.Linear(site.d_model, d_ff, bias=options.bias)
        self.up = nn.Linear(site.d_model, d_ff, bias=options.bias)
        self.activation = site.inside(d_model=d_ff).build(options.activation, Activation)
        self.down = nn.Linear(d_ff, site.d_model, bias=options.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.activation(self.gate(x)) * self.up(x))

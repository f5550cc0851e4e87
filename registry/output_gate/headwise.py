"""One gate per head, computed from the layer's input (Qiu et al. 2025, arXiv:2505.06708)."""

from torch import Tensor, nn

from registry.contracts import Activation, ActivationSlot, Site
from registry.core import register
from registry.options import named
from registry.output_gate import OutputGate


@register
class Headwise(OutputGate):
    """y * act(W x), with a gate for each head."""

    roles = {"projection": "gate"}

    class Options(OutputGate.Options):
        activation: ActivationSlot = named("sigmoid")
        """Activation of the gate."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        if site.n_heads is None:
            raise ValueError("headwise gates the heads of attention, and here are none")
        self.projection = nn.Linear(site.d_model, site.n_heads, bias=False)
        self.activation = site.inside(d_model=site.n_heads).build(options.activation, Activation)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return y * self.activation(self.projection(x)).unflatten(-1, (y.shape[2], -1))

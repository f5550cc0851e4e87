"""One gate per channel, computed from the layer's input (Qiu et al. 2025, arXiv:2505.06708)."""

from torch import Tensor, nn

from registry.contracts import Activation, ActivationSlot, Site
from registry.core import register
from registry.options import named
from registry.output_gate import OutputGate


@register
class Elementwise(OutputGate):
    """y * act(W x), with a gate for each channel of each head."""

    roles = {"projection": "gate"}

    class Options(OutputGate.Options):
        activation: ActivationSlot = named("sigmoid")
        """Activation of the gate."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        if site.n_heads is None or site.head_dim is None:
            raise ValueError("elementwise gates the heads of attention, and here are none")
        gates = site.n_heads * site.head_dim
        self.projection = nn.Linear(site.d_model, gates, bias=False)
        self.activation = site.inside(d_model=gates).build(options.activation, Activation)

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return y * self.activation(self.projection(x)).unflatten(-1, (y.shape[2], -1))

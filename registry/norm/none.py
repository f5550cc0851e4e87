"""No normalisation: the identity."""

from torch import Tensor

from registry.contracts import Norm
from registry.core import register


@register
class NoNorm(Norm):
    """x."""

    def forward(self, x: Tensor) -> Tensor:
        return x

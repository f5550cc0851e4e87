"""Registers itself, and then fails to import."""

from torch import Tensor

from registry.contracts import Activation
from registry.core import register


@register("rotten.raises")
class Raises(Activation):
    """x."""

    def forward(self, x: Tensor) -> Tensor:
        return x


raise RuntimeError("the shelf gave way")

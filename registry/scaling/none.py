"""No stretching: the wavelengths of the original (Su et al. 2021, arXiv:2104.09864)."""

from torch import Tensor

from registry.contracts import Scaling
from registry.core import register


@register
class NoScaling(Scaling):
    """f."""

    identity = True

    def frequencies(self, base: Tensor, theta: float, length: Tensor) -> tuple[Tensor, float]:
        return base, 1.0

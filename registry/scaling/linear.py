"""Position interpolation: all positions closer together (Chen et al. 2023, arXiv:2306.15595)."""

from torch import Tensor

from registry.contracts import Scaling
from registry.core import register
from registry.options import Positive


@register
class Linear(Scaling):
    """f / factor."""

    class Options(Scaling.Options):
        factor: Positive
        """Extended context length divided by that of pretraining."""

    def frequencies(self, base: Tensor, theta: float, length: Tensor) -> tuple[Tensor, float]:
        return base / self.options.factor, 1.0

"""NTK-aware scaling: a fixed, larger base (bloc97 2023; as in Hunyuan, arXiv:2411.02265)."""

from torch import Tensor, arange

from registry.contracts import Scaling
from registry.core import register
from registry.options import Positive


@register
class NTK(Scaling):
    """Wavelengths of base theta * alpha^(R/(R-2))."""

    class Options(Scaling.Options):
        alpha: Positive
        """Growth of the base."""

    def frequencies(self, base: Tensor, theta: float, length: Tensor) -> tuple[Tensor, float]:
        width = 2 * len(base)
        if width < 4:
            raise ValueError("ntk needs at least two channel pairs in a head")
        stretched = theta * self.options.alpha ** (width / (width - 2))
        exponent = arange(0, width, 2, device=base.device, dtype=base.dtype) / width
        return stretched**-exponent, 1.0

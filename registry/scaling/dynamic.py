"""Dynamic NTK: the base of the wavelengths grows with the sequence (emozilla 2023; as in Hugging Face transformers).

All tokens of a text turn by the frequencies of its length. So a text that grows past N is read again, token by token.
"""

from pydantic import Field
from torch import Tensor, arange

from registry.contracts import Scaling
from registry.core import register
from registry.options import Count, Positive


@register
class Dynamic(Scaling):
    """Wavelengths of base theta * (factor n/N - (factor - 1))^(R/(R-2)), with n = max(length of the text, N)."""

    settled = False

    class Options(Scaling.Options):
        factor: Positive
        """How fast the base grows."""
        original: Count = Field(examples=[16, 4])
        """N: context of the first training, in tokens."""

    def frequencies(self, base: Tensor, theta: float, length: Tensor) -> tuple[Tensor, float]:
        width, factor, original = 2 * len(base), self.options.factor, self.options.original
        if width < 4:
            raise ValueError("dynamic stretches slow pairs of a head more than fast ones; it needs two pairs or more")
        growth = factor * length.clamp(min=original).to(base.dtype) / original - (factor - 1)
        exponent = arange(0, width, 2, device=base.device, dtype=base.dtype) / width
        return (theta * growth ** (width / (width - 2))) ** -exponent, 1.0

"""Dynamic NTK: the base of the wavelengths grows with the sequence (emozilla 2023; as in Hugging Face transformers).

All tokens of a sequence rotate by the frequencies for its length. So a sequence that grows past N is computed again.
"""

from pydantic import Field
from torch import Tensor, arange

from registry.contracts import Scaling
from registry.core import register
from registry.options import Count, Positive


@register
class Dynamic(Scaling):
    """Wavelengths of base theta * (factor n/N - (factor - 1))^(R/(R-2)), with n = max(sequence length, N)."""

    settled = False

    class Options(Scaling.Options):
        factor: Positive
        """Growth of the base with n/N."""
        original_max_seq_len: Count = Field(examples=[16, 4])
        """N: context length of pretraining."""

    def frequencies(self, base: Tensor, theta: float, length: Tensor) -> tuple[Tensor, float]:
        width, factor, original = 2 * len(base), self.options.factor, self.options.original_max_seq_len
        if width < 4:
            raise ValueError("dynamic needs at least two channel pairs in a head")
        growth = factor * length.clamp(min=original).to(base.dtype) / original - (factor - 1)
        exponent = arange(0, width, 2, device=base.device, dtype=base.dtype) / width
        return (theta * growth ** (width / (width - 2))) ** -exponent, 1.0

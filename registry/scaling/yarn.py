"""YaRN: interpolate slow channels, keep fast ones, sharpen scores (Peng et al. 2023, arXiv:2309.00071)."""

import math

import torch
from torch import Tensor

from registry.contracts import Scaling
from registry.core import register
from registry.options import Count, Positive


@register
class YaRN(Scaling):
    """f/factor for channels that turn less than `slow` times in N tokens, f above `fast`, a ramp between."""

    class Options(Scaling.Options):
        factor: Positive
        """How many times longer the context becomes."""
        original: Count
        """N: context of the first training, in tokens."""
        fast: Positive = 32.0
        """Channels with more turns than this stay."""
        slow: Positive = 1.0
        """Channels with fewer turns than this stretch in full."""
        attention_factor: Positive | None = None
        """Multiplies cos and sin; 0.1 ln(factor) + 1 when not given."""
        truncate: bool = True
        """Whether the ends of the ramp are rounded to whole channels."""

    def frequencies(self, base: Tensor, theta: float, length: int) -> tuple[Tensor, float]:
        options, width = self.options, 2 * len(base)
        low, high = (self._channel(turns, width, theta) for turns in (options.fast, options.slow))
        if options.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, width - 1)
        channel = torch.arange(len(base), device=base.device, dtype=base.dtype)
        ramp = ((channel - low) / max(high - low, 0.001)).clamp(0, 1)
        given = options.attention_factor
        sharpen = 0.1 * math.log(options.factor) + 1 if options.factor > 1 else 1.0
        return torch.lerp(base, base / options.factor, ramp), sharpen if given is None else given

    def _channel(self, turns: float, width: int, theta: float) -> float:
        """The channel that makes so many turns within the first context."""
        return width * math.log(self.options.original / (turns * 2 * math.pi)) / (2 * math.log(theta))

"""YaRN: interpolate slow channels, keep fast ones, sharpen scores (Peng et al. 2023, arXiv:2309.00071)."""

import math

import torch
from pydantic import Field
from torch import Tensor

from registry.contracts import Scaling, Site
from registry.core import register
from registry.options import Count, NonNegative, Positive


@register
class YaRN(Scaling):
    """f/factor for channels that turn less than `slow` times in N tokens, f above `fast`, a ramp between."""

    class Options(Scaling.Options):
        factor: Positive
        """How many times longer the context becomes."""
        original: Count = Field(examples=[64, 16])
        """N: context of the first training, in tokens."""
        fast: Positive = 32.0
        """Channels with more turns than this stay."""
        slow: Positive = 1.0
        """Channels with fewer turns than this stretch in full."""
        attention_factor: Positive | None = None
        """Multiplies cos and sin; m(sharpen) / m(spared), with m(s) = 0.1 s ln(factor) + 1, when not given."""
        sharpen: NonNegative = 1.0
        """How much scores sharpen with the factor."""
        spared: NonNegative = 0.0
        """How much of that is left to the scale of the scores, as in DeepSeek-V2 (arXiv:2405.04434): see `gain`."""
        truncate: bool = True
        """Whether the ends of the ramp are rounded to whole channels."""

    @classmethod
    def derived(cls, options: Options, site: Site) -> dict[str, float]:
        usual = _gain(options, options.sharpen) / _gain(options, options.spared)
        return {"attention_factor": usual if options.attention_factor is None else options.attention_factor}

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.gain = _gain(options, options.spared) ** 2
        self.attention_factor = self.derived(options, site)["attention_factor"]

    def frequencies(self, base: Tensor, theta: float, length: Tensor) -> tuple[Tensor, float]:
        options, width = self.options, 2 * len(base)
        if theta == 1:
            raise ValueError("yarn stretches slow pairs more than fast ones, and with theta 1 all turn alike")
        low, high = (self._channel(turns, width, theta) for turns in (options.fast, options.slow))
        if options.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, width - 1)
        channel = torch.arange(len(base), device=base.device, dtype=base.dtype)
        ramp = ((channel - low) / (high - low or 0.001)).clamp(0, 1)  # backwards where N is shorter than a turn
        return torch.lerp(base, base / options.factor, ramp), self.attention_factor

    def _channel(self, turns: float, width: int, theta: float) -> float:
        """The channel that makes so many turns within the first context."""
        return width * math.log(self.options.original / (turns * 2 * math.pi)) / (2 * math.log(theta))


def _gain(options: YaRN.Options, strength: float) -> float:
    return 0.1 * strength * math.log(max(options.factor, 1.0)) + 1

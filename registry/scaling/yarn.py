"""YaRN: interpolate slow channels, keep fast ones, scale attention (Peng et al. 2023, arXiv:2309.00071)."""

import math

import torch
from pydantic import Field
from torch import Tensor

from registry.contracts import Scaling, Site
from registry.core import register
from registry.options import Count, NonNegative, Positive


@register
class YaRN(Scaling):
    """f/factor for channels with fewer than beta_slow rotations in N tokens, f above beta_fast, a ramp between."""

    class Options(Scaling.Options):
        factor: Positive
        """Extended context length divided by N."""
        original_max_seq_len: Count = Field(examples=[64, 16])
        """N: context length of pretraining."""
        beta_fast: Positive = 32.0
        """Channels with more rotations than this are kept."""
        beta_slow: Positive = 1.0
        """Channels with fewer rotations than this are scaled by `factor`."""
        attention_factor: Positive | None = None
        """Multiplies cos and sin; m(mscale) / m(mscale_all_dim), with m(s) = 0.1 s ln(factor) + 1, when not given."""
        mscale: NonNegative = 1.0
        """Growth of the attention with ln(factor)."""
        mscale_all_dim: NonNegative = 0.0
        """The part of it that `mla` applies to its score scale instead, squared (DeepSeek-V2, arXiv:2405.04434)."""
        truncate: bool = True
        """Whether to round the ends of the ramp to whole channels."""

    @classmethod
    def derived(cls, options: Options, site: Site) -> dict[str, float]:
        usual = _mscale(options, options.mscale) / _mscale(options, options.mscale_all_dim)
        return {"attention_factor": usual if options.attention_factor is None else options.attention_factor}

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.score_scale = _mscale(options, options.mscale_all_dim) ** 2
        self.attention_factor = self.derived(options, site)["attention_factor"]

    def frequencies(self, base: Tensor, theta: float, length: Tensor) -> tuple[Tensor, float]:
        options, width = self.options, 2 * len(base)
        if theta == 1:
            raise ValueError("yarn needs theta other than 1: with 1 all channels rotate alike")
        low, high = (self._channel(n, width, theta) for n in (options.beta_fast, options.beta_slow))
        if options.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, width - 1)
        channel = torch.arange(len(base), device=base.device, dtype=base.dtype)
        ramp = ((channel - low) / (high - low or 0.001)).clamp(0, 1)  # backwards where N is shorter than a rotation
        return torch.lerp(base, base / options.factor, ramp), self.attention_factor

    def _channel(self, rotations: float, width: int, theta: float) -> float:
        """The channel with this many rotations within N tokens."""
        return width * math.log(self.options.original_max_seq_len / (rotations * 2 * math.pi)) / (2 * math.log(theta))


def _mscale(options: YaRN.Options, strength: float) -> float:
    return 0.1 * strength * math.log(max(options.factor, 1.0)) + 1

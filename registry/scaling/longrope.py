"""LongRoPE: a searched divisor for each channel (Ding et al. 2024, arXiv:2402.13753; as in Phi-3).

All tokens of a sequence rotate by the list for its length. So a sequence that grows past N is computed again.
"""

import math
from typing import Annotated

import torch
from annotated_types import MinLen
from pydantic import Field
from torch import Tensor

from registry.contracts import Scaling, Site
from registry.core import register
from registry.options import AsTuple, Count, Positive


@register
class LongRoPE(Scaling):
    """f_i / long_factor_i in sequences longer than N, f_i / short_factor_i in others."""

    settled = False

    class Options(Scaling.Options):
        short_factor: Annotated[tuple[Positive, ...], AsTuple, MinLen(1)] = Field(examples=[(1.0,) * 6, (1.5,) * 6])
        """Divisor of each channel pair for sequences up to N."""
        long_factor: Annotated[tuple[Positive, ...], AsTuple, MinLen(1)] = Field(examples=[(2.0,) * 6, (4.0,) * 6])
        """Divisor of each channel pair for longer sequences."""
        original_max_seq_len: Count = Field(examples=[16, 4])
        """N: context length of pretraining."""
        factor: Positive | None = None
        """Extended context length divided by N; max_seq_len / N when not given."""
        attention_factor: Positive | None = None
        """Multiplies cos and sin; sqrt(1 + ln(factor) / ln N) when not given."""
        long_attention_factor: Positive | None = None
        """`attention_factor` for sequences longer than N; the same when not given."""

    @classmethod
    def derived(cls, options: Options, site: Site) -> dict[str, float]:
        original = options.original_max_seq_len
        if original < 2:
            raise ValueError(f"original_max_seq_len must be at least 2, got {original}")
        stretch = site.max_seq_len / original if options.factor is None else options.factor
        usual = math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0
        factor = usual if options.attention_factor is None else options.attention_factor
        given = options.long_attention_factor
        long_factor = factor if given is None else given
        return {"factor": stretch, "attention_factor": factor, "long_attention_factor": long_factor}

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        used = self.derived(options, site)
        self.factor, self.long_factor = used["attention_factor"], used["long_attention_factor"]

    def frequencies(self, base: Tensor, theta: float, length: Tensor) -> tuple[Tensor, float | Tensor]:
        for divisors in (self.options.short_factor, self.options.long_factor):
            if len(divisors) != len(base):
                raise ValueError(f"longrope needs a divisor for each of {len(base)} channel pairs, got {len(divisors)}")
        past = length > self.options.original_max_seq_len
        short, long = base.new_tensor(self.options.short_factor), base.new_tensor(self.options.long_factor)
        factor = torch.where(past, self.long_factor, self.factor) if self.long_factor != self.factor else self.factor
        return base / torch.where(past, long, short), factor

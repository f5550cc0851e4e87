"""Attention temperature tuning: queries grow with the logarithm of their position (Llama 4, Meta 2025; Ministral 3)."""

import torch
from pydantic import Field
from torch import Tensor

from registry.context import Context
from registry.contracts import Site
from registry.core import register
from registry.options import Count, Natural, Positive
from registry.query_scaling import QueryScaling


@register
class Llama4(QueryScaling):
    """q * (1 + beta ln(1 + floor((p + shift) / length))), with p the position of the query."""

    class Options(QueryScaling.Options):
        beta: Positive
        """Slope: `attn_scale` of Llama 4, `llama_4_scaling_beta` of Mistral."""
        length: Count = Field(examples=[2, 4])
        """Positions between steps: `floor_scale` of Llama 4, `original_max_position_embeddings` of Mistral."""
        shift: Natural = 0
        """Added to the position; 1 in Llama 4."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.beta, self.length, self.shift = options.beta, options.length, options.shift

    def forward(self, q: Tensor, context: Context) -> Tensor:
        steps = (context.positions + self.shift) // self.length  # (T,) or (B, T)
        factor = 1 + self.beta * torch.log1p(steps.float())
        if factor.ndim == 2:
            factor = factor[:, None]
        return q * factor[..., None].type_as(q)

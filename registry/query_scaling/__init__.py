"""Scaling of queries by their position."""

from typing import Annotated

from torch import Tensor

from registry.context import Context
from registry.options import Options, Slot
from registry.part import ModelPart

QueryScalingSlot = Annotated[Options, Slot("query_scaling")]


class QueryScaling(ModelPart):
    """Scales queries q (B, H, T, K) by their positions `context.positions`, (T,) or (B, T)."""

    family = "query_scaling"

    def forward(self, q: Tensor, context: Context) -> Tensor:
        raise NotImplementedError

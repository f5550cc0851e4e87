"""Routers of a mixture of experts."""

from typing import Annotated

from torch import Tensor

from registry.context import Context
from registry.options import Options, Slot
from registry.part import ModelPart


class Router(ModelPart):
    """Chooses experts: x (N, D) -> weights and indices (N, top_k) of the chosen among E = `site.n_experts`."""

    family = "router"
    top_k: int
    """Experts per token."""

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


RouterSlot = Annotated[Options, Slot("router")]

"""Feed-forward networks, applied to each token by itself."""

from typing import Annotated

from torch import Tensor

from registry.context import Context
from registry.options import Options, Slot
from registry.part import ModelPart


class FFN(ModelPart):
    """Transforms each token by itself: x (B, T, D) -> (B, T, D)."""

    family = "ffn"

    def forward(self, x: Tensor, context: Context) -> Tensor:
        raise NotImplementedError


FFNSlot = Annotated[Options, Slot("ffn")]

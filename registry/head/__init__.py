"""Final activations to logits."""

from typing import Annotated

from torch import Tensor, nn

from registry.options import Options, Slot
from registry.part import ModelPart


class Head(ModelPart):
    """Last activations x (B, T, D) -> logits (B, T, V); `table` (V, its width) is the embedding's weight."""

    family = "head"
    out: nn.Linear | None
    """The projection to logits; None where it is the table."""

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        raise NotImplementedError


HeadSlot = Annotated[Options, Slot("head")]

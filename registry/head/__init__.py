"""Final activations to logits."""

from typing import Annotated

from torch import Tensor, nn

from registry.options import Options, Slot
from registry.part import ModelPart


class Head(ModelPart):
    """Final activations x (B, T, D) -> logits (B, T, V); `table` (V, width) is the embedding's weight."""

    family = "head"
    out: nn.Linear | None
    """The projection to logits; None where it is the table."""

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        raise NotImplementedError

    def linear(self, table: Tensor) -> tuple[Tensor, Tensor | None] | None:
        """W (V, D) and b (V,) or None, where the logits are x W^T + b; None where they are anything else."""
        return None


HeadSlot = Annotated[Options, Slot("head")]

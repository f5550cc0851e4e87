"""Gates of attention's output, before the output projection."""

from typing import Annotated

from torch import Tensor

from registry.options import Options, Slot
from registry.part import ModelPart

OutputGateSlot = Annotated[Options, Slot("output_gate")]


class OutputGate(ModelPart):
    """Gates the heads' outputs y (B, T, H, V), of width V = `site.head_dim`, by the layer's input x (B, T, D)."""

    family = "output_gate"

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        raise NotImplementedError

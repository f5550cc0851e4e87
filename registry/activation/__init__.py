"""Element-wise nonlinearities."""

from typing import Annotated

from torch import Tensor

from registry.options import Options, Slot
from registry.part import ModelPart


class Activation(ModelPart):
    """x (..., F) -> (..., F), element by element."""

    family = "activation"

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError


ActivationSlot = Annotated[Options, Slot("activation")]

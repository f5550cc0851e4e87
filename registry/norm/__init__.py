"""Normalization layers."""

from typing import Annotated

from torch import Tensor

from registry.options import Options, Slot
from registry.part import ModelPart


class Norm(ModelPart):
    """x (..., D) -> (..., D): rescales the last dimension, of width `site.d_model`."""

    family = "norm"

    def forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError


NormSlot = Annotated[Options, Slot("norm")]

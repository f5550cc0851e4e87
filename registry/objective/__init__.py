"""Training objectives."""

from abc import ABC, abstractmethod
from typing import Annotated, Any

from torch import Tensor

from registry.options import Options, Slot
from registry.part import Part


class Objective(Part, ABC):
    """The training objective: a sum of losses to minimize."""

    family = "objective"

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def loss(self, model: Any, tokens: Tensor, segments: Tensor | None) -> tuple[Tensor, Tensor]:
        """Sum of the losses over the valid targets in `tokens` (B, T+1), and how many there are."""


ObjectiveSlot = Annotated[Options, Slot("objective")]

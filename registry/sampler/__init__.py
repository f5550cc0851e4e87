"""Samplers of the next token."""

from abc import ABC, abstractmethod
from typing import Annotated, Any

from torch import Tensor

from registry.options import Options, Slot
from registry.part import Part


class Sampler(Part, ABC):
    """Transforms logits. Samplers compose: each takes the logits of the one before."""

    family = "sampler"

    def __init__(self, options: Any) -> None:
        self.options = options

    @abstractmethod
    def apply(self, logits: Tensor) -> Tensor:
        """logits (B, V) -> logits (B, V), with -inf where a token may not be chosen.

        It depends on the logits alone, and not on how often it was asked.
        """


SamplerSlot = Annotated[Options, Slot("sampler")]

"""Token ids to vectors."""

from typing import Annotated

from torch import Tensor

from registry.options import Options, Slot
from registry.part import ModelPart


class Embedding(ModelPart):
    """Token ids (B, T) -> vectors (B, T, D). `weight` (V, its own width) is what a tied head reads."""

    family = "embedding"
    weight: Tensor

    def forward(self, tokens: Tensor) -> Tensor:
        raise NotImplementedError


EmbeddingSlot = Annotated[Options, Slot("embedding")]

"""Token ids to vectors."""

from typing import Annotated

from torch import Tensor

from registry.options import Options, Slot
from registry.part import ModelPart


class Embedding(ModelPart):
    """Token ids (B, T) -> vectors (B, T, D). A tied head uses `weight` (V, width of the table)."""

    family = "embedding"
    weight: Tensor

    def forward(self, tokens: Tensor) -> Tensor:
        raise NotImplementedError


EmbeddingSlot = Annotated[Options, Slot("embedding")]

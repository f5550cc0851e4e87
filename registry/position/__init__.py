"""Positional encodings."""

from typing import Annotated, ClassVar

from torch import Tensor

from registry.context import Context, Mask
from registry.options import Options, Slot
from registry.part import ModelPart


class Position(ModelPart):
    """A positional encoding. It acts at one of three places, named by `acts`; the other two methods do nothing."""

    family = "position"
    acts: ClassVar[str] = "nowhere"
    """`embedding` (added to it), `rotation` (of queries and keys), `bias` (on scores) or `nowhere`."""
    shift_invariant: ClassVar[bool] = True
    """Logits do not change when all positions grow by the same amount."""
    settled: bool = True
    """What it does to a token does not depend on how many follow in its text. Where it does, a text that is read in
    pieces must not outgrow what its first tokens were read for: `rotate` raises `TextGrew`."""
    score_scale: float = 1.0
    """Factor of the score scale in a mixer that rotates only a part of each head (YaRN in MLA)."""

    def embed(self, x: Tensor, context: Context) -> Tensor:
        """x (B, T, D) with positions added."""
        return x

    def rotate(self, q: Tensor, k: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """q (B, H, T, K) and k (B, G, T, K), rotated by position."""
        return q, k

    def bias(self, mask: Mask) -> Tensor | None:
        """What is added to the scores: (H, T, S), or (B, H, T, S) where it depends on segments; None for nothing."""
        return None


PositionSlot = Annotated[Options, Slot("position")]

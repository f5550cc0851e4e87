"""The weight that an initializer fills: `where.role == "head"`, `where.layer`, `where.fan_in`."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["embedding", "position", "hidden", "residual", "router", "gate", "head"]
"""The role of a weight.

embedding  a table of vectors, one for each token id or type of token
position   a table of vectors, one for each position
hidden     a projection inside the model, where nothing below fits
residual   a projection that writes into the residual stream
router     a projection that scores experts
gate       a projection whose output scales another one's output
head       the projection to logits; a tied head has none of its own
"""


@dataclass(frozen=True)
class Weight:
    """One weight of a model, or one bias of a linear layer."""

    name: str
    """Its name in the state dict, such as `layers.0.ffn.down.weight`."""
    role: Role
    """What it is for; a bias has the role of its layer's weight."""
    layer: int | None
    """Index of the layer that it stands in, from 0; None outside of the layers."""
    fan_in: int
    """Features that each output sums over; 1 for a table."""

    @property
    def is_table(self) -> bool:
        """Whether rows are looked up, and nothing is multiplied."""
        return self.role in ("embedding", "position")

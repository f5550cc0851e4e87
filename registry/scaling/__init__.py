"""Context extension of rotary positions."""

from typing import Annotated, Any

from torch import Tensor

from registry.options import Options, Slot
from registry.part import Part, Site


class Scaling(Part):
    """Stretches rotary positions to longer contexts than a model was first trained on."""

    family = "scaling"
    settled: bool = True
    """See `Position.settled`."""
    score_scale: float = 1.0
    """See `Position.score_scale`."""

    def __init__(self, options: Any, site: Site) -> None:
        self.options = options
        self.site = site

    def frequencies(self, base: Tensor, theta: float, length: Tensor) -> tuple[Tensor, float | Tensor]:
        """From `base` (R/2,), theta^(-2i/R) for each pair, those to turn by, and a factor for cos and sin.

        `length` (..., 1) is the number of tokens of the text; where it matters, frequencies are (..., R/2) and a factor
        that is a tensor (..., 1), and the scaling says that it is not `settled`.
        """
        raise NotImplementedError


ScalingSlot = Annotated[Options, Slot("scaling")]

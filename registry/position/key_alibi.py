"""Linear biases by key position: ALiBi (Press, Smith & Lewis 2021, arXiv:2108.12409) in the form
of Falcon (Almazrouei et al. 2023, arXiv:2311.16867).
"""

from torch import Tensor

from registry.context import Mask
from registry.contracts import Position, Site
from registry.core import register
from registry.options import Positive
from registry.position._shared import slopes


@register
class KeyALiBi(Position):
    """scores[h, t, s] += scale * slope[h] * p_s, in bfloat16 but for the scale.

    Before rounding this is ALiBi times `scale`: scores of a query may all grow alike. In bfloat16 it is not, for the
    products lose their last digits as the text goes on.
    """

    acts = "bias"
    shift_invariant = False

    class Options(Position.Options):
        scale: Positive | None = None
        """Multiplies the biases; head_dim^-1/2 when not given, as if they were added before the scores are scaled."""
        flattest: Positive = 8.0
        """Negative binary logarithm of the flattest slope."""

    @classmethod
    def derived(cls, options: Options, site: Site) -> dict[str, float]:
        return {"scale": site.d_model**-0.5 if options.scale is None else options.scale}

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        if site.n_heads is None:
            raise ValueError("key_alibi biases the scores of a mixer with heads, and this one has none")
        self.n_heads, self.flattest = site.n_heads, options.flattest
        self.scale = self.derived(options, site)["scale"]

    def bias(self, mask: Mask) -> Tensor:
        slope = slopes(self.n_heads, self.flattest, mask.device).bfloat16()[:, None, None]
        return (slope * mask.key_positions[..., None, :, :]).float() * self.scale  # (H, T, S) or (B, H, T, S)

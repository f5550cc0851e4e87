"""Pre-norm block with the residual taken after the norm (BLOOM's option, arXiv:2211.05100; MiniMax-01,
arXiv:2501.08313).
"""

from typing import Any

from torch import Tensor

from registry.block._shared import Norms, joining, kept, own
from registry.context import Context
from registry.contracts import FFN, Block, Mixer, Norm, Site
from registry.core import register
from registry.options import Positive


@register
class NormResidual(Block):
    """a = norm(x), x = mixer_alpha a + mixer(a); b = norm(x), x = ffn_alpha b + ffn(b)."""

    class Options(Block.Options, Norms):
        mixer_alpha: Positive = 1.0
        """Multiplies the residual around the mixer: alpha of MiniMax-01."""
        ffn_alpha: Positive = 1.0
        """Multiplies the residual around the ffn: alpha of MiniMax-01."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        site = own(site, options)
        self.mixer_norm = site.build(options.mixer_norm, Norm)
        self.mixer = site.build(options.mixer, Mixer)
        self.ffn_norm = site.build(options.ffn_norm, Norm)
        self.ffn = site.build(options.ffn, FFN)
        self.mixer_alpha, self.ffn_alpha = options.mixer_alpha, options.ffn_alpha
        self.joining = joining(site, options.residual_scale)

    def forward(self, x: Tensor, context: Context, state: Any = None) -> Tensor:
        a = self.mixer_norm(x)
        x = kept(a, self.mixer_alpha, self.joining(self.mixer(a, context, state)))
        b = self.ffn_norm(x)
        return kept(b, self.ffn_alpha, self.joining(self.ffn(b, context)))

"""Post-norm block of the original transformer (Vaswani et al. 2017, arXiv:1706.03762, section 3.1; scaled
residual: DeepNorm, Wang et al. 2022, arXiv:2203.00555).
"""

from typing import Any

from torch import Tensor

from registry.block._shared import Norms, joining, kept, own
from registry.context import Context
from registry.contracts import FFN, Block, Mixer, Norm, Site
from registry.core import register
from registry.options import Positive


@register
class PostNorm(Block):
    """x = norm(mixer_alpha x + mixer(x)); x = norm(ffn_alpha x + ffn(x))."""

    class Options(Block.Options, Norms):
        mixer_alpha: Positive = 1.0
        """Multiplies the residual around the mixer: alpha of DeepNorm."""
        ffn_alpha: Positive = 1.0
        """Multiplies the residual around the ffn: alpha of DeepNorm."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        site = own(site, options)
        self.mixer = site.build(options.mixer, Mixer)
        self.mixer_norm = site.build(options.mixer_norm, Norm)
        self.ffn = site.build(options.ffn, FFN)
        self.ffn_norm = site.build(options.ffn_norm, Norm)
        self.mixer_alpha, self.ffn_alpha = options.mixer_alpha, options.ffn_alpha
        self.joining = joining(site, options.residual_scale)

    def forward(self, x: Tensor, context: Context, state: Any = None) -> Tensor:
        x = self.mixer_norm(kept(x, self.mixer_alpha, self.joining(self.mixer(x, context, state))))
        return self.ffn_norm(kept(x, self.ffn_alpha, self.joining(self.ffn(x, context))))

"""Post-norm block, the original one (Vaswani et al. 2017, arXiv:1706.03762, section 3.1; with a heavier residual path:
DeepNorm, Wang et al. 2022, arXiv:2203.00555).
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
    """x = norm(mixer_keep x + mixer(x)); x = norm(ffn_keep x + ffn(x))."""

    class Options(Block.Options, Norms):
        mixer_keep: Positive = 1.0
        """Multiplies the residual path beside the mixer: alpha of DeepNorm."""
        ffn_keep: Positive = 1.0
        """Multiplies the residual path beside the ffn."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        site = own(site, options)
        self.mixer = site.build(options.mixer, Mixer)
        self.mixer_norm = site.build(options.mixer_norm, Norm)
        self.ffn = site.build(options.ffn, FFN)
        self.ffn_norm = site.build(options.ffn_norm, Norm)
        self.mixer_keep, self.ffn_keep = options.mixer_keep, options.ffn_keep
        self.joining = joining(site, options.residual_scale)

    def forward(self, x: Tensor, context: Context, state: Any = None) -> Tensor:
        x = self.mixer_norm(kept(x, self.mixer_keep, self.joining(self.mixer(x, context, state))))
        return self.ffn_norm(kept(x, self.ffn_keep, self.joining(self.ffn(x, context))))

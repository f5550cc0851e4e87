"""Post-norm block, the original one (Vaswani et al. 2017, arXiv:1706.03762, section 3.1)."""

from typing import Any

from torch import Tensor

from registry.block._shared import joining, own
from registry.context import Context
from registry.contracts import FFN, Block, Mixer, Norm, Site
from registry.core import register


@register
class PostNorm(Block):
    """x = norm(x + mixer(x)); x = norm(x + ffn(x))."""

    def __init__(self, options: Block.Options, site: Site) -> None:
        super().__init__(options, site)
        site = own(site, options)
        self.mixer = site.build(options.mixer, Mixer)
        self.mixer_norm = site.build(None, Norm)
        self.ffn = site.build(options.ffn, FFN)
        self.ffn_norm = site.build(None, Norm)
        self.joining = joining(site, options.residual_scale)

    def forward(self, x: Tensor, context: Context, state: Any = None) -> Tensor:
        x = self.mixer_norm(x + self.joining(self.mixer(x, context, state)))
        return self.ffn_norm(x + self.joining(self.ffn(x, context)))

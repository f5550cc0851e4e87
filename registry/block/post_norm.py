"""Post-norm block, the original one (Vaswani et al. 2017, arXiv:1706.03762, section 3.1)."""

from typing import Any

from torch import Tensor, nn

from registry.context import Context
from registry.contracts import FFN, Block, Mixer, Norm, Site
from registry.core import register


@register
class PostNorm(Block):
    """x = norm(x + mixer(x)); x = norm(x + ffn(x))."""

    def __init__(self, options: Block.Options, site: Site) -> None:
        super().__init__(options, site)
        self.mixer = site.build(options.mixer, Mixer)
        self.mixer_norm = site.build(options.norm, Norm)
        self.ffn = site.build(options.ffn, FFN)
        self.ffn_norm = site.build(options.norm, Norm)
        self.dropout = nn.Dropout(site.dropout)

    def forward(self, x: Tensor, context: Context, state: Any = None) -> Tensor:
        x = self.mixer_norm(x + self.dropout(self.mixer(x, context, state)))
        return self.ffn_norm(x + self.dropout(self.ffn(x)))

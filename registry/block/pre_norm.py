"""Pre-norm block (Xiong et al. 2020, arXiv:2002.04745; Radford et al. 2019, GPT-2)."""

from typing import Any

from torch import Tensor, nn

from registry.context import Context
from registry.contracts import FFN, Block, Mixer, Norm, Site
from registry.core import register


@register
class PreNorm(Block):
    """x += mixer(norm(x)); x += ffn(norm(x))."""

    def __init__(self, options: Block.Options, site: Site) -> None:
        super().__init__(options, site)
        self.mixer_norm = site.build(options.norm, Norm)
        self.mixer = site.build(options.mixer, Mixer)
        self.ffn_norm = site.build(options.norm, Norm)
        self.ffn = site.build(options.ffn, FFN)
        self.dropout = nn.Dropout(site.dropout)

    def forward(self, x: Tensor, context: Context, state: Any = None) -> Tensor:
        x = x + self.dropout(self.mixer(self.mixer_norm(x), context, state))
        return x + self.dropout(self.ffn(self.ffn_norm(x)))

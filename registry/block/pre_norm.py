"""Pre-norm block (Xiong et al. 2020, arXiv:2002.04745; Radford et al. 2019, GPT-2)."""

from typing import Any

from torch import Tensor

from registry.block._shared import Norms, joining, own
from registry.context import Context
from registry.contracts import FFN, Block, Mixer, Norm, Site
from registry.core import register


@register
class PreNorm(Block):
    """x += mixer(norm(x)); x += ffn(norm(x))."""

    class Options(Block.Options, Norms):
        """Options of every block, and a norm for each branch."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        site = own(site, options)
        self.mixer_norm = site.build(options.mixer_norm, Norm)
        self.mixer = site.build(options.mixer, Mixer)
        self.ffn_norm = site.build(options.ffn_norm, Norm)
        self.ffn = site.build(options.ffn, FFN)
        self.joining = joining(site, options.residual_scale)

    def forward(self, x: Tensor, context: Context, state: Any = None) -> Tensor:
        x = x + self.joining(self.mixer(self.mixer_norm(x), context, state))
        return x + self.joining(self.ffn(self.ffn_norm(x), context))

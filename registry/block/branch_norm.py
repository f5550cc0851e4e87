"""Norm of each branch's output, before the residual addition (OLMo 2, arXiv:2501.00656; Swin v2, arXiv:2111.09883)."""

from typing import Any

from torch import Tensor

from registry.block._shared import Norms, joining, own
from registry.context import Context
from registry.contracts import FFN, Block, Mixer, Norm, Site
from registry.core import register


@register
class BranchNorm(Block):
    """x += norm(mixer(x)); x += norm(ffn(x))."""

    class Options(Block.Options, Norms):
        """Options of every block, and a norm for each branch."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        site = own(site, options)
        self.mixer = site.build(options.mixer, Mixer)
        self.mixer_norm = site.build(options.mixer_norm, Norm)
        self.ffn = site.build(options.ffn, FFN)
        self.ffn_norm = site.build(options.ffn_norm, Norm)
        self.joining = joining(site, options.residual_scale)

    def forward(self, x: Tensor, context: Context, state: Any = None) -> Tensor:
        x = x + self.joining(self.mixer_norm(self.mixer(x, context, state)))
        return x + self.joining(self.ffn_norm(self.ffn(x, context)))

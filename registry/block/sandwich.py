"""Sandwich block: a norm before and after each branch (Ding et al. 2021, CogView, arXiv:2105.13290; Gemma 2)."""

from typing import Any

from torch import Tensor, nn

from registry.context import Context
from registry.contracts import FFN, Block, Mixer, Norm, Site
from registry.core import register


@register
class Sandwich(Block):
    """x += norm(mixer(norm(x))); x += norm(ffn(norm(x)))."""

    def __init__(self, options: Block.Options, site: Site) -> None:
        super().__init__(options, site)
        self.mixer_norm = site.build(options.norm, Norm)
        self.mixer = site.build(options.mixer, Mixer)
        self.mixer_post_norm = site.build(options.norm, Norm)
        self.ffn_norm = site.build(options.norm, Norm)
        self.ffn = site.build(options.ffn, FFN)
        self.ffn_post_norm = site.build(options.norm, Norm)
        self.dropout = nn.Dropout(site.dropout)

    def forward(self, x: Tensor, context: Context, state: Any = None) -> Tensor:
        mixed = self.mixer(self.mixer_norm(x), context, state)
        x = x + self.dropout(self.mixer_post_norm(mixed))
        return x + self.dropout(self.ffn_post_norm(self.ffn(self.ffn_norm(x))))

"""Sandwich block: a norm before and after each branch (Ding et al. 2021, CogView, arXiv:2105.13290; Gemma 2)."""

from typing import Any

import torch
from torch import Generator, Tensor, nn

from registry.block._shared import Norms, joining, own
from registry.context import Context
from registry.contracts import FFN, Block, Mixer, Norm, NormSlot, Site
from registry.core import register


@register
class Sandwich(Block):
    """x += norm(mixer(norm(x))); x += norm(ffn(norm(x))); then gain x, where there is a gain."""

    gain: Tensor

    class Options(Block.Options, Norms):
        mixer_post_norm: NormSlot | None = None
        """Norm of what the mixer gives, when it is not `norm`."""
        ffn_post_norm: NormSlot | None = None
        """Norm of what the ffn gives, when it is not `norm`."""
        gain: bool = False
        """Whether a stored number, which no gradient moves, multiplies what the layer gives (Gemma 4)."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        site = own(site, options)
        self.mixer_norm = site.build(options.mixer_norm, Norm)
        self.mixer = site.build(options.mixer, Mixer)
        self.mixer_post_norm = site.build(options.mixer_post_norm, Norm)
        self.ffn_norm = site.build(options.ffn_norm, Norm)
        self.ffn = site.build(options.ffn, FFN)
        self.ffn_post_norm = site.build(options.ffn_post_norm, Norm)
        self.joining = joining(site, options.residual_scale)
        self.register_buffer("gain", torch.empty(1) if options.gain else None)
        self.reset_parameters()

    def forward(self, x: Tensor, context: Context, state: Any = None) -> Tensor:
        mixed = self.mixer(self.mixer_norm(x), context, state)
        x = x + self.joining(self.mixer_post_norm(mixed))
        x = x + self.joining(self.ffn_post_norm(self.ffn(self.ffn_norm(x), context)))
        return x if self.gain is None else x * self.gain

    def reset_parameters(self, generator: Generator | None = None) -> None:
        if self.gain is not None:
            nn.init.ones_(self.gain)

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
    """x += norm(mixer(norm(x))); x += norm(ffn(norm(x))); then layer_scalar x, where there is one."""

    layer_scalar: Tensor

    class Options(Block.Options, Norms):
        mixer_post_norm: NormSlot | None = None
        """Norm of the mixer's output; `norm` when not given."""
        ffn_post_norm: NormSlot | None = None
        """Norm of the ffn's output; `norm` when not given."""
        layer_scalar: bool = False
        """Whether a stored scalar without gradient multiplies the output (Gemma 4)."""

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
        self.register_buffer("layer_scalar", torch.empty(1) if options.layer_scalar else None)
        self.reset_parameters()

    def forward(self, x: Tensor, context: Context, state: Any = None) -> Tensor:
        mixed = self.mixer(self.mixer_norm(x), context, state)
        x = x + self.joining(self.mixer_post_norm(mixed))
        x = x + self.joining(self.ffn_post_norm(self.ffn(self.ffn_norm(x), context)))
        return x if self.layer_scalar is None else x * self.layer_scalar

    def reset_parameters(self, generator: Generator | None = None) -> None:
        if self.layer_scalar is not None:
            nn.init.ones_(self.layer_scalar)

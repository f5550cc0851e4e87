"""Parallel block (Wang & Komatsuzaki 2021, GPT-J; two norms: Black et al. 2022, GPT-NeoX, arXiv:2204.06745)."""

from typing import Any, Literal, Self

from pydantic import model_validator
from torch import Tensor

from registry.block._shared import Norms, joining, own
from registry.context import Context
from registry.contracts import FFN, Block, Mixer, Norm, Site
from registry.core import register


@register
class Parallel(Block):
    """x += mixer(norm(x)) + ffn(norm(x)), with one norm for both branches or one for each."""

    class Options(Block.Options, Norms):
        norms: Literal[1, 2] = 1
        """Number of norms: 1, shared by both branches (GPT-J, Falcon); 2, one for each (GPT-NeoX, Pythia)."""

        @model_validator(mode="after")
        def _second_norm_is_there(self) -> Self:
            if self.ffn_norm is not None and self.norms == 1:
                raise ValueError("with norms: 1 the branches share mixer_norm; set norms: 2, or leave ffn_norm out")
            return self

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        site = own(site, options)
        self.mixer_norm = site.build(options.mixer_norm, Norm)
        self.mixer = site.build(options.mixer, Mixer)
        self.ffn_norm = site.build(options.ffn_norm, Norm) if options.norms == 2 else None
        self.ffn = site.build(options.ffn, FFN)
        self.joining = joining(site, options.residual_scale)

    def forward(self, x: Tensor, context: Context, state: Any = None) -> Tensor:
        h = self.mixer_norm(x)
        g = h if self.ffn_norm is None else self.ffn_norm(x)
        return x + self.joining(self.mixer(h, context, state)) + self.joining(self.ffn(g, context))

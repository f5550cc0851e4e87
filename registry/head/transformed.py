"""Language-model head behind a dense layer (Devlin et al. 2018, BERT, arXiv:1810.04805; as a decoder's: ModernBERT,
Warner et al. 2024, arXiv:2412.13663, and Ettin, Weller et al. 2025, arXiv:2507.11412).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from registry.contracts import Activation, ActivationSlot, Head, Norm, NormSlot, Site
from registry.core import register
from registry.head._shared import check_tied
from registry.options import Width, named


@register
class Transformed(Head):
    """norm(act(dense(x))) W^T + b, with the embedding's own table as W when tied."""

    roles = {"out": "head"}
    constant = ("bias",)

    class Options(Head.Options):
        tied: bool = False
        """Whether the projection is the embedding table (weight tying)."""
        bias: bool = True
        """Whether the logits have a bias."""
        activation: ActivationSlot = named("gelu")
        """Activation of the dense layer."""
        norm: NormSlot | None = None
        """Norm of those features; the model's when not given."""
        dense_bias: bool = True
        """Whether the dense layer adds a bias."""
        width: Width | None = None
        """Width of the dense layer and of W's rows; d_model when not given."""

    @classmethod
    def derived(cls, options: Options, site: Site) -> dict[str, Any]:
        width = site.d_model if options.width is None else options.width
        return {"width": width, "norm": site.chosen(options.norm, Norm)}

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        width = self.derived(options, site)["width"]
        if options.tied:
            check_tied(width, site)
        inner = site.inside(d_model=width)
        self.dense = nn.Linear(site.d_model, width, bias=options.dense_bias)
        self.activation = inner.build(options.activation, Activation)
        self.norm = inner.build(options.norm, Norm)
        self.out = None if options.tied else nn.Linear(width, site.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.empty(site.vocab_size)) if options.bias else None
        self.reset_parameters()

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        x = self.norm(self.activation(self.dense(x)))
        logits = F.linear(x, table) if self.out is None else self.out(x)
        return logits if self.bias is None else logits + self.bias

    def reset_parameters(self, generator: Generator | None = None) -> None:
        if self.bias is not None:
            nn.init.zeros_(self.bias)

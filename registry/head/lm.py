"""Language-model head (tying: Press & Wolf 2016, arXiv:1608.05859; softcap: Gemma 2, arXiv:2408.00118)."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from registry.contracts import Head, Site
from registry.core import register
from registry.head._shared import check_tied
from registry.options import Positive, Width


@register
class LM(Head):
    """softcap(scale * narrow(x) W^T + b), with the embedding's own table as W when tied."""

    roles = {"out": "head"}
    constant = ("bias",)

    class Options(Head.Options):
        tied: bool = False
        """Whether the projection is the embedding table (weight tying)."""
        bias: bool = False
        """Whether the logits have a bias."""
        scale: Positive = 1.0
        """Multiplies the activations before the projection."""
        softcap: Positive | None = None
        """Soft cap of the logits, cap * tanh(logits / cap); none when not given."""
        width: Width | None = None
        """Width of W's rows, with a projection from d_model; d_model without a projection when not given."""

    @classmethod
    def derived(cls, options: Options, site: Site) -> dict[str, int]:
        return {"width": site.d_model if options.width is None else options.width}

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        width = self.derived(options, site)["width"]
        if options.tied:
            check_tied(width, site)
        self.scale = options.scale
        self.softcap = options.softcap
        self.is_linear = options.softcap is None and options.scale == 1.0 and options.width is None
        self.narrow = nn.Identity() if options.width is None else nn.Linear(site.d_model, width, bias=False)
        self.out = None if options.tied else nn.Linear(width, site.vocab_size, bias=False)
        self.bias = nn.Parameter(torch.empty(site.vocab_size)) if options.bias else None
        self.reset_parameters()

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        x = self.narrow(x) * self.scale
        logits = F.linear(x, table) if self.out is None else self.out(x)
        logits = logits if self.bias is None else logits + self.bias
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits

    def linear(self, table: Tensor) -> tuple[Tensor, Tensor | None] | None:
        if not self.is_linear or not isinstance(self.out, nn.Linear | None):
            return None
        return table if self.out is None else self.out.weight, self.bias

    def reset_parameters(self, generator: Generator | None = None) -> None:
        if self.bias is not None:
            nn.init.zeros_(self.bias)

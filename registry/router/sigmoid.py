"""Sigmoid routing: each expert is scored by itself (DeepSeek-V3, arXiv:2412.19437; Llama 4)."""

from torch import Tensor

from registry.context import Context
from registry.contracts import Router, Site
from registry.core import register
from registry.router._shared import Choice, Scored


@register
class Sigmoid(Scored):
    """Weights sigmoid(x W + b) at the top_k largest, divided by their sum if `normalize_top_k`, times `scale`."""

    class Options(Router.Options, Choice):
        """How many experts a token is routed to, and how their outputs are weighted."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        logits = self.logits(x)
        return self.choose(logits, logits.sigmoid(), context)

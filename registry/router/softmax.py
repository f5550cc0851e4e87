"""Softmax routing: the top-k experts (Shazeer et al. 2017, arXiv:1701.06538; Jiang et al. 2024, Mixtral,
arXiv:2401.04088; groups: DeepSeek-V2, arXiv:2405.04434).
"""

from torch import Tensor

from registry.context import Context
from registry.contracts import Router, Site
from registry.core import register
from registry.router._shared import Choice, Scored


@register
class Softmax(Scored):
    """Weights softmax(x W + b) at the top_k largest, divided by their sum if `normalize_top_k`, times `scale`."""

    class Options(Router.Options, Choice):
        """How many experts a token is routed to, and how their outputs are weighted."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        logits = self.logits(x)
        return self.choose(logits, logits.softmax(dim=-1), context)

"""No scaling of queries by position: attention as it was published (Vaswani et al. 2017, arXiv:1706.03762)."""

from torch import Tensor

from registry.context import Context
from registry.core import register
from registry.query_scaling import QueryScaling


@register
class NoQueryScaling(QueryScaling):
    """q."""

    identity = True

    def forward(self, q: Tensor, context: Context) -> Tensor:
        return q

"""Attention as in the paper (Vaswani et al. 2017, arXiv:1706.03762, equation 1): the reference for every kernel."""

from torch import Tensor

from registry.context import Mask
from registry.contracts import Kernel
from registry.core import register
from registry.kernel._shared import softmax_attention


@register
class Eager(Kernel):
    """softmax(softcap(scale q k^T) + bias, where seen) v, with all scores in memory."""

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Mask,
        *,
        scale: float,
        softcap: float | None,
        bias: Tensor | None,
        sinks: Tensor | None,
        dropout: float,
    ) -> Tensor:
        return softmax_attention(q, k, v, mask, scale=scale, softcap=softcap, bias=bias, sinks=sinks, dropout=dropout)

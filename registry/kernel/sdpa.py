"""Fused attention of torch (Dao et al. 2022, FlashAttention, arXiv:2205.14135; Rabe & Staats, arXiv:2112.05682)."""

from torch import Tensor

from registry.context import Mask
from registry.contracts import Kernel
from registry.core import register
from registry.kernel._shared import fused_attention


@register
class SDPA(Kernel):
    """The formula of `eager`, through `scaled_dot_product_attention`; a softcap or sinks take the plain way."""

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
        return fused_attention(q, k, v, mask, scale=scale, softcap=softcap, bias=bias, sinks=sinks, dropout=dropout)

"""Fused attention of torch (Dao et al. 2022, FlashAttention, arXiv:2205.14135; Rabe & Staats, arXiv:2112.05682)."""

import torch.nn.functional as F
from torch import Tensor

from registry.context import Mask
from registry.contracts import Kernel
from registry.core import register
from registry.kernel import _shared


@register
class SDPA(Kernel):
    """The formula of `eager`, through `scaled_dot_product_attention`; a softcap or sinks use the eager formula."""

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
        if softcap is not None or sinks is not None:
            return _shared.softmax_attention(
                q, k, v, mask, scale=scale, softcap=softcap, bias=bias, sinks=sinks, dropout=dropout
            )
        if q.shape[2] == 1 and bias is None and not dropout and _shared.is_faster(q, k):
            return _shared.one_query(q, k, v, mask, scale)
        added = None if mask.is_causal and bias is None else _added(mask, bias, q)
        return F.scaled_dot_product_attention(
            q, k, v, added, dropout, added is None and mask.is_causal, scale=scale, enable_gqa=q.shape[1] != k.shape[1]
        )


def _added(mask: Mask, bias: Tensor | None, like: Tensor) -> Tensor | None:
    """What is added to the scores: the bias, and -inf where a query does not attend to a key; None for nothing.

    Given a mask of booleans, torch would make this of it, in each layer.
    """
    if bias is None:
        return None if mask.is_full else mask.added(like.dtype)
    bias = bias if mask.is_full else bias.masked_fill(mask.hidden, float("-inf"))
    return (bias[None] if bias.ndim == 3 else bias).type_as(like)  # 4 dimensions, or torch has no fused way

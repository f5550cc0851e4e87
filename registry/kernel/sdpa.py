"""Fused attention of torch (Dao et al. 2022, FlashAttention, arXiv:2205.14135; Rabe & Staats, arXiv:2112.05682)."""

import torch.nn.functional as F
from torch import Tensor

from registry.context import Mask
from registry.contracts import Kernel
from registry.core import register
from registry.kernel._shared import softmax_attention


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
        if softcap is not None or sinks is not None:
            return softmax_attention(
                q, k, v, mask, scale=scale, softcap=softcap, bias=bias, sinks=sinks, dropout=dropout
            )
        causal, seen = _described(mask, bias, q)
        grouped = q.shape[1] != k.shape[1]
        if grouped and q.shape[2] == 1 and seen is None and q.device.type == "cpu" and not dropout:
            return _one_query(q, k, v, scale)
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=seen, is_causal=causal, dropout_p=dropout, scale=scale, enable_gqa=grouped
        )


def _one_query(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """All keys seen by one query of each head: the H/G heads of a group in one product with their shared keys.

    torch's fused kernel reads shared keys once for each head; with 12 heads over 4 this takes two thirds of its time.
    """
    grouped = q.reshape(q.shape[0], k.shape[1], -1, q.shape[3])  # (B, G, H/G, K)
    weights = (grouped * scale @ k.transpose(-2, -1)).float().softmax(dim=-1).type_as(v)
    return (weights @ v).view(*q.shape[:3], -1)


def _described(mask: Mask, bias: Tensor | None, like: Tensor) -> tuple[bool, Tensor | None]:
    """The mask as SDPA takes it: a flag when it is plainly causal; else None, true where seen, or a bias with -inf."""
    if bias is None:
        if mask.is_causal:
            return True, None
        return False, None if mask.is_full else mask.dense
    bias = bias if mask.is_full else bias.masked_fill(~mask.dense, float("-inf"))
    return False, (bias[None] if bias.ndim == 3 else bias).type_as(like)  # 4 dimensions, or torch has no fused way

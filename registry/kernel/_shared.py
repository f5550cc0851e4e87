"""The formula of attention, and the same for one query of each head."""

import torch
import torch.nn.functional as F
from torch import Tensor

from registry.context import Mask

MANY, LONG = 2**19, 48
"""Numbers of all keys, a quarter where they are not float32, and keys of a row, from which a processor is faster than
its fused kernel with one query. With 12 heads and cold keys one row is as fast at 700 of them in float32, eight are a
fifth faster at 120; in bfloat16 one is slower by a third at 160, and faster by a fifth at 512 (an AMD EPYC)."""


def softmax_attention(
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
    """softmax(softcap(scale q k^T) + bias, where seen) v: q (B, H, T, K), k and v (B, G, S, K) -> (B, H, T, K).

    Scores and softmax are float32 whatever the inputs.
    """
    B, H, T, K = q.shape
    G = k.shape[1]
    q = q.reshape(B, G, H // G, T, K)
    scores = (q @ k[:, :, None].transpose(-2, -1)).float() * scale  # (B, G, H/G, T, S)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.reshape(B, H, T, -1)
    if bias is not None:
        scores = scores + bias
    if not mask.is_full:
        scores = scores.masked_fill(mask.hidden, float("-inf"))
    weights = F.dropout(_softmax(scores, sinks), dropout).type_as(v)
    return (weights.reshape(B, G, H // G, T, -1) @ v[:, :, None]).reshape(B, H, T, -1)


def _softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """Softmax over the keys and, with `sinks` (H,), over one more per head whose weight is dropped."""
    if sinks is None:
        return scores.softmax(dim=-1)
    sink = sinks.float()[:, None, None].expand(*scores.shape[:3], 1)
    return torch.cat([scores, sink], dim=-1).softmax(dim=-1)[..., :-1]


def is_faster(q: Tensor, k: Tensor) -> bool:
    """Whether `one_query` is faster than torch's fused kernel."""
    if not k.is_cpu:
        return q.shape[1] != k.shape[1]
    return k.shape[2] >= LONG and k.numel() >= (MANY if k.dtype == torch.float32 else MANY // 4)


def one_query(q: Tensor, k: Tensor, v: Tensor, mask: Mask, scale: float) -> Tensor:
    """One query of each head: the H/G heads of a group in one product with their shared keys.

    On a processor torch's fused kernel multiplies keys with each query alone, and reads shared ones once for each head.
    For 12 heads and 80 keys of 32 rows, all of them cold, this takes three quarters of its time in float32 and half in
    bfloat16; for 12 heads over 4 and 1000 keys of 8 rows four fifths and a quarter (an AMD EPYC with AVX-512, two
    threads). Keys come first in the product, which then reads them in their order, and scores are made in float32, as
    the fused kernel makes them. On a GPU the fused kernel does not take grouped heads with a mask, and scores are
    rounded to the type of the queries.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    grouped = q.reshape(q.shape[0], k.shape[1], -1, q.shape[3])  # (B, G, H/G, K)
    if k.is_cpu:
        scores = (k.to(wide) @ (grouped.to(wide) * scale).mT).mT  # (B, G, H/G, S)
    else:
        scores = (grouped * scale @ k.mT).to(wide)
    if not mask.is_full:
        scores = scores.masked_fill(mask.hidden, float("-inf"))
    return (scores.softmax(dim=-1).type_as(v) @ v).view(*q.shape[:3], -1)

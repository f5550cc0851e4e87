"""The formula of attention, as the kernels share it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from registry.context import Mask


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
        scores = scores.masked_fill(~mask.dense, float("-inf"))
    weights = F.dropout(_softmax(scores, sinks), dropout).type_as(v)
    return (weights.reshape(B, G, H // G, T, -1) @ v[:, :, None]).reshape(B, H, T, -1)


def _softmax(scores: Tensor, sinks: Tensor | None) -> Tensor:
    """Softmax over the keys and, with `sinks` (H,), over one more per head whose weight is dropped."""
    if sinks is None:
        return scores.softmax(dim=-1)
    sink = sinks.float()[:, None, None].expand(*scores.shape[:3], 1)
    return torch.cat([scores, sink], dim=-1).softmax(dim=-1)[..., :-1]

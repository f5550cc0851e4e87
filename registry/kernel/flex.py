"""Attention with the mask compiled into the kernel (Dong et al. 2024, FlexAttention, arXiv:2412.05496)."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from registry.context import Mask
from registry.contracts import Kernel, KernelSlot, Site
from registry.core import register
from registry.options import named


@register
class Flex(Kernel):
    """The formula of `eager`; on a GPU, windows, documents and softcaps without scores in memory.

    Elsewhere, for one query, and with sinks, dropout or a bias, another kernel computes it.
    """

    class Options(Kernel.Options):
        fallback: KernelSlot = named("sdpa")
        """Kernel for cases that this one cannot compute."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.fallback = site.build(options.fallback, Kernel)

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
        if q.device.type != "cuda" or sinks is not None or bias is not None or dropout or q.shape[2] == 1:
            return self.fallback(q, k, v, mask, scale=scale, softcap=softcap, bias=bias, sinks=sinks, dropout=dropout)
        return flexed(_compiled(), q, k, v, mask, scale, softcap)


def flexed(
    attend: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, mask: Mask, scale: float, softcap: float | None
) -> Tensor:
    """Attention by `attend`, torch's `flex_attention` or a compiled one; blocks that nobody sees are skipped."""
    blocks = None if mask.is_full else _blocks(mask, len(q))
    cap = None if softcap is None else _capped(softcap)
    grouped = q.shape[1] != k.shape[1]
    return attend(q, k, v, score_mod=cap, block_mask=blocks, scale=scale, enable_gqa=grouped)


def _blocks(mask: Mask, batch: int) -> Any:
    """Which blocks of queries see which blocks of keys, made once for all layers that share the description."""
    from torch.nn.attention.flex_attention import create_block_mask

    if "blocks" not in mask.built:
        keys = mask.keys if isinstance(mask.keys, int) else len(mask.keys)
        rows = None if mask.query_segments is None else batch
        made: Any = create_block_mask(_sees(mask), rows, None, mask.length, keys, device=str(mask.device))
        mask.built["blocks"] = made
    return mask.built["blocks"]


def _sees(mask: Mask) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Whether query number i of row b sees key number j, as the kernel asks it."""
    if mask.chunk is not None:
        dense = mask.dense
        return lambda b, h, i, j: dense[i, j] if dense.ndim == 2 else dense[b, 0, i, j]

    def sees(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        distance = i + mask.start - (j if isinstance(mask.keys, int) else mask.keys[j])
        seen = distance >= 0 if mask.causal else distance == distance
        if mask.window is not None:
            seen = seen & (distance.abs() < mask.window)
        if mask.query_segments is not None and mask.key_segments is not None:
            seen = seen & (mask.query_segments[b, i] == mask.key_segments[b, j])
        return seen

    return sees


def _capped(softcap: float) -> Callable[..., Tensor]:
    return lambda score, b, h, i, j: softcap * torch.tanh(score / softcap)


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    compiled: Callable[..., Tensor] = torch.compile(flex_attention, dynamic=False)
    return compiled

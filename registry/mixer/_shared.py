"""Shared by mixers with queries and keys: groups of options, norms of queries and keys, widths of heads."""

from collections.abc import Iterable
from typing import Literal, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from registry.contracts import Norm, NormSlot, Site
from registry.options import Count, Group, Options, Positive, Width, named


class QKV(Group):
    """Rarer treatments of queries, keys and values between their projections and the scores."""

    norm_scope: Literal["head", "each", "all"] = "head"
    """Span of qk_norm: a head, with weights shared by all; each head with its own weights; all heads as one vector."""
    norm_place: Literal["before", "after"] = "before"
    """Whether qk_norm is applied before or after rotary positions; a norm over `all` heads always before."""
    clip: Positive | None = None
    """Clamp of queries, keys and values to [-clip, clip], `clip_qkv` of DBRX; none when not given."""
    v_head_dim: Width | None = None
    """Width of a value head; head_dim when not given."""
    v_norm: NormSlot = named("none")
    """Norm of each value head."""
    v_scale: Positive | None = None
    """Multiplies the values; nothing does when not given."""
    k_eq_v: bool = False
    """Whether values are the projected keys, before their norm and rotation (Gemma 4)."""

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.norm_scope == "all" and self.norm_place == "after":
            raise ValueError("a norm over all heads is applied before rotation; give norm_place: before")
        return self


class Scores(Group):
    """Rarer treatments of the scores q k^T before the softmax."""

    chunk: Count | None = None
    """Chunked attention: tokens attend within their own block of this length (Llama 4); none when not given."""
    scale_by_inverse_layer_idx: bool = False
    """Whether scores are also divided by the layer's number, counted from 1 (an option of GPT-2)."""


class EachHead(nn.Module):
    """A norm for each head: x (B, H, T, K) -> (B, H, T, K)."""

    def __init__(self, norms: Iterable[nn.Module]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norms)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([norm(h) for norm, h in zip(self.norms, x.unbind(1), strict=True)], dim=1)


def qk_norm_of(norm: Options, scope: str, site: Site, count: int) -> nn.Module:
    """The norm of queries or keys, of `count` heads."""
    if scope == "all":
        return site.inside(d_model=count * site.d_model).build(norm, Norm)
    if scope == "each":
        return EachHead(site.build(norm, Norm) for _ in range(count))
    return site.build(norm, Norm)


def split(x: Tensor, width: int) -> Tensor:
    """Heads of `width` channels apart: (B, T, H K) -> (B, H, T, K)."""
    return x.view(*x.shape[:2], -1, width).transpose(1, 2)


def head_width(n_heads: int, head_dim: int | None, site: Site) -> int:
    """Width of a head; ValueError when d_model is to be divided and cannot be."""
    if head_dim is not None:
        return head_dim
    if site.d_model % n_heads:
        raise ValueError(
            f"n_heads must divide d_model ({site.d_model}), got {n_heads}; choose another, or give head_dim"
        )
    return site.d_model // n_heads

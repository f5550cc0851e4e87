"""What mixers with queries and keys share: groups of options, norms, gates."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from registry.context import Context
from registry.contracts import Activation, ActivationSlot, Norm, NormSlot, Site
from registry.options import Count, Group, Natural, Positive, Rate, Width, named


class Heads(Group):
    """What happens to queries, keys and values between their projections and the scores."""

    qk_norm: NormSlot = named("none")
    """Norm of queries and keys."""
    scope: Literal["head", "each", "all"] = "head"
    """What the norm spans: a head, with weights shared by all; each head with its own; all heads as one."""
    place: Literal["before", "after"] = "before"
    """Whether the norm comes before or after rotation; `all` is always before."""
    clip: Positive | None = None
    """Bounds queries, keys and values to plus or minus this; not bounded when not given."""
    value_dim: Width | None = None
    """Width of a head's values; head_dim when not given."""
    value_norm: NormSlot = named("none")
    """Norm of each head's values."""
    value_scale: Positive | None = None
    """Multiplies the values; nothing does when not given."""
    values: Literal["own", "keys"] = "own"
    """Where values come from: a projection of their own, or that of the keys, before norm and rotation (Gemma 4)."""


class QueryScaling(Group):
    """Multiplies queries by 1 + beta ln(1 + floor((p + shift) / length)), with p their position."""

    beta: Positive
    """Slope: `attn_scale` of Llama 4, `llama_4_scaling_beta` of Mistral."""
    length: Count
    """Positions between steps: `floor_scale` of Llama 4, `original_max_position_embeddings` of Mistral."""
    shift: Natural = 0
    """Added to the position; 1 in Llama 4."""


class Scores(Group):
    """What happens to scores between q k^T and the softmax, and to the weights after it."""

    scale: Positive | None = None
    """Multiplies the scores; head_dim^-1/2 when not given."""
    by_depth: bool = False
    """Whether scores are also divided by the layer's number, counted from 1 (an option of GPT-2 for stability)."""
    softcap: Positive | None = None
    """Bounds scores smoothly to plus or minus this; not bounded when not given."""
    chunk: Count | None = None
    """Tokens see only their own block of so many; no blocks when not given."""
    query_scaling: QueryScaling | None = None
    """Scaling of queries by position (Llama 4's attention temperature); none when not given."""
    sinks: bool = False
    """Whether each head has a learned score that takes weight and gives nothing."""
    dropout: Rate | None = None
    """Dropout of the attention weights; the model's when not given."""


class Result(Group):
    """What happens to the heads' outputs before the last projection."""

    gate: Literal["channel", "head"] | None = None
    """Whether a projection of the input gates each channel, or each head; no gate when not given."""
    activation: ActivationSlot = named("sigmoid")
    """What bends the gate."""
    norm: NormSlot = named("none")
    """Norm over all heads as one."""


class ScaleQueries(nn.Module):
    """q * (1 + beta ln(1 + floor((p + shift) / length))), with p the position of the query."""

    def __init__(self, beta: float, length: int, shift: int) -> None:
        super().__init__()
        self.beta, self.length, self.shift = beta, length, shift

    def forward(self, q: Tensor, context: Context) -> Tensor:
        blocks = (context.positions + self.shift) // self.length  # (T,) or (B, T)
        factor = 1 + self.beta * torch.log1p(blocks.float())
        if factor.ndim == 2:
            factor = factor[:, None]
        return q * factor[..., None].type_as(q)


class NoQueryScaling(nn.Module):
    """Leaves queries as they are."""

    def forward(self, q: Tensor, context: Context) -> Tensor:
        return q


class Gate(nn.Module):
    """y * act(x W): gates heads' outputs y (B, T, H, K), channel by channel or head by head."""

    roles = {"projection": "gate"}

    def __init__(self, d_model: int, heads: int, width: int, activation: nn.Module) -> None:
        super().__init__()
        self.heads = heads
        self.projection = nn.Linear(d_model, heads * width, bias=False)
        self.activation = activation

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return y * self.activation(self.projection(x)).unflatten(-1, (self.heads, -1))


class NoGate(nn.Module):
    """Leaves heads' outputs as they are."""

    def forward(self, y: Tensor, x: Tensor) -> Tensor:
        return y


class EachHead(nn.Module):
    """A norm for each head: x (B, H, T, K) -> (B, H, T, K)."""

    def __init__(self, norms: Iterable[nn.Module]) -> None:
        super().__init__()
        self.norms = nn.ModuleList(norms)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([norm(h) for norm, h in zip(self.norms, x.unbind(1), strict=True)], dim=1)


def norm_of(heads: Heads, site: Site, count: int) -> nn.Module:
    """The norm of queries or keys, of `count` heads."""
    if heads.scope == "all":
        return site.inside(d_model=count * site.d_model).build(heads.qk_norm, Norm)
    if heads.scope == "each":
        return EachHead(site.build(heads.qk_norm, Norm) for _ in range(count))
    return site.build(heads.qk_norm, Norm)


def query_scaling_of(options: QueryScaling | None) -> ScaleQueries | NoQueryScaling:
    """The module that scales queries by their position."""
    return NoQueryScaling() if options is None else ScaleQueries(options.beta, options.length, options.shift)


def gate_of(result: Result, site: Site, heads: int, width: int) -> Gate | NoGate:
    """What gates the outputs of `heads` heads of `width` channels."""
    if result.gate is None:
        return NoGate()
    gates = width if result.gate == "channel" else 1
    activation = site.inside(d_model=heads * gates).build(result.activation, Activation)
    return Gate(site.d_model, heads, gates, activation)


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


def used(
    n_heads: int, n_kv_heads: int | None, head_dim: int | None, heads: Heads, scores: Scores, site: Site
) -> dict[str, Any]:
    """Heads, widths, scale and dropout of an attention, by the names of their options; ValueError as `head_width`."""
    width = head_width(n_heads, head_dim, site)
    return {
        "n_kv_heads": n_heads if n_kv_heads is None else n_kv_heads,
        "head_dim": width,
        "heads.value_dim": width if heads.value_dim is None else heads.value_dim,
        "scores.scale": width**-0.5 if scores.scale is None else scores.scale,
        "scores.dropout": site.dropout if scores.dropout is None else scores.dropout,
    }

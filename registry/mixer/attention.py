"""Attention with multi-head, grouped or single keys (Vaswani et al. 2017, arXiv:1706.03762).

Multi-query: Shazeer 2019, arXiv:1911.02150; grouped-query: Ainslie et al. 2023, arXiv:2305.13245; window: Beltagy et
al. 2020, arXiv:2004.05150; query-key norm: Henry et al. 2020, arXiv:2010.04245; softcap: Gemma 2, arXiv:2408.00118;
sinks: GPT-OSS, arXiv:2508.10925; query scaling and chunks: Llama 4; output gate: Qiu et al. 2025, arXiv:2505.06708.
"""

from typing import Annotated, Any, Literal, Self

import torch
from pydantic import model_validator
from torch import Generator, Tensor, nn

from registry.context import Context
from registry.contracts import Kernel, Mixer, Norm, Site
from registry.core import register
from registry.mixer._shared import (
    Heads,
    Result,
    Scores,
    gate_of,
    norm_of,
    query_scaling_of,
    split,
    used,
)
from registry.options import AsTuple, Count, Width
from registry.state import Capacity, KVCache, SlidingWindowCache


@register
class Attention(Mixer):
    """out(softmax(scale q k^T + bias) v), each query seeing the tokens before it, and itself."""

    roles = {"out": "residual"}
    accepts, constant = frozenset({"rotation", "bias"}), ("sinks",)

    class Options(Mixer.Options):
        n_heads: Count
        """Query heads H."""
        n_kv_heads: Count | None = None
        """Key and value heads G, each shared by H/G query heads; H when not given, 1 for multi-query."""
        head_dim: Width | None = None
        """Width K of a head; d_model / n_heads when not given."""
        bias: Annotated[tuple[Literal["q", "k", "v", "out"], ...], AsTuple] = ()
        """Projections that add a bias, such as [q, k, v]."""
        window: Count | None = None
        """How many tokens a query sees, itself included; all before it when not given."""
        heads: Heads = Heads()
        """What happens to queries, keys and values."""
        scores: Scores = Scores()
        """What happens to the scores."""
        result: Result = Result()
        """What happens to the heads' outputs."""

        @model_validator(mode="after")
        def _fit(self) -> Self:
            if self.n_kv_heads is not None and self.n_heads % self.n_kv_heads:
                raise ValueError(f"n_heads must be a multiple of n_kv_heads ({self.n_kv_heads}), got {self.n_heads}")
            if self.window is not None and self.scores.chunk is not None:
                raise ValueError("window and scores.chunk exclude each other; give one")
            if self.heads.scope == "all" and self.heads.place == "after":
                raise ValueError("a norm over all heads comes before rotation; give place: before")
            return self

    @classmethod
    def derived(cls, options: Options, site: Site) -> dict[str, Any]:
        return used(options.n_heads, options.n_kv_heads, options.head_dim, options.heads, options.scores, site)

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        made = self.derived(options, site)
        self.head_dim, self.value_dim, self.kv_heads = made["head_dim"], made["heads.value_dim"], made["n_kv_heads"]
        self.window, self.chunk, self.softcap = options.window, options.scores.chunk, options.scores.softcap
        self.scale, self.dropout = made["scores.scale"], made["scores.dropout"]
        self.scale /= site.layer + 1 if options.scores.by_depth else 1
        self._build_heads(options, site)
        self._build_result(options, site)
        self.sinks = nn.Parameter(torch.empty(options.n_heads)) if options.scores.sinks else None
        self.reset_parameters()

    def _build_heads(self, options: Options, site: Site) -> None:
        heads, inside = options.heads, site.inside(d_model=self.head_dim, n_heads=options.n_heads)
        self.q = nn.Linear(site.d_model, options.n_heads * self.head_dim, bias="q" in options.bias)
        self.k = nn.Linear(site.d_model, self.kv_heads * self.head_dim, bias="k" in options.bias)
        own = nn.Linear(site.d_model, self.kv_heads * self.value_dim, bias="v" in options.bias)
        self.v = own if heads.values == "own" else None
        if self.v is None and (self.value_dim != self.head_dim or "v" in options.bias):
            raise ValueError("values: keys leaves no room for a value_dim or a bias of the values; leave them out")
        self.q_norm = norm_of(heads, inside, options.n_heads)
        self.k_norm = norm_of(heads, inside, self.kv_heads)
        self.v_norm = site.inside(d_model=self.value_dim).build(heads.value_norm, Norm)
        self.scope, self.norm_first, self.value_scale = heads.scope, heads.place == "before", heads.value_scale
        self.clip = nn.Identity() if heads.clip is None else nn.Hardtanh(-heads.clip, heads.clip)
        self.position = self.position_at(inside)
        self.kernel = inside.build(None, Kernel)
        self.query_scaling = query_scaling_of(options.scores.query_scaling)

    def _build_result(self, options: Options, site: Site) -> None:
        result, wide = options.result, options.n_heads * self.value_dim
        self.gate = gate_of(result, site, options.n_heads, self.value_dim)
        self.norm = site.inside(d_model=wide).build(result.norm, Norm)
        self.out = nn.Linear(wide, site.d_model, bias="out" in options.bias)

    def forward(self, x: Tensor, context: Context, state: KVCache | SlidingWindowCache | None = None) -> Tensor:
        q, k, v = self._heads(x, context)  # (B, H, T, K), (B, G, T, K) twice
        keys: int | Tensor = k.shape[2]
        if state is not None:
            (k, v), keys = state.append((k, v), context)
        y = self.kernel(
            q,
            k,
            v,
            mask := context.mask(keys=keys, window=self.window, chunk=self.chunk),
            scale=self.scale,
            softcap=self.softcap,
            bias=self.position.bias(mask),
            sinks=self.sinks,
            dropout=self.dropout if self.training else 0.0,
        )
        y = self.gate(y.transpose(1, 2), x).flatten(2)  # (B, H, T, K) -> (B, T, H, K) -> (B, T, H K)
        return self.out(self.norm(y))

    def state(self, capacity: Capacity) -> KVCache | SlidingWindowCache:
        """Keys and values (B, G, L, K) of all tokens, or of the last ones where there is a window."""
        widths = (self.head_dim, self.value_dim)
        if self.window is None or self.window >= capacity.max_length:
            return KVCache.allocate(capacity, heads=self.kv_heads, widths=widths)
        return SlidingWindowCache.allocate(capacity, heads=self.kv_heads, widths=widths, window=self.window)

    def reset_parameters(self, generator: Generator | None = None) -> None:
        if self.sinks is not None:
            nn.init.zeros_(self.sinks)

    def _heads(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        q, k = self.q(x), self.k(x)
        v = self.clip(k if self.v is None else self.v(x))
        if self.scope == "all":
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = split(self.clip(q), self.head_dim), split(self.clip(k), self.head_dim)
        if self.scope != "all" and self.norm_first:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = self.position.rotate(q, k, context)
        if not self.norm_first:
            q, k = self.q_norm(q), self.k_norm(k)
        v = self.v_norm(split(v, self.value_dim))
        if self.value_scale is not None:
            v = v * self.value_scale
        return self.query_scaling(q, context), k, v

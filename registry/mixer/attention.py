"""Attention with multi-head, grouped or single keys (Vaswani et al. 2017, arXiv:1706.03762).

Multi-query: Shazeer 2019, arXiv:1911.02150; grouped-query: Ainslie et al. 2023, arXiv:2305.13245; sliding window:
Beltagy et al. 2020, arXiv:2004.05150; query-key norm: Henry et al. 2020, arXiv:2010.04245; softcap: Gemma 2,
arXiv:2408.00118; sinks: GPT-OSS, arXiv:2508.10925.
"""

from typing import Annotated, Any, Literal, Self

import torch
from pydantic import model_validator
from torch import Generator, Tensor, nn

from registry.context import Context
from registry.contracts import Kernel, Mixer, Norm, NormSlot, Site
from registry.core import register
from registry.mixer._shared import QKV, Scores, head_width, qk_norm_of
from registry.options import AsTuple, Count, Positive, Rate, Width, named
from registry.output_gate import OutputGate, OutputGateSlot
from registry.query_scaling import QueryScaling, QueryScalingSlot
from registry.state import Capacity, KVCache, SlidingWindowCache


@register
class Attention(Mixer):
    """out(softmax(scale q k^T + bias) v), each query attending to itself and the tokens before it."""

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
        """Sliding window: tokens that a query attends to, itself included; all before it when not given."""
        qk_norm: NormSlot = named("none")
        """Norm of queries and keys."""
        scale: Positive | None = None
        """Multiplies the scores; head_dim^-1/2 when not given."""
        softcap: Positive | None = None
        """Soft cap of the scores, cap * tanh(scores / cap); none when not given."""
        sinks: bool = False
        """Whether each head has a learned sink: a logit in the softmax without a value."""
        dropout: Rate | None = None
        """Dropout of the attention weights; the model's when not given."""
        query_scaling: QueryScalingSlot = named("none")
        """Scaling of queries by their position."""
        output_gate: OutputGateSlot = named("none")
        """Gate of the heads' outputs."""
        output_norm: NormSlot = named("none")
        """Norm of the heads' outputs, all heads as one vector."""
        qkv: QKV = QKV()
        """Rarer treatments of queries, keys and values."""
        scores: Scores = Scores()
        """Rarer treatments of the scores."""

        @model_validator(mode="after")
        def _fit(self) -> Self:
            if self.n_kv_heads is not None and self.n_heads % self.n_kv_heads:
                raise ValueError(f"n_heads must be a multiple of n_kv_heads ({self.n_kv_heads}), got {self.n_heads}")
            if self.window is not None and self.scores.chunk is not None:
                raise ValueError("window and scores.chunk exclude each other; give one")
            return self

    @classmethod
    def derived(cls, options: Options, site: Site) -> dict[str, Any]:
        width, v_width = head_width(options.n_heads, options.head_dim, site), options.qkv.v_head_dim
        return {
            "n_kv_heads": options.n_heads if options.n_kv_heads is None else options.n_kv_heads,
            "head_dim": width,
            "qkv.v_head_dim": width if v_width is None else v_width,
            "scale": width**-0.5 if options.scale is None else options.scale,
            "dropout": site.dropout if options.dropout is None else options.dropout,
        }

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        made = self.derived(options, site)
        self.head_dim, self.v_head_dim, self.kv_heads = made["head_dim"], made["qkv.v_head_dim"], made["n_kv_heads"]
        self.window, self.chunk, self.softcap = options.window, options.scores.chunk, options.softcap
        self.scale, self.dropout = made["scale"], made["dropout"]
        self.scale /= site.layer + 1 if options.scores.scale_by_inverse_layer_idx else 1
        self._build_heads(options, site)
        wide = options.n_heads * self.v_head_dim
        self.output_gate = site.of_heads(options.n_heads, self.v_head_dim).optional(options.output_gate, OutputGate)
        self.output_norm = site.inside(d_model=wide).build(options.output_norm, Norm)
        self.out = nn.Linear(wide, site.d_model, bias="out" in options.bias)
        self.sinks = nn.Parameter(torch.empty(options.n_heads)) if options.sinks else None
        self.reset_parameters()

    def _build_heads(self, options: Options, site: Site) -> None:
        qkv, d, biased = options.qkv, site.d_model, options.bias
        inside = site.inside(d_model=self.head_dim, n_heads=options.n_heads)
        self.q = nn.Linear(d, options.n_heads * self.head_dim, bias="q" in biased)
        self.k = nn.Linear(d, self.kv_heads * self.head_dim, bias="k" in biased)
        self.v = None if qkv.k_eq_v else nn.Linear(d, self.kv_heads * self.v_head_dim, bias="v" in biased)
        if self.v is None and (self.v_head_dim != self.head_dim or "v" in options.bias):
            raise ValueError("with k_eq_v, values are the keys; leave out v_head_dim and the bias of v")
        self.q_norm = qk_norm_of(options.qk_norm, qkv.norm_scope, inside, options.n_heads)
        self.k_norm = qk_norm_of(options.qk_norm, qkv.norm_scope, inside, self.kv_heads)
        self.v_norm = site.inside(d_model=self.v_head_dim).build(qkv.v_norm, Norm)
        self.scope, self.norm_first, self.v_scale = qkv.norm_scope, qkv.norm_place == "before", qkv.v_scale
        self.clip = nn.Identity() if qkv.clip is None else nn.Hardtanh(-qkv.clip, qkv.clip)
        self.position = self.position_at(inside)
        self.kernel = inside.build(None, Kernel)
        self.query_scaling = inside.optional(options.query_scaling, QueryScaling)

    def forward(self, x: Tensor, context: Context, state: KVCache | SlidingWindowCache | None = None) -> Tensor:
        q, k, v = self._heads(x, context)  # (B, H, T, K), (B, G, T, K) twice
        keys: int | Tensor = k.shape[2]
        if state is not None:
            (k, v), keys = state.append((k, v), context)
        mask = context.mask(keys=keys, window=self.window, chunk=self.chunk)
        bias, p = self.position.bias(mask) if self.position.acts == "bias" else None, self.dropout * self.training
        y = self.kernel(q, k, v, mask, scale=self.scale, softcap=self.softcap, bias=bias, sinks=self.sinks, dropout=p)
        y = y.transpose(1, 2)  # (B, H, T, K) -> (B, T, H, K)
        y = y if self.output_gate is None else self.output_gate(y, x)
        return self.out(self.output_norm(y.flatten(2)))

    def state(self, capacity: Capacity) -> KVCache | SlidingWindowCache:
        """Keys and values (B, G, L, K) of all tokens, or of the last ones where there is a window."""
        widths = (self.head_dim, self.v_head_dim)
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
        q, k = (self.clip(t).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for t in (q, k))
        if self.scope != "all" and self.norm_first:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = self.position.rotate(q, k, context)
        if not self.norm_first:
            q, k = self.q_norm(q), self.k_norm(k)
        v = self.v_norm(v.unflatten(-1, (-1, self.v_head_dim)).transpose(1, 2))
        v = v if self.v_scale is None else v * self.v_scale
        return q if self.query_scaling is None else self.query_scaling(q, context), k, v

"""Differential attention: the difference of two attentions (Ye et al. 2024, arXiv:2410.05258)."""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from registry.context import Context
from registry.contracts import Kernel, Mixer, Site
from registry.core import register
from registry.options import Count, Positive
from registry.state import Capacity, KVCache


@register
class Differential(Mixer):
    """out((1 - first) norm(A1 V - lambda A2 V)): heads h and h + H/2 attend apart and share two heads' values.

    lambda = exp(q1 . k1) - exp(q2 . k2) + first, with first = 0.8 - 0.6 exp(-0.3 layer).
    """

    roles = {"out": "residual"}
    no_weight_decay = ("lambdas",)
    accepts = frozenset({"rotation", "bias"})

    class Options(Mixer.Options):
        n_heads: Count
        """Query heads H, an even number."""
        n_kv_heads: Count | None = None
        """Key and value heads, an even number; H when not given."""
        bias: bool = False
        """Whether the projections add a bias."""
        eps: Positive = 1e-5
        """Added to the mean square in the norm."""

    @classmethod
    def derived(cls, options: Options, site: Site) -> dict[str, int]:
        return {"n_kv_heads": options.n_heads if options.n_kv_heads is None else options.n_kv_heads}

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        heads, kv = options.n_heads, self.derived(options, site)["n_kv_heads"]
        if site.d_model % heads or heads % 2 or kv % 2 or heads % kv:
            raise ValueError(
                f"n_heads must be even, divide d_model ({site.d_model}) and be a multiple of n_kv_heads, "
                f"which is even too; got {heads} and {kv}"
            )
        self.kv, self.head_dim, self.dropout = kv, site.d_model // heads, site.dropout
        narrow = kv * self.head_dim
        self.q = nn.Linear(site.d_model, site.d_model, bias=options.bias)
        self.k = nn.Linear(site.d_model, narrow, bias=options.bias)
        self.v = nn.Linear(site.d_model, narrow, bias=options.bias)
        inside = site.inside(d_model=self.head_dim, n_heads=heads)
        self.position = self.position_at(inside)
        self.kernel = inside.build(None, Kernel)
        self.first = 0.8 - 0.6 * math.exp(-0.3 * site.layer)
        self.lambdas = nn.Parameter(torch.empty(4, self.head_dim))  # q1, k1, q2, k2
        self.eps = options.eps
        self.out = nn.Linear(site.d_model, site.d_model, bias=options.bias)
        self.reset_parameters()

    def forward(self, x: Tensor, context: Context, state: KVCache | None = None) -> Tensor:
        q, k, v = (w(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for w in (self.q, self.k, self.v))
        q, k = self.position.rotate(q, k, context)
        keys: int | Tensor = k.shape[2]
        if state is not None:
            (k, v), keys = state.append((k, v), context)
        mask = context.mask(keys=keys)
        v = torch.cat(v.chunk(2, dim=1), dim=-1).repeat(1, 2, 1, 1)  # (B, G, S, 2K): halves share their values
        dropout, bias = self.dropout if self.training else 0.0, self.position.bias(mask)
        y = self.kernel(q, k, v, mask, scale=self.head_dim**-0.5, softcap=None, bias=bias, sinks=None, dropout=dropout)
        first, second = y.chunk(2, dim=1)
        y = F.rms_norm(first - self._weight().type_as(x) * second, (2 * self.head_dim,), eps=self.eps)
        return self.out((1 - self.first) * y.transpose(1, 2).flatten(2))

    def state(self, capacity: Capacity) -> KVCache:
        """Keys and values (B, G, L, K) of all tokens."""
        return KVCache.allocate(capacity, heads=self.kv, widths=(self.head_dim, self.head_dim))

    def reset_parameters(self, generator: Generator | None = None) -> None:
        nn.init.normal_(self.lambdas, std=0.1, generator=generator)

    def _weight(self) -> Tensor:
        q1, k1, q2, k2 = self.lambdas.float()
        return torch.exp(q1 @ k1) - torch.exp(q2 @ k2) + self.first

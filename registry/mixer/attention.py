"""Attention with multi-head, grouped or single keys (Vaswani et al. 2017, arXiv:1706.03762; multi-query: Shazeer 2019,
arXiv:1911.02150; grouped-query: Ainslie et al. 2023, arXiv:2305.13245; window: Beltagy et al. 2020, arXiv:2004.05150;
query-key norm: Henry et al. 2020, arXiv:2010.04245; softcap: Gemma 2, arXiv:2408.00118).
"""

from typing import Annotated, Literal, Self

from pydantic import model_validator
from torch import Tensor, nn

from registry.context import Context
from registry.contracts import Kernel, Mixer, Norm, NormSlot, PositionSlot, Site
from registry.core import register
from registry.mixer._shared import KeyValues, Ring
from registry.options import AsTuple, Count, Group, Positive, Rate, Width, named


class Scores(Group):
    """What happens to scores between q k^T and the softmax, and to the weights after it."""

    scale: Positive | None = None
    """Multiplies the scores; head_dim^-1/2 when not given."""
    softcap: Positive | None = None
    """Bounds scores smoothly to plus or minus this; not bounded when not given."""
    dropout: Rate | None = None
    """Dropout of the attention weights; the model's when not given."""


@register
class Attention(Mixer):
    """out(softmax(scale q k^T + bias) v), each query seeing the tokens before it, and itself."""

    residual = ("out",)
    accepts = frozenset({"rotation", "bias"})

    class Options(Mixer.Options):
        n_heads: Count
        """Query heads H."""
        n_kv_heads: Count | None = None
        """Key and value heads G, each shared by H/G query heads; H when not given, 1 for multi-query."""
        head_dim: Width | None = None
        """Width K of a head; d_model / n_heads when not given."""
        bias: Annotated[tuple[Literal["q", "k", "v", "out"], ...], AsTuple] = ()
        """Projections that add a bias, such as [q, k, v]."""
        qk_norm: NormSlot = named("none")
        """Norm of each head's queries and keys, before rotation."""
        window: Count | None = None
        """How many tokens a query sees, itself included; all before it when not given."""
        position: PositionSlot | None = None
        """Scheme of this mixer; the model's when not given."""
        scores: Scores = Scores()
        """What happens to the scores."""

        @model_validator(mode="after")
        def _groups_fit(self) -> Self:
            if self.n_kv_heads is not None and self.n_heads % self.n_kv_heads:
                raise ValueError(f"n_heads must be a multiple of n_kv_heads ({self.n_kv_heads}), got {self.n_heads}")
            return self

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.head_dim = _head_dim(options, site)
        self.kv_heads = options.n_heads if options.n_kv_heads is None else options.n_kv_heads
        self.window = options.window
        self.scale = self.head_dim**-0.5 if options.scores.scale is None else options.scores.scale
        self.softcap = options.scores.softcap
        self.dropout = site.dropout if options.scores.dropout is None else options.scores.dropout
        wide, narrow = options.n_heads * self.head_dim, self.kv_heads * self.head_dim
        self.q = nn.Linear(site.d_model, wide, bias="q" in options.bias)
        self.k = nn.Linear(site.d_model, narrow, bias="k" in options.bias)
        self.v = nn.Linear(site.d_model, narrow, bias="v" in options.bias)
        inside = site.inside(d_model=self.head_dim, n_heads=options.n_heads)
        self.q_norm = inside.build(options.qk_norm, Norm)
        self.k_norm = inside.build(options.qk_norm, Norm)
        self.position = self.position_at(options.position, inside)
        self.kernel = inside.build(None, Kernel)
        self.out = nn.Linear(wide, site.d_model, bias="out" in options.bias)

    def forward(self, x: Tensor, context: Context, state: KeyValues | Ring | None = None) -> Tensor:
        q, k, v = (self._heads(w(x)) for w in (self.q, self.k, self.v))  # (B, H, T, K), (B, G, T, K) twice
        q, k = self.position.rotate(self.q_norm(q), self.k_norm(k), context)
        keys: int | Tensor = k.shape[2]
        if state is not None:
            k, v, keys = state.extend(k, v, context)
        mask = context.mask(causal=True, window=self.window, keys=keys)
        dropout = self.dropout if self.training else 0.0
        bias = self.position.bias(mask)
        y = self.kernel(q, k, v, mask, scale=self.scale, softcap=self.softcap, bias=bias, dropout=dropout)
        return self.out(y.transpose(1, 2).flatten(2))  # (B, H, T, K) -> (B, T, H K) -> (B, T, D)

    def state(self, batch: int, capacity: int, like: Tensor) -> KeyValues | Ring:
        """Keys and values (B, G, capacity, K), or of the last `window` tokens alone."""
        if self.window is not None and self.window < capacity:
            return Ring(batch, self.kv_heads, self.window, self.head_dim, like)
        return KeyValues(batch, self.kv_heads, capacity, self.head_dim, like)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)  # (B, T, H K) -> (B, H, T, K)


def _head_dim(options: Attention.Options, site: Site) -> int:
    if options.head_dim is not None:
        return options.head_dim
    if site.d_model % options.n_heads:
        raise ValueError(
            f"n_heads must divide d_model ({site.d_model}), got {options.n_heads}; choose another, or give head_dim"
        )
    return site.d_model // options.n_heads

"""Multi-head latent attention, MLA (DeepSeek-V2 2024, arXiv:2405.04434, section 2.1)."""

import torch
from torch import Tensor, nn

from registry.context import Context, Mask
from registry.contracts import Kernel, Mixer, Norm, NormSlot, Site
from registry.core import register
from registry.mixer._shared import split
from registry.options import Count, Group, Positive, Width, named
from registry.query_scaling import QueryScaling, QueryScalingSlot
from registry.state import Capacity, LatentCache


class Latents(Group):
    """What happens to the latents before their up-projections."""

    norm: NormSlot = named("rms_norm")
    """Norm of both latents."""
    q_scale: Positive = 1.0
    """Multiplies the normalized query latent: sqrt(d_model / q_lora_rank) in LongCat-Flash."""
    kv_scale: Positive = 1.0
    """Multiplies the normalized key-value latent: sqrt(d_model / kv_lora_rank) in LongCat-Flash."""


@register
class MLA(Mixer):
    """Attention whose keys and values come from one latent c; one rotary key is shared by all heads.

    c = norm(kv_down x); q = [q_nope | rope(q_rope)], k = [k_up c | rope(k_rope x)], v = v_up c. Decoding
    keeps c and the rotary key alone, and computes the same as (q_nope k_up) c and v_up (weights c), the absorbed form.
    """

    roles = {"out": "residual"}
    accepts = frozenset({"rotation"})

    class Options(Mixer.Options):
        n_heads: Count
        """Heads H."""
        q_lora_rank: Width | None = None
        """Width of the query latent; queries are projected from the input directly when not given."""
        kv_lora_rank: Width
        """Width of the latent of keys and values."""
        qk_nope_head_dim: Width
        """Width of the part of a query or key head without rotary position."""
        qk_rope_head_dim: Width
        """Width of the part of a query or key head with rotary position."""
        v_head_dim: Width
        """Width of a value head."""
        latents: Latents = Latents()
        """What happens to the latents before their up-projections."""
        bias: bool = False
        """Whether the down-projections and the output projection add a bias."""
        scale: Positive | None = None
        """Multiplies the scores, as does the position's score_scale; query width^-1/2 when not given."""
        query_scaling: QueryScalingSlot = named("none")
        """Scaling of queries by their position."""

    @classmethod
    def derived(cls, options: Options, site: Site) -> dict[str, float]:
        width = options.qk_nope_head_dim + options.qk_rope_head_dim
        return {"scale": width**-0.5 if options.scale is None else options.scale}

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        heads, nope, rope = options.n_heads, options.qk_nope_head_dim, options.qk_rope_head_dim
        self.nope_dim, self.rope_dim, self.v_head_dim = nope, rope, options.v_head_dim
        self.scale = self.derived(options, site)["scale"]
        self.dropout = site.dropout
        latents, q_rank, kv_rank = options.latents, options.q_lora_rank, options.kv_lora_rank
        self.q_down: nn.Module = nn.Identity()
        self.q_norm: nn.Module = nn.Identity()
        if q_rank is not None:
            self.q_down = nn.Linear(site.d_model, q_rank, bias=options.bias)
            self.q_norm = site.inside(d_model=q_rank).build(latents.norm, Norm)
        self.q_up = nn.Linear(site.d_model if q_rank is None else q_rank, heads * (nope + rope), bias=False)
        self.kv_down = nn.Linear(site.d_model, kv_rank, bias=options.bias)
        self.kv_norm = site.inside(d_model=kv_rank).build(latents.norm, Norm)
        self.k_up = nn.Linear(kv_rank, heads * nope, bias=False)
        self.v_up = nn.Linear(kv_rank, heads * options.v_head_dim, bias=False)
        self.k_rope = nn.Linear(site.d_model, rope, bias=options.bias)
        self.q_scale, self.kv_scale = latents.q_scale, latents.kv_scale
        inside = site.inside(d_model=rope, n_heads=heads)
        self.position = self.position_at(inside)
        self.scale *= self.position.score_scale
        self.kernel = inside.build(None, Kernel)
        self.query_scaling = inside.optional(options.query_scaling, QueryScaling)
        self.out = nn.Linear(heads * options.v_head_dim, site.d_model, bias=options.bias)

    def forward(self, x: Tensor, context: Context, state: LatentCache | None = None) -> Tensor:
        latent = self.kv_norm(self.kv_down(x)) * self.kv_scale  # (B, T, R)
        q = split(self.q_up(self.q_norm(self.q_down(x)) * self.q_scale), self.nope_dim + self.rope_dim)
        q_nope, q_rope = q.split([self.nope_dim, self.rope_dim], dim=-1)
        q_rope, k_rope = self.position.rotate(q_rope, self.k_rope(x)[:, None], context)  # (B, H|1, T, rope)
        q = torch.cat([q_nope, q_rope], dim=-1)
        q = q if self.query_scaling is None else self.query_scaling(q, context)
        if state is None:
            y = self._expanded(q, latent, k_rope, context.mask(keys=context.length))
        else:
            (held,), keys = state.append((torch.cat([latent, k_rope[:, 0]], dim=-1),), context)  # (B, S, R + rope)
            latent, k_rope = held[..., : -self.rope_dim], held[:, None, :, -self.rope_dim :]
            few = self.absorbs(context.length)
            mask = context.mask(keys=keys)
            y = self._absorbed(q, held, mask) if few else self._expanded(q, latent, k_rope, mask)
        return self.out(y.transpose(1, 2).flatten(2))  # (B, H, T, V) -> (B, T, H V) -> (B, T, D)

    def state(self, capacity: Capacity) -> LatentCache:
        """The latent and the rotary key of each token: (B, L, R + rope)."""
        return LatentCache.allocate(capacity, width=self.k_up.in_features + self.rope_dim)

    def absorbs(self, length: int) -> bool:
        """Whether `length` queries take fewer multiplications for each key in the absorbed form."""
        rank, head = self.k_up.in_features, self.nope_dim + self.v_head_dim
        return length * (2 * rank - head) < rank * head

    def _expanded(self, q: Tensor, latent: Tensor, k_rope: Tensor, mask: Mask) -> Tensor:
        """Keys and values of all heads are made of the latents: (B, H, T, V)."""
        k_nope = split(self.k_up(latent), self.nope_dim)
        k = torch.cat([k_nope, k_rope.expand(-1, k_nope.shape[1], -1, -1)], dim=-1)
        return self._attend(q, k, split(self.v_up(latent), self.v_head_dim), mask)

    def _absorbed(self, q: Tensor, held: Tensor, mask: Mask) -> Tensor:
        """The same with k_up folded into the queries, and v_up after attention: all heads share the latents."""
        k_up = self.k_up.weight.unflatten(0, (-1, self.nope_dim))  # (H, nope, R)
        v_up = self.v_up.weight.unflatten(0, (-1, self.v_head_dim))  # (H, V, R)
        q_nope, q_rope = q.split([self.nope_dim, self.rope_dim], dim=-1)
        q, k = torch.cat([q_nope @ k_up, q_rope], dim=-1), held[:, None]  # (B, H, T, R + rope), (B, 1, S, R + rope)
        return self._attend(q, k, k[..., : -self.rope_dim], mask) @ v_up.mT

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        return self.kernel(q, k, v, mask, scale=self.scale, softcap=None, bias=None, sinks=None, dropout=dropout)

"""Multi-head latent attention (DeepSeek-V2 2024, arXiv:2405.04434, section 2.1)."""

import torch
from torch import Tensor, nn

from registry.context import Context
from registry.contracts import Kernel, Linear, Mixer, Norm, NormSlot, Site
from registry.core import register
from registry.mixer._shared import KeyValues, Warmth, split, temperature_of
from registry.options import Count, Group, Positive, Width, named


class Latents(Group):
    """The narrow vectors that queries, and keys with values, are made from."""

    q: Width | None = None
    """Width of the queries' latent; queries come straight from the input when not given."""
    kv: Width
    """Width of the latent of keys and values."""
    norm: NormSlot = named({"type": "rms_norm", "eps": 1e-6})
    """Norm of the latents."""
    q_scale: Positive = 1.0
    """Multiplies the queries' latent after its norm."""
    kv_scale: Positive = 1.0
    """Multiplies the other latent after its norm."""


@register
class Latent(Mixer):
    """Attention whose heads' keys and values come from one latent; a part of each head, shared by all keys, rotates.

    q = [q_plain | rotated q_turn], k = [k_plain | rotated k_turn], with k_plain and v from norm(down x).
    """

    roles = {"out": "residual"}
    together = (("q_down", "kv_down", "k_turn"), ("k_up", "v_up"))
    accepts = frozenset({"rotation"})

    class Options(Mixer.Options):
        n_heads: Count
        """Heads H."""
        latents: Latents
        """Widths of the latents."""
        plain_dim: Width
        """Width of the part of a head that does not rotate."""
        turn_dim: Width
        """Width of the part that rotates."""
        value_dim: Width
        """Width of a head's values."""
        bias: bool = False
        """Whether the first projections of each kind, and the last, add a bias."""
        scale: Positive | None = None
        """Multiplies the scores, as the position's gain does; (plain_dim + turn_dim)^-1/2 when not given."""
        temperature: Warmth | None = None
        """Growth of the queries with position; none when not given."""

    @classmethod
    def derived(cls, options: Options, site: Site) -> dict[str, float]:
        return {"scale": (options.plain_dim + options.turn_dim) ** -0.5 if options.scale is None else options.scale}

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        heads, plain, turn = options.n_heads, options.plain_dim, options.turn_dim
        self.plain, self.turn, self.value_dim, self.heads = plain, turn, options.value_dim, heads
        self.scale = self.derived(options, site)["scale"]
        self.dropout = site.dropout
        latents, width = options.latents, site.d_model
        self.q_down: nn.Module = nn.Identity()
        self.q_norm: nn.Module = nn.Identity()
        if latents.q is not None:
            self.q_down = Linear(site.d_model, latents.q, bias=options.bias)
            self.q_norm = site.inside(d_model=latents.q).build(latents.norm, Norm)
            width = latents.q
        self.q_up = Linear(width, heads * (plain + turn), bias=False)
        self.kv_down = Linear(site.d_model, latents.kv, bias=options.bias)
        self.kv_norm = site.inside(d_model=latents.kv).build(latents.norm, Norm)
        self.k_up = Linear(latents.kv, heads * plain, bias=False)
        self.v_up = Linear(latents.kv, heads * options.value_dim, bias=False)
        self.k_turn = Linear(site.d_model, turn, bias=options.bias)
        self.q_scale, self.kv_scale = latents.q_scale, latents.kv_scale
        inside = site.inside(d_model=turn, n_heads=heads)
        self.position = self.position_at(inside)
        self.scale *= self.position.gain
        self.kernel = inside.build(None, Kernel)
        self.temperature = temperature_of(options.temperature)
        self.out = Linear(heads * options.value_dim, site.d_model, bias=options.bias)

    def forward(self, x: Tensor, context: Context, state: KeyValues | None = None) -> Tensor:
        latent = self.kv_norm(self.kv_down(x)) * self.kv_scale
        q = split(self.q_up(self.q_norm(self.q_down(x)) * self.q_scale), self.plain + self.turn)
        q_plain, q_turn = q.split([self.plain, self.turn], dim=-1)
        q_turn, k_turn = self.position.rotate(q_turn, self.k_turn(x)[:, None], context)  # (B, H|1, T, turn)
        k = torch.cat([split(self.k_up(latent), self.plain), k_turn.expand(-1, self.heads, -1, -1)], dim=-1)
        q, v = torch.cat([q_plain, q_turn], dim=-1), split(self.v_up(latent), self.value_dim)
        keys: int | Tensor = k.shape[2]
        if state is not None:
            k, v, keys = state.extend(k, v, context)
        mask = context.mask(causal=True, keys=keys)
        dropout = self.dropout if self.training else 0.0
        q = self.temperature(q, context)
        y = self.kernel(q, k, v, mask, scale=self.scale, softcap=None, bias=None, sinks=None, dropout=dropout)
        return self.out(y.transpose(1, 2).flatten(2))  # (B, H, T, V) -> (B, T, H V) -> (B, T, D)

    def state(self, batch: int, capacity: int, like: Tensor) -> KeyValues:
        """Keys and values (B, H, capacity, width) of all heads."""
        return KeyValues(batch, self.heads, capacity, (self.plain + self.turn, self.value_dim), like)

"""Rotary positions (Su et al. 2021, RoFormer, arXiv:2104.09864); partial rotation as in GPT-NeoX (arXiv:2204.06745)."""

from typing import Literal

import torch
from torch import Tensor

from registry import texts
from registry.context import Context
from registry.contracts import Position, Scaling, ScalingSlot, Site
from registry.core import register
from registry.options import Fraction, Positive, Width, named


@register
class RoPE(Position):
    """Rotates channel pairs i of q and k by the angle p theta^(-2i/R), among the first R channels of a head."""

    acts = "rotation"

    class Options(Position.Options):
        theta: Positive = 10_000.0
        """Base of the wavelengths."""
        partial_rotary_factor: Fraction = 1.0
        """Fraction of each head's channels that rotate."""
        rotary_dim: Width | None = None
        """Number R of channels that rotate (GPT-J); partial_rotary_factor * head_dim when not given."""
        pairing: Literal["half", "interleaved"] = "half"
        """Which channels pair: i with i + R/2 (Llama), or 2i with 2i + 1 (GPT-J)."""
        reverse: bool = False
        """Whether to rotate by minus the angle (nanochat)."""
        scaling: ScalingSlot = named("none")
        """Context extension: how wavelengths stretch."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        self.theta = options.theta
        given = options.rotary_dim
        self.width = int(site.d_model * options.partial_rotary_factor) if given is None else given  # R
        self.sense = -1.0 if options.reverse else 1.0
        self.scaling = site.optional(options.scaling, Scaling)
        if self.scaling is not None:
            self.settled, self.score_scale = self.scaling.settled, self.scaling.score_scale
        self.halves = options.pairing == "half"
        self.key = ("rope", self.width, repr(options))
        if not 2 <= self.width <= site.d_model or self.width % 2:
            raise ValueError(
                f"rotary_dim must be even, at least 2 and at most head_dim ({site.d_model}), got {self.width}; "
                f"choose another rotary_dim, partial_rotary_factor ({options.partial_rotary_factor}) or head_dim"
            )
        for length in (1, site.max_seq_len):  # so that a scaling that does not fit is refused here
            self._frequencies(torch.tensor([length], device="cpu"))

    def rotate(self, q: Tensor, k: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        cos, sin = context.cached((*self.key, q.dtype), lambda: self._angles(context, q))
        return self._turn(q, cos, sin), self._turn(k, cos, sin)

    def _angles(self, context: Context, like: Tensor) -> tuple[Tensor, Tensor]:
        """cos, and sin with the sign that a quarter turn gives a partner: (T, R), or (B, 1, T, R) for all heads."""
        frequency, factor = self._of_texts(context)
        angle = context.positions[..., None].float() * frequency  # (T, R/2) or (B, T, R/2)
        cos, sin = angle.cos() * factor, angle.sin() * (self.sense * factor)
        if self.halves:
            cos, sin = torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1)
        else:
            cos, sin = cos.repeat_interleave(2, dim=-1), torch.stack([-sin, sin], dim=-1).flatten(-2)
        if angle.ndim == 3:
            cos, sin = cos[:, None], sin[:, None]
        return cos.type_as(like), sin.type_as(like)

    def _of_texts(self, context: Context) -> tuple[Tensor, float | Tensor]:
        """Frequencies (R/2,), or of each token's text (1, R/2), (B, 1, R/2) or (B, T, R/2); and the factor."""
        if self.settled:
            return self._frequencies(context.positions[..., -1:] + 1)
        assert self.scaling is not None, "without a scaling, angles depend on positions alone"
        lengths = texts.lengths(context)
        if context.start:
            texts.check_grown(self.scaling.name, context, lengths, lambda length: self._frequencies(length)[0])
        return self._frequencies(lengths[..., None] if context.segments is not None else lengths[0])

    def _frequencies(self, length: Tensor) -> tuple[Tensor, float | Tensor]:
        exponent = torch.arange(0, self.width, 2, device=length.device, dtype=torch.float32) / self.width
        base = self.theta**-exponent
        return (base, 1.0) if self.scaling is None else self.scaling.frequencies(base, self.theta, length)

    def _turn(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        if self.width == x.shape[-1]:
            return torch.addcmul(x * cos, self._partner(x), sin)
        turned, passed = x[..., : self.width], x[..., self.width :]
        return torch.cat([torch.addcmul(turned * cos, self._partner(turned), sin), passed], dim=-1)

    def _partner(self, x: Tensor) -> Tensor:
        """Each channel's partner in its place: i + R/2 and i, or 2i + 1 and 2i, the other way around."""
        if self.halves:
            return x.roll(self.width // 2, dims=-1)
        return x.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)

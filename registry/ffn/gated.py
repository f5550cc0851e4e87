"""Gated feed-forward: SwiGLU, GeGLU, ReGLU (Shazeer 2020, arXiv:2002.05202; clamped: GPT-OSS, arXiv:2508.10925)."""

from torch import Tensor, nn

from registry.context import Context
from registry.contracts import FFN, Activation, ActivationSlot, Norm, NormSlot, Site
from registry.core import register
from registry.options import NonNegative, Positive, Width, named


@register
class Gated(FFN):
    """down(act(gate(x)) * (up(x) + shift)), with gate(x) and up(x) clamped by `limit`."""

    roles = {"down": "residual"}

    class Options(FFN.Options):
        d_ff: Width | None = None
        """Hidden width; 8/3 of d_model, rounded up to a multiple of 256, when not given."""
        activation: ActivationSlot = named("silu")
        """Activation of the gate."""
        bias: bool = False
        """Whether the three projections add a bias."""
        limit: Positive | None = None
        """Clamp of the gate from above and of `up` to [-limit, limit] (GPT-OSS); none when not given."""
        shift: NonNegative = 0.0
        """Added to `up`; 1 in GPT-OSS."""
        norm: NormSlot = named("none")
        """Norm of the hidden features."""

    @classmethod
    def derived(cls, options: Options, site: Site) -> dict[str, int]:
        return {"d_ff": -(-8 * site.d_model // (3 * 256)) * 256 if options.d_ff is None else options.d_ff}

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        d_ff = self.derived(options, site)["d_ff"]
        inner, limit = site.inside(d_model=d_ff), options.limit
        self.gate = nn.Linear(site.d_model, d_ff, bias=options.bias)
        self.up = nn.Linear(site.d_model, d_ff, bias=options.bias)
        self.bound_gate = nn.Identity() if limit is None else nn.Hardtanh(float("-inf"), limit)
        self.bound_up = nn.Identity() if limit is None else nn.Hardtanh(-limit, limit)
        self.activation = inner.build(options.activation, Activation)
        self.shift = options.shift
        self.norm = inner.build(options.norm, Norm)
        self.down = nn.Linear(d_ff, site.d_model, bias=options.bias)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        gate, up = self.bound_gate(self.gate(x)), self.bound_up(self.up(x))
        if self.shift:
            up = up + self.shift
        return self.down(self.norm(self.activation(gate) * up))

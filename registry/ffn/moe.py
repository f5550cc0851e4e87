"""Mixture of experts (Shazeer et al. 2017, arXiv:1701.06538; shared experts: Dai et al. 2024, DeepSeekMoE,
arXiv:2401.06066).
"""

from dataclasses import replace
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Le
from pydantic import Field
from torch import Tensor, nn

from registry.context import Context
from registry.contracts import FFN, FFNSlot, Norm, NormSlot, Router, RouterSlot, Site
from registry.core import register
from registry.experts import experts_of
from registry.options import Positive, named


@register
class MoE(FFN):
    """norm(scale * (sum over the chosen experts e of weight_e * expert_e(x), plus shared(x)))."""

    roles = {"shared_gate": "gate"}

    class Options(FFN.Options):
        n_experts: Annotated[int, Ge(1), Le(2048)] = Field(examples=[6, 4])
        """Number of experts E."""
        router: RouterSlot
        """Router: chooses the experts of each token and their weights."""
        expert: FFNSlot
        """The ffn of each expert."""
        shared: FFNSlot | None = None
        """Shared expert applied to every token; none when not given."""
        shared_gate: bool = False
        """Whether a learned sigmoid gate scales the shared expert (Qwen 2 MoE)."""
        apply_weights_to: Literal["output", "input"] = "output"
        """Whether the router's weights multiply the experts' outputs or their inputs (Llama 4)."""
        scale: Positive = 1.0
        """Multiplies the sum of routed and shared experts."""
        norm: NormSlot = named("none")
        """Norm of the sum (A.X-K1)."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        if options.shared_gate and options.shared is None:
            raise ValueError("shared_gate needs a shared expert; give `shared`, or leave shared_gate out")
        self.router = site.among(options.n_experts).build(options.router, Router)
        self.n_experts = options.n_experts
        self.experts = experts_of(lambda: site.build(options.expert, FFN), options.n_experts)
        self.shared = None if options.shared is None else site.build(options.shared, FFN)
        self.shared_gate = nn.Linear(site.d_model, 1, bias=False) if options.shared_gate else None
        self.weigh_input = options.apply_weights_to == "input"
        self.scale, self.norm = options.scale, site.build(options.norm, Norm)

    def idle(self) -> int:
        return self.experts.idle(self.router.top_k) + (0 if self.shared is None else self.shared.idle())

    def forward(self, x: Tensor, context: Context) -> Tensor:
        tokens = x.flatten(0, -2)  # (N, D)
        weights, chosen = self.router(tokens, context)
        y = self._mixed(tokens, weights.type_as(x), chosen, context).view_as(x)
        if self.shared is not None:
            shared = self.shared(x, context)
            y = y + (shared if self.shared_gate is None else torch.sigmoid(self.shared_gate(x)) * shared)
        return self.norm(y if self.scale == 1 else self.scale * y)

    def _mixed(self, x: Tensor, weights: Tensor, chosen: Tensor, context: Context) -> Tensor:
        """Each expert once, over the tokens that chose it: x (N, D), weights and chosen (N, k) -> (N, D)."""
        experts, order = chosen.flatten().sort(stable=True)
        each = torch.arange(self.n_experts, device=x.device)
        offsets = torch.searchsorted(experts, each, right=True, out_int32=True)  # where each expert's tokens end
        rows = order // chosen.shape[1]
        inputs, weight = x[rows], weights.flatten()[order, None]
        if self.weigh_input:
            inputs = inputs * weight
        if context.segments is not None:  # which are those of tokens in their order
            context = replace(context, segments=None, past=None, forward_cache={})
        outputs = self.experts(inputs, offsets, context)
        return torch.zeros_like(x).index_add(0, rows, outputs if self.weigh_input else outputs * weight)

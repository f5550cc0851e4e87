"""SparseMixer routing as it is used after training (Liu et al. 2024, GRIN, arXiv:2409.12136; Phi-3.5-MoE).

The gradient is that of the softmax; the sampled estimator of the paper is not part of it.
"""

import torch
from pydantic import Field
from torch import Tensor

from registry.context import Context
from registry.contracts import Router, Site
from registry.core import register
from registry.options import Count, NonNegative
from registry.router._shared import Float32Linear, Learning, Load


@register
class SparseMixer(Router):
    """The top_k largest logits x W in turn, each weighted by its softmax among the logits left that come near it.

    A logit comes near the largest, m, unless (m - logit) / max(|logit|, m) > 2 jitter.
    """

    class Options(Router.Options):
        top_k: Count = 2
        """Experts per token."""
        jitter: NonNegative = 0.01
        """How far below the largest, relative to it, a logit may lie to count: twice this."""
        learning: Learning | None = Field(default=None, examples=[{"load_balancing_loss": 0.5}])
        """Load balancing in training; none when not given."""

    def __init__(self, options: Options, site: Site) -> None:
        super().__init__(options, site)
        experts = site.n_experts
        if experts is None:
            raise ValueError("a router stands in a mixture of experts")
        if options.top_k > experts:
            raise ValueError(f"top_k must be at most n_experts ({experts}), got {options.top_k}")
        self.top_k, self.jitter = options.top_k, options.jitter
        self.logit = Float32Linear(site.d_model, experts, bias=False)
        self._load = None if options.learning is None else Load(options.learning, experts)

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        logits = self.logit(x)  # (N, E)
        left = logits
        weights: list[Tensor] = []
        chosen: list[Tensor] = []
        for _ in range(self.top_k):
            largest, index = left.max(dim=-1, keepdim=True)
            far = (largest - logits) / torch.maximum(logits.abs(), largest) > 2 * self.jitter
            weights.append(left.masked_fill(far, float("-inf")).softmax(dim=-1).gather(-1, index))
            chosen.append(index)
            left = left.scatter(-1, index, float("-inf"))
        indices = torch.cat(chosen, dim=-1)
        if self.training and self._load is not None:
            self._load.see(logits, logits.softmax(dim=-1), indices, context)
        return torch.cat(weights, dim=-1), indices

    def after_step(self) -> dict[str, Tensor]:
        return {} if self._load is None else self._load.told(None)

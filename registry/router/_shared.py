"""What routers share: scores from a projection, choice of the k best, balance of the load."""

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from registry.context import Context
from registry.contracts import Router, Site
from registry.options import Count, Group, NonNegative, Positive


class Groups(Group):
    """Choosing in two stages: the best groups of experts first, then the best experts of those."""

    count: Count
    """Groups of equal size that the experts form, in order."""
    keep: Count
    """Groups that stay."""
    score: Literal["max", "top_2"]
    """A group's score: its best expert's, or the sum of its two best."""

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.keep > self.count:
            raise ValueError(f"keep must be at most count ({self.count}), got {self.keep}")
        return self


class Choice(Group):
    """How many experts see a token, and how their outputs are weighed."""

    k: Count
    """Experts that see a token."""
    normalise: bool = True
    """Whether the weights of the chosen are divided by their sum."""
    scale: Positive = 1.0
    """Multiplies the weights."""
    bias: bool = False
    """Whether the projection that scores adds a bias."""
    correction: bool = False
    """Whether a stored correction, which no gradient moves, is added to the scores for choosing alone."""
    softcap: Positive | None = None
    """Bounds the logits smoothly to plus or minus this; not bounded when not given."""
    groups: Groups | None = Field(default=None, examples=[{"count": 3, "keep": 1, "score": "max"}])
    """Choosing in two stages; in one when not given."""
    balance: NonNegative = 0.0
    """Weight, in the training loss, of the term that evens out the load (Switch, arXiv:2101.03961, equation 4)."""


class Scored(Router):
    """A router that projects tokens to one logit for each expert."""

    correction: Tensor

    def __init__(self, options: Choice, site: Site) -> None:
        super().__init__(options, site)
        experts = site.n_experts
        if experts is None:
            raise ValueError("a router stands in a mixture of experts")
        if options.k > experts:
            raise ValueError(f"k must be at most n_experts ({experts}), got {options.k}")
        _check_groups(options, experts)
        self.options, self.experts, self.k = options, experts, options.k
        self.logit = nn.Linear(site.d_model, experts, bias=options.bias)
        self.register_buffer("correction", torch.empty(experts) if options.correction else None)
        self.reset_parameters()

    def logits(self, x: Tensor) -> Tensor:
        """x (N, D) -> (N, E), in float32."""
        bias = None if self.logit.bias is None else self.logit.bias.float()
        logits = nn.functional.linear(x.float(), self.logit.weight.float(), bias)
        cap = self.options.softcap
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def choose(self, scores: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        """scores (N, E) -> weights (N, k) and indices (N, k) of the chosen."""
        options = self.options
        ranked = scores if self.correction is None else scores + self.correction
        if options.groups is not None:
            ranked = ranked.masked_fill(~_kept(ranked, options.groups), float("-inf"))
        chosen = ranked.topk(options.k, dim=-1).indices
        weights = scores.gather(-1, chosen)
        if options.normalise:
            weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-20)
        if self.training and options.balance:
            context.losses.append(options.balance * balance_loss(scores, chosen))
        return weights * options.scale, chosen

    def reset_parameters(self) -> None:
        if self.correction is not None:
            nn.init.zeros_(self.correction)


def balance_loss(scores: Tensor, chosen: Tensor) -> Tensor:
    """E * sum_e f_e p_e for scores (N, E), chosen (N, k): f_e the share of choices, p_e the mean share of score."""
    experts = scores.shape[-1]
    share = torch.zeros(experts, device=scores.device).index_add(
        0, chosen.flatten(), torch.ones(chosen.numel(), device=scores.device)
    )
    mean = (scores / scores.sum(dim=-1, keepdim=True)).mean(dim=0)
    return experts * (share / chosen.numel() * mean).sum()


def _kept(ranked: Tensor, groups: Groups) -> Tensor:
    """Which experts (N, E) stand in the groups that stay."""
    members = ranked.unflatten(-1, (groups.count, -1))  # (N, groups, E / groups)
    score = members.amax(dim=-1) if groups.score == "max" else members.topk(2, dim=-1).values.sum(dim=-1)
    kept = torch.zeros_like(score, dtype=torch.bool).scatter(-1, score.topk(groups.keep, dim=-1).indices, True)
    return kept[..., None].expand_as(members).flatten(-2)


def _check_groups(options: Choice, experts: int) -> None:
    groups = options.groups
    if groups is None:
        return
    if experts % groups.count:
        raise ValueError(f"groups.count must divide n_experts ({experts}), got {groups.count}")
    size = experts // groups.count
    if groups.score == "top_2" and size < 2:
        raise ValueError(f"score 'top_2' needs groups of two or more experts, got {size}")
    if options.k > groups.keep * size:
        raise ValueError(f"k must be at most the experts of the groups kept ({groups.keep * size}), got {options.k}")
